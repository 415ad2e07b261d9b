"""`resshift upscale`: images, one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resshift_cli.commands import making, pages, ready
from resshift_cli.commands.groups import Computation, Enlarging, Machine, Reporting
from resshift_cli.commands.making import Craft, Placing, Ready
from resshift_cli.commands.options import (
    InputsArgument,
    OutputOption,
    SkipExistingOption,
    SuffixOption,
)

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.weights.registry import ModelEntry


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
    computation = enlarging.computation

    def marked(spec: ModelSpec) -> dict[str, int]:
        usual = f"_{computation.box() or f'x{computation.factor() or spec.scale:g}'}"
        return {usual if suffix is None else suffix: computation.seed}

    placing = Placing(output, skip_existing, compare)
    making.make(inputs, marked, _Enlarge(computation), enlarging, placing, reporting)


@dataclass(frozen=True, slots=True)
class _Enlarge(Craft):
    computation: Computation

    def ready(self, entry: ModelEntry, machine: Machine, *, offline: bool, quiet: bool) -> Ready:
        upscaler = ready.load(entry, machine, offline=offline, quiet=quiet)
        settings = upscaler.settings(**self.computation.arguments())
        return Ready(upscaler, settings, upscaler.enlarging)
