"""Image in memory -> file, in one of the `formats`.

Whether a format can hold a result is known before the work (`check_encodable`). What is too large
for the memory is written as its rows come (`write_rows`).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.errors import OutputError, UsageError, out_of_memory, printable
from resshift_cli.imaging import metadata, palette, streaming, targets, tiff_writing
from resshift_cli.imaging.assumed import Assumed
from resshift_cli.imaging.colourspace import profile_of
from resshift_cli.imaging.formats import (
    AS_IT_IS,
    GIF,
    JPEG,
    PNG,
    TGA,
    TIFF,
    Format,
    SaveOptions,
)
from resshift_cli.imaging.icc import is_srgb
from resshift_cli.imaging.metadata import Description
from resshift_cli.imaging.opening import MAX_PIXELS, decoding, opened
from resshift_cli.imaging.picture import Picture, Pixels, Samples, levels
from resshift_cli.imaging.sources import Source

STREAMED = (PNG, TIFF, JPEG)
"""What can be written as its rows come."""


def to_pil(picture: Picture) -> Image.Image:
    """Round to 8 bits: mode L, LA, RGB or RGBA.

    Profile, EXIF, XMP and resolution are in the image's `info`.
    """
    samples = levels(picture.pixels, 8)
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    described = Description.of(picture, max_exif=2**31 - 1)
    for name, value in (
        ("icc_profile", described.icc),
        ("dpi", described.dpi),
        ("exif", described.exif),
        ("xmp", described.xmp),
    ):
        if value:
            image.info[name] = value
    return image


def check_encodable(
    picture: Picture,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    options: SaveOptions = AS_IT_IS,
) -> None:
    """Find out before the work whether the format of `path` can hold a result.

    Args:
        picture: its channels, profile and metadata count, and its size unless `size` is given.
        path: only its extension counts.
        size: (height, width) of the result, in pixels.
        options: how it will be written.

    Raises:
        UsageError: the extension is none that results are written with, or the options ask for
            what the format can't do.
        OutputError: the format has no alpha or no colour profile and the picture does, or it
            can't hold so many pixels or so much metadata, or its extra is not installed.
    """
    kind = options.format_of(path)
    _check_options(kind, path, options)
    if options.palette and picture.palette is None:
        raise OutputError(
            f"{printable(path)} can't be written: the image has no palette to keep.",
            hint="Leave --palette out.",
        )
    if options.strip_metadata:
        picture = picture.stripped()
    height, width = size or picture.pixels.shape[:2]
    problem = _unsuited(picture, kind) or _oversized(picture, kind, (height, width), options)
    if problem is not None:
        raise OutputError(
            f"{printable(path)} can't be written: {problem}.",
            hint="Choose PNG (--format png)."
            if options.format
            else f"Choose PNG: -o {printable(path.with_suffix('.png'))}",
        )


def _check_options(kind: Format, path: Path, options: SaveOptions) -> None:
    if options.lossless and not (kind.exact or kind.lossless):
        raise UsageError(
            f"{printable(path)}: {kind.name} is not written without loss.",
            hint="Let it have loss (no --lossless), or choose png, tiff, webp or jxl (--format).",
        )
    if options.palette and (not kind.indexed or options.depth == 16):
        raise UsageError(
            f"{printable(path)}: {kind.name}{' of 16 bits' * kind.indexed} is written without a "
            "palette.",
            hint="Leave --palette out, or choose the format png, gif, tga or bmp (--format), in 8 "
            "bits.",
        )
    if options.depth == 16 and not kind.deep:
        raise UsageError(
            f"{printable(path)}: {kind.name} is written in 8 bits per channel.",
            hint="Ask for no depth (--depth), or choose the format png or tiff (--format).",
        )


def _unsuited(picture: Picture, kind: Format) -> str | None:
    """What a format has no place for, whatever the size."""
    profile_is_gray = picture.icc is not None and picture.icc[16:20] == b"GRAY"
    if picture.has_alpha and not kind.alpha:
        return f"{kind.name} has no transparency, and the image does"
    if picture.icc is not None and not kind.profile and not is_srgb(picture.icc):
        return f"{kind.name} can't hold the image's colour profile"
    if profile_is_gray and not kind.gray and kind.profile:
        return f"{kind.name} has no gray, which the image's colour profile is for"
    return None


def _oversized(
    picture: Picture, kind: Format, size: tuple[int, int], options: SaveOptions
) -> str | None:
    """What a format has no room for, in a result of (height, width)."""
    height, width = size
    samples = height * width * picture.pixels.shape[2]
    if max(height, width) > kind.max_side:
        return f"{kind.name} ends at {kind.max_side} pixels a side, and {width}x{height} are due"
    if samples * options.depth_of(kind, picture.depth) // 8 > kind.max_bytes:
        return f"{kind.name} ends at 4 GB, and {width}x{height} pixels are more"
    for what, block, head in (
        ("EXIF", picture.exif, 0),
        ("XMP", picture.xmp, 40),
        ("IPTC", picture.iptc, 40),
        ("comment", picture.text.get(metadata.COMMENT, "").encode(), 2),
    ):
        if len(block or b"") + head > kind.max_exif:
            return f"{kind.name} can't hold the image's {len(block or b'')} bytes of {what}"
    return None


def can_hold(
    kind: Format,
    source: Path | Source,
    *,
    max_pixels: int = MAX_PIXELS,
    assumed: Assumed | None = None,
) -> bool:
    """Whether a format has a place for what a file's header tells of: alpha, and its colours.

    True where the header can't be read: what is wrong with the file is said when its turn comes.
    """
    if kind.alpha and kind.profile:
        return True
    try:
        with (
            opened(source, max_pixels=max_pixels, assumed=assumed) as file,
            decoding(max_pixels=max_pixels),
        ):
            if kind is JPEG and file.start.startswith(b"\xff\xd8"):  # most are, and it holds itself
                return True
            image = file.image()
            icc = profile_of(image, file.name, file.file, assumed)
    except Exception:  # decoders raise nearly anything on a damaged file
        return True
    plain_colours = icc is None or is_srgb(icc)
    return (kind.alpha or not image.has_transparency_data) and (kind.profile or plain_colours)


def write(
    picture: Picture, path: Path, *, overwrite: bool, options: SaveOptions = AS_IT_IS
) -> None:
    """Save in the format that the options or else the extension names, as `targets.save` does.

    Raises:
        UsageError: as `encode`.
        OutputError: as `encode` and `targets.save`.
    """
    targets.check_replaceable(path, overwrite=overwrite)
    targets.save(encode(picture, path, options=options), path, overwrite=overwrite)


def encode(picture: Picture, path: Path, *, options: SaveOptions = AS_IT_IS) -> bytes | memoryview:
    """The file's bytes, in the format that the options or else the extension of `path` names.

    They are made in memory: when Pillow writes to a disk that fills up, it loses the reason. JPEG
    is written without colour subsampling; a GIF's pixels are clear or opaque, nothing between.

    Raises:
        UsageError: as `check_encodable`.
        OutputError: as `check_encodable`, or the encoder fails.
    """
    depth = options.depth_of(options.format_of(path), picture.depth)
    return encode_levels(levels(picture.pixels, depth), picture, path, options=options)


def encode_levels(
    samples: Samples, picture: Picture, path: Path, *, options: SaveOptions = AS_IT_IS
) -> bytes | memoryview:
    """As `encode`, of pixels that are levels already.

    Args:
        samples: uint8 or uint16 (H, W, C), as `options.depth_of` says.
        picture: all but the pixels, of which only the shape counts.
        path: as `encode`.
        options: as `encode`.

    Raises:
        UsageError, OutputError: as `encode`.
    """
    check_encodable(picture, path, options=options)
    kind = options.format_of(path)
    try:
        if kind is TIFF:
            compression = options.compression or 0
            description = described(picture, kind, options)
            return tiff_writing.encode(samples, description, compression=compression)
        buffer = io.BytesIO()
        if samples.dtype == np.uint16:  # Pillow has no 16-bit colour
            _write_levels(buffer, [samples], picture, kind, options)
        else:
            about = described(picture, kind, options).for_pillow(kind.name)
            image = for_pillow(samples, kind)
            given = options.encoder(kind)
            if options.palette and picture.palette is not None:
                degrees = 2 if kind is GIF else 256
                image = palette.indexed(samples, picture.palette, levels_of_opacity=degrees)
                given["optimize"] = False  # a GIF's would lose entries, and with them the order
            image.save(buffer, kind.name, **about, **given)
        return buffer.getbuffer()
    except OutputError:
        raise
    except Exception as error:  # encoders of several packages, each with errors of its own
        raise not_encoded(path, error) from error


def write_rows(
    file: BinaryIO,
    rows: Iterable[Pixels],
    picture: Picture,
    path: Path,
    *,
    options: SaveOptions = AS_IT_IS,
) -> None:
    """Write a file of one of the formats `STREAMED` as its rows come.

    Args:
        file: new and seekable.
        rows: bands (n, W, C) of pixels.
        picture: all but the pixels, of which only the shape counts.
        path: as `encode`.
        options: as `encode`.

    Raises:
        UsageError: as `check_encodable`.
        OutputError: as `check_encodable`, or the encoder fails.
        Exception: what `rows` and `file` raise.
    """
    check_encodable(picture, path, options=options)
    kind = options.format_of(path)
    depth = options.depth_of(kind, picture.depth)
    failures: list[BaseException] = []

    def samples() -> Iterator[Samples]:
        try:
            for band in rows:
                yield levels(band, depth)
        except BaseException as error:
            failures.append(error)
            raise

    try:
        _write_levels(file, samples(), picture, kind, options)
    except Exception as error:
        if isinstance(error, OSError) or any(error is failure for failure in failures):
            raise
        raise not_encoded(path, error) from error


def _write_levels(
    file: BinaryIO,
    rows: Iterable[Samples],
    picture: Picture,
    kind: Format,
    options: SaveOptions,
) -> None:
    height, width, channels = picture.pixels.shape
    shape, depth = (height, width, channels), options.depth_of(kind, picture.depth)
    description = described(picture, kind, options)
    if kind is TIFF:
        compression = options.compression or 0
        tiff_writing.write(file, rows, shape, description, depth=depth, compression=compression)
        return
    small = io.BytesIO()
    mode = "L" if channels < 3 else "RGB"
    Image.new(mode, (1, 1)).save(small, kind.name, **description.for_pillow(kind.name))
    like, given = small.getvalue(), options.encoder(kind)
    if kind is PNG:
        level = given.get("compress_level", 6)
        streaming.write_png(file, rows, shape, depth=depth, like=like, compression=level)
    else:
        streaming.write_jpeg(file, rows, shape, like=like, quality=given["quality"])


def described(picture: Picture, kind: Format, options: SaveOptions) -> Description:
    """What goes into a file beside the pixels."""
    kept = picture.stripped() if options.strip_metadata else picture
    return Description.of(kept, kind.max_exif)


def not_encoded(path: Path, error: Exception) -> OutputError:
    """For what an encoder raised.

    Raises:
        Exception: that, where it says that memory ran out: the format is not to blame.
    """
    if out_of_memory(error):
        raise error
    return OutputError(
        f"{printable(path)} can't be encoded: {printable(error) or type(error).__name__}.",
        hint="Choose another format with -o.",
    )


def for_pillow(samples: NDArray[np.uint8], kind: Format) -> Image.Image:
    """The image in a mode that the format has."""
    channels = samples.shape[2]
    image = Image.fromarray(samples[..., 0] if channels == 1 else samples)
    if kind is GIF and channels in (2, 4):
        image = image.convert("RGBA")
        image.putalpha(image.getchannel("A").point(lambda level: 255 * (level >= 128)))
    elif channels < 3 and (not kind.gray or (kind is TGA and channels == 2)):
        # Hardly anything else reads the TGA of gray and alpha that Pillow would write.
        image = image.convert("RGBA" if channels == 2 else "RGB")
    return image
