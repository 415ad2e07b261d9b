"""`resshift compare`: pictures beside each other in a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import console, pages, ready
from resshift_cli.commands.file_options import (
    AllowTruncatedOption,
    MaxPixelsOption,
    OverwriteOption,
)
from resshift_cli.commands.groups import Options, Reporting
from resshift_cli.commands.pages import OpenOption
from resshift_cli.errors import UsageError

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Handling
    from resshift_cli.viewing.exhibits import Exhibit

RESULT_PIXELS = 400_000_000
"""What pictures may have by default: results are larger than what is enlarged."""


@dataclass(frozen=True, slots=True)
class Pictures(Options):
    """How pictures are read; of an animation the first frame."""

    panel = "How to read files"

    max_pixels: MaxPixelsOption = RESULT_PIXELS
    allow_truncated: AllowTruncatedOption = False

    def handling(self) -> Handling:
        """As the rooms that handle image files take it."""
        from resshift_cli.imaging.files import Handling

        return Handling(max_pixels=self.max_pixels, allow_truncated=self.allow_truncated)


@dataclass(frozen=True, slots=True)
class PageWriting(Options):
    """How the page is written."""

    panel = "How to write the page"

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html|DIR",
            help="Where the page goes: a file, or a folder, which is created if it ends with a "
            "slash. By default photo.jpg is compared in photo_compare.html beside it.",
        ),
    ] = None
    lossless: Annotated[
        bool | None,
        typer.Option(
            "--lossless/--no-lossless",
            help="Whether pictures are embedded without loss. By default they are up to 32 million "
            "pixels in all; the page of larger ones would be of some 100 MB.",
        ),
    ] = None
    overwrite: OverwriteOption = False
    opened: OpenOption = False


def compare(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="BEFORE", readable=False, help="A picture, such as the one that was enlarged."
        ),
    ],
    after: Annotated[
        list[Path],
        typer.Argument(
            metavar="AFTER", readable=False, help="Others of the same scene, of any size."
        ),
    ],
    *,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="What results should be: it is shown, too, and PSNR, SSIM and (with "
            "'resshift[realism]') realism are told of pictures of its size.",
        ),
    ] = None,
    reading: Pictures,
    writing: PageWriting,
    reporting: Reporting,
) -> None:
    """Write a page that shows pictures beside each other, and open it in any browser.

    It slides between two of them, shows all side by side, blinks, zooms to their pixels, has a lens
    and shows differences. It is one file, and needs no network.
    """
    from resshift_cli.imaging.sources import Source
    from resshift_cli.viewing import exhibits
    from resshift_cli.viewing.page import Page

    files = [before, *after, *([reference] if reference else [])]
    usual = pages.name_for(before, "_compare.html")
    with pages.placed(usual, writing.output, files, overwrite=writing.overwrite) as path:
        with console.waiting("Reading the pictures", quiet=reporting.quiet):
            found = exhibits.of_files([Source(each) for each in files], reading.handling())
        figures: list[dict[str, float]] = [{} for _ in found]
        notes: list[str] = []
        if reference is not None:
            with console.waiting("Measuring", quiet=reporting.quiet):
                found, figures, notes = _measured(found)
        page = Page(f"{found[0].title} compared", found, notes, writing.lossless)
        pages.save(page, path, overwrite=writing.overwrite, quiet=reporting.quiet)
    if reporting.as_json:
        console.document(_document(files, path, found, figures))
    elif not reporting.quiet:
        console.note(f"{len(found)} pictures -> {path}")
        console.result(path)
    if writing.opened:
        pages.show(path)


def _measured(found: Sequence[Exhibit]) -> tuple[list[Exhibit], list[dict[str, float]], list[str]]:
    """Pictures, the last being the reference: with what their figures tell; those; and notes."""
    ready.import_torch()
    import torch

    from resshift_cli.evaluation.metrics import Realism
    from resshift_cli.viewing import figures

    *others, reference = found
    notes = [f"Figures are of whole pictures against {reference.title}; profiles don't count."]
    realism = None
    try:
        realism = Realism(torch.device("cpu"))
    except UsageError as error:
        notes.append(f"Realism is not measured. {error.hint}")
    measured = [figures.measure(one, reference, realism) for one in others]
    if not any(measured):
        notes.append("No picture has the reference's size, or one is transparent in places.")
    shown = [
        one.saying(figures.told(values, realism))
        for one, values in zip(others, measured, strict=True)
    ]
    return [*shown, reference.saying({"role": "reference"})], [*measured, {}], notes


def _document(
    files: Sequence[Path], path: Path, found: Sequence[Exhibit], figures: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """What --json prints; figures that no number tells are null."""
    return {
        "version": __version__,
        "output": str(path),
        "pictures": [
            {
                "path": str(file),
                "title": one.title,
                "width": one.shape[1],
                "height": one.shape[0],
                "facts": dict(one.facts),
                **{name: value if math.isfinite(value) else None for name, value in known.items()},
            }
            for file, one, known in zip(files, found, figures, strict=True)
        ],
        "errors": [],
    }
