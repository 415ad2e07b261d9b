"""Options for what is to be filled of a photo, beside a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli.commands import values
from resshift_cli.commands.groups import Options

if TYPE_CHECKING:
    from resshift_cli.imaging.masks import Mask

MOST_PIXELS = 1024  # that a hole grows by, or its edge is wide


@dataclass(frozen=True, slots=True)
class Holes(Options):
    """Rectangles, and what is made of all that is told."""

    panel = "What to fill"

    box: Annotated[
        list[values.Area] | None,
        typer.Option(
            metavar="X,Y,WIDTH,HEIGHT",
            parser=values.area,
            help="A rectangle, in pixels from the left, from the top, across and down; may be "
            "repeated, and adds to a mask.",
        ),
    ] = None
    invert: Annotated[
        bool, typer.Option("--invert", help="Fill all else: what is told is what is known.")
    ] = False
    grow: Annotated[
        int,
        typer.Option(
            metavar="PIXELS",
            callback=values.within(0, MOST_PIXELS),
            help="Take so many pixels around it for unknown as well.",
        ),
    ] = 0
    feather: Annotated[
        int,
        typer.Option(
            metavar="PIXELS",
            callback=values.within(0, MOST_PIXELS),
            help="Let the photo go over into what is filled along so many pixels from the edge "
            "inwards, where the photo's own pixels still show. Outside nothing changes.",
        ),
    ] = 0

    def mask(self, shape: str | None) -> Mask:
        """As `imaging.masks` has it, with what tells besides; see there.

        Raises:
            UsageError: nothing is told, or what can't be.
        """
        from resshift_cli.imaging.masks import Mask, Rectangle

        boxes = tuple(Rectangle(b.x, b.y, b.width, b.height) for b in self.box or ())
        return Mask(shape, boxes, self.invert, self.grow, self.feather)
