"""Depths, formats and options: what goes in comes out as deep, in the format that was asked for."""

from __future__ import annotations

import importlib.util
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image, ImageCms

from resshift_cli.errors import (
    ImageUnreadableError,
    OutputError,
    ResShiftError,
    UnsupportedImageError,
    UsageError,
)
from resshift_cli.imaging import encode, read, targets
from resshift_cli.imaging.formats import FORMATS, SaveOptions
from resshift_cli.imaging.icc import SRGB_CURVE
from resshift_cli.imaging.picture import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def levels(channels: int, bits: int = 16, height: int = 37, width: int = 53) -> NDArray[Any]:
    rng = np.random.default_rng(channels)
    kind = np.uint16 if bits == 16 else np.uint8
    return rng.integers(0, 2**bits, (height, width, channels), dtype=kind)


def picture(samples: NDArray[Any], **kept: Any) -> Picture:
    top = np.iinfo(samples.dtype).max
    return Picture(
        (samples / np.float64(top)).astype(np.float32), depth=8 * samples.itemsize, **kept
    )


def samples_of(image: Picture) -> NDArray[Any]:
    return np.rint(image.pixels * (2**image.depth - 1)).astype(np.uint16)


def vips_tiff(samples: NDArray[Any], path: Path, **options: Any) -> Path:
    kind = "rgb16" if samples.shape[2] > 2 else "grey16"
    if samples.dtype == np.float32:
        kind = "scrgb" if samples.shape[2] > 2 else "b-w"
    pyvips.Image.new_from_array(samples, interpretation=kind).tiffsave(str(path), **options)
    return path


def png_of_16_bits(samples: NDArray[Any], path: Path, transparent: bytes | None = None) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    body = chunk(b"IHDR", header)
    if transparent is not None:
        body += chunk(b"tRNS", transparent)
    body += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# Depth


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [None, 0, 9])
def test_what_is_written_is_read_again_bit_for_bit(
    tmp_path: Path, channels: int, suffix: str, bits: int, compression: int | None
) -> None:
    given = levels(channels, bits)
    options = SaveOptions(compression=compression)
    encode.write(picture(given), tmp_path / f"a{suffix}", overwrite=False, options=options)
    again = read.read(tmp_path / f"a{suffix}")
    assert again.depth == bits
    np.testing.assert_array_equal(samples_of(again), given)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_foreign_png_of_16_bits_is_read_and_libvips_reads_ours(
    tmp_path: Path, channels: int
) -> None:
    given = levels(channels)
    found = read.read(png_of_16_bits(given, tmp_path / "a.png"))
    np.testing.assert_array_equal(samples_of(found), given)
    for name in ("b.png", "b.tif"):
        encode.write(found, tmp_path / name, overwrite=False)
        other = pyvips.Image.new_from_file(str(tmp_path / name), fail_on="warning").numpy()
        np.testing.assert_array_equal(other.reshape(given.shape), given)


@pytest.mark.parametrize("layout", [
    {}, {"tile": True, "tile_width": 16, "tile_height": 32}, {"bigtiff": True},
    {"compression": "lzw"}, {"compression": "deflate", "predictor": "horizontal"},
    {"tile": True, "bigtiff": True, "compression": "lzw"},
])  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_foreign_tiff_of_16_bits_is_read_in_any_layout(
    tmp_path: Path, channels: int, layout: dict[str, Any]
) -> None:
    given = levels(channels)
    path = vips_tiff(given, tmp_path / "a.tif", **layout)
    np.testing.assert_array_equal(samples_of(read.read(path)), given)


@pytest.mark.parametrize("layout", [{"tile": True}, {"bigtiff": True}, {"compression": "lzw"}])
def test_a_foreign_tiff_of_8_bits_is_read_in_any_layout(
    tmp_path: Path, layout: dict[str, Any]
) -> None:
    given = levels(3, 8)
    pyvips.Image.new_from_array(given, interpretation="srgb").tiffsave(
        str(tmp_path / "a.tif"), **layout
    )
    found = read.read(tmp_path / "a.tif")
    assert found.depth == 8
    np.testing.assert_array_equal(samples_of(found), given)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_packed_or_not_a_foreign_tiff_gives_the_same_pixels(
    tmp_path: Path, mode: str, compression: str | None
) -> None:
    image = Image.fromarray(levels(4, 8)).convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    wanted = image.convert({"1": "L", "P": "RGB"}.get(mode, mode))
    pixels = np.asarray(wanted).reshape(37, 53, -1)
    found = read.read(tmp_path / "a.tif")
    assert found.depth == 8
    np.testing.assert_array_equal(samples_of(found), pixels)


def test_a_fax_page_is_black_on_white(tmp_path: Path) -> None:
    page = Image.new("1", (40, 30), 1)
    page.paste(0, (5, 5, 20, 20))
    page.save(tmp_path / "a.tif", compression="group4")
    pixels = read.read(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(page, np.float32))


def test_a_gradient_of_16_bits_keeps_its_levels(tmp_path: Path) -> None:
    ramp = np.linspace(0.2, 0.3, 4000, dtype=np.float32).reshape(40, 100, 1).repeat(3, axis=2)
    for name in ("a.png", "a.tif"):
        encode.write(Picture(ramp, depth=16), tmp_path / name, overwrite=False)
        assert len(np.unique(read.read(tmp_path / name).pixels)) > 3900


def test_the_depth_can_be_chosen(tmp_path: Path) -> None:
    for depth, given in ((8, levels(3, 16)), (16, levels(3, 8))):
        path = tmp_path / f"{depth}.png"
        encode.write(picture(given), path, overwrite=False, options=SaveOptions(depth=depth))
        assert read.read(path).depth == depth


def test_a_format_of_8_bits_takes_16_unless_16_were_asked_for(tmp_path: Path) -> None:
    deep = picture(levels(3))
    encode.write(deep, tmp_path / "a.jpg", overwrite=False)
    assert read.read(tmp_path / "a.jpg").depth == 8
    with pytest.raises(UsageError, match="8 bits") as caught:
        encode.check_encodable(deep, Path("a.jpg"), options=SaveOptions(depth=16))
    assert "--depth" in caught.value.hint


def test_floats_from_0_to_1_are_read_and_become_16_bits(tmp_path: Path) -> None:
    given = np.random.default_rng(0).random((9, 8, 3), np.float32)
    found = read.read(vips_tiff(given, tmp_path / "a.tif"))
    assert found.depth == 16
    np.testing.assert_array_equal(found.pixels, SRGB_CURVE.of_light(given))  # linear light


@pytest.mark.parametrize("value", [-1.0, 255.0, float("nan"), float("inf")])
def test_floats_beyond_0_to_1_are_refused_not_clipped(tmp_path: Path, value: float) -> None:
    given = np.full((4, 4, 3), value, np.float32)
    with pytest.raises(UnsupportedImageError, match="values from") as caught:
        read.read(vips_tiff(given, tmp_path / "a.tif"))
    assert "0 to 1" in caught.value.hint


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.int16, np.float64])
def test_other_samples_are_refused(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "a.tif"
    pyvips.Image.new_from_array(np.zeros((4, 4, 1), dtype)).tiffsave(str(path))
    with pytest.raises(UnsupportedImageError, match="(16|32|64) bits per channel") as caught:
        read.read(path)
    assert "8 or 16" in caught.value.hint


def test_deep_cmyk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    deep = pyvips.Image.new_from_array(levels(4), interpretation="cmyk")
    deep.tiffsave(str(path))
    with pytest.raises(UnsupportedImageError, match="other colours"):
        read.read(path)


def test_a_transparent_colour_of_a_deep_png_becomes_alpha(tmp_path: Path) -> None:
    given = np.array([[[1000], [2000]]], np.uint16)
    found = read.read(png_of_16_bits(given, tmp_path / "a.png", transparent=b"\x03\xe8"))
    assert samples_of(found).tolist() == [[[1000, 0], [2000, 65535]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_orientation_is_applied_to_deep_images_too(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    lying = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9999
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
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = picture(lying[..., None], exif=exif.tobytes(), dpi=(300, 150))
    encode.write(turned, tmp_path / f"a{suffix}", overwrite=False)
    found = read.read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(samples_of(found)[..., 0], upright)
    assert found.dpi == pytest.approx((300, 150) if orientation < 5 else (150, 300), abs=0.1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("compression", [0, 6])
def test_a_truncated_deep_file_is_refused(
    tmp_path: Path, suffix: str, share: float, compression: int
) -> None:
    path = tmp_path / f"a{suffix}"
    options = SaveOptions(compression=compression)
    encode.write(picture(levels(3)), path, overwrite=False, options=options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageUnreadableError):
        read.read(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_files_with_flipped_bytes_are_read_or_refused_and_nothing_else(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    options = SaveOptions(compression=6)
    encode.write(picture(levels(3, height=9, width=9)), path, overwrite=False, options=options)
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read.read(path)
        except ResShiftError as error:
            assert error.hint
    assert capfd.readouterr() == ("", "")


def test_a_deep_file_too_large_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        encode.write(picture(levels(3)), tmp_path / name, overwrite=False)
        with pytest.raises(ImageUnreadableError, match="too large: 53x37"):
            read.read(tmp_path / name, max_pixels=53 * 37 - 1)


def test_deep_pages_are_refused_unless_the_first_will_do(tmp_path: Path) -> None:
    pages = levels(1, height=20, width=10)
    image = pyvips.Image.new_from_array(pages, interpretation="grey16").copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", 10)
    image.tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(UnsupportedImageError, match="several pages"):
        read.read(tmp_path / "a.tif")
    first = read.read(tmp_path / "a.tif", first_frame=True)
    np.testing.assert_array_equal(samples_of(first), pages[:10])


# Formats


@pytest.mark.parametrize("suffix", [s for s in FORMATS if not FORMATS[s].extra])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_format_holds_what_the_table_says(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = np.full((24, 32, channels), 0.5, np.float32)
    if channels in (2, 4):
        pixels[..., -1] = np.arange(32)[None] >= 16
    path = tmp_path / f"a{suffix}"
    if channels in (2, 4) and not FORMATS[suffix].alpha:
        with pytest.raises(OutputError, match="transparency"):
            encode.write(Picture(pixels), path, overwrite=False)
        return
    encode.write(Picture(pixels), path, overwrite=False)
    found = read.read(path).pixels
    if not FORMATS[suffix].gray or (suffix in (".gif", ".tga") and channels == 2):
        pixels = pixels[..., [0] * 3 if channels < 3 else [0, 1, 2]]
    assert found.shape[:2] == pixels.shape[:2]
    seen = found[:, 20:, : 1 if found.shape[2] < 3 else 3]
    np.testing.assert_allclose(seen, 0.5, atol=0.03)
    if channels in (2, 4):
        np.testing.assert_allclose(found[:, [2, 30], -1].mean(axis=0), [0, 1], atol=0.03)


@pytest.mark.parametrize("suffix", [".heic", ".heif", ".jxl"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_extras_read_and_write(tmp_path: Path, suffix: str, channels: int) -> None:
    package = {"heic": "pillow_heif", "jxl": "pillow_jxl"}[FORMATS[suffix].extra or ""]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    pixels = np.full((64, 64, channels), 0.5, np.float32)
    icc = SRGB if FORMATS[suffix].profile else None
    encode.write(Picture(pixels, icc=icc), tmp_path / f"a{suffix}", overwrite=False)
    found = read.read(tmp_path / f"a{suffix}")
    assert icc is None or found.icc == icc
    assert found.pixels.shape[:2] == (64, 64)
    np.testing.assert_allclose(found.pixels, 0.5, atol=0.03)


@pytest.mark.parametrize("start, suffix, extra", [
    (b"\0\0\0\x18ftypheic", ".heic", "heic"), (b"\xff\x0a", ".jxl", "jxl"),
])  # fmt: skip
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, suffix: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, {"heic": "pillow_heif", "jxl": "pillow_jxl"}[extra], None)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(start + bytes(100))
    with pytest.raises(UnsupportedImageError, match="not installed") as reading:
        read.read(path)
    with pytest.raises(OutputError, match="not installed") as writing:
        targets.check_writable(tmp_path / f"b{suffix}", overwrite=False)
    for caught in (reading, writing):
        assert f"pip install 'resshift[{extra}]'" in caught.value.hint


def test_cmyk_becomes_srgb_by_its_profile(tmp_path: Path) -> None:
    # A matrix profile can't be CMYK's; the default one of Ghostscript is not everywhere.
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    path = tmp_path / "a.tif"
    profile = pyvips.Image.black(1, 1).copy(interpretation="srgb")
    profile = profile.icc_export(output_profile="cmyk", depth=8).get("icc-profile-data")
    image.save(path, icc_profile=profile)
    found = read.read(path)
    assert found.icc is not None and found.icc[16:20] == b"RGB "
    red, green, blue = found.pixels[0, 0]
    assert red > 0.7 and green < 0.35 and blue < 0.35


def test_cmyk_with_a_profile_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (4, 4)).save(path, icc_profile=b"no profile" * 20)
    with pytest.raises(UnsupportedImageError, match="can't be used"):
        read.read(path)


# Options


def test_quality_and_compression_change_the_size(tmp_path: Path) -> None:
    smooth = picture((np.mgrid[:64, :64].sum(0)[..., None] * 300).astype(np.uint16))
    noisy = picture(levels(3, 8, 64, 64))

    def size(image: Picture, suffix: str, **options: Any) -> int:
        path = tmp_path / f"a{suffix}"
        encode.write(image, path, overwrite=True, options=SaveOptions(**options))
        return path.stat().st_size

    for suffix in (".jpg", ".webp", ".avif"):
        assert size(noisy, suffix, quality=20) < size(noisy, suffix)
    for suffix in (".png", ".tif"):
        for depth in (8, 16):
            packed = size(smooth, suffix, compression=9, depth=depth)
            assert packed < size(smooth, suffix, compression=0, depth=depth) / 4


def test_webp_without_loss_is_bit_for_bit(tmp_path: Path) -> None:
    given = levels(4, 8)
    options = SaveOptions(lossless=True)
    encode.write(picture(given), tmp_path / "a.webp", overwrite=False, options=options)
    np.testing.assert_array_equal(samples_of(read.read(tmp_path / "a.webp")), given)


@pytest.mark.parametrize("suffix", [".jpg", ".avif", ".gif"])
def test_lossless_is_refused_where_there_is_loss(suffix: str) -> None:
    with pytest.raises(UsageError, match="without loss") as caught:
        encode.check_encodable(
            picture(levels(3, 8)), Path(f"a{suffix}"), options=SaveOptions(lossless=True)
        )
    assert "--lossless" in caught.value.hint


def test_a_format_names_the_outputs_and_decides_over_the_extension(tmp_path: Path) -> None:
    options = SaveOptions(format="webp")
    planned = targets.plan_outputs([Path("a.jpg"), Path("b.gif")], mark="_x4", options=options)
    assert planned == [Path("a_x4.webp"), Path("b_x4.webp")]
    encode.write(picture(levels(3, 8)), tmp_path / "c.dat", overwrite=False, options=options)
    with Image.open(tmp_path / "c.dat") as file:
        assert file.format == "WEBP"


@pytest.mark.parametrize("options, message, hint", [
    ({"format": "pgn"}, "pgn", "png?"), ({"format": "docx"}, "docx", "png, jpg"),
    ({"quality": 0}, "--quality 0", "1 to 100"), ({"quality": 101}, "--quality", "1 to 100"),
    ({"compression": 10}, "--compression", "0 to 9"), ({"depth": 12}, "--depth 12", "8 or 16"),
])  # fmt: skip
def test_an_option_outside_its_range_is_refused(
    options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        SaveOptions(**options)
    assert hint in caught.value.hint


def test_an_unknown_extension_is_named_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"extension \.xyz") as caught:
        targets.check_writable(tmp_path / "a.xyz", overwrite=False)
    assert all(suffix in caught.value.hint for suffix in FORMATS)
