"""Options for the faces of photos, and what is behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from resshift_cli.commands import choice, values
from resshift_cli.commands.groups import Model, Options, Sampling, Tuning
from resshift_cli.commands.options import FaceModelOption
from resshift_cli.commands.values import BUNDLED_MODEL, FACE, Work

if TYPE_CHECKING:
    from resshift_cli.restoration.portraits import Portray


@dataclass(frozen=True, slots=True)
class Faces(Options):
    """Which faces are restored, how far, and over what."""

    panel = "Which faces"

    aligned: Annotated[
        bool,
        typer.Option(
            "--aligned",
            help="The photos are faces that were cut out upright as in FFHQ: square, best of "
            "512x512 pixels. Nothing is looked for.",
        ),
    ] = False
    only_largest: Annotated[
        bool, typer.Option("--only-largest", help="Leave all faces but the largest as they are.")
    ] = False
    min_size: Annotated[
        float,
        typer.Option(
            metavar="PIXELS",
            callback=values.within(0, 100_000),
            help="Leave faces alone that are smaller in the photo, along the longer side.",
        ),
    ] = 24.0
    blend: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            callback=values.within(0, 1),
            help="How far faces are replaced by what the model makes of them, 0 to 1.",
        ),
    ] = 1.0

    background: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|none",
            autocompletion=values.background_names,
            help="What makes all that is no face: one of `resshift models list --task upscale`, or "
            "none for the photo itself, at larger scales by Lanczos' kernel. By default none at "
            f"--scale 1, or with --aligned, else {BUNDLED_MODEL}.",
        ),
    ] = None

    def craft(self, computation: Sampling, model: Model) -> Portray:
        """As the rooms below have it.

        Args:
            computation: what is asked for.
            model: which model restores faces.

        Raises:
            UsageError: OpenCV is needed, and not here; or the background's model is none.
        """
        from resshift_cli.imaging import detection
        from resshift_cli.restoration.portraits import Over, Portray

        if not self.aligned:
            detection.check_installed()
        over, behind = Over(self.background), None
        name = over.model(aligned=self.aligned, scale=computation.factor())
        if name is not None:
            behind = choice.candidate(Model(name, None, model.registry, model.offline))
        tiles = {"tile": computation.tile, "overlap": computation.overlap}
        return Portray(**{**asdict(self), "background": behind}, tiles=tiles)


@dataclass(frozen=True)
class Portraits(Tuning):
    """What is computed; steps, detail and colours are those of faces, tiles the background's."""

    scale: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            parser=values.factor,
            callback=values.within(1, 16),
            help="Output over input size along each side, any number from 1 to 16.",
        ),
    ] = 1.0

    def factor(self) -> float | None:
        """See `Sampling.factor`."""
        return self.scale


@dataclass(frozen=True, slots=True)
class FaceModel(Model):
    """Which model restores faces."""

    work: ClassVar[Work] = FACE

    model: FaceModelOption = None
