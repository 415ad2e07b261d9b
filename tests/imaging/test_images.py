"""Files in and out: kinds of images, what is kept, what is refused, and what is left on disk."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]
from memory import needs_proc, peak_over
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from resshift_cli.errors import (
    ImageUnreadableError,
    OutputError,
    UnsupportedImageError,
)
from resshift_cli.imaging import images, streaming, tiff
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.images import InFile, Picture, Stored
from resshift_cli.imaging.sources import Source

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]
ALPHA = {1: False, 2: True, 3: False, 4: True}


def levels(channels: int, height: int = 5, width: int = 7) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(channels)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture(channels: int = 3, **kept: Any) -> Picture:
    return Picture(np.divide(levels(channels), 255, dtype=np.float32), **kept)


def eight_bits(image: Picture) -> np.ndarray[Any, Any]:
    return np.rint(image.pixels * 255).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def exif_with(**tags: Any) -> bytes:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[ExifTags.Base[name]] = value
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExifImageWidth: 7,
        ExifTags.Base.ExifImageHeight: 5,
        ExifTags.Base.LensModel: "A lens",
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


# What is read


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_lossless_file_comes_back_level_for_level(
    tmp_path: Path, channels: int, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(picture(channels), path, overwrite=False)
    again = images.read(path)
    assert again.has_alpha == ALPHA[channels]
    np.testing.assert_array_equal(eight_bits(again), levels(channels))
    assert again.pixels.dtype == np.float32
    assert 0 <= again.pixels.min() <= again.pixels.max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".bmp"])
def test_the_other_formats_come_back_in_their_own_format_and_close(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    flat = Picture(np.full((9, 11, 3), (0.2, 0.5, 0.7), np.float32))
    images.write(flat, path, overwrite=False)
    with Image.open(path) as file:
        assert file.format in {"JPEG", "WEBP", "BMP"} and file.format[:2] in path.suffix.upper()[1:]
    np.testing.assert_allclose(images.read(path).pixels, flat.pixels, atol=0.02)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_gray_stays_gray(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gray{suffix}"
    images.write(picture(1), path, overwrite=False)
    with Image.open(path) as file:
        assert file.mode == "L"
    assert images.read(path).pixels.shape == (5, 7, 1)


def test_one_bit_becomes_gray_black_and_white(tmp_path: Path) -> None:
    pixels = images.read(saved(Image.new("1", (3, 2), 1), tmp_path / "a.png")).pixels
    assert pixels.shape == (2, 3, 1) and (pixels == 1).all()


def test_a_palette_becomes_rgb_and_a_transparent_entry_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    opaque = images.read(saved(image, tmp_path / "a.png"))
    assert eight_bits(opaque).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    clear = images.read(saved(image, tmp_path / "b.gif", transparency=1))
    assert eight_bits(clear).tolist() == [[[255, 0, 0, 255], [0, 0, 255, 0]]]


@pytest.mark.parametrize("mode, colour, channels", [("L", 9, 2), ("RGB", (9, 8, 7), 4)])
def test_a_transparent_colour_of_a_png_becomes_alpha(
    tmp_path: Path, mode: str, colour: Any, channels: int
) -> None:
    path = saved(Image.new(mode, (2, 2), colour), tmp_path / "a.png", transparency=colour)
    pixels = images.read(path).pixels
    assert pixels.shape == (2, 2, channels) and (pixels[..., -1] == 0).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_once(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    lying = np.repeat(np.repeat([[10, 90, 160], [60, 200, 250]], 16, 0), 16, 1).astype(np.uint8)
    upright = {
        1: lying,
        2: lying[:, ::-1],
        3: lying[::-1, ::-1],
        4: lying[::-1],
        5: lying.T,
        6: np.rot90(lying, -1),
        7: lying[::-1, ::-1].T,
        8: np.rot90(lying),
    }[orientation]
    source = tmp_path / f"a{suffix}"
    saved(Image.fromarray(lying), source, exif=exif_with(Orientation=orientation))
    first = images.read(source)
    np.testing.assert_allclose(first.pixels[..., 0], upright / np.float32(255), atol=0.05)
    images.write(first, tmp_path / f"b{suffix}", overwrite=False)
    second = images.read(tmp_path / f"b{suffix}")
    np.testing.assert_allclose(second.pixels[..., 0], first.pixels[..., 0], atol=0.05)


def test_an_image_is_read_by_content_whatever_its_name_says(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 6), "teal"), tmp_path / "a.png", format="JPEG")
    assert images.read(path).pixels.shape == (6, 8, 3)


def test_a_phone_photo_with_a_second_image_behind_it_gives_the_photo(tmp_path: Path) -> None:
    photo, gain_map = Image.new("RGB", (16, 8), "teal"), Image.new("RGB", (4, 2))
    path = saved(photo, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[gain_map])
    assert images.read(path).pixels.shape == (8, 16, 3)


def test_an_image_of_one_pixel_is_read_and_written(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (1, 1)), tmp_path / "a.png")
    images.write(images.read(path), tmp_path / "b.png", overwrite=False)
    assert images.read(tmp_path / "b.png").pixels.shape == (1, 1, 3)


# What is kept


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_the_colour_profile_is_carried_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(picture(icc=SRGB), path, overwrite=False)
    assert images.read(path).icc == SRGB


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", ["a.jpg", "a.tif"])
def test_exif_is_kept_with_the_new_size_and_without_orientation(
    tmp_path: Path, source: str, suffix: str
) -> None:
    exif = exif_with(Orientation=6, Make="A maker")
    path = saved(Image.new("RGB", (7, 5)), tmp_path / source, exif=exif)
    read = images.read(path)
    assert read.pixels.shape == (7, 5, 3)
    output = tmp_path / f"b{suffix}"
    images.write(read.with_pixels(np.zeros((28, 20, 3), np.float32)), output, overwrite=False)
    with Image.open(output) as file:
        written = file.getexif()
        details = written.get_ifd(ExifTags.IFD.Exif)
        assert written[ExifTags.Base.Make] == "A maker"
        assert ExifTags.Base.Orientation not in written
        assert details[ExifTags.Base.ExifImageWidth] == 20
        assert details[ExifTags.Base.ExifImageHeight] == 28
        assert details[ExifTags.Base.LensModel] == "A lens"
        assert written.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_the_layout_tags_of_a_tiff_do_not_end_up_in_a_jpeg(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (7, 5)), tmp_path / "a.tif", exif=exif_with(Make="A maker"))
    images.write(images.read(path), tmp_path / "b.jpg", overwrite=False)
    with Image.open(tmp_path / "b.jpg") as file:
        assert ExifTags.Base.StripOffsets not in file.getexif()


def test_an_image_without_exif_gets_none(tmp_path: Path) -> None:
    assert images.read(saved(Image.new("RGB", (3, 2)), tmp_path / "a.tif")).exif is None


def test_damaged_exif_does_not_keep_an_image_from_being_read(tmp_path: Path) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\x09\0" + b"\xff" * 40
    path = saved(Image.new("RGB", (3, 2)), tmp_path / "a.jpg", exif=broken)
    assert images.read(path).pixels.shape == (2, 3, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_the_resolution_is_kept(tmp_path: Path, suffix: str) -> None:
    path = saved(Image.new("RGB", (3, 2)), tmp_path / "a.png", dpi=(300, 300))
    images.write(images.read(path), tmp_path / f"b{suffix}", overwrite=False)
    with Image.open(tmp_path / f"b{suffix}") as file:
        assert file.info["dpi"] == pytest.approx((300, 300), abs=0.1)


# To and from Pillow


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_pillow_image_comes_back_as_it_was(mode: str) -> None:
    channels = levels(len(mode))
    image = Image.fromarray(channels[..., 0] if mode == "L" else channels)
    again = Picture.from_pil(image).to_pil()
    assert again.mode == mode and again.tobytes() == image.tobytes()


def test_a_pillow_image_keeps_its_profile_and_is_not_changed() -> None:
    image = Image.new("P", (3, 2))
    image.info["icc_profile"] = SRGB
    assert Picture.from_pil(image).to_pil().info["icc_profile"] == SRGB
    assert image.mode == "P"


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_a_pillow_image_of_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(UnsupportedImageError, match="The image"):
        Picture.from_pil(Image.new(mode, (2, 2)))


def test_values_outside_0_to_1_are_clipped_when_rounded() -> None:
    pixels = np.array([[[-0.5], [0.5], [1.5]]], np.float32)
    assert np.asarray(Picture(pixels).to_pil()).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.float32), np.zeros((2, 2, 3))]
)
def test_pixels_of_another_shape_or_type_are_no_picture(pixels: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        Picture(pixels)


# What is refused when reading


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageUnreadableError, match="empty"):
        images.read(tmp_path / "a.png")


def test_a_text_file_named_png_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("Dear diary")
    with pytest.raises(ImageUnreadableError, match="not an image"):
        images.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    pixels = np.divide(levels(3, 64, 64), 255, dtype=np.float32)
    images.write(Picture(pixels), path, overwrite=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageUnreadableError, match="cut short"):
        images.read(path)


def smooth(height: int = 64, width: int = 64) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pixels that no format changes much, and none of which are black."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    pixels = np.stack([rows / height, columns / width, 1 - rows / height], -1) * 0.7 + 0.2
    return pixels.astype(np.float32)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("suffix, depth, options", [
    (".png", 8, {}), (".png", 16, {}), (".jpg", 8, {"quality": 100}), (".bmp", 8, {}),
    (".tif", 8, {}), (".tif", 16, {}), (".tif", 16, {"compression": 1}), (".gif", 8, {}),
])  # fmt: skip
def test_a_truncated_file_is_read_as_far_as_it_goes_if_that_is_allowed(
    tmp_path: Path, suffix: str, depth: int, options: dict[str, Any], share: float
) -> None:
    height = 1200 if options.get("compression") else 64  # several strips
    pixels = smooth(height, height)
    pixels += np.random.default_rng(0).normal(0, 0.02, pixels.shape).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    given = Picture(pixels, depth=depth)
    images.write(given, path, overwrite=False, options=SaveOptions(**options))
    whole = images.read(path, allow_truncated=True)
    assert whole.damage == ""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    read = images.read(path, allow_truncated=True)
    assert str(path) in read.damage and "cut short" in read.damage
    assert (read.depth, read.pixels.shape) == (depth, pixels.shape)
    same = (read.pixels == whole.pixels).all(axis=(1, 2)).mean()
    assert share - 0.25 < same < share + 0.1
    np.testing.assert_array_equal(images.read(path, allow_truncated=True).pixels, read.pixels)


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_what_can_only_be_read_whole_is_refused_all_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(Picture(smooth()), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:-100])
    for allow in (False, True):
        with pytest.raises(ImageUnreadableError) as caught:
            images.read(path, allow_truncated=allow)
        assert "--allow-truncated" not in caught.value.hint


def test_the_way_out_of_a_truncated_file_is_named_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.write(picture(), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ImageUnreadableError) as caught:
        images.read(path)
    assert "--allow-truncated" in caught.value.hint


def test_what_is_wrong_otherwise_stays_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    large = saved(Image.new("RGB", (20, 10)), tmp_path / "large.png")
    for path in (tmp_path / "empty.png", tmp_path / "text.png", large):
        with pytest.raises(ImageUnreadableError):
            images.read(path, allow_truncated=True, max_pixels=199)


def test_leniency_does_not_leak(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.write(Picture(smooth()), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:-100])
    before = ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK
    outcomes: list[str] = []

    def strictly() -> None:
        for _ in range(20):
            with pytest.raises(ImageUnreadableError):
                images.read(path)
            outcomes.append("refused")

    other = threading.Thread(target=strictly)
    other.start()
    for _ in range(20):
        assert images.read(path, allow_truncated=True).damage
    other.join()
    assert outcomes == ["refused"] * 20
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)


def test_a_png_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = saved(Image.fromarray(levels(3, 64, 64)), tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImageUnreadableError, match="damaged"):
        images.read(path)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:45])  # decoding would fail: there is only the header
    with pytest.raises(ImageUnreadableError, match="too large: 20x10"):
        images.read(path, max_pixels=199)


@pytest.mark.parametrize("times", [1.5, 3])
def test_pillows_own_limit_does_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float
) -> None:
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(200 / times))
    if times == 1.5:  # where Pillow would warn, our own limit decides
        assert images.read(path).pixels.shape == (10, 20, 3)
    else:
        with pytest.raises(ImageUnreadableError, match="too large"):
            images.read(path, max_pixels=100)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_profile_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UnsupportedImageError, match="CMYK colours without") as caught:
        images.read(saved(Image.new("CMYK", (4, 4)), tmp_path / f"a{suffix}"))
    assert "RGB" in caught.value.hint


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_several_frames_or_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedImageError, match="2 frames") as caught:
        images.read(path)
    assert "--first-frame" in caught.value.hint
    first = images.read(path, first_frame=True)
    np.testing.assert_allclose(first.pixels[0, 0], (1, 0, 0), atol=0.02)


@pytest.mark.parametrize("start, kind", [
    (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"8BPS\0\1", "Photoshop"), (b"%PDF-1.7", "PDF"),
])  # fmt: skip
def test_an_image_of_another_format_is_named_and_refused(
    tmp_path: Path, start: bytes, kind: str
) -> None:
    (tmp_path / "a.png").write_bytes(start + bytes(100))
    with pytest.raises(UnsupportedImageError, match=kind) as caught:
        images.read(tmp_path / "a.png")
    assert "PNG" in caught.value.hint


def test_a_raw_file_is_refused_though_its_preview_is_a_tiff(tmp_path: Path) -> None:
    preview = saved(Image.new("RGB", (4, 4)), tmp_path / "a.NEF", format="TIFF")
    (tmp_path / "b.cr3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(100))
    for path in (preview, tmp_path / "b.cr3"):
        with pytest.raises(UnsupportedImageError, match="raw") as caught:
            images.read(path)
        assert "Develop" in caught.value.hint


# Before the work


@pytest.mark.parametrize("image, name, size, message", [
    (picture(4), "a.jpg", None, "transparency"), (picture(2), "a.bmp", None, "transparency"),
    (picture(icc=SRGB), "a.bmp", None, "colour profile"),
    (picture(1, icc=GRAY_PROFILE), "a.webp", None, "no gray"),
    (picture(), "a.webp", (100, 16384), "16383 pixels"),
    (picture(), "a.jpg", (65501, 100), "65500 pixels"),
    (picture(), "a.bmp", (40_000, 40_000), "4 GB"),
    (picture(exif=bytes(70_000)), "a.jpg", None, "EXIF"),
])  # fmt: skip
def test_what_a_format_can_not_hold_is_refused_and_png_advised(
    image: Picture, name: str, size: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        images.check_encodable(image, Path(name), size=size)
    assert "a.png" in caught.value.hint
    images.check_encodable(image, Path("a.png"), size=size)


# Writing


def test_jpeg_is_written_at_quality_95_without_colour_subsampling(tmp_path: Path) -> None:
    images.write(picture(), tmp_path / "a.jpg", overwrite=False)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as ours, Image.open(tmp_path / "b.jpg") as theirs:
        assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]  # JPEG only
        assert [component[1:3] for component in ours.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.write(picture(1), path, overwrite=True)
    with pytest.raises(OutputError, match="exists already") as caught:
        images.write(picture(3), path, overwrite=False)
    assert "--overwrite" in caught.value.hint
    assert images.read(path).pixels.shape[2] == 1
    images.write(picture(3), path, overwrite=True)
    assert images.read(path).pixels.shape[2] == 3
    assert list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from resshift_cli import errors
from resshift_cli.imaging import images

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
noise = np.random.default_rng(0).random((128, 128, 3), np.float32)
try:
    images.write(images.Picture(noise), Path(sys.argv[1]), overwrite=True)
except errors.OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_disk_that_fills_up_midway_is_reported_and_leaves_nothing(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} can't be written: File too large.\n"
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_reading_and_writing_need_no_torch() -> None:
    code = "import sys, resshift_cli.imaging.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is large


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
        path.write_bytes(tiff.encode(np.asarray(photo()), compression=compression))

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
    monkeypatch.setattr(images, "LARGE", 1000)
    monkeypatch.setattr(images, "_BAND", 70 * 7)


def assert_same(loaded: Picture, rows: Any, read: Picture) -> None:
    for _ in range(2):  # it can be gone through again
        np.testing.assert_array_equal(np.concatenate(list(rows)), read.pixels)
    assert loaded.pixels.shape == read.pixels.shape and not loaded.pixels.any()
    ours, theirs = asdict(loaded), asdict(read)
    assert ours.pop("pixels") is not theirs.pop("pixels")
    assert ours == theirs


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", STAYING)
def test_a_large_image_that_stays_in_its_file_has_the_very_same_pixels(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    STAYING[name](path)
    loaded, rows = images.load(Source(path))
    assert isinstance(rows, InFile)
    assert {len(band) for band in rows} == {7, 6}
    assert_same(loaded, rows, images.read(path))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", HELD)
def test_other_large_images_are_held_as_levels(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    HELD[name](path)
    loaded, rows = images.load(Source(path))
    assert isinstance(rows, Stored) and rows.samples.dtype == np.uint8
    assert_same(loaded, rows, images.read(path))


@pytest.mark.usefixtures("large")
def test_text_behind_the_pixels_of_a_large_png_is_read(tmp_path: Path) -> None:
    path = saved(photo(), tmp_path / "a.png")
    whole, words = path.read_bytes(), streaming.chunk(b"tEXt", b"Title\0A kitten")
    path.write_bytes(whole[:-12] + words + whole[-12:])
    loaded, rows = images.load(Source(path))
    assert isinstance(rows, InFile) and loaded.text == {"Title": "A kitten"}


def test_a_small_image_is_loaded_whole_and_given_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(photo(), tmp_path / "a.png")
    loaded, rows = images.load(Source(path))
    monkeypatch.setattr(images, "_BAND", 70 * 7)
    assert {len(band) for band in rows} == {7, 6}  # its result may be large
    band = np.concatenate(list(rows))
    assert np.shares_memory(next(iter(rows)), loaded.pixels)
    np.testing.assert_array_equal(band, images.read(path).pixels)


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

    def outcome(read: Callable[[], np.ndarray[Any, Any]]) -> Any:
        try:
            return read().tolist()
        except ImageUnreadableError as error:
            return str(error), error.hint

    def in_bands(**options: Any) -> np.ndarray[Any, Any]:
        return np.concatenate(list(images.load(Source(path), **options)[1]))

    assert outcome(in_bands) == outcome(lambda: images.read(path).pixels)
    np.testing.assert_array_equal(
        in_bands(allow_truncated=True), images.read(path, allow_truncated=True).pixels
    )


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", ["rgb.png", "444.jpg", "ours_deflated.tif"])
def test_a_file_that_is_damaged_after_it_was_loaded_is_an_error_midway(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    STAYING[name](path)
    _, rows = images.load(Source(path))
    path.write_bytes(cut_short(path.read_bytes()))
    done = 0
    with pytest.raises(ImageUnreadableError, match=f"{name} is cut short or damaged"):
        for band in rows:
            done += len(band)
    assert done < 90


@pytest.mark.usefixtures("large")
def test_too_many_pixels_of_a_large_image_are_refused(tmp_path: Path) -> None:
    for name in ("rgb.png", "444.jpg", "plain.tif", "lzw.tif"):
        STAYING[name](tmp_path / name)
        with pytest.raises(ImageUnreadableError, match="too large: 70x90"):
            images.load(Source(tmp_path / name), max_pixels=70 * 90 - 1)
        images.load(Source(tmp_path / name), max_pixels=70 * 90)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp"])
def test_more_pixels_than_pillow_takes_are_read_if_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = saved(photo(), tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70 * 90 // 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 70 * 90 // 3)
    with pytest.raises(ImageUnreadableError, match="too large"):
        images.read(path, max_pixels=70 * 90 // 3)
    assert images.read(path, max_pixels=70 * 90).pixels.shape == (90, 70, 3)
    assert Image.MAX_IMAGE_PIXELS == 70 * 90 // 3


@needs_proc
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_memory_does_not_grow_with_a_large_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    tall = pyvips.Image.black(6000, 5000, bands=3)
    tall.write_to_file(str(path))

    def read() -> None:
        loaded, rows = images.load(Source(path))
        assert sum(len(band) for band in rows) == 5000 == len(loaded.pixels)

    read()
    assert peak_over(read) < 64 << 20, "the pixels are 86 MiB as levels, and 343 as floats"
