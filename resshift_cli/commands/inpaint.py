"""`resshift inpaint`: holes in a photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli.commands import making, pages, values
from resshift_cli.commands.groups import Filling, Options, Reporting
from resshift_cli.commands.holes import Holes
from resshift_cli.commands.making import Placing
from resshift_cli.commands.options import (
    FilledOutputOption,
    FilledSuffixOption,
    SkipExistingOption,
)

if TYPE_CHECKING:
    from resshift_cli.imaging.masks import Mask

MOST_SEEDS = 64


@dataclass(frozen=True, slots=True)
class Where(Options):
    """What is to be filled."""

    panel = Holes.panel

    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|alpha|'#rrggbb'",
            help="An image as large as the photo, white, or half white and more, where its pixels "
            "are unknown; or alpha for what is not opaque in the photo; or a colour that the photo "
            "has there. A file called alpha is given as ./alpha.",
        ),
    ] = None
    holes: Holes = field(default_factory=Holes)

    def told(self) -> Mask:
        """As `imaging.masks` has it.

        Raises:
            UsageError: nothing is told, or what can't be.
        """
        return self.holes.mask(self.mask)


@dataclass(frozen=True, slots=True)
class Filled(Options):
    """What results there are, and where."""

    panel = "What comes of it"

    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            callback=values.within(1, MOST_SEEDS),
            help="Make so many results to choose from, with seeds that follow --seed: "
            "photo_filled_seed0.jpg and so on.",
        ),
    ] = 1
    output: FilledOutputOption = None
    suffix: FilledSuffixOption = "_filled"
    skip_existing: SkipExistingOption = False
    compare: pages.CompareOption = False

    def marked(self, first: int) -> dict[str, int]:
        """What stands behind the photo's name in that of every result, and the seed of each."""
        if self.seeds == 1:
            return {self.suffix: first}
        every = [(first + number) % 2**64 for number in range(self.seeds)]
        return {f"{self.suffix}_seed{seed}": seed for seed in every}


def inpaint(
    photo: Annotated[
        str,
        typer.Argument(
            metavar="PHOTO", help="The photo; - reads it from stdin.", show_default=False
        ),
    ],
    *,
    where: Where,
    filled: Filled,
    filling: Filling,
    reporting: Reporting,
) -> None:
    """Fill holes in a photo: what is scratched, written over, in the way, or not there at all.

    What is unknown is told by --mask, --box, or both. All else of the photo stays as it is, in PNG,
    TIFF and other formats without loss bit for bit. Only tiles that touch the hole are computed,
    so that a small one takes as long in a large photo as in a small one. An animation is filled
    frame by frame.

    The bundled `tiny-x1` fills scratches, dust and letters; in holes larger than 64 pixels it makes
    soft colour and nothing else: they are work for `inpaint-imagenet`, or in faces `inpaint-face`.
    Holes much larger than 200 pixels are beyond what these have learned from: they are filled with
    something, and seldom with what anybody would expect.
    """
    from resshift_cli.restoration.crafts import Inpaint

    craft = Inpaint(where.told())
    marks = filled.marked(filling.computation.seed)
    placing = Placing(filled.output, filled.skip_existing, filled.compare)
    making.make([photo], lambda spec: marks, craft, filling, placing, reporting, each=filled.seeds)
