"""Large images, which are handled in bands of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]
from image_files import SRGB, exif_with, saved
from memory import needs_proc, peak_over
from PIL import Image

from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging import opening, read, rows, streaming, tiff_writing
from resshift_cli.imaging.metadata import Description
from resshift_cli.imaging.opening import opened
from resshift_cli.imaging.picture import Picture
from resshift_cli.imaging.rows import InFile, Stored


def photo(mode: str = "RGB") -> Image.Image:
    """Smooth and rough parts, 70 wide and 90 high."""
    smooth = Image.radial_gradient("L").resize((70, 90))
    rough = Image.effect_noise((70, 90), 90)
    return Image.merge("RGB", (smooth, rough, Image.blend(smooth, rough, 0.2))).convert(mode)


def deep(path: Path, channels: int, **options: Any) -> None:
    samples = np.random.default_rng(0).integers(0, 2**16, (90, 70, channels), dtype=np.uint16)
    kind = "rgb16" if channels == 3 else "grey16"
    pyvips.Image.new_from_array(samples, interpretation=kind).write_to_file(str(path), **options)


def by_pillow(mode: str = "RGB", **options: Any) -> Callable[[Path], None]:
    return lambda path: photo(mode).save(path, **options)


def by_libvips(**options: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        pyvips.Image.new_from_array(np.asarray(photo())).write_to_file(str(path), **options)

    return save


def by_ourselves(compression: int) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        path.write_bytes(
            tiff_writing.encode(np.asarray(photo()), Description(), compression=compression)
        )

    return save


def described() -> dict[str, Any]:
    return {"exif": exif_with(Make="Maker"), "icc_profile": SRGB, "dpi": (300, 300)}


# fmt: off
STAYING: dict[str, Callable[[Path], None]] = {
    "rgb.png": by_pillow(**described()), "gray.png": by_pillow("L"),
    "interlaced.png": by_libvips(interlace=True),
    "deep.png": lambda path: deep(path, 3), "deep_gray.png": lambda path: deep(path, 1),
    "deep_interlaced.png": lambda path: deep(path, 3, interlace=True),
    "444.jpg": by_pillow(subsampling=0, comment=b"hello", **described()),
    "420.jpg": by_pillow(subsampling=2), "422.jpg": by_pillow(subsampling=1),
    "progressive.jpg": by_pillow(progressive=True), "gray.jpg": by_pillow("L"),
    "as_rgb.jpg": by_pillow(keep_rgb=True),
    "plain.tif": by_pillow(**described()), "gray.tif": by_pillow("L"),
    "lzw.tif": by_pillow(compression="tiff_lzw", icc_profile=SRGB, dpi=(300, 300)),
    "deflated.tif": by_pillow(compression="tiff_adobe_deflate"),
    "jpeg.tif": by_pillow(compression="jpeg"), "packed.tif": by_pillow("L", compression="packbits"),
    "white_is_0.tif": by_pillow("L", tiffinfo={262: 0}),
    "white_is_0_lzw.tif": by_pillow("L", tiffinfo={262: 0}, compression="tiff_lzw"),
    "tiled.tif": by_libvips(tile=True, tile_width=16, tile_height=32, compression="deflate"),
    "big.tif": by_libvips(bigtiff=True),
    "ours.tif": by_ourselves(0), "ours_deflated.tif": by_ourselves(6),
    "deep.tif": lambda path: deep(path, 3),
    "deep_lzw.tif": lambda path: deep(path, 3, compression="lzw", predictor="horizontal"),
}
HELD: dict[str, Callable[[Path], None]] = {
    "alpha.png": by_pillow("RGBA"), "palette.png": by_pillow("P"), "1_bit.png": by_pillow("1"),
    "clear_colour.png": by_pillow(transparency=(0, 0, 0)),
    "clear_gray.png": by_pillow("L", transparency=0),
    "turned.jpg": by_pillow(exif=exif_with(Orientation=6)),
    "turned.png": by_pillow(exif=exif_with(Orientation=3)),
    "turned_lzw.tif": by_pillow(compression="tiff_lzw", tiffinfo={274: 8}),
    "alpha.tif": by_pillow("RGBA"), "palette.tif": by_pillow("P"), "1_bit.tif": by_pillow("1"),
    "a.bmp": by_pillow(), "a.webp": by_pillow(lossless=True), "a.gif": by_pillow("P"),
}
# fmt: on


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has more than 1000 pixels is large, and comes in bands of 7 rows."""
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.setattr(rows, "_BAND", 70 * 7)


def load(path: Path, *, max_pixels: int = opening.MAX_PIXELS, **options: Any) -> Any:
    with opened(path, max_pixels=max_pixels) as file:
        return read.load(file, **options)


def assert_same(loaded: Picture, bands: Any, whole: Picture) -> None:
    for _ in range(2):  # it can be gone through again
        np.testing.assert_array_equal(np.concatenate(list(bands)), whole.pixels)
    assert loaded.pixels.shape == whole.pixels.shape and not loaded.pixels.any()
    ours, theirs = asdict(loaded), asdict(whole)
    assert ours.pop("pixels") is not theirs.pop("pixels")
    assert ours == theirs


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", STAYING)
def test_a_large_image_that_stays_in_its_file_has_the_very_same_pixels(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    STAYING[name](path)
    loaded, bands = load(path)
    assert isinstance(bands, InFile)
    assert {len(band) for band in bands} == {7, 6}
    assert_same(loaded, bands, read.read(path))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", HELD)
def test_other_large_images_are_held_as_levels(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    HELD[name](path)
    loaded, bands = load(path)
    assert isinstance(bands, Stored) and bands.samples.dtype == np.uint8
    assert_same(loaded, bands, read.read(path))


@pytest.mark.usefixtures("large")
def test_text_behind_the_pixels_of_a_large_png_is_read(tmp_path: Path) -> None:
    path = saved(photo(), tmp_path / "a.png")
    whole, words = path.read_bytes(), streaming.chunk(b"tEXt", b"Title\0A kitten")
    path.write_bytes(whole[:-12] + words + whole[-12:])
    loaded, bands = load(path)
    assert isinstance(bands, InFile) and loaded.text == {"Title": "A kitten"}


def test_a_small_image_is_loaded_whole_and_given_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(photo(), tmp_path / "a.png")
    loaded, bands = load(path)
    monkeypatch.setattr(rows, "_BAND", 70 * 7)
    assert {len(band) for band in bands} == {7, 6}  # its result may be large
    band = np.concatenate(list(bands))
    assert np.shares_memory(next(iter(bands)), loaded.pixels)
    np.testing.assert_array_equal(band, read.read(path).pixels)


def cut_short(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def without_its_end(content: bytes) -> bytes:
    return content[:-20]


def with_a_flipped_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    "name", ["rgb.png", "deep.png", "444.jpg", "ours.tif", "ours_deflated.tif"]
)
@pytest.mark.parametrize("damage", [cut_short, without_its_end, with_a_flipped_byte])
def test_a_large_damaged_file_is_loaded_or_refused_as_a_small_one(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / name
    STAYING[name](path)
    path.write_bytes(damage(path.read_bytes()))

    def outcome(found: Callable[[], np.ndarray[Any, Any]]) -> Any:
        try:
            return found().tolist()
        except ImageUnreadableError as error:
            return str(error), error.hint

    def in_bands(**options: Any) -> np.ndarray[Any, Any]:
        return np.concatenate(list(load(path, **options)[1]))

    assert outcome(in_bands) == outcome(lambda: read.read(path).pixels)
    np.testing.assert_array_equal(
        in_bands(allow_truncated=True), read.read(path, allow_truncated=True).pixels
    )


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", ["rgb.png", "444.jpg", "ours_deflated.tif"])
def test_a_file_that_is_damaged_after_it_was_loaded_is_an_error_midway(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    STAYING[name](path)
    _, bands = load(path)
    path.write_bytes(cut_short(path.read_bytes()))
    done = 0
    with pytest.raises(ImageUnreadableError, match=f"{name} is cut short or damaged"):
        for band in bands:
            done += len(band)
    assert done < 90


@pytest.mark.usefixtures("large")
def test_too_many_pixels_of_a_large_image_are_refused(tmp_path: Path) -> None:
    for name in ("rgb.png", "444.jpg", "plain.tif", "lzw.tif"):
        STAYING[name](tmp_path / name)
        with pytest.raises(ImageUnreadableError, match="too large: 70x90"):
            load(tmp_path / name, max_pixels=70 * 90 - 1)
        load(tmp_path / name, max_pixels=70 * 90)


@needs_proc
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_memory_does_not_grow_with_a_large_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    tall = pyvips.Image.black(6000, 5000, bands=3)
    tall.write_to_file(str(path))

    def read_it() -> None:
        loaded, bands = load(path)
        assert sum(len(band) for band in bands) == 5000 == len(loaded.pixels)

    read_it()
    assert peak_over(read_it) < 64 << 20, "the pixels are 86 MiB as levels, and 343 as floats"
