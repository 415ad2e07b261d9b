"""The model of a command: chosen, fetched and loaded, and what is told of its work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from resshift_cli.commands import console, progress, signals
from resshift_cli.commands.groups import Machine, Model
from resshift_cli.commands.options import BUNDLED_MODEL, DEFAULT_MODEL, DEFAULT_VARIABLE
from resshift_cli.errors import UsageError, memory_limit

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files

REACHABLE_WITHIN = 3.0  # seconds that the default model's sources get to answer
LONG = 120.0  # seconds of work that are worth a warning


def choose(which: Model) -> ModelEntry:
    """The model that the options of `upscale` mean.

    Without any, the default one; if it is neither here nor reachable the bundled one, which is
    said on stderr.

    Raises:
        UsageError: no such model, or one of another task; a weight file that fits several.
        InputMissingError, ModelUnavailableError: a weight file that can't be used.
    """
    from resshift_cli.weights import registry, store

    named = which.model or os.environ.get(DEFAULT_VARIABLE)
    if which.weights is not None:
        like = registry.find(which.model, which.registry) if which.model else None
        return store.own(which.weights, like, registry.models(which.registry).values())
    entry = registry.find(named or DEFAULT_MODEL, which.registry)
    if entry.task not in registry.UPSCALING:
        raise UsageError(
            f"'{entry.name}' is for {entry.task}, which `resshift upscale` does not do.",
            hint="`resshift models list` shows the models for enlarging.",
        )
    if named or store.located(entry):
        return entry
    if not which.offline and store.reachable(entry, within=REACHABLE_WITHIN):
        return entry
    why = "can't be fetched offline" if which.offline else "its sources can't be reached"
    console.note(
        f"{entry.name}, the default model, is not here and {why}: using {BUNDLED_MODEL}, which is "
        f"bundled. `resshift models pull {entry.name}` fetches it."
    )
    return registry.find(BUNDLED_MODEL, which.registry)


def fetch(entry: ModelEntry, *, offline: bool, quiet: bool) -> Files:
    """The files of a model, downloaded if need be, with its terms and the progress on stderr.

    Raises:
        ModelUnavailableError, OutputError: as `store.obtain`.
    """
    from resshift_cli.weights import store

    here = store.located(entry)
    if here is not None:
        return here
    for licence in dict.fromkeys(entry.licences):
        if not licence.commercial:
            console.warning(f"{entry.name}: {licence.title}. {licence.url}".rstrip())
    with progress.bars(quiet=quiet) as bars:
        return store.obtain(entry, offline=offline, progress=bars)


def known_spec(entry: ModelEntry) -> ModelSpec | None:
    """How a model is run, if that can be known without fetching it."""
    from resshift_cli.diffusion import specs
    from resshift_cli.weights import store

    if entry.spec is not None:
        return entry.spec
    files = store.located(entry)
    return None if files is None else specs.read_spec(files.weights)


def import_torch() -> None:
    """Import torch, which takes seconds, before anything that would; signals are heeded after it.

    Raises:
        KeyboardInterrupt: one has come.
    """
    with signals.deferred():
        import torch  # noqa: F401


def spec_of(entry: ModelEntry, *, offline: bool, quiet: bool) -> ModelSpec:
    """How a model is run; it is fetched if only its file can tell.

    Raises:
        ModelUnavailableError, OutputError: as `store.obtain` and `store.spec_of`.
    """
    from resshift_cli.weights import store

    if entry.spec is not None:
        return entry.spec
    files = fetch(entry, offline=offline, quiet=quiet)
    return store.spec_of(entry, files.weights)


def load(entry: ModelEntry, machine: Machine, *, offline: bool, quiet: bool) -> Upscaler:
    """Fetch a model if need be, and load it; what it has to do otherwise goes to stderr.

    Raises:
        ModelUnavailableError, OutputError: as `store.obtain` and `Upscaler.load`.
        DeviceError, UsageError: as `Upscaler`.
    """
    files = fetch(entry, offline=offline, quiet=quiet)
    with (
        memory_limit("Close other programs, or use a smaller model."),
        console.waiting(f"Loading {entry.name}", quiet=quiet),
    ):
        import_torch()
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
        (other, f"{known.name}, {_remark(known, spec)} (about {console.duration(other)})")
        for known in registry.shipped().values()
        if known.commercial and known.task == entry.task
        if (spec := known_spec(known)) and (other := seconds(spec, spec.steps)) < expected
    ]
    names = [text for _, text in sorted(faster, reverse=True)]
    advice = f" Faster with --model: {'; '.join(names)}." if names else ""
    console.note(f"This will take about {console.duration(expected)} on this machine.{advice}")


def _remark(entry: ModelEntry, spec: ModelSpec) -> str:
    """What speaks for a model that anybody may use."""
    if entry.weights.sources[0].kind == "bundled":
        return "bundled"
    return f"{spec.steps} steps, free for commercial use"
