"""What a file says about its image stays with it: profile, EXIF, XMP, IPTC, text."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo

from resshift_cli.errors import OutputError
from resshift_cli.imaging import encode, metadata, read, xmp
from resshift_cli.imaging.formats import FORMATS, SaveOptions
from resshift_cli.imaging.picture import Picture

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description rdf:about="" tiff:Orientation="6" exif:PixelXDimension="8" '
    b'dc:t="Caf\xc3\xa9"><tiff:ImageWidth>8</tiff:ImageWidth></rdf:Description></rdf:RDF>'
    b"</x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\x00\x05title\x1c\x02\x19\x00\x03key"
CARRIES_ICC = [s for s in FORMATS if FORMATS[s].profile and not FORMATS[s].extra]


def matrix_profile(primaries: list[tuple[float, float, float]], gamma: float) -> bytes:
    """An ICC profile of version 2 from D50 primaries, as Adobe RGB (1998) has one."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(n * 65536) for n in numbers))

    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Test\0" + bytes(12 + 67)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0free\0", b"wtpt": _xyz(fixed(0.9642, 1, 0.8249))}
    for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags[letter + b"XYZ"], tags[letter + b"TRC"] = _xyz(fixed(*primary)), curve
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x02100000, b"mntr",
                       b"RGB ", b"XYZ ")  # fmt: skip
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(numbers: bytes) -> bytes:
    return b"XYZ \0\0\0\0" + numbers


ADOBE_RGB = matrix_profile(
    [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)],
    563 / 256,
)
DISPLAY_P3 = matrix_profile(
    [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)], 2.2
)


def picture(size: int = 8, **kept: Any) -> Picture:
    return Picture(np.full((size, size, 3), (0.2, 0.9, 0.3), np.float32), **kept)


def in_srgb(path: Path) -> tuple[int, ...]:
    """What a viewer that minds profiles shows, at the image's middle."""
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        shown = ImageCms.profileToProfile(
            image.convert("RGB"), profile, ImageCms.createProfile("sRGB")
        )
    assert shown is not None
    pixel = shown.getpixel((shown.width // 2, shown.height // 2))
    assert isinstance(pixel, tuple)
    return tuple(int(level) for level in pixel)


@pytest.mark.parametrize("profile", [ADOBE_RGB, DISPLAY_P3], ids=["Adobe RGB", "Display P3"])
@pytest.mark.parametrize("suffix", CARRIES_ICC)
@pytest.mark.parametrize("source", ["a.jpg", "a.png"])
def test_wide_gamut_colours_do_not_shift(
    tmp_path: Path, profile: bytes, suffix: str, source: str
) -> None:
    Image.new("RGB", (32, 32), (90, 190, 100)).save(tmp_path / source, icc_profile=profile)
    found = read.read(tmp_path / source)
    encode.write(found, tmp_path / f"b{suffix}", overwrite=False)
    assert read.read(tmp_path / f"b{suffix}").icc == profile
    before, after = in_srgb(tmp_path / source), in_srgb(tmp_path / f"b{suffix}")
    assert before != (90, 190, 100)  # the profile does matter
    np.testing.assert_allclose(before, after, atol=6)


def test_deep_files_carry_the_profile_too(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        encode.write(picture(icc=ADOBE_RGB, depth=16), tmp_path / name, overwrite=False)
        found = read.read(tmp_path / name)
        assert (found.icc, found.depth) == (ADOBE_RGB, 16)


# XMP


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", [s for s in CARRIES_ICC if s not in (".gif", ".bmp")])
def test_xmp_is_kept_and_tells_the_truth(tmp_path: Path, suffix: str, depth: int) -> None:
    path = tmp_path / f"a{suffix}"
    encode.write(picture(xmp=XMP, depth=depth), path, overwrite=False)
    found = read.read(path).xmp
    assert found is not None and found.rstrip(b"\0") == XMP.replace(b'tion="6"', b'tion="1"')
    large = xmp.of_size(XMP, (32, 40))
    assert b'exif:PixelXDimension="40"' in large and b"<tiff:ImageWidth>40</" in large


def test_an_orientation_that_only_xmp_tells_of_is_passed_over_as_viewers_do(tmp_path: Path) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / "a.jpg", xmp=XMP)
    found = read.read(tmp_path / "a.jpg")
    assert found.pixels.shape == (8, 16, 3)
    encode.write(found, tmp_path / "b.jpg", overwrite=False)
    again = read.read(tmp_path / "b.jpg")
    assert again.pixels.shape == (8, 16, 3) and b'Orientation="1"' in (again.xmp or b"")


# IPTC


@pytest.mark.parametrize("source", [".jpg", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_iptc_goes_from_jpeg_and_tiff_to_jpeg_and_tiff(
    tmp_path: Path, source: str, suffix: str, depth: int
) -> None:
    encode.write(picture(iptc=IPTC, depth=depth), tmp_path / f"a{source}", overwrite=False)
    found = read.read(tmp_path / f"a{source}")
    encode.write(found, tmp_path / f"b{suffix}", overwrite=False)
    assert read.read(tmp_path / f"b{suffix}").iptc == IPTC
    if depth == 8:
        with Image.open(tmp_path / f"b{suffix}") as file:
            records = IptcImagePlugin.getiptcinfo(file)
        assert records == {(2, 5): b"title", (2, 25): b"key"}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 4, 7], ids=["BYTE", "LONG", "UNDEFINED"])
def test_iptc_of_any_type_is_kept_whole(tmp_path: Path, order: str, kind: int) -> None:
    records = IPTC * 3 + b"\0" * (-len(IPTC * 3) % 4)  # Photoshop fills up its last number
    pixels = bytes(8 * 8 * 3)
    start = 8 + len(pixels)
    numbers = {256: 8, 257: 8, 258: 8, 262: 2, 273: 8, 277: 3, 278: 8, 279: len(pixels)}
    directory = struct.pack(f"{order}H", len(numbers) + 1)
    for tag, value in numbers.items():
        directory += struct.pack(f"{order}HHLL", tag, 4, 1, value)
    behind = start + len(directory) + 12 + 4
    count = len(records) // (4 if kind == 4 else 1)
    directory += struct.pack(f"{order}HHLL", 33723, kind, count, behind) + bytes(4)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    (tmp_path / "a.tif").write_bytes(head + pixels + directory + records)
    assert read.read(tmp_path / "a.tif").iptc == records
    with Image.open(tmp_path / "a.tif") as image:  # as CMYK is read
        assert metadata.iptc(image) == records


# Text


@pytest.mark.parametrize("depth", [8, 16])
def test_the_text_of_a_png_is_kept(tmp_path: Path, depth: int) -> None:
    text = {"parameters": "a cat, steps: 20", "Comment": "naïve", "Title": "日本語"}
    encode.write(picture(text=text, depth=depth), tmp_path / "a.png", overwrite=False)
    assert read.read(tmp_path / "a.png").text == text


def test_text_behind_the_pixels_is_kept(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"tEXt", b"Late\0but here", after_idat=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    assert read.read(tmp_path / "a.png").text == {"Late": "but here"}


@pytest.mark.parametrize("source", ["a.jpg", "a.gif"])
@pytest.mark.parametrize("target", ["b.jpg", "b.gif", "b.png"])
def test_a_comment_is_kept(tmp_path: Path, source: str, target: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / source, comment="by hand, é".encode())
    encode.write(read.read(tmp_path / source), tmp_path / target, overwrite=False)
    assert read.read(tmp_path / target).text == {"Comment": "by hand, é"}


# EXIF


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("compression", [0, 6])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_deep_files_carry_exif(tmp_path: Path, suffix: str, compression: int, endian: str) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[ExifTags.Base.Make] = "A maker"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExifImageWidth: 2,
        ExifTags.Base.LensModel: "A lens",
        ExifTags.IFD.Interop: {1: "R98"},
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    given = picture(exif=exif.tobytes(), note="made by a test", depth=16)
    options = SaveOptions(compression=compression)
    encode.write(given, tmp_path / f"a{suffix}", overwrite=False, options=options)
    found = read.read(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found.pixels, given.pixels, atol=1e-5)
    assert found.exif is not None
    again = Image.Exif()
    again.load(found.exif)
    details = again.get_ifd(ExifTags.IFD.Exif)
    assert again[ExifTags.Base.Make] == "A maker"
    assert again[ExifTags.Base.ProcessingSoftware] == "made by a test"
    assert details[ExifTags.Base.LensModel] == "A lens"
    assert details[ExifTags.Base.ExifImageWidth] == 8
    assert again.get_ifd(ExifTags.IFD.Interop)[1] == "R98"
    assert again.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


# Leaving it out


@pytest.mark.parametrize("suffix", CARRIES_ICC)
def test_stripping_leaves_the_profile_and_the_resolution(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A maker"
    full = picture(
        icc=ADOBE_RGB, exif=exif.tobytes(), dpi=(300, 300), xmp=XMP, iptc=IPTC,
        text={"Comment": "private"}, note="private", depth=16,
    )  # fmt: skip
    path = tmp_path / f"a{suffix}"
    encode.write(full, path, overwrite=False, options=SaveOptions(strip_metadata=True))
    found = read.read(path)
    assert found.icc == ADOBE_RGB
    assert (found.exif, found.xmp, found.iptc, dict(found.text)) == (None, None, None, {})
    assert not any(word in path.read_bytes() for word in (b"private", b"A maker", b"title"))
    if suffix not in (".webp", ".avif"):
        assert found.dpi == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("kept", [
    {"xmp": XMP + b" " * 66_000}, {"iptc": IPTC * 6000}, {"text": {"Comment": "x" * 66_000}},
], ids=["xmp", "iptc", "comment"])  # fmt: skip
def test_metadata_too_large_for_a_jpeg_is_refused_before_the_work_or_stripped(
    tmp_path: Path, kept: dict[str, Any]
) -> None:
    with pytest.raises(OutputError, match="can't hold the image's [0-9]+ bytes") as caught:
        encode.check_encodable(picture(**kept), Path("a.jpg"))
    assert "a.png" in caught.value.hint
    options = SaveOptions(strip_metadata=True)
    encode.write(picture(**kept), tmp_path / "a.jpg", overwrite=False, options=options)
