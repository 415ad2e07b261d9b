"""`resshift inpaint`: holes in a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli.commands import making, pages, ready, values
from resshift_cli.commands.groups import Filling, Machine, Options, Reporting, Sampling
from resshift_cli.commands.making import Craft, Placing, Ready
from resshift_cli.commands.options import (
    FilledOutputOption,
    FilledSuffixOption,
    SkipExistingOption,
)

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.imaging.files import Loaded
    from resshift_cli.imaging.masks import Hole, Mask
    from resshift_cli.imaging.picture import Pixels
    from resshift_cli.restoration.inpainter import Inpainter
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.weights.registry import ModelEntry

MOST_SEEDS = 64
MOST_PIXELS = 1024  # that a hole grows by, or its edge is wide


@dataclass(frozen=True, slots=True)
class Where(Options):
    """What is to be filled."""

    panel = "What to fill"

    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|alpha|'#rrggbb'",
            help="An image as large as the photo, white, or half white and more, where its pixels "
            "are unknown; or alpha for what is not opaque in the photo; or a colour that the photo "
            "has there. A file called alpha is given as ./alpha.",
        ),
    ] = None
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

    def told(self) -> Mask:
        """As `imaging.masks` has it.

        Raises:
            UsageError: nothing is told, or what can't be.
        """
        from resshift_cli.imaging.masks import Mask, Rectangle

        boxes = tuple(Rectangle(b.x, b.y, b.width, b.height) for b in self.box or ())
        return Mask(self.mask, boxes, self.invert, self.grow, self.feather)


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

    Holes much larger than 200 pixels are beyond what models have learned from: they are filled
    with something, and seldom with what anybody would expect.
    """
    craft = _Fill(filling.computation, where.told())
    marks = filled.marked(filling.computation.seed)
    placing = Placing(filled.output, filled.skip_existing, filled.compare)
    making.make([photo], lambda spec: marks, craft, filling, placing, reporting, each=filled.seeds)


class _Fill(Craft):
    """Fills the hole that a mask tells."""

    def __init__(self, computation: Sampling, mask: Mask) -> None:
        self.computation = computation
        self.mask = mask
        self.hole: Hole | None = None  # of the photo, once it is known
        self.beside = () if mask.file is None else (mask.file,)

    def refuse(self, loaded: Loaded) -> None:
        """See `Craft.refuse`."""
        name = loaded.source.name
        self.hole = self.mask.hole(loaded.rows, loaded.shape, name)
        self.mask.check(self.hole, name)

    def share(self, spec: ModelSpec, settings: Settings) -> float:
        """See `Craft.share`."""
        from resshift_cli.restoration import mending

        return 1.0 if self.hole is None else mending.share_of_work(spec, settings, self.hole)

    def ready(self, entry: ModelEntry, machine: Machine, *, offline: bool, quiet: bool) -> Ready:
        """See `Craft.ready`."""

        def kind() -> type[Inpainter]:
            from resshift_cli.restoration.inpainter import Inpainter

            return Inpainter

        inpainter = ready.load_as(kind, entry, machine, offline=offline, quiet=quiet)
        settings = inpainter.settings(**self.computation.arguments())
        mask = self.mask
        facts = mask.facts()
        return Ready(inpainter, settings, lambda how: inpainter.filling(how, self._hole_of), facts)

    def _hole_of(self, rows: Iterable[Pixels], shape: tuple[int, int, int]) -> Hole | None:
        """The hole of an image, or of one frame, which may have none."""
        hole = self.hole
        if hole is None or self.mask.looks_at_photo:
            hole = self.mask.hole(rows, shape, "the photo")
        return hole if hole.unknown.any() else None
