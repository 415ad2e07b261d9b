"""`resshift upscale`: images, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resshift_cli.commands import making, pages
from resshift_cli.commands.groups import Enlarging, Reporting
from resshift_cli.commands.making import Placing
from resshift_cli.commands.options import (
    InputsArgument,
    OutputOption,
    SkipExistingOption,
    SuffixOption,
)

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec


def upscale(
    inputs: InputsArgument,
    *,
    output: OutputOption = None,
    suffix: SuffixOption = None,
    skip_existing: SkipExistingOption = False,
    compare: pages.CompareOption = False,
    enlarging: Enlarging,
    reporting: Reporting,
) -> None:
    """Enlarge images, and animations frame by frame.

    All inputs and outputs are checked before the work starts. If an image fails later on, the
    others are still done, and the exit code is that of the first failure. Results of earlier runs
    that *.png names, too, are left alone; without other images beside them they are enlarged.

    Progress and a summary go to stderr. stdout stays empty on a terminal; in a pipe it gets the
    path of every result, one per line, or with --json one object that holds everything.

    `resshift upscale - < photo.jpg > large.jpg` reads from stdin and writes to stdout, where
    nothing else goes then: with `-o -` for any single input, without -o for an image from stdin.
    A file that is called - is given as ./-.
    """
    from resshift_cli.restoration.crafts import Upscale

    computation = enlarging.computation

    def marked(spec: ModelSpec) -> dict[str, int]:
        usual = f"_{computation.box() or f'x{computation.factor() or spec.scale:g}'}"
        return {usual if suffix is None else suffix: computation.seed}

    placing = Placing(output, skip_existing, compare)
    making.make(inputs, marked, Upscale(), enlarging, placing, reporting)
