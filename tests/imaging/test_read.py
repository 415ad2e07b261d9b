"""Files that are read: kinds of images, what they become, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import eight_bits, exif_with, levels, picture_of, saved
from PIL import Image

from resshift_cli.errors import ImageUnreadableError, UnsupportedImageError
from resshift_cli.imaging import encode, opening, read, refusals
from resshift_cli.imaging.picture import Picture

ALPHA = {1: False, 2: True, 3: False, 4: True}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_lossless_file_comes_back_level_for_level(
    tmp_path: Path, channels: int, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    encode.write(picture_of(channels), path, overwrite=False)
    again = read.read(path)
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
    encode.write(flat, path, overwrite=False)
    with Image.open(path) as file:
        assert file.format in {"JPEG", "WEBP", "BMP"} and file.format[:2] in path.suffix.upper()[1:]
    np.testing.assert_allclose(read.read(path).pixels, flat.pixels, atol=0.02)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_gray_stays_gray(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gray{suffix}"
    encode.write(picture_of(1), path, overwrite=False)
    with Image.open(path) as file:
        assert file.mode == "L"
    assert read.read(path).pixels.shape == (5, 7, 1)


def test_one_bit_becomes_gray_black_and_white(tmp_path: Path) -> None:
    pixels = read.read(saved(Image.new("1", (3, 2), 1), tmp_path / "a.png")).pixels
    assert pixels.shape == (2, 3, 1) and (pixels == 1).all()


def test_a_palette_becomes_rgb_and_a_transparent_entry_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    opaque = read.read(saved(image, tmp_path / "a.png"))
    assert eight_bits(opaque).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    clear = read.read(saved(image, tmp_path / "b.gif", transparency=1))
    assert eight_bits(clear).tolist() == [[[255, 0, 0, 255], [0, 0, 255, 0]]]


@pytest.mark.parametrize("mode, colour, channels", [("L", 9, 2), ("RGB", (9, 8, 7), 4)])
def test_a_transparent_colour_of_a_png_becomes_alpha(
    tmp_path: Path, mode: str, colour: Any, channels: int
) -> None:
    path = saved(Image.new(mode, (2, 2), colour), tmp_path / "a.png", transparency=colour)
    pixels = read.read(path).pixels
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
    first = read.read(source)
    np.testing.assert_allclose(first.pixels[..., 0], upright / np.float32(255), atol=0.05)
    encode.write(first, tmp_path / f"b{suffix}", overwrite=False)
    second = read.read(tmp_path / f"b{suffix}")
    np.testing.assert_allclose(second.pixels[..., 0], first.pixels[..., 0], atol=0.05)


def test_an_image_is_read_by_content_whatever_its_name_says(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 6), "teal"), tmp_path / "a.png", format="JPEG")
    assert read.read(path).pixels.shape == (6, 8, 3)


def test_a_phone_photo_with_a_second_image_behind_it_gives_the_photo(tmp_path: Path) -> None:
    photo, gain_map = Image.new("RGB", (16, 8), "teal"), Image.new("RGB", (4, 2))
    path = saved(photo, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[gain_map])
    assert read.read(path).pixels.shape == (8, 16, 3)


def test_an_image_of_one_pixel_is_read_and_written(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (1, 1)), tmp_path / "a.png")
    encode.write(read.read(path), tmp_path / "b.png", overwrite=False)
    assert read.read(tmp_path / "b.png").pixels.shape == (1, 1, 3)


def test_an_image_without_exif_gets_none(tmp_path: Path) -> None:
    assert read.read(saved(Image.new("RGB", (3, 2)), tmp_path / "a.tif")).exif is None


def test_damaged_exif_does_not_keep_an_image_from_being_read(tmp_path: Path) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\x09\0" + b"\xff" * 40
    path = saved(Image.new("RGB", (3, 2)), tmp_path / "a.jpg", exif=broken)
    assert read.read(path).pixels.shape == (2, 3, 3)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageUnreadableError, match="empty"):
        read.read(tmp_path / "a.png")


def test_a_text_file_named_png_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("Dear diary")
    with pytest.raises(ImageUnreadableError, match="not an image"):
        read.read(tmp_path / "a.png")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:45])  # decoding would fail: there is only the header
    with pytest.raises(ImageUnreadableError, match="too large: 20x10"):
        read.read(path, max_pixels=199)


@pytest.mark.parametrize("times", [1.5, 3])
def test_pillows_own_limit_does_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float
) -> None:
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(200 / times))
    if times == 1.5:  # where Pillow would warn, our own limit decides
        assert read.read(path).pixels.shape == (10, 20, 3)
    else:
        with pytest.raises(ImageUnreadableError, match="too large"):
            read.read(path, max_pixels=100)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_profile_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UnsupportedImageError, match="CMYK colours without") as caught:
        read.read(saved(Image.new("CMYK", (4, 4)), tmp_path / f"a{suffix}"))
    assert "RGB" in caught.value.hint


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_several_frames_or_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedImageError, match="2 frames") as caught:
        read.read(path)
    assert "--first-frame" in caught.value.hint
    first = read.read(path, first_frame=True)
    np.testing.assert_allclose(first.pixels[0, 0], (1, 0, 0), atol=0.02)


@pytest.mark.parametrize("start, kind", [
    (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"8BPS\0\1", "Photoshop"), (b"%PDF-1.7", "PDF"),
])  # fmt: skip
def test_an_image_of_another_format_is_named_and_refused(
    tmp_path: Path, start: bytes, kind: str
) -> None:
    (tmp_path / "a.png").write_bytes(start + bytes(100))
    with pytest.raises(UnsupportedImageError, match=kind) as caught:
        read.read(tmp_path / "a.png")
    assert "PNG" in caught.value.hint


def test_a_raw_file_is_refused_though_its_preview_is_a_tiff(tmp_path: Path) -> None:
    preview = saved(Image.new("RGB", (4, 4)), tmp_path / "a.NEF", format="TIFF")
    (tmp_path / "b.cr3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(100))
    for path in (preview, tmp_path / "b.cr3"):
        with pytest.raises(UnsupportedImageError, match="raw") as caught:
            read.read(path)
        assert "Develop" in caught.value.hint


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp"])
def test_more_pixels_than_pillow_takes_are_read_if_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = saved(Image.effect_noise((70, 90), 90).convert("RGB"), tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70 * 90 // 3)
    monkeypatch.setattr(opening, "MAX_PIXELS", 70 * 90 // 3)
    with pytest.raises(ImageUnreadableError, match="too large"):
        read.read(path, max_pixels=70 * 90 // 3)
    assert read.read(path, max_pixels=70 * 90).pixels.shape == (90, 70, 3)
    assert Image.MAX_IMAGE_PIXELS == 70 * 90 // 3


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_the_colours_in_8_bits_are_those_of_the_image(tmp_path: Path, mode: str) -> None:
    path = saved(Image.effect_noise((7, 5), 90).convert("RGBA").convert(mode), tmp_path / "a.png")
    found, whole = read.read_rgb8(path), eight_bits(read.read(path))
    assert found.shape == (5, 7, 3) and found.dtype == np.uint8 and found.flags.writeable
    colours = whole[..., :1] if whole.shape[2] < 3 else whole[..., :3]
    np.testing.assert_array_equal(found, np.broadcast_to(colours, (5, 7, 3)))


def test_the_colours_in_8_bits_are_upright_and_rounded(tmp_path: Path) -> None:
    deep = Picture(np.linspace(0, 1, 15, dtype=np.float32).reshape(5, 3, 1), depth=16)
    encode.write(deep, tmp_path / "a.png", overwrite=False)
    assert read.read_rgb8(tmp_path / "a.png")[..., 0].ravel()[[1, 7, 14]].tolist() == [18, 128, 255]
    turned = saved(Image.new("RGB", (9, 4)), tmp_path / "b.jpg", exif=exif_with(Orientation=6))
    assert read.read_rgb8(turned).shape == (9, 4, 3)
    header = opening.read_header(turned)
    assert (header.height, header.width) == (9, 4)


def test_an_orientation_in_xmp_alone_is_passed_over_as_viewers_do(tmp_path: Path) -> None:
    packet = b'<rdf:Description tiff:Orientation="6"/>'
    path = saved(Image.new("RGB", (16, 12)), tmp_path / "a.jpg", xmp=packet)
    assert read.read(path).pixels.shape == (12, 16, 3)
    both = saved(
        Image.new("RGB", (16, 12)), tmp_path / "b.jpg", xmp=packet, exif=exif_with(Orientation=8)
    )
    assert read.read(both).pixels.shape == (16, 12, 3)


def test_a_rare_kind_of_bmp_is_not_called_damaged(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (4, 4)), tmp_path / "a.bmp")
    content = bytearray(path.read_bytes())
    content[30] = 99  # its compression
    path.write_bytes(content)
    with pytest.raises(UnsupportedImageError, match="of a kind that is not handled") as caught:
        read.read(path)
    assert "download" not in caught.value.hint


def test_an_avif_of_levels_in_a_rare_order_is_not_called_damaged(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (16, 16)), tmp_path / "a.avif")
    content = path.read_bytes()
    matrix = content.index(b"nclx") + 8
    path.write_bytes(content[:matrix] + b"\0\x0e" + content[matrix + 2 :])  # ICtCp
    with pytest.raises(UnsupportedImageError, match="of a kind that is not handled") as caught:
        read.read(path)
    assert "download" not in caught.value.hint


@pytest.mark.parametrize("words", [
    "Failed to decode frame 0: Not implemented", "Unsupported feature: Unsupported color model",
    "tiff2vips: ZSTD compression support is not configured", "decoder webp not available",
])  # fmt: skip
def test_a_decoder_that_says_it_is_to_blame_is_believed(words: str) -> None:
    error = refusals.undecoded("a.avif", OSError(words), "AVIF")
    assert isinstance(error, UnsupportedImageError)
    assert words in str(error) and "download" not in error.hint


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.webp", "a.avif"])
def test_what_lies_behind_an_image_costs_no_time(tmp_path: Path, name: str) -> None:
    path = saved(Image.new("RGB", (8, 8)), tmp_path / name)
    with path.open("r+b") as file:
        file.truncate(20 << 30)  # sparse
    started = time.monotonic()
    if name in ("a.webp", "a.avif"):  # whose decoders would read all of it
        with pytest.raises(ImageUnreadableError, match="20480 MB, of at most 1024"):
            read.read(path)
    else:
        assert read.read(path).pixels.shape == (8, 8, 3)
    assert time.monotonic() - started < 5
