"""Animated GIF, WebP and PNG: frame by frame, with timing and loop.

Every frame is read as a viewer shows it, put together with those before, so that it can be worked
on alone. Frames have 8 bits per channel. They are kept in memory as they will be written, but never
all of them as floats.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from resshift_cli.errors import ImageUnreadableError, UsageError, printable
from resshift_cli.imaging import companions, metadata, refusals
from resshift_cli.imaging.assumed import Assumed
from resshift_cli.imaging.colourspace import profile_of
from resshift_cli.imaging.decode import from_pil, png_depth
from resshift_cli.imaging.encode import check_encodable, described, for_pillow, not_encoded
from resshift_cli.imaging.formats import AS_IT_IS, GIF, PNG, WEBP, SaveOptions
from resshift_cli.imaging.opening import ANIMATED, Opened, decoding, frame_count, opened
from resshift_cli.imaging.picture import Picture, levels
from resshift_cli.imaging.sources import Source

_MOST_FRAMES = 40
"""An animation has no more pixels than so many frames of the largest size that is allowed."""

_WRITTEN = (GIF, WEBP, PNG)
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
        warnings: what else has to be told of how it is read.
        assumed: what its colours are if it does not say.
    """

    source: Source
    first: int
    milliseconds: tuple[float, ...]
    plays: int
    alpha: bool
    format: str
    max_pixels: int
    damage: str = ""
    warnings: tuple[str, ...] = ()
    assumed: Assumed | None = None


def probe(file: Opened, *, allow_truncated: bool = False) -> Animation | None:
    """Decode every frame once; None where the file is a single image, or has pages.

    Args:
        file: it, open.
        allow_truncated: of a GIF or PNG take the frames before the first that is damaged, if there
            are two or more; `Animation.damage` then says what was wrong.

    Raises:
        ImageUnreadableError, UnsupportedImageError: as `read.read`; or a frame is damaged.
    """
    if not file.start.startswith(_SIGNATURES):
        return None
    with decoding(max_pixels=file.max_pixels):
        image = file.image()
        if image.format not in ANIMATED:
            return None
        numbers = _numbers(image, file, allow_truncated)
        if len(numbers) == 1:
            return None
        width, height = image.size
        most = _MOST_FRAMES * file.max_pixels // (width * height)
        if len(numbers) > most:
            raise _too_many_frames(file, image.size, most)
        seen = _seen(image, numbers, file, allow_truncated)
        if seen.damage and len(seen.milliseconds) < 2:
            return None
        plays = image.info.get("loop")
        if image.format == "GIF":  # it counts repeats, and has no such number if there are none
            plays = 1 if plays is None else plays + (plays > 0)
        return Animation(
            file.source,
            numbers[0],
            tuple(seen.milliseconds),
            plays or 0,
            seen.alpha,
            image.format,
            file.max_pixels,
            seen.damage,
            _warnings(file, image),
            file.assumed,
        )


def _warnings(file: Opened, image: Image.Image) -> tuple[str, ...]:
    """What to tell of that does not come along, such as more bits than frames are handled in."""
    lost = companions.warnings(file.name, metadata.xmp(image)[1])
    if image.format != "PNG" or png_depth(file) != 16:
        return lost
    return (*lost, f"{file.name} has 16 bits per channel, and frames are enlarged in 8.")


def _numbers(image: Image.Image, file: Opened, allow_truncated: bool) -> range:
    """Pillow's numbers of the frames; some more where a damaged file can't tell how many."""
    first = int(bool(image.info.get("default_image")))
    try:
        count = frame_count(image, file.name)
        return range(1) if count == 1 else range(first, count)
    except ImageUnreadableError:
        if not allow_truncated:
            raise
        most = _MOST_FRAMES * file.max_pixels // (image.width * image.height)
        return range(first, first + most)  # a GIF is only counted by going through it


def _too_many_frames(file: Opened, size: tuple[int, int], most: int) -> ImageUnreadableError:
    """Frames of a few bytes each may take a second each."""
    width, height = size
    claim = f"it has more than {most} frames of {width}x{height} pixels"
    return refusals.too_large(file.name, claim)


@dataclass(slots=True)
class _Seen:
    """What going through the frames shows."""

    milliseconds: list[float] = field(default_factory=list)
    alpha: bool = False
    damage: str = ""


def _seen(image: Image.Image, numbers: range, file: Opened, allow_truncated: bool) -> _Seen:
    seen = _Seen()
    try:
        for frame in _frames(image, numbers, file.name, file.max_pixels):
            seen.milliseconds.append(float(frame.info.get("duration", 0)))
            if frame.has_transparency_data:
                opacity = frame.convert("RGBA").getchannel("A")
                seen.alpha = seen.alpha or opacity.getextrema() != (255, 255)
    except ImageUnreadableError as error:
        if not allow_truncated:
            raise
        count = len(seen.milliseconds)
        seen.damage = f"{str(error).rstrip('.')}; the {count} before it were read."
    return seen


def read(animation: Animation, file: Opened | None = None) -> Generator[Picture, None, None]:
    """The frames, one after the other; all carry the file's profile and metadata.

    Args:
        animation: as `probe` gives it.
        file: where it is open already.

    Raises:
        As `probe`.
    """
    with ExitStack() as stack:
        if file is None:
            file = stack.enter_context(opened(animation.source, max_pixels=animation.max_pixels))
        with decoding(max_pixels=animation.max_pixels):
            image = file.image(anew=True)
            icc = profile_of(image, file.name, file.file, animation.assumed)
        numbers = range(animation.first, animation.first + len(animation.milliseconds))
        for frame in _frames(image, numbers, animation.source.name, animation.max_pixels):
            text = metadata.text(image)
            with decoding():
                whole = frame.convert("RGBA" if animation.alpha else "RGB")
                whole.info.pop("transparency", None)  # of a colour that no pixel has
                picture = from_pil(whole)
            yield replace(
                picture,
                icc=icc,
                xmp=metadata.xmp(image)[0],
                text=text,
                damage=animation.damage,
                warnings=animation.warnings,
                format=animation.format,
            )


def check_target(path: Path, *, options: SaveOptions = AS_IT_IS) -> None:
    """Refuse a result whose format holds no animation.

    Raises:
        UsageError: it does not, or the extension is none that results are written with.
    """
    kind = options.format_of(path)
    if options.palette:
        raise UsageError(
            f"{printable(path)}: the frames of an animation don't keep their palettes.",
            hint="Leave --palette out, or take the first frame only (--first-frame).",
        )
    if kind not in _WRITTEN:
        raise UsageError(
            f"{printable(path)}: {kind.name} is written without animation.",
            hint="Take only the first frame (--first-frame), or choose the format gif, webp or png"
            " (--format).",
        )


def encode(
    frames: Iterable[Picture],
    animation: Animation,
    path: Path,
    *,
    options: SaveOptions = AS_IT_IS,
) -> memoryview:
    """A file of frames, all of one size, with the timing and loop of `animation`.

    GIF counts time in hundredths of a second, which are shared out so that all frames together are
    shown as long as before. Equal frames in a row may become one, which is shown
    as long as they were. The file's format is that of the options, or else of the extension of
    `path`.

    Raises:
        UsageError: as `check_target` and `check_encodable`.
        OutputError: as `encode.encode`.
    """
    check_target(path, options=options)
    kind = options.format_of(path)
    rest = iter(frames)
    first = next(rest)
    check_encodable(first, path, options=options)

    def encoded(picture: Picture) -> Image.Image:
        return for_pillow(levels(picture.pixels, 8), kind)

    unit = 10 if kind is GIF else 1
    timing: dict[str, Any] = {"duration": _durations(animation.milliseconds, unit)}
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
            **described(first, kind, options).for_pillow(kind.name),
            **options.encoder(kind),
        )
    except (OSError, ValueError) as error:
        raise not_encoded(path, error) from error
    return buffer.getbuffer()


def _frames(
    image: Image.Image, numbers: Iterable[int], name: str, max_pixels: int
) -> Iterator[Image.Image]:
    """One frame after the other, as Pillow stands at it, cut to the size that the file gives.

    A GIF's frames may reach beyond its screen, and Pillow would make that larger.
    """
    size = image.size
    for number in numbers:
        try:
            with decoding(max_pixels=max_pixels):
                image.seek(number)
                image.load()
        except Exception as error:  # decoders raise nearly anything on a damaged file
            raise ImageUnreadableError(
                f"{name} is cut short or damaged at frame {number + 1}"
                f" ({printable(error).rstrip('.') or type(error).__name__}).",
                hint="Copy or download it again, or take the first frame only (--first-frame).",
            ) from error
        yield image if image.size == size else image.crop((0, 0, *size))


def _durations(milliseconds: Iterable[float], unit: int) -> list[int]:
    """Times of frames in whole units, which in all are as long as before.

    A frame of more than 10 ms gets more than that: browsers show what has less for 100 ms.
    """
    durations: list[int] = []
    due = given = 0.0
    for time in milliseconds:
        due += max(0.0, time)
        least = 2 if unit == 10 and time > unit else 0
        durations.append(max(least, round((due - given) / unit)) * unit)
        given += durations[-1]
    return durations
