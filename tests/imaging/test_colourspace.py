"""Colours that a file describes without a profile, or with a wide one, look the same afterwards."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import SRGB
from PIL import Image, ImageCms

from resshift_cli.errors import OutputError, UnsupportedImageError
from resshift_cli.imaging import animation, encode, icc, read, rows
from resshift_cli.imaging.decode import from_pil
from resshift_cli.imaging.formats import load_extra
from resshift_cli.imaging.opening import opened
from resshift_cli.imaging.picture import Picture
from resshift_cli.imaging.streaming import chunk

P3 = icc.make(
    "P3", icc.Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329)), icc.SRGB_CURVE
)
COLOURS = np.array([[[255, 0, 0], [0, 200, 90], [40, 80, 160], [128, 128, 128]]], np.uint8)


def photo(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(COLOURS.repeat(4, 0).repeat(4, 1)).convert(mode)


def png(*chunks: tuple[bytes, bytes], mode: str = "RGB", **options: Any) -> bytes:
    """With chunks before the pixels."""
    buffer = io.BytesIO()
    photo(mode).save(buffer, "PNG", **options)
    content = buffer.getvalue()
    return content[:33] + b"".join(chunk(*one) for one in chunks) + content[33:]


def heif(kind: str, primaries: int, transfer: int) -> bytes:
    """An AVIF or HEIC with these code points."""
    if kind == "HEIF" and not load_extra("heic"):
        pytest.skip("needs pillow-heif")
    buffer = io.BytesIO()
    photo().save(buffer, kind, quality=95)
    content = buffer.getvalue()
    place = content.index(b"nclx") + 4
    return content[:place] + struct.pack(">HH", primaries, transfer) + content[place + 4 :]


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chromaticities(*points: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(point * 100_000) for point in points))


P3_POINTS = chromaticities(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
CICP_P3 = (b"cICP", bytes((12, 13, 0, 1)))


def shown(picture: Picture) -> np.ndarray[Any, Any]:
    """Levels of sRGB, as somebody sees them whose viewer heeds the profile."""
    image = encode.to_pil(picture)
    given = picture.icc or SRGB
    target = ImageCms.createProfile("sRGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(given))
    seen = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    return np.asarray(seen, int)[2, 2::4]


def found(path: Path, content: bytes) -> Picture:
    path.write_bytes(content)
    return read.read(path)


def of_p3(levels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Display P3 in sRGB, by the matrix that CSS gives."""
    matrix = [[1.2249, -0.2247, 0], [-0.042, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
    v = levels / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ np.transpose(matrix)
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name, content", [
    ("a.png", lambda: png(CICP_P3)),
    ("a.png", lambda: png(CICP_P3, icc_profile=SRGB)),
    ("a.png", lambda: png((b"cICP", bytes((1, 13, 1, 1))), icc_profile=P3)),
    ("a.png", lambda: png(P3_POINTS)),
    ("a.png", lambda: png(gamma(0.7), icc_profile=P3)),
    ("a.avif", lambda: heif("AVIF", 12, 13)),
    ("a.heic", lambda: heif("HEIF", 12, 13)),
])  # fmt: skip
def test_display_p3_is_kept_however_it_is_told(
    tmp_path: Path, name: str, content: Callable[[], bytes]
) -> None:
    picture = found(tmp_path / name, content())
    atol = 3 if name == "a.png" else 9
    np.testing.assert_allclose(shown(picture), of_p3(COLOURS[0]), atol=atol)
    for target in ("b.png", "b.jpg", "b.webp", "b.avif", "b.tif"):
        encode.write(picture, tmp_path / target, overwrite=False)
        assert read.read(tmp_path / target).icc == picture.icc


@pytest.mark.parametrize("value, seen", [(1.0, 188), (0.5556, 148), (0.3, 89)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_gamma_of_a_png_is_kept(tmp_path: Path, value: float, seen: int, mode: str) -> None:
    picture = found(tmp_path / "a.png", png(gamma(value), mode=mode))
    np.testing.assert_allclose(shown(picture)[3], seen, atol=2)
    encode.write(picture, tmp_path / "b.png", overwrite=False)
    np.testing.assert_allclose(shown(read.read(tmp_path / "b.png"))[3], seen, atol=2)


@pytest.mark.parametrize("chunks", [
    [],
    [gamma(0.45455)],
    [gamma(0.45455), chromaticities(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)],
    [gamma(1.0), (b"sRGB", b"\0")],
    [(b"cICP", bytes((1, 13, 0, 1))), gamma(1.0)],
    [gamma(0.0)],
    [gamma(0.45455), chromaticities(0.3127, 0.329, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)],
    [chromaticities(0, 0, 0, 0, 0, 0, 0, 0)],
])  # fmt: skip
def test_what_is_srgb_or_nonsense_gets_no_profile(tmp_path: Path, chunks: Any) -> None:
    assert found(tmp_path / "a.png", png(*chunks)).icc is None


@pytest.mark.parametrize("transfer, word", [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("name", ["a.png", "a.avif", "a.heic"])
def test_hdr_is_refused_by_its_name(tmp_path: Path, name: str, transfer: int, word: str) -> None:
    kind = {"a.avif": "AVIF", "a.heic": "HEIF"}.get(name)
    hdr = heif(kind, 9, transfer) if kind else png((b"cICP", bytes((9, transfer, 0, 1))))
    with pytest.raises(UnsupportedImageError, match=f"HDR image \\({word}\\)") as caught:
        found(tmp_path / name, hdr)
    assert "SDR" in caught.value.hint


@pytest.mark.parametrize("points", [(12, 17, 0, 1), (10, 13, 0, 1), (1, 13, 0, 0)])
def test_rare_colours_are_refused(tmp_path: Path, points: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedImageError):
        found(tmp_path / "a.png", png((b"cICP", bytes(points))))


def test_the_frames_of_an_animation_have_the_colours_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(CICP_P3, save_all=True, append_images=[photo().rotate(90)]))
    with opened(path) as file:
        moving = animation.probe(file)
        assert moving is not None
        frames = list(animation.read(moving))
    assert len(frames) == 2
    assert all(frame.icc == read.read(path, first_frame=True).icc for frame in frames)


def test_a_large_png_has_the_colours_of_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = found(tmp_path / "a.png", png(CICP_P3))
    monkeypatch.setattr(rows, "LARGE", 10)
    with opened(tmp_path / "a.png") as file:
        large, bands = read.load(file)
    assert isinstance(bands, rows.InFile)
    assert large.icc == small.icc is not None


def test_a_pillow_image_has_the_colours_that_its_file_told(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(png(gamma(1.0)))) as image:
        np.testing.assert_allclose(shown(from_pil(image))[3], 188, atol=2)


def bmp(kind: bytes, profile: bytes = b"", gamma: float = 1.0) -> bytes:
    """A BMP with a header of the fifth version."""
    pixels = photo().transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGR")
    head = struct.pack("<IiiHHIIiiII", 124, 16, 4, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    head += bytes(16) + kind
    red, green, blue = ((0.515, 0.241, -0.001), (0.292, 0.692, 0.042), (0.157, 0.067, 0.784))
    head += struct.pack("<9i", *(round(v * (1 << 30)) for v in (*red, *green, *blue)))
    head += struct.pack("<3I", *[round(gamma * 65536)] * 3)
    head += struct.pack("<4I", 4, 124 + len(pixels), len(profile), 0)
    whole = 14 + len(head) + len(pixels) + len(profile)
    return struct.pack("<2sIII", b"BM", whole, 0, 14 + len(head)) + head + pixels + profile


def test_the_colours_of_a_bmp_are_kept(tmp_path: Path) -> None:
    assert found(tmp_path / "a.bmp", bmp(b"BGRs")).icc is None
    assert found(tmp_path / "a.bmp", bmp(b"DEBM", P3)).icc == P3
    linear = found(tmp_path / "a.bmp", bmp(bytes(4)))
    np.testing.assert_allclose(shown(linear)[3], 188, atol=3)


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.jxl"])
def test_a_format_without_profiles_takes_srgb_and_nothing_else(tmp_path: Path, name: str) -> None:
    if name == "a.jxl" and not load_extra("jxl"):
        pytest.skip("needs pillow-jxl-plugin")
    pixels = np.full((4, 4, 3), 0.5, np.float32)
    encode.write(Picture(pixels, icc=SRGB), tmp_path / name, overwrite=False)
    with pytest.raises(OutputError, match="colour profile"):
        encode.write(Picture(pixels, icc=P3), tmp_path / name, overwrite=True)


def test_srgb_is_known_in_whatever_words() -> None:
    own = icc.make("mine", icc.SRGB_PRIMARIES, icc.SRGB_CURVE)
    gray = icc.make("mine", icc.SRGB_PRIMARIES, icc.SRGB_CURVE, gray=True)
    assert icc.is_srgb(own) and icc.is_srgb(SRGB) and icc.is_srgb(gray)
    assert not icc.is_srgb(P3) and not icc.is_srgb(b"no profile")


def test_floats_without_a_profile_are_light(tmp_path: Path) -> None:
    import pyvips  # type: ignore[import-untyped]

    path, light = tmp_path / "a.tif", np.full((4, 4, 4), 0.2159, np.float32)
    pyvips.Image.new_from_array(light, interpretation="rgb").write_to_file(str(path))
    picture = read.read(path)
    np.testing.assert_allclose(picture.pixels[0, 0], [0.502, 0.502, 0.502, 0.2159], atol=1e-3)
    assert "linear light" in picture.warnings[0]
    image = pyvips.Image.new_from_file(str(path)).copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", P3)
    image.write_to_file(str(tmp_path / "b.tif"))
    kept = read.read(tmp_path / "b.tif")
    np.testing.assert_allclose(kept.pixels, light)
    assert kept.icc == P3 and kept.warnings == ()
