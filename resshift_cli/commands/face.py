"""`resshift face`: the faces of photos."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from resshift_cli.commands import choice, making, pages, values
from resshift_cli.commands.groups import Making, Model, Options, Reporting, Tuning
from resshift_cli.commands.making import Placing
from resshift_cli.commands.options import (
    FaceModelOption,
    FacesOutputOption,
    FacesSuffixOption,
    SkipExistingOption,
)
from resshift_cli.commands.values import BUNDLED_MODEL, FACE, Work

if TYPE_CHECKING:
    from resshift_cli.weights.registry import ModelEntry

PHOTO_ITSELF = "none"  # in place of a model for the background


@dataclass(frozen=True, slots=True)
class Faces(Options):
    """Which faces are restored, and how far."""

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
    background: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|none",
            autocompletion=values.background_names,
            help="What makes all that is no face: one of `resshift models list --task upscale`, "
            f"or none for the photo itself, at larger scales by Lanczos' kernel. By default none "
            f"at --scale 1, or with --aligned, else {BUNDLED_MODEL}.",
        ),
    ] = None

    def factor(self) -> float | None:
        """See `Sampling.factor`."""
        return self.scale

    def arguments(self) -> dict[str, Any]:
        """See `Sampling.arguments`; the background is another model's."""
        values = super().arguments()
        del values["background"]
        return values


@dataclass(frozen=True, slots=True)
class FaceModel(Model):
    """Which model restores faces."""

    work: ClassVar[Work] = FACE

    model: FaceModelOption = None


@dataclass(frozen=True, slots=True)
class Restoring(Making):
    """All that there is to say of how faces are restored."""

    model: FaceModel
    computation: Portraits


def face(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO", help="Photos of people; - reads one from stdin.", show_default=False
        ),
    ],
    *,
    faces: Faces,
    output: FacesOutputOption = None,
    suffix: FacesSuffixOption = "_faces",
    skip_existing: SkipExistingOption = False,
    compare: pages.CompareOption = False,
    restoring: Restoring,
    reporting: Reporting,
) -> None:
    """Restore the faces of photos, large or small, and leave or enlarge all else.

    Every face is cut out upright, restored, and put back over the background with soft borders and
    the photo's colours. Faces that look away too far, and what is no face, stay as they are; where
    there is none, that is said, and the background is done. This takes OpenCV: `pip install
    'resshift[face]'`, but for --aligned.

    A model of faces makes a likely face, which need not be that of the person.
    """
    if not faces.aligned:
        from resshift_cli.imaging import detection

        detection.check_installed()
    from resshift_cli.restoration.portraits import Portray

    computation = restoring.computation
    background = _background(restoring, faces.aligned)
    tiles = {"tile": computation.tile, "overlap": computation.overlap}
    craft = Portray(background, tiles, **asdict(faces))
    placing = Placing(output, skip_existing, compare)
    marks = {suffix: computation.seed}
    making.make(photos, lambda spec: marks, craft, restoring, placing, reporting)


def _background(restoring: Restoring, aligned: bool) -> ModelEntry | None:
    """What makes the background, if anything does.

    Raises:
        UsageError: there is no such model, or it does not enlarge.
    """
    computation, model = restoring.computation, restoring.model
    name = computation.background
    if name is None:
        name = PHOTO_ITSELF if aligned or computation.scale == 1 else BUNDLED_MODEL
    if name == PHOTO_ITSELF:
        return None
    return choice.candidate(Model(name, None, model.registry, model.offline))
