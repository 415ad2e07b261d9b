"""Textures of games: TGA and DDS of all kinds that are in use."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import eight_bits, exif_with, half_floats, levels, picture_of, saved
from PIL import Image

from resshift_cli.errors import (
    ImageUnreadableError,
    OutputError,
    ResShiftError,
    UnsupportedImageError,
)
from resshift_cli.imaging import encode, read
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.opening import read_header
from resshift_cli.imaging.picture import Picture


def tga(body: bytes, kind: int, depth: int, attributes: int, palette: bytes = b"") -> bytes:
    """A TGA of the first version, 2x2 pixels, from the bottom."""
    mapped = (1, 0, len(palette) // 2, 16) if palette else (0, 0, 0, 0)
    return struct.pack("<BBBHHBHHHHBB", 0, mapped[0], kind, *mapped[1:], 0, 0, 2, 2, depth,
                       attributes) + palette + body  # fmt: skip


def dds(image: Image.Image, **changes: bytes) -> bytes:
    """A DDS with other bytes at some places of its header, which are given as `at_84=`."""
    buffer = io.BytesIO()
    image.save(buffer, "DDS")
    content = bytearray(buffer.getvalue())
    for place, data in changes.items():
        at = int(place.removeprefix("at_"))
        content[at : at + len(data)] = data
    return bytes(content)


def dx10(code: int, blocks: bytes) -> bytes:
    """A DDS of 4x4 pixels with the header's second part."""
    second = b"DX10" + bytes(40) + struct.pack("<5I", code, 3, 0, 1, 0)
    return dds(Image.new("RGB", (4, 4)), at_80=struct.pack("<I", 4), at_84=second)[:148] + blocks


def found(path: Path, content: bytes) -> Picture:
    path.write_bytes(content)
    return read.read(path)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", [None, 9])
def test_a_tga_keeps_every_level_packed_or_not(
    tmp_path: Path, channels: int, compression: int | None
) -> None:
    given, path = picture_of(channels), tmp_path / "a.tga"
    encode.write(given, path, overwrite=False, options=SaveOptions(compression=compression))
    assert path.read_bytes()[2] & 8 == (8 if compression else 0)
    again = read.read(path)
    assert again.format == "TGA"
    np.testing.assert_array_equal(eight_bits(again), levels(channels))


def test_a_tga_has_no_place_for_a_profile_and_leaves_metadata_out(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="TGA can't hold the image's colour profile"):
        encode.check_encodable(picture_of(icc=b"x" * 200), Path("a.tga"))
    path = tmp_path / "a.tga"
    encode.write(picture_of(exif=exif_with(Artist="me")), path, overwrite=False)
    assert b"me" not in path.read_bytes() and read.read(path).exif is None


def test_a_tga_of_16_bits_has_one_bit_that_is_on_where_it_is_seen(tmp_path: Path) -> None:
    pixels = struct.pack("<4H", 0x8000 | 31 << 10, 31 << 5, 0x8000 | 31, 0x8000)
    image = found(tmp_path / "a.tga", tga(pixels, 2, 16, 1))
    seen = eight_bits(image)[::-1].reshape(4, 4)
    assert seen[:, 3].tolist() == [255, 0, 255, 255]
    assert seen[[0, 2], :3].tolist() == [[255, 0, 0], [0, 0, 255]]


@pytest.mark.parametrize("content", [
    tga(struct.pack("<4H", 0, 31, 0, 31), 2, 16, 0),
    tga(struct.pack("<4H", 0, 31, 0, 31), 2, 16, 1),
    tga(b"\0\0\0\0\0\0\xff\0" * 2, 2, 32, 0),
    tga(b"\0\1\0\1", 1, 8, 0, palette=struct.pack("<2H", 0, 31)),
])  # fmt: skip
def test_what_is_the_same_everywhere_and_not_spoken_of_is_no_opacity(
    tmp_path: Path, content: bytes
) -> None:
    assert found(tmp_path / "a.tga", content).pixels.shape == (2, 2, 3)


def test_opacity_that_the_header_forgets_is_kept_if_it_differs(tmp_path: Path) -> None:
    image = found(tmp_path / "a.tga", tga(b"\1\2\3\0\4\5\6\xff" * 2, 2, 32, 0))
    assert eight_bits(image)[0].tolist() == [[3, 2, 1, 0], [6, 5, 4, 255]]


@pytest.mark.parametrize("kind, shape", [(0, 3), (1, 3), (3, 4)])
def test_the_second_part_of_a_tga_says_what_its_opacity_is(
    tmp_path: Path, kind: int, shape: int
) -> None:
    body = tga(b"\1\2\3\0\4\5\6\xff" * 2, 2, 32, 8)
    extension = bytes(494) + bytes([kind])
    foot = struct.pack("<II", len(body), 0) + b"TRUEVISION-XFILE.\0"
    assert found(tmp_path / "a.tga", body + extension + foot).pixels.shape == (2, 2, shape)


def test_colours_multiplied_by_opacity_are_divided_again(tmp_path: Path) -> None:
    body = tga(bytes([100, 50, 0, 128]) * 4, 2, 32, 8)
    foot = struct.pack("<II", len(body), 0) + b"TRUEVISION-XFILE.\0"
    image = found(tmp_path / "a.tga", body + bytes(494) + b"\4" + foot)
    assert eight_bits(image)[0, 0].tolist() == [0, 99, 199, 128]


def test_a_tga_without_a_mark_is_one_where_it_is_called_so(tmp_path: Path) -> None:
    content = tga(b"\1\2\3" * 4, 2, 24, 0)
    assert found(tmp_path / "a.tga", content).pixels.shape == (2, 2, 3)
    for name, other in (("a.png", content), ("b.tga", b"words, and no picture" * 9)):
        with pytest.raises(ImageUnreadableError, match="not an image"):
            found(tmp_path / name, other)


@pytest.mark.parametrize("content", [tga(bytes(8), 1, 16, 0, bytes(8)), tga(bytes(16), 2, 8, 0)])
def test_a_rare_kind_of_tga_is_not_called_damaged(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnsupportedImageError, match="of a kind that is not handled"):
        found(tmp_path / "a.tga", content)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_dds_without_compression_is_read_level_by_level(tmp_path: Path, mode: str) -> None:
    given = levels(len(Image.new(mode, (1, 1)).getbands()))
    image = Image.fromarray(given[..., 0] if mode == "L" else given)
    result = found(tmp_path / "a.dds", dds(image))
    assert result.format == "DDS"
    np.testing.assert_array_equal(eight_bits(result), given)


@pytest.mark.parametrize("kind", ["DXT1", "DXT3", "DXT5", "BC2", "BC3", "BC5"])
def test_a_dds_in_blocks_is_read(tmp_path: Path, kind: str) -> None:
    image = Image.new("RGB" if kind == "BC5" else "RGBA", (12, 8), (132, 66, 0))
    if kind != "BC5":
        image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    result = read.read(saved(image, tmp_path / "a.dds", pixel_format=kind))
    assert result.pixels.shape == (8, 12, 3 if kind == "BC5" else 4)
    assert np.abs(eight_bits(result)[:, 4:, :3].astype(int) - (132, 66, 0)).max() <= 8


def bc7(*ends: int) -> bytes:
    """A block of one colour, in mode 6: both ends of every channel, 7 bits each and one more."""
    number = 1 << 6 | 3 << 63
    for place, end in enumerate(ends):
        number |= end << 7 + 7 * place
    return number.to_bytes(16, "little")


@pytest.mark.parametrize("code, block, colour", [
    (80, bytes([200, 200]) + bytes(6), [200]),
    (98, bc7(127, 127, 64, 64, 0, 0, 127, 127), [255, 129, 1]),
])  # fmt: skip
def test_bc4_and_bc7_are_read(tmp_path: Path, code: int, block: bytes, colour: list[int]) -> None:
    result = found(tmp_path / "a.dds", dx10(code, block))
    np.testing.assert_array_equal(eight_bits(result), np.broadcast_to(colour, (4, 4, len(colour))))


def test_a_dds_that_is_opaque_has_no_opacity(tmp_path: Path) -> None:
    path = saved(Image.new("RGBA", (8, 8), "red"), tmp_path / "a.dds", pixel_format="BC3")
    assert read.read(path).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("named, kind", [(72, "DXT1"), (75, "DXT3"), (78, "DXT5")])
def test_a_dds_that_says_to_be_srgb_is_read(tmp_path: Path, named: int, kind: str) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    plain = saved(image, tmp_path / "a.dds", pixel_format=kind)
    wanted = read.read(plain).pixels
    told = dx10(named, plain.read_bytes()[128:])
    np.testing.assert_array_equal(found(tmp_path / "b.dds", told).pixels, wanted)


def test_of_a_dds_the_largest_of_the_copies_is_taken(tmp_path: Path) -> None:
    image = Image.fromarray(levels(3, 8, 8))
    content = dds(image, at_28=struct.pack("<I", 4)) + bytes(3 * (16 + 4 + 1))
    np.testing.assert_array_equal(eight_bits(found(tmp_path / "a.dds", content)), levels(3, 8, 8))


def test_the_faces_of_a_cube_are_refused_unless_the_first_will_do(tmp_path: Path) -> None:
    path = tmp_path / "a.dds"
    path.write_bytes(dds(Image.new("RGB", (4, 4)), at_112=struct.pack("<I", 0xFE00)) * 6)
    for look in (read.read, read_header):
        with pytest.raises(UnsupportedImageError, match="6 surfaces") as caught:
            look(path)
        assert "--first-frame" in caught.value.hint
    assert read.read(path, first_frame=True).pixels.shape == (4, 4, 3)


@pytest.mark.parametrize("code, words", [(b"DXT2", "not handled"), (b"\x6f\0\0\0", "not handled")])
def test_what_pillow_cannot_read_of_dds_is_refused(tmp_path: Path, code: bytes, words: str) -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(UnsupportedImageError, match=words):
        found(tmp_path / "a.dds", dds(image, at_80=struct.pack("<I", 4), at_84=code))


def test_a_dds_of_half_floats_is_refused_as_hdr(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImageError, match="HDR"):
        found(tmp_path / "a.dds", half_floats())


@pytest.mark.parametrize("name", ["a.tga", "a.dds"])
def test_flipped_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path, name: str) -> None:
    content = saved(Image.fromarray(levels(4)), tmp_path / name).read_bytes()
    for place in range(0, min(len(content), 180)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        try:
            found(tmp_path / name, bytes(damaged))
        except ResShiftError as error:
            assert error.hint


def test_a_dds_of_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = dds(Image.new("RGB", (4, 4)), at_12=struct.pack("<II", 2**31, 2**31))
    with pytest.raises(ImageUnreadableError, match="too large"):
        found(tmp_path / "a.dds", content)
