"""What the boxes of an AVIF or HEIC say of its main image, and no decoder tells."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from resshift_cli.imaging.metadata_size import MOST

_GAIN_MAP = b"tmap"
_MOST_BOXES = 1000  # before the one that describes images


@dataclass(frozen=True, slots=True)
class MainImage:
    """What is said of it.

    Attributes:
        cicp: primaries and transfer characteristics, as ITU-T H.273 numbers them; None if neither
            is told.
        gain_map: whether another image makes it brighter on screens that can.
    """

    cicp: tuple[int, int] | None
    gain_map: bool


def main_image(file: BinaryIO) -> MainImage:
    """Read the boxes; where the file stands is changed.

    Raises:
        ValueError, struct.error: they are damaged.
    """
    meta = _meta(file)
    boxes = dict(_boxes(meta[4:]))
    main = _number(boxes[b"pitm"][4:], boxes[b"pitm"][0] > 0) if b"pitm" in boxes else 0
    properties = dict(_boxes(boxes.get(b"iprp", b"")))
    listed = list(_boxes(properties.get(b"ipco", b"")))
    chosen = [listed[i - 1] for i in _indices(properties.get(b"ipma"), main) if i <= len(listed)]
    cicp = None
    for kind, body in chosen or listed:
        if kind == b"colr" and body[:4] == b"nclx":
            cicp = struct.unpack_from(">HH", body, 4)
    kinds = [body[8:12] for kind, body in _boxes(boxes.get(b"iinf", b"")[6:]) if kind == b"infe"]
    return MainImage(cicp, _GAIN_MAP in kinds)


def _meta(file: BinaryIO) -> bytes:
    """The body of the first box `meta`."""
    file.seek(0)
    for _ in range(_MOST_BOXES):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        body = length - 8
        if length == 1:
            body = int.from_bytes(file.read(8), "big") - 16
        if kind == b"meta" and 0 <= body <= MOST:
            return file.read(body)
        if body < 0:  # to the end of the file, or nonsense
            break
        file.seek(body, 1)
    return b"\0\0\0\0"


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of every box."""
    start = 0
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if length < 8:
            return
        yield kind, data[start + 8 : start + length]
        start += length


def _number(data: bytes, long: bool) -> int:
    return int.from_bytes(data[: 4 if long else 2], "big")


def _indices(box: bytes | None, item: int) -> list[int]:
    """The numbers, from 1 on, of the properties that an item has."""
    if box is None:
        return []
    version, wide = box[0], box[3] & 1
    (entries,) = struct.unpack_from(">I", box, 4)
    place = 8
    for _ in range(min(entries, len(box))):
        of = _number(box[place:], version > 0)
        place += 4 if version > 0 else 2
        count, place = box[place], place + 1
        size = 2 if wide else 1
        numbers = [box[place + size * i : place + size * (i + 1)] for i in range(count)]
        place += size * count
        if of == item:  # the highest bit says whether a property is essential
            return [int.from_bytes(n, "big") & ((1 << (8 * size - 1)) - 1) for n in numbers]
    return []
