"""`resshift restore`: photos at their own size."""

from __future__ import annotations

from typing import Annotated

import typer

from resshift_cli.commands import making, pages
from resshift_cli.commands.groups import Reporting, Restoring
from resshift_cli.commands.making import Placing
from resshift_cli.commands.options import (
    RestoredOutputOption,
    RestoredSuffixOption,
    SkipExistingOption,
    StrengthOption,
)


def restore(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO", help="Photos to mend; - reads one from stdin.", show_default=False
        ),
    ],
    *,
    strength: StrengthOption = 1.0,
    output: RestoredOutputOption = None,
    suffix: RestoredSuffixOption = "_restored",
    skip_existing: SkipExistingOption = False,
    compare: pages.CompareOption = False,
    restoring: Restoring,
    reporting: Reporting,
) -> None:
    """Mend photos at their own size: what damaged them is taken away, as far as the model knows it.

    The bundled `tiny-x1` takes away noise and JPEG artefacts, and hardly changes a photo that has
    none; grain of film that is plain to see is noise to it, too. The published model `deblur` has
    learned blur by motion, of the camera or of what it saw. Alpha stays as it is. To mend and
    enlarge at once is what `resshift upscale` does, whose models have learned noise, blur and JPEG
    artefacts.
    """
    from resshift_cli.restoration.crafts import Restore

    placing = Placing(output, skip_existing, compare)
    marks = {suffix: restoring.computation.seed}
    making.make(photos, lambda spec: marks, Restore(strength), restoring, placing, reporting)
