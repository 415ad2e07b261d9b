"""Animated GIF, WebP and PNG: frame by frame, with timing and loop.

Every frame is read as a viewer shows it, put together with those before, so that it can be worked
on alone. Frames have 8 bits per channel. They are kept in memory as they will be written, but never
all of them as floats.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from resshift_cli.errors import (
    ImageUnreadableError,
    OutputError,
    ResShiftError,
    UsageError,
    printable,
)
from resshift_cli.imaging import images, metadata, targets
from resshift_cli.imaging.formats import AS_IT_IS, GIF, PNG, WEBP, SaveOptions
from resshift_cli.imaging.images import MAX_PIXELS, Picture
from resshift_cli.imaging.sources import Source

_ANIMATED = (GIF, WEBP, PNG)
_SIGNATURES = (b"GIF8", b"RIFF", b"\x89PNG")


@dataclass(frozen=True, slots=True)
class Animation:
    """What there is to know of an animated file beside its frames.

    Attributes:
        source: the file.
        first: Pillow's number of the first frame: an APNG may have a still image before it.
        milliseconds: how long each frame is shown.
        plays: how often it is played; 0 is for ever.
        alpha: whether any frame has transparency; then all have four channels, else three.
        format: of the file, as Pillow calls it.
        max_pixels: of a frame, as it was asked for.
        damage: what was wrong with the file, if it was read nonetheless.
    """

    source: Source
    first: int
    milliseconds: tuple[float, ...]
    plays: int
    alpha: bool
    format: str
    max_pixels: int
    damage: str = ""


def probe(
    source: Path | Source, *, max_pixels: int = MAX_PIXELS, allow_truncated: bool = False
) -> Animation | None:
    """Decode every frame once; None where the file is a single image, or has pages.

    Args:
        source: the file.
        max_pixels: as `images.read`.
        allow_truncated: of a GIF or PNG take the frames before the first that is damaged, if there
            are two or more; `Animation.damage` then says what was wrong.

    Raises:
        InputMissingError, UsageError: as `images.read`.
        ImageUnreadableError, UnsupportedImageError: as `images.read`; or a frame is damaged.
    """
    source = source if isinstance(source, Source) else Source(source)
    if not _may_move(source):
        return None
    with images.opened(source, max_pixels=max_pixels) as image:
        if image.format not in ("GIF", "WEBP", "PNG"):
            return None
        first = int(bool(image.info.get("default_image")))
        numbers: Iterable[int]
        try:
            with images.decoding(max_pixels=max_pixels):
                count = images.frame_count(image, source.name)
            if count == 1:
                return None
            numbers = range(first, count)
        except ImageUnreadableError:
            if not allow_truncated:
                raise
            numbers = itertools.count()  # a GIF is only counted by going through it
        milliseconds: list[float] = []
        alpha, damage = False, ""
        try:
            for frame in _frames(image, numbers, source.name, max_pixels):
                milliseconds.append(float(frame.info.get("duration", 0)))
                if frame.has_transparency_data:
                    with images.decoding():
                        opacity = frame.convert("RGBA").getchannel("A")
                    alpha = alpha or opacity.getextrema() != (255, 255)
        except ImageUnreadableError as error:
            if not allow_truncated:
                raise
            if len(milliseconds) < 2:
                return None
            damage = f"{str(error).rstrip('.')}; the {len(milliseconds)} before it were read."
        plays = image.info.get("loop")
        if image.format == "GIF":  # it counts repeats, and has no such number if there are none
            plays = 1 if plays is None else plays + (plays > 0)
        return Animation(
            source,
            first,
            tuple(milliseconds),
            plays or 0,
            alpha,
            image.format,
            max_pixels,
            damage,
        )


def read(animation: Animation) -> Generator[Picture, None, None]:
    """The frames, one after the other; all carry the file's profile and metadata.

    Raises:
        As `probe`.
    """
    with images.opened(animation.source, max_pixels=animation.max_pixels) as image:
        numbers = range(animation.first, animation.first + len(animation.milliseconds))
        for frame in _frames(image, numbers, animation.source.name, animation.max_pixels):
            text = metadata.text(image)
            with images.decoding():
                picture = Picture.from_pil(frame.convert("RGBA" if animation.alpha else "RGB"))
            yield replace(
                picture,
                xmp=metadata.xmp(image),
                text=text,
                damage=animation.damage,
                format=animation.format,
            )


def check_target(path: Path, *, options: SaveOptions = AS_IT_IS) -> None:
    """Refuse a result whose format holds no animation.

    Raises:
        UsageError: it does not, or the extension is none that results are written with.
    """
    kind = options.format_of(path)
    if kind not in _ANIMATED:
        raise UsageError(
            f"{printable(path)}: {kind.name} is written without animation.",
            hint="Take only the first frame with --first-frame, or choose --format gif, webp or"
            " png.",
        )


def write(
    frames: Iterable[Picture],
    animation: Animation,
    path: Path,
    *,
    overwrite: bool,
    options: SaveOptions = AS_IT_IS,
) -> None:
    """Save what `encode` makes, as `targets.save` does.

    Raises:
        UsageError: as `encode`.
        OutputError: as `encode` and `targets.save`.
    """
    encoded = encode(frames, animation, path, options=options)
    targets.save(encoded, path, overwrite=overwrite)


def encode(
    frames: Iterable[Picture],
    animation: Animation,
    path: Path,
    *,
    options: SaveOptions = AS_IT_IS,
) -> memoryview:
    """A file of frames, all of one size, with the timing and loop of `animation`.

    GIF counts time in hundredths of a second. Equal frames in a row may become one, which is shown
    as long as they were. The file's format is that of the options, or else of the extension of
    `path`.

    Raises:
        UsageError: as `check_target` and `images.check_encodable`.
        OutputError: as `images.encode`.
    """
    check_target(path, options=options)
    kind = options.format_of(path)
    rest = iter(frames)
    first = next(rest)
    images.check_encodable(first, path, options=options)

    def encoded(picture: Picture) -> Image.Image:
        return images.for_pillow(images.levels(picture.pixels, 8), kind)

    timing: dict[str, Any] = {"duration": [_duration(d) for d in animation.milliseconds]}
    if kind is not GIF:
        timing["loop"] = animation.plays
    elif animation.plays != 1:
        timing["loop"] = max(0, animation.plays - 1)
    if kind is GIF and animation.alpha:
        timing["disposal"] = 2  # else what a frame leaves clear would show the one before
    buffer = io.BytesIO()
    try:
        encoded(first).save(
            buffer,
            kind.name,
            save_all=True,
            append_images=[encoded(frame) for frame in rest],
            **timing,
            **images.beside(first, kind, options),
            **options.encoder(kind),
        )
    except (OSError, ValueError, MemoryError) as error:
        raise OutputError(
            f"{printable(path)} can't be encoded: {printable(error) or type(error).__name__}.",
            hint="Choose another format with -o.",
        ) from error
    return buffer.getbuffer()


def _may_move(source: Source) -> bool:
    """Whether a file starts like one of these formats; what is wrong with others, `images` says."""
    try:
        with source.open() as file:
            return file.read(4).startswith(_SIGNATURES)
    except (ResShiftError, OSError):
        return False


def _frames(
    image: Image.Image, numbers: Iterable[int], name: str, max_pixels: int
) -> Iterator[Image.Image]:
    """Have Pillow stand at one frame after the other."""
    for number in numbers:
        try:
            with images.decoding(max_pixels=max_pixels):
                image.seek(number)
                image.load()
        except Exception as error:  # decoders raise nearly anything on a damaged file
            raise ImageUnreadableError(
                f"{name} is cut short or damaged at frame {number + 1}"
                f" ({printable(error).rstrip('.') or type(error).__name__}).",
                hint="Copy or download it again, or take the first frame with --first-frame.",
            ) from error
        yield image


def _duration(milliseconds: float) -> int:
    return max(0, round(milliseconds))
