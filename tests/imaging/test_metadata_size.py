"""A file that carries absurd amounts beside its pixels takes neither time nor memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from memory import needs_proc, peak_over
from PIL import Image

from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging import metadata_size, read

HUGE = 50 << 20


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, kind, **options)
    return buffer.getvalue()


def png(name: bytes, data: bytes, *, late: bool = False, count: int = 1) -> bytes:
    """A PNG with chunks before or behind its pixels."""
    plain = encoded("PNG")
    body = struct.pack(">I", len(data)) + name + data
    body += struct.pack(">I", zlib.crc32(name + data))
    place = len(plain) - 12 if late else plain.index(b"IDAT") - 4
    return plain[:place] + body * count + plain[place:]


@cache
def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def jpeg(kind: int, data: bytes, count: int) -> bytes:
    plain = encoded("JPEG")
    segment = struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data
    return plain[:2] + segment * count + plain[2:]


def tiff(tag: int, kind: int, count: int, data: bytes, *, order: str = "<") -> bytes:
    """A gray TIFF of 8x8 with one tag more."""
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (277, 1), (278, 8), (279, 64)]
    entries = [(number, 3, 1, value << (16 if order == ">" else 0)) for number, value in tags]
    entries.append((273, 4, 1, 8))
    end = 8 + 64 + 2 + 12 * (len(entries) + 1) + 4
    entries = sorted([*(e for e in entries if e[0] != tag), (tag, kind, count, end)])
    end -= 12 * (10 - len(entries))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 72)
    listed = [struct.pack(f"{order}HHII", *entry) for entry in entries]
    first = struct.pack(f"{order}H", len(entries)) + b"".join(listed) + bytes(4)
    return head + bytes(range(64)) + first + data


CARRIERS: dict[str, Callable[[int], bytes]] = {
    "PNG text": lambda size: png(b"tEXt", b"k\0" + b"x" * size),
    "PNG text behind the pixels": lambda size: png(b"tEXt", b"k\0" + b"x" * size, late=True),
    "PNG EXIF": lambda size: png(b"eXIf", b"II*\0\x08\0\0\0" + bytes(size)),
    "JPEG EXIF": lambda size: jpeg(0xE1, b"Exif\0\0" + bytes(60_000), size // 60_000),
    "JPEG comments": lambda size: jpeg(0xFE, b"x" * 60_000, size // 60_000),
    "TIFF XMP": lambda size: tiff(700, 1, size, b"x" * size),
    "TIFF profile, big-endian": lambda size: tiff(34675, 7, size, b"x" * size, order=">"),
    "TIFF resolution": lambda size: tiff(282, 5, size // 8, b"\1" * size),
    "WebP XMP": lambda size: encoded("WEBP", xmp=b"x" * size),
    "GIF comment": lambda size: encoded("GIF", comment=b"x" * size),
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_little_is_read_and_too_much_refused_with_a_way_out(tmp_path: Path, carrier: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(CARRIERS[carrier](100_000))
    assert read.read(path).pixels.shape[:2] == (8, 8)
    path.write_bytes(CARRIERS[carrier](metadata_size.MOST + 100_000))
    for wide in (False, True):
        with pytest.raises(ImageUnreadableError, match="more than 16 MB of metadata") as caught:
            read.read(path, first_frame=wide, allow_truncated=wide)
        assert "exiftool" in caught.value.hint


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "name, head", [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")]
)
def test_what_unpacks_to_a_quarter_of_a_gigabyte_is_refused(
    tmp_path: Path, name: bytes, head: bytes, late: bool
) -> None:
    (tmp_path / "a.png").write_bytes(png(name, head + bomb(1 << 28), late=late))
    if name == b"iCCP" and late:  # no place for a profile: nobody unpacks it
        return
    with pytest.raises(ImageUnreadableError, match="more than 16 MB of metadata"):
        read.read(tmp_path / "a.png")


def test_many_that_unpack_to_a_megabyte_each_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(b"zTXt", b"k\0\0" + bomb(1 << 20), count=100))
    with pytest.raises(ImageUnreadableError, match="more than 16 MB of metadata"):
        read.read(tmp_path / "a.png")


def test_a_profile_that_unpacks_to_megabytes_is_kept(tmp_path: Path) -> None:
    profile = bytes(range(256)) * (3 << 12)
    (tmp_path / "a.png").write_bytes(png(b"iCCP", b"k\0\0" + zlib.compress(profile)))
    assert read.read(tmp_path / "a.png").icc == profile


@needs_proc
@pytest.mark.parametrize("carrier", ["PNG EXIF", "JPEG EXIF", "TIFF resolution", "WebP XMP"])
def test_fifty_megabytes_are_not_even_read(tmp_path: Path, carrier: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(CARRIERS[carrier](HUGE))

    def read_it() -> None:
        with pytest.raises(ImageUnreadableError):
            read.read(path)

    read_it()
    assert peak_over(read_it) < 4 << 20


@pytest.mark.parametrize("carrier", CARRIERS)
def test_wherever_a_file_is_cut_this_is_no_reason_to_fail(tmp_path: Path, carrier: str) -> None:
    content = CARRIERS[carrier](70_000)
    for end in range(0, len(content), 997):
        (tmp_path / "a").write_bytes(content[:end])
        with (tmp_path / "a").open("rb") as file:
            assert metadata_size.exceeds_limit(file) is False


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_tags_beyond_any_file_are_no_reason_to_fail(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II+\0\x08\0\0\0" + struct.pack("<Q", offset))
    with path.open("rb") as file:
        assert not metadata_size.exceeds_limit(file)
    with pytest.raises(ImageUnreadableError, match="damaged"):
        read.read(path)
