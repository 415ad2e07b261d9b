"""Image files that are written as their rows come, so that none is in memory whole.

TIFF is our own (`tiff`), PNG and JPEG are libvips' work. It pulls pixels from a pipe, as a PNG
without compression, and what goes beside them is taken over from a small file of the same format.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Rows = Iterable[NDArray[Any]]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = 33  # bytes of signature and IHDR
_BESIDE = (b"iCCP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def write_png(
    file: BinaryIO,
    rows: Rows,
    shape: tuple[int, int, int],
    *,
    depth: int,
    like: bytes,
    compression: int = 6,
) -> None:
    """Write a PNG.

    Args:
        file: where to.
        rows: bands (n, W, C) of levels, C as in `Picture`.
        shape: (H, W, C) of all of them.
        depth: bits of each level, 8 or 16.
        like: any other PNG, whose profile, text and so on are taken over.
        compression: zlib's level.

    Raises:
        Exception: what `rows` raises, what `file` raises, or nearly any of the encoder's.
    """
    beside = b"".join(chunk for name, chunk in _chunks(like[8:]) if name in _BESIDE)
    options = {"bitdepth": depth, "compression": compression, "filter": "all"}
    _encode(rows, shape, depth, ".png", options, _PNGSplice(file.write, beside))


def write_jpeg(
    file: BinaryIO, rows: Rows, shape: tuple[int, int, int], *, like: bytes, quality: int
) -> None:
    """Write a JPEG without colour subsampling.

    Args:
        file: where to.
        rows: bands (n, W, 1 or 3) of 8-bit levels.
        shape: (H, W, C) of all of them.
        like: any other JPEG, whose profile, comment and so on are taken over.
        quality: 1 to 100.

    Raises:
        Exception: as `write_png`.
    """
    end = _end_of_segments(like)
    assert end is not None  # it is a whole file
    options = {"Q": quality, "subsample_mode": "off"}
    _encode(rows, shape, 8, ".jpg", options, _JPEGSplice(file.write, like[:end]))


class _Splice:
    """Puts what goes beside the pixels into an encoder's stream of bytes.

    Attributes:
        error: what writing raised; the encoder is told to stop then.
    """

    def __init__(self, write: Callable[[bytes], Any], beside: bytes) -> None:
        self.write = write
        self.beside = beside
        self.held = b""
        self.error: BaseException | None = None

    def __call__(self, data: bytes) -> int:
        """Take bytes from the encoder; returns how many it is to count as written."""
        try:
            self.take(bytes(data))
        except BaseException as error:  # it must not go up through the encoder
            self.error = error
            return -1
        return len(data)

    def take(self, data: bytes) -> None:
        """See the class."""
        raise NotImplementedError


class _PNGSplice(_Splice):
    begun = False

    def take(self, data: bytes) -> None:
        self.held += data
        if not self.begun and len(self.held) >= _PNG_HEAD:
            self.write(self.held[:_PNG_HEAD] + self.beside)
            self.held, self.begun = self.held[_PNG_HEAD:], True
        if self.begun:
            done = 0
            for name, chunk in _chunks(self.held):
                done += len(chunk)
                if name in (b"IDAT", b"IEND"):
                    self.write(chunk)
            self.held = self.held[done:]


class _JPEGSplice(_Splice):
    begun = False

    def take(self, data: bytes) -> None:
        if self.begun:
            self.write(data)
            return
        self.held += data
        end = _end_of_segments(self.held)
        if end is not None:
            self.write(self.beside + self.held[end:])
            self.held, self.begun = b"", True


def _encode(
    rows: Rows,
    shape: tuple[int, int, int],
    depth: int,
    suffix: str,
    options: dict[str, Any],
    splice: _Splice,
) -> None:
    """Let libvips pull the rows through a pipe."""
    import pyvips  # type: ignore[import-untyped]

    outlet, inlet = os.pipe()
    failure: list[BaseException] = []

    def encode() -> None:
        try:
            source = pyvips.Source.new_from_descriptor(outlet)
            image = pyvips.Image.pngload_source(source, access="sequential", fail_on="error")
            target = pyvips.TargetCustom()
            target.on_write(splice)
            image.write_to_target(target, suffix, keep="none", **options)
        except Exception as error:
            failure.append(error)
        finally:
            # libvips keeps the pipe open as long as anything of it is: let no writer wait.
            while os.read(outlet, 1 << 16):
                pass
            os.close(outlet)

    encoder = threading.Thread(target=encode, name="encoder")
    pipe = open(inlet, "wb", buffering=0)  # noqa: SIM115  # closed below, whatever comes first
    try:
        encoder.start()  # where a signal may be raised, too
        for part in _uncompressed_png(rows, shape, depth):
            if failure or splice.error is not None:
                break
            data = memoryview(part)
            while data:
                data = data[pipe.write(data) :]
    finally:
        pipe.close()
        if encoder.ident is not None:
            encoder.join()
    if splice.error is not None:
        raise splice.error
    if failure:
        raise failure[0]


def _uncompressed_png(rows: Rows, shape: tuple[int, int, int], depth: int) -> Iterator[bytes]:
    height, width, channels = shape
    colour_type = (0, 4, 2, 6)[channels - 1]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    yield _SIGNATURE + chunk(b"IHDR", header)
    pack = zlib.compressobj(0)
    for band in rows:
        samples = band.astype(">u2" if depth == 16 else "u1", copy=False)
        lines = samples.reshape(len(band), width * channels).view(np.uint8)
        unfiltered = np.pad(lines, ((0, 0), (1, 0)))  # each line begins with its filter, 0
        yield chunk(b"IDAT", pack.compress(unfiltered.tobytes()))
    yield chunk(b"IDAT", pack.flush()) + chunk(b"IEND", b"")


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG, whole."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and whole of every chunk that is there whole; the signature left out."""
    start = 0
    while start + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, start)
        end = start + length + 12
        if end > len(png):
            return
        yield png[start + 4 : start + 8], png[start:end]
        start = end


def _end_of_segments(jpeg: bytes) -> int | None:
    """Where a JPEG's first segment that is neither an application's nor a comment begins."""
    start = 2
    while start + 4 <= len(jpeg):
        marker, length = jpeg[start + 1], int.from_bytes(jpeg[start + 2 : start + 4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            return start
        start += 2 + length
    return None
