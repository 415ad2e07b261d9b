"""`resshift face`: the faces of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from resshift_cli.commands import making, pages
from resshift_cli.commands.groups import Making, Reporting
from resshift_cli.commands.making import Placing
from resshift_cli.commands.options import (
    FacesOutputOption,
    FacesSuffixOption,
    SkipExistingOption,
)
from resshift_cli.commands.portraits import FaceModel, Faces, Portraits


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
    computation = restoring.computation
    craft = faces.craft(computation, restoring.model)
    placing = Placing(output, skip_existing, compare)
    marks = {suffix: computation.seed}
    making.make(photos, lambda spec: marks, craft, restoring, placing, reporting)
