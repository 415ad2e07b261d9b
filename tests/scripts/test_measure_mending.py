"""What the small model for `restore` and `inpaint` is held against is measured rightly."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from evaluation_study import draw
from PIL import Image, ImageDraw
from tiny_model import tiny_fills, tiny_networks

from resshift_cli.restoration import features
from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.restoration.restorer import Restorer

needs_all = pytest.mark.skipif(
    None in (importlib.util.find_spec("cv2"), importlib.util.find_spec(features.PACKAGE)),
    reason="needs OpenCV and the extra `realism`",
)
SPEC = tiny_fills(prefill=True)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    scripts = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, scripts)
    import measure_mending

    yield measure_mending
    sys.path.remove(scripts)


@pytest.fixture
def photos(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Two that are held out."""
    (tmp_path / "photos.csv").write_text(
        "file,split\na.png,held-out\nb.png,held-out\nc.png,train\n"
    )
    monkeypatch.setattr(script, "PHOTOS", tmp_path / "photos.csv")
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, (140, 130))
    return list(script.held_out(tmp_path, 128))


def test_thin_damage_is_thin_and_covers_what_it_should(script: ModuleType) -> None:
    holes = [script.thin(128, [0, number]) for number in range(6)]
    assert all(0.05 <= hole.mean() <= 0.10 for hole in holes)
    assert (script.thin(128, [0, 3]) == holes[3]).all() and (holes[0] != holes[1]).any()
    for hole in holes:  # no pixel is farther than half a line's width, or a crossing, from the edge
        inner = hole
        for _ in range(12):
            inner = inner & np.roll(inner, 1, 0) & np.roll(inner, -1, 0)
            inner = inner & np.roll(inner, 1, 1) & np.roll(inner, -1, 1)
        assert not inner.any()


def test_letters_are_drawn_as_thick_as_is_said(script: ModuleType) -> None:
    image = Image.new("L", (200, 200))
    for seed in range(5):
        script.letters(ImageDraw.Draw(image), 200, np.random.default_rng(seed))
    assert np.asarray(image).any()


@needs_all
def test_every_way_fills_the_same_holes_and_originals_are_as_real_as_can_be(
    script: ModuleType, photos: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpainter = Inpainter(SPEC, *tiny_networks(SPEC), name="x", device="cpu", precision="fp32")
    filled = script.fill_all(photos, inpainter, 0, tmp_path / "kept")
    for number, photo in enumerate(photos):
        with Image.open(tmp_path / "kept" / f"{number:02}.png") as strip:
            assert strip.size == (4 * 128, 128)
            assert (np.asarray(strip)[:, -128:] == photo).all()
    assert list(filled)[0] == "model" and len(filled) == 5
    assert all(10 < psnr < 100 for found in filled.values() for psnr in found.psnr)
    assert all(math.isfinite(found.realism) for found in filled.values())
    gain, realism = script.bars_of_holes(filled)
    assert gain.least and not realism.least and gain.got < 1
    perfect = iter(photos)
    monkeypatch.setattr(Inpainter, "__call__", lambda self, photo, hole: next(perfect))
    filled = script.fill_all(photos, inpainter, 0)
    assert filled["model"].realism == 0 and filled["model"].psnr == [100, 100]
    gain, realism = script.bars_of_holes(filled)
    assert gain.met(gain.goal) and realism.met(realism.goal)


def test_what_changes_nothing_gains_nothing_and_keeps_originals(
    script: ModuleType, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = Restorer(SPEC, *tiny_networks(SPEC), name="x", device="cpu", precision="fp32")
    monkeypatch.setattr(Restorer, "__call__", lambda self, image: image)
    mended = script.mend_all(photos, restorer, 0)
    assert (mended.damaged, mended.clean, mended.originals) == ([0, 0], [0, 0], [100, 100])
    damaged, clean = script.bars_of_damage(mended)
    assert not damaged.met(damaged.floor) and clean.met(clean.floor)
