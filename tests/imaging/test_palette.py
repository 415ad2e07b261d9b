"""Indexed images whose results keep their palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import eight_bits, levels, picture_of, saved
from PIL import Image

from resshift_cli.errors import OutputError, UsageError
from resshift_cli.imaging import animation, encode, files, palette, read
from resshift_cli.imaging.files import Handling
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.sources import Source

KEPT = SaveOptions(palette=True)
COLOURS = bytes([9, 8, 7, 250, 0, 0, 0, 250, 0, 0, 0, 250, 99, 98, 97])


def of_five(path: Path, **options: object) -> Path:
    """Five colours, of which the last is used nowhere."""
    image = Image.fromarray(levels(1, 12, 16)[..., 0] % 4).convert("P")
    image.putpalette(COLOURS)
    return saved(image, path, **options)


def entries(path: Path) -> list[int]:
    with Image.open(path) as image:
        assert image.mode == "P"
        return list(image.getpalette() or ())[: len(COLOURS)]


@pytest.mark.parametrize("source", ["a.png", "a.gif", "a.tga", "a.bmp"])
@pytest.mark.parametrize("target", ["b.png", "b.gif", "b.tga", "b.bmp"])
def test_a_result_has_the_very_palette_of_its_input(
    tmp_path: Path, source: str, target: str
) -> None:
    image = read.read(of_five(tmp_path / source))
    noisy = np.random.default_rng(0).normal(image.pixels, 0.02).clip(0, 1).astype(np.float32)
    encode.write(image.with_pixels(noisy), tmp_path / target, overwrite=False, options=KEPT)
    assert entries(tmp_path / target)[:12] == list(COLOURS)[:12]
    np.testing.assert_array_equal(read.read(tmp_path / target).pixels, image.pixels)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
@pytest.mark.parametrize("target", ["b.png", "b.gif", "b.tga"])
def test_transparency_is_kept(tmp_path: Path, name: str, target: str) -> None:
    image = read.read(of_five(tmp_path / name, transparency=2))
    assert image.has_alpha
    encode.write(image, tmp_path / target, overwrite=False, options=KEPT)
    again = read.read(tmp_path / target)
    np.testing.assert_array_equal(again.pixels[..., 3], image.pixels[..., 3])
    seen = image.pixels[..., 3] > 0
    np.testing.assert_array_equal(eight_bits(again)[seen], eight_bits(image)[seen])


def test_every_degree_of_opacity_is_kept_where_a_format_has_it(tmp_path: Path) -> None:
    path = of_five(tmp_path / "a.png", transparency=bytes([255, 128, 0, 60]))
    image = read.read(path)
    for name in ("b.png", "b.tga"):
        encode.write(image, tmp_path / name, overwrite=False, options=KEPT)
        again = read.read(tmp_path / name)
        np.testing.assert_array_equal(again.pixels[..., 3], image.pixels[..., 3])


@pytest.mark.parametrize("name", ["a.gif", "a.bmp"])
@pytest.mark.parametrize("clear", [None, 7])
def test_a_palette_of_all_shades_of_gray_is_one(
    tmp_path: Path, name: str, clear: int | None
) -> None:
    options = {} if clear is None or name == "a.bmp" else {"transparency": clear}
    given = Image.fromarray(levels(1, 12, 16)[..., 0] // 4)
    image = read.read(saved(given, tmp_path / name, **options))
    encode.write(image, tmp_path / "b.png", overwrite=False, options=KEPT)
    with Image.open(tmp_path / "b.png") as written:
        assert written.mode == "P"
    again = read.read(tmp_path / "b.png").pixels
    assert again.shape[2] == (4 if options else 3)
    np.testing.assert_array_equal(again[..., 0], image.pixels[..., 0])


def test_the_nearest_entry_is_taken_as_it_is_seen() -> None:
    own = bytes([0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0])
    samples = np.array([[[250, 250, 250, 255], [255, 255, 255, 10], [60, 0, 9, 255]]], np.uint8)
    chosen = palette.indexed(samples, own, levels_of_opacity=256)
    assert np.asarray(chosen).tolist() == [[1, 2, 0]]


def test_large_results_keep_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE", 10)
    loaded = files.load(Source(of_five(tmp_path / "a.png")), Handling(options=KEPT))
    result = files.enlarge(
        loaded,
        lambda rows, shape, told: iter(rows),
        lambda done, total: None,
        size=loaded.size,
        note="",
        target=Path("b.png"),
        options=KEPT,
    )
    content = result.content()
    assert not callable(content)
    (tmp_path / "b.png").write_bytes(content)
    assert entries(tmp_path / "b.png") == list(COLOURS)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tif"])
def test_formats_without_palettes_are_refused(tmp_path: Path, name: str) -> None:
    image = read.read(of_five(tmp_path / "a.png"))
    with pytest.raises(UsageError, match="without a palette") as caught:
        encode.check_encodable(image, Path(name), options=KEPT)
    assert "--palette" in caught.value.hint
    deep = SaveOptions(palette=True, depth=16)
    with pytest.raises(UsageError, match="16 bits"):
        encode.check_encodable(image, Path("a.png"), options=deep)


def test_images_without_one_and_animations_are_refused() -> None:
    with pytest.raises(OutputError, match="no palette to keep"):
        encode.check_encodable(picture_of(), Path("a.png"), options=KEPT)
    with pytest.raises(UsageError, match="don't keep their palettes"):
        animation.check_target(Path("a.gif"), options=KEPT)
