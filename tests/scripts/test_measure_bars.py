"""What the bundled model is held against is measured rightly."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from evaluation_study import draw
from tiny_model import tiny_upscaler

from resshift_cli.restoration import features

REPOSITORY = Path(__file__).parents[2]


needs_features = pytest.mark.skipif(
    importlib.util.find_spec(features.PACKAGE) is None, reason="needs the extra `realism`"
)


@pytest.fixture(scope="module")
def bars() -> Iterator[ModuleType]:
    scripts = str(REPOSITORY / "scripts")
    sys.path.insert(0, scripts)
    import measure_bars

    yield measure_bars
    sys.path.remove(scripts)


@pytest.mark.parametrize(
    ("read", "text", "errors"),
    [
        ("kitten", "kitten", 0),
        ("sitting", "kitten", 3),
        ("", "kitten", 6),
        ("kit ten", "kitten", 1),
        (" two\n\n words \n", "two words", 0),
        ("b", "a b c", 4),
    ],
)
def test_the_character_error_counts_edits_per_character(
    bars: ModuleType, read: str, text: str, errors: int
) -> None:
    assert bars.character_error(read, text) == pytest.approx(errors / len(text))


@needs_features
def test_photos_are_measured_by_their_realism_too(
    bars: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "file,split\na.png,held-out\nb.png,training\n"
    monkeypatch.setattr(bars, "PHOTOS", tmp_path / "photos.csv")
    (tmp_path / "photos.csv").write_text(listed)
    draw(tmp_path / "a.png", (140, 130))
    upscaler = tiny_upscaler()
    compared = bars.rows(upscaler, {"one": {"steps": 1}}, 0)
    figures = bars.measure_photos(upscaler, compared, tmp_path, "mild", 128, 0)
    assert list(figures) == ["bicubic", "one"]
    realism = figures["one"]["realism"]
    assert realism["patches"] == 4 and math.isfinite(realism["mean"])


def test_flat_fields_are_measured_with_their_borders(bars: ModuleType) -> None:
    def spoiled(pixels: Any) -> Any:
        large = pixels.repeat(4, 0).repeat(4, 1)
        large[0, 0, 0] += 5 / 255
        return large

    mean, most = bars.measure_flat(bars.Row("spoiled", {}, spoiled))
    assert most == pytest.approx(5, abs=0.01)
    assert mean == pytest.approx(5 / (3 * 96 * 128 * 16), abs=0.001)


def test_a_bar_is_met_from_above_or_below(bars: ModuleType) -> None:
    gain = bars.Bar("gain", 0.7, 0.6, 0.8, least=True)
    error = bars.Bar("error", 0.7, 0.8, 0.6)
    assert [gain.met(gain.floor), gain.met(gain.goal)] == [True, False]
    assert [error.met(error.floor), error.met(error.goal)] == [True, False]
