"""Options about image files: how they are read, and how results are written."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from resshift_cli.commands import values

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="EXT",
        autocompletion=values.completed(*values.FORMATS),
        help="Format of the results: png, jpg, webp, avif, tiff, gif, "
        "bmp, tga, heic or jxl. By default as the name of the result says; on stdout as the input, "
        "and PNG in place of GIF.",
    ),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="1 to 100, for formats with loss: JPEG and WebP 95, AVIF and HEIC 90 by default.",
    ),
]
LosslessOption = Annotated[
    bool,
    typer.Option(
        "--lossless", help="Write WebP or JPEG XL without loss; refuse formats that can't."
    ),
]
CompressionOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="0 (none) to 9 (smallest), for PNG (6 by default), TIFF and TGA (0).",
    ),
]
DepthOption = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        help="8 or 16 bits per channel; by default as the input has, where the format can.",
    ),
]
StripOption = Annotated[
    bool,
    typer.Option(
        "--strip-metadata", help="Leave out all metadata but colour profile and resolution."
    ),
]
PaletteOption = Annotated[
    bool,
    typer.Option(
        "--palette",
        help="Bring the colours of an indexed image back to its own palette, without dithering, "
        "and write it so, as PNG, GIF, TGA or BMP; refuse others.",
    ),
]
FirstFrameOption = Annotated[
    bool, typer.Option("--first-frame", help="Take the first frame or page of a file only.")
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=values.within(1, math.inf),
        help="Refuse images of more pixels than that, before they are decoded.",
    ),
]
AssumeProfileOption = Annotated[
    str | None,
    typer.Option(
        "--assume-profile",
        metavar="FILE|NAME",
        autocompletion=values.completed(*values.PROFILES),
        help="What colours are where a file does not say: an ICC profile, or srgb, display-p3, "
        "a98-rgb or cmyk. It holds for files with colours of its kind; by default gray and RGB "
        "are sRGB, and CMYK is what libvips takes it for.",
    ),
]
AllowTruncatedOption = Annotated[
    bool,
    typer.Option(
        "--allow-truncated",
        help="Read a PNG, JPEG, GIF, BMP, TGA or TIFF that is cut short or damaged as far as it "
        "goes, of an animation the frames before the damage, with a warning. Other formats are "
        "only read whole.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", help="Whether to replace existing files.")
]
