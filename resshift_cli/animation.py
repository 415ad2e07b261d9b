"""Animated GIF, WebP and PNG: frame by frame, with timing and loop.

Every frame is read as a viewer shows it, put together with those before, so that it can be worked
on alone. Frames have 8 bits per channel. They are kept in memory as they will be written, but never
all of them as floats.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from resshift_cli import images, metadata
from resshift_cli.errors import ImageUnreadableError, OutputError, UsageError, printable
from resshift_cli.formats import GIF, PNG, WEBP, SaveOptions
from resshift_cli.images import AS_IT_IS, MAX_PIXELS, Picture

_ANIMATED = (GIF, WEBP, PNG)
_SIGNATURES = (b"GIF8", b"RIFF", b"\x89PNG")


@dataclass(frozen=True, slots=True)
class Animation:
    """What there is to know of an animated file beside its frames.

    Attributes:
        path: the file.
        first: Pillow's number of the first frame: an APNG may have a still image before it.
        milliseconds: how long each frame is shown.
        plays: how often it is played; 0 is for ever.
        alpha: whether any frame has transparency; then all have four channels, else three.
    """

    path: Path
    first: int
    milliseconds: tuple[float, ...]
    plays: int
    alpha: bool


def probe(path: Path, *, max_pixels: int = MAX_PIXELS) -> Animation | None:
    """Decode every frame once; None where the file is a single image, or has pages.

    Raises:
        InputMissingError, UsageError: as `images.read`.
        ImageUnreadableError, UnsupportedImageError: as `images.read`; or a frame is damaged.
    """
    if not _may_move(path):
        return None
    with images.opened(path, max_pixels=max_pixels) as image:
        count = images.frame_count(image, printable(path))
        if image.format not in ("GIF", "WEBP", "PNG") or count == 1:
            return None
        first = int(bool(image.info.get("default_image")))
        milliseconds, alpha = [], False
        for frame in _frames(image, first, path):
            milliseconds.append(float(frame.info.get("duration", 0)))
            if frame.has_transparency_data:
                alpha = alpha or frame.convert("RGBA").getchannel("A").getextrema() != (255, 255)
        plays = image.info.get("loop")
        if image.format == "GIF":  # it counts repeats, and has no such number if there are none
            plays = 1 if plays is None else plays + (plays > 0)
        return Animation(path, first, tuple(milliseconds), plays or 0, alpha)


def read(animation: Animation, *, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """The frames, one after the other; all carry the file's profile and metadata.

    Raises:
        As `probe`.
    """
    path = animation.path
    with images.opened(path, max_pixels=max_pixels) as image:
        for frame in _frames(image, animation.first, path):
            text = metadata.text(image)
            picture = Picture.from_pil(frame.convert("RGBA" if animation.alpha else "RGB"))
            yield replace(picture, xmp=metadata.xmp(image), text=text)


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
    """Save frames, all of one size, with the timing and loop of `animation`.

    GIF counts time in hundredths of a second. Equal frames in a row may become one, which is shown
    as long as they were.

    Raises:
        UsageError: as `check_target` and `images.check_encodable`.
        OutputError: as `images.write`.
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
    images.save(buffer.getbuffer(), path, overwrite=overwrite)


def _may_move(path: Path) -> bool:
    """Whether a file starts like one of these formats; what is wrong with others, `images` says."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4).startswith(_SIGNATURES)
    except OSError:
        return False


def _frames(image: Image.Image, first: int, path: Path) -> Iterator[Image.Image]:
    """Have Pillow stand at one frame after the other."""
    for number in range(first, getattr(image, "n_frames", 1)):
        try:
            image.seek(number)
            image.load()
        except Exception as error:  # decoders raise nearly anything on a damaged file
            raise ImageUnreadableError(
                f"{printable(path)} is cut short or damaged at frame {number + 1}"
                f" ({printable(error).rstrip('.') or type(error).__name__}).",
                hint="Copy or download it again, or take the first frame with --first-frame.",
            ) from error
        yield image


def _duration(milliseconds: float) -> int:
    return max(0, round(milliseconds))
