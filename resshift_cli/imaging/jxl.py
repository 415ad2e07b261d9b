"""The size of a JPEG XL image, read from its header.

The plugin that decodes JPEG XL does so as soon as it opens a file, and would fill the memory before
anybody could see how large the image claims to be.
"""

from __future__ import annotations

from typing import BinaryIO

_START = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
_BITS = (9, 13, 18, 30)  # of a number, by its selector


def size(file: BinaryIO) -> tuple[int, int]:
    """Width and height in pixels, as stored.

    Raises:
        ValueError: there is no header.
    """
    file.seek(0)
    head = file.read(12)
    if not head.startswith(_START):
        head = _codestream(file)
    if not head.startswith(_START) or len(head) < 12:
        raise ValueError("it has no header")
    bits = int.from_bytes(head[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take(_BITS[take(2)]) + 1

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _codestream(file: BinaryIO) -> bytes:
    """The first bytes of the image within the boxes of its container."""
    start = 0
    while True:
        file.seek(start)
        box = file.read(16)
        length, kind, head = int.from_bytes(box[:4], "big"), box[4:8], 8
        if length == 1:
            length, head = int.from_bytes(box[8:16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            file.seek(start + head + (4 if kind == b"jxlp" else 0))
            return file.read(12)
        if length < head:  # 0: to the end of the file
            raise ValueError("it holds no image")
        start += length
