"""`resshift restore`: photos at their own size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli.commands import making, pages, ready, values
from resshift_cli.commands.groups import Machine, Reporting, Restoring, Tuning
from resshift_cli.commands.making import Craft, Placing, Ready
from resshift_cli.commands.options import (
    RestoredOutputOption,
    RestoredSuffixOption,
    SkipExistingOption,
)

if TYPE_CHECKING:
    from resshift_cli.restoration.restorer import Restorer
    from resshift_cli.weights.registry import ModelEntry


def restore(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO", help="Photos to mend; - reads one from stdin.", show_default=False
        ),
    ],
    *,
    strength: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            callback=values.within(0, 1),
            help="How far a photo is replaced by what the model makes of it, 0 to 1.",
        ),
    ] = 1.0,
    output: RestoredOutputOption = None,
    suffix: RestoredSuffixOption = "_restored",
    skip_existing: SkipExistingOption = False,
    compare: pages.CompareOption = False,
    restoring: Restoring,
    reporting: Reporting,
) -> None:
    """Mend photos at their own size: what damaged them is taken away, as far as the model knows it.

    The published model `deblur` has learned blur by motion, of the camera or of what it saw. Alpha
    stays as it is. To mend and enlarge at once is what `resshift upscale` does, whose models have
    learned noise, blur and JPEG artefacts.
    """
    computation = restoring.computation
    placing = Placing(output, skip_existing, compare)
    marks, craft = {suffix: computation.seed}, _Mend(computation, strength)
    making.make(photos, lambda spec: marks, craft, restoring, placing, reporting)


class _Mend(Craft):
    """Mends, as far as is wanted."""

    def __init__(self, computation: Tuning, strength: float) -> None:
        self.computation = computation
        self.strength = strength

    def ready(self, entry: ModelEntry, machine: Machine, *, offline: bool, quiet: bool) -> Ready:
        """See `Craft.ready`."""

        def kind() -> type[Restorer]:
            from resshift_cli.restoration.restorer import Restorer

            return Restorer

        restorer = ready.load_as(kind, entry, machine, offline=offline, quiet=quiet)
        settings, strength = restorer.settings(**self.computation.arguments()), self.strength
        facts = {"strength": strength}
        return Ready(restorer, settings, lambda how: restorer.restoring(how, strength), facts)
