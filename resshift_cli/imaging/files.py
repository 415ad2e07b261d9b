"""File in, file out: read an image or an animation, enlarge it, and encode the result.

    load -> check -> enlarge -> Result.content -> targets

What enlarges pixels is handed in, so that this room needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging import animation, encode, read, refusals
from resshift_cli.imaging.animation import Animation
from resshift_cli.imaging.assumed import USUAL, Assumed
from resshift_cli.imaging.formats import AS_IT_IS, FORMATS, SaveOptions, extension
from resshift_cli.imaging.opening import MAX_PIXELS, Opened, opened
from resshift_cli.imaging.picture import Picture, Pixels, blank, levels
from resshift_cli.imaging.rows import InFile, Stored
from resshift_cli.imaging.sources import Source, State
from resshift_cli.imaging.targets import Content
from resshift_cli.system.memory import collected

Advance = Callable[[int, int], None]
"""What is called with units of work done and in all."""

Enlarge = Callable[[Iterable[Pixels], tuple[int, int, int], Advance], Iterator[Pixels]]
"""Bands (n, W, C) that can be gone through again and the (H, W, C) of all of them in, bands
(n, W', C) of the larger image out; what it is given besides is called with units done and in all.
"""

LARGE = 1 << 26
"""Results of more pixels are written as their rows come, where the format allows it."""

_BYTES_OF_A_PIXEL = 16  # in a file, at most: four channels of floats
_SPARE_BYTES = 1 << 30  # for all that is beside the pixels: previews, a video, metadata


@dataclass(frozen=True, slots=True)
class Handling:
    """How image files are read and written.

    Attributes:
        options: how results are encoded.
        first_frame: take the first frame or page of a file only.
        max_pixels: refuse what is larger.
        allow_truncated: read damaged files as far as they go.
        assumed: what colours are that a file says nothing of.
    """

    options: SaveOptions = AS_IT_IS
    first_frame: bool = False
    max_pixels: int = MAX_PIXELS
    allow_truncated: bool = False
    assumed: Assumed = USUAL


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was read.

    Attributes:
        source: the file.
        state: what it was like.
        picture: its image, or the first frame of its animation; `blank` if it is large.
        rows: the pixels of that in bands, see `read.load`.
        animation: what else there is to know of an animation; None of an image.
    """

    source: Source
    state: State | None
    picture: Picture
    rows: Iterable[Pixels]
    animation: Animation | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width, _ = self.shape
        return height, width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.picture.pixels.shape
        return height, width, channels

    @property
    def frames(self) -> int:
        """How many; 1 of an image."""
        return 1 if self.animation is None else len(self.animation.milliseconds)

    @property
    def held_bytes(self) -> int:
        """Of pixels, in memory."""
        if isinstance(self.rows, InFile):
            return 0
        return (self.rows.samples if isinstance(self.rows, Stored) else self.picture.pixels).nbytes

    @property
    def warnings(self) -> list[str]:
        """What has to be told of it."""
        damage = [self.picture.damage] if self.picture.damage else []
        return [*damage, *self.picture.warnings]


@dataclass(frozen=True, slots=True)
class Result:
    """An enlarged image or animation.

    Attributes:
        size: height and width.
        encode: gives the file's bytes; an image is only encoded when they are asked for. None of
            what is too large to be held. Raises as `encode.encode`.
        stream: of that, computes it while it writes the file. Raises as `encode.write_rows`.
        most: about the bytes that `stream` writes at most.
    """

    size: tuple[int, int]
    encode: Callable[[], bytes | memoryview] | None = None
    stream: Callable[[BinaryIO], None] | None = None
    most: int = 0

    def content(self) -> Content:
        """What goes into the file; an image is encoded first."""
        if self.encode is not None:
            return self.encode()
        assert self.stream is not None  # it has one of them
        return self.stream


def load(source: Source, handling: Handling) -> Loaded:
    """Read a file; of an animation every frame is decoded once, and the first one kept.

    The pixels of a large image are not, see `read.load`.

    Raises:
        InputMissingError, UsageError, UnsupportedImageError: as `read.read`.
        ImageUnreadableError: likewise, or the file changed while it was read.
    """
    state = source.state()
    try:
        with opened(source, max_pixels=handling.max_pixels, assumed=handling.assumed) as file:
            picture, rows, moving = _read(file, handling)
    except ImageUnreadableError:
        source.check_unchanged(state)  # else it was damaged while somebody still wrote it
        raise
    source.check_unchanged(state)
    return Loaded(source, state, picture, rows, moving)


def check_length(loaded: Loaded, handling: Handling) -> None:
    """Refuse a file with far more bytes than its image takes, where all of them are to be read.

    One of which only the first frame was taken may hold any number of others.

    Raises:
        ImageUnreadableError: it has.
    """
    height, width = loaded.size
    most = _SPARE_BYTES + height * width * loaded.frames * _BYTES_OF_A_PIXEL
    if loaded.state is not None and loaded.state.size > most and not handling.first_frame:
        raise refusals.too_long(loaded.source.name, loaded.state.size, most)


@dataclass(slots=True)
class Loader:
    """Reads files that are asked for twice, before the work and for it, once: small ones are kept.

    Attributes:
        handling: how files are read.
        room: bytes of pixels that may still be kept.
    """

    handling: Handling
    room: int = 1 << 26
    _kept: dict[Path, Loaded] = field(default_factory=dict, init=False)

    def load(self, source: Source) -> Loaded:
        """Read a file, and keep it if there is room.

        Raises:
            As `load`.
        """
        loaded = load(source, self.handling)
        if loaded.held_bytes <= self.room:
            self.room -= loaded.held_bytes
            self._kept[source.path] = loaded
        return loaded

    def take(self, source: Source) -> Loaded:
        """What was kept of a file, which is then forgotten; read again if it has changed since.

        Raises:
            As `load`.
        """
        kept = self._kept.pop(source.path, None)
        if kept is None or kept.state != source.state():
            kept = load(source, self.handling)
        return kept


def _read(file: Opened, handling: Handling) -> tuple[Picture, Iterable[Pixels], Animation | None]:
    lenient = handling.allow_truncated
    moving = None if handling.first_frame else animation.probe(file, allow_truncated=lenient)
    if moving is None:
        picture, rows = read.load(file, first_frame=handling.first_frame, allow_truncated=lenient)
        return picture, rows, None
    with closing(animation.read(moving, file)) as frames:
        picture = next(frames)
    return picture, [picture.pixels], moving


def check(loaded: Loaded, target: Path, *, size: tuple[int, int], options: SaveOptions) -> None:
    """Find out before the work whether the format of `target` can hold a result.

    Args:
        loaded: the input.
        target: only its extension counts, if at all.
        size: (height, width) of the result.
        options: how it will be encoded.

    Raises:
        UsageError, OutputError: as `encode.check_encodable` and `animation.check_target`.
    """
    if loaded.animation is not None:
        animation.check_target(target, options=options)
    encode.check_encodable(loaded.picture, target, size=size, options=options)


def without_a_name(loaded: Loaded, options: SaveOptions) -> SaveOptions:
    """The options for a result that has no extension: the input's format if that is kept, or PNG.

    A format that the options name is left as it is.
    """
    own = extension(loaded.picture.format.replace("MPO", "JPEG"))
    kept = own is not None and FORMATS[f".{own}"].implied
    return replace(options, format=options.format or (own if kept else "png"))


def enlarge(
    loaded: Loaded,
    run: Enlarge,
    advance: Advance,
    *,
    size: tuple[int, int],
    note: str,
    target: Path,
    options: SaveOptions,
) -> Result:
    """Enlarge a file.

    The frames of an animation are read, enlarged and encoded one after the other. A large image
    is not computed before it is written.

    Args:
        loaded: the file.
        run: what enlarges pixels, the same way every time: then what stands still stays so.
        advance: called with units done and in all, of all frames together.
        size: (height, width) of the result.
        note: for the result's metadata.
        target: as `check`.
        options: as `check`.

    Raises:
        ImageUnreadableError: the file has changed since it was loaded, where it is read again:
            that of an animation, or of a large image; a large result raises it as it is written.
        UsageError, OutputError: an animation can't be encoded.
        MemoryError: the result can't be held.
    """
    if loaded.animation is not None:
        content = _enlarged_frames(
            loaded, loaded.animation, run, advance, size, note, target, options
        )
        return Result(size, lambda: content)
    rows = _from_unchanged(loaded, run(loaded.rows, loaded.shape, advance))
    shape = (*size, loaded.shape[2])
    picture = replace(loaded.picture, pixels=blank(shape), note=note)
    kind = options.format_of(target)
    depth = options.depth_of(kind, picture.depth)
    streamed = kind in encode.STREAMED and not options.palette
    if size[0] * size[1] > LARGE and streamed:

        def stream(file: BinaryIO) -> None:
            encode.write_rows(file, rows, picture, target, options=options)

        return Result(size, stream=stream, most=math.prod(shape) * depth // 8)
    held = np.uint16 if depth == 16 else np.uint8
    samples = collected((levels(band, depth) for band in rows), shape, held)
    return Result(size, partial(encode.encode_levels, samples, picture, target, options=options))


def _enlarged_frames(
    loaded: Loaded,
    moving: Animation,
    run: Enlarge,
    advance: Advance,
    size: tuple[int, int],
    note: str,
    target: Path,
    options: SaveOptions,
) -> memoryview:
    """A file of the enlarged frames of an animation."""
    shape = (*size, loaded.shape[2])

    def enlarged(number: int, frame: Picture) -> Picture:
        rows = run(
            [frame.pixels],
            loaded.shape,
            lambda done, total: advance(number * total + done, loaded.frames * total),
        )
        return replace(frame, pixels=collected(rows, shape), note=note)

    with closing(animation.read(moving)) as frames:
        results = (enlarged(number, frame) for number, frame in enumerate(frames))
        content = animation.encode(results, moving, target, options=options)
    loaded.source.check_unchanged(loaded.state)
    return content


def _from_unchanged(loaded: Loaded, bands: Iterable[Pixels]) -> Iterator[Pixels]:
    """The same bands; where they are made from what stays in the file, it must not change."""
    try:
        yield from bands
    except ImageUnreadableError:
        loaded.source.check_unchanged(loaded.state)
        raise
    if isinstance(loaded.rows, InFile):
        loaded.source.check_unchanged(loaded.state)
