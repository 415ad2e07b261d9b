"""What `upscale` and `batch` have in common: the model made ready, and what is told of its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from resshift_cli.commands import console, models
from resshift_cli.commands.groups import Machine
from resshift_cli.errors import memory_limit

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry

LONG = 120.0  # seconds of work that are worth a warning
FASTER = {"nacre-x4": ", 4 steps, free for commercial use", "tiny-x4": ", bundled"}


def spec_of(entry: ModelEntry, *, offline: bool, quiet: bool) -> ModelSpec:
    """How a model is run; it is fetched if only its file can tell.

    Raises:
        ModelUnavailableError, OutputError: as `store.obtain` and `store.spec_of`.
    """
    from resshift_cli.weights import store

    if entry.spec is not None:
        return entry.spec
    files = models.fetch(entry, offline=offline, quiet=quiet)
    return store.spec_of(entry, files.weights)


def load(entry: ModelEntry, machine: Machine, *, offline: bool, quiet: bool) -> Upscaler:
    """Fetch a model if need be, and load it; what it has to do otherwise goes to stderr.

    Raises:
        ModelUnavailableError, OutputError: as `store.obtain` and `Upscaler.load`.
        DeviceError, UsageError: as `Upscaler`.
    """
    files = models.fetch(entry, offline=offline, quiet=quiet)
    with (
        memory_limit("Close other programs, or use a smaller model."),
        console.waiting(f"Loading {entry.name}", quiet=quiet),
    ):
        from resshift_cli.restoration.upscaler import Upscaler

        return Upscaler.load(
            entry,
            files,
            **asdict(machine),
            tell=(lambda text: None) if quiet else console.warning,
        )


def announce(
    entry: ModelEntry, upscaler: Upscaler, settings: Settings, sizes: Mapping[tuple[int, int], int]
) -> None:
    """Before work of many minutes, say what it will take, and which models are faster.

    Args:
        entry: the model.
        upscaler: the same, loaded.
        settings: how the images are enlarged.
        sizes: how many there are of every height and width.
    """
    if upscaler.spec.autoencoder.kind != "vq":
        return  # a small network: seconds
    from resshift_cli.restoration import estimate, rates
    from resshift_cli.restoration import settings as plan
    from resshift_cli.weights import registry

    machine = rates.measure(upscaler.device, upscaler.dtype)

    def seconds(spec: ModelSpec, steps: int) -> float:
        how = plan.settings(spec, name="the model", scale=settings.scale, steps=steps)
        return sum(
            count * estimate.estimate(spec, machine, how, height=height, width=width).seconds
            for (height, width), count in sizes.items()
        )

    expected = seconds(upscaler.spec, settings.steps)
    if expected < LONG:
        return
    faster = [
        f"{name}{remark} (about {console.duration(other)})"
        for name, remark in FASTER.items()
        if (spec := models.known_spec(registry.find(name)))
        and (other := seconds(spec, spec.steps)) < expected
    ]
    advice = f" Faster with --model: {'; '.join(faster)}." if faster else ""
    console.note(f"This will take about {console.duration(expected)} on this machine.{advice}")
