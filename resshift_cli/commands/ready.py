"""The model of a command: fetched, known and loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from resshift_cli.commands import console, progress, signals
from resshift_cli.commands.groups import Machine
from resshift_cli.errors import memory_limit

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.restoration.crafts import Craft
    from resshift_cli.restoration.model import Model
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files

ModelT = TypeVar("ModelT", bound="Model")


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
    from resshift_cli.weights import store

    return store.known_spec(entry)


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
    """Fetch a model that enlarges if need be, and load it.

    Raises:
        As `load_as`.
    """
    from resshift_cli.restoration.crafts import Upscale

    return load_as(Upscale(), entry, machine, offline=offline, quiet=quiet)


def load_as(
    craft: Craft[ModelT], entry: ModelEntry, machine: Machine, *, offline: bool, quiet: bool
) -> ModelT:
    """Fetch a model if need be, and load it; what it has to do otherwise goes to stderr.

    Args:
        craft: what it is to do.
        entry: the model.
        machine: where it computes.
        offline: touch no network.
        quiet: tell nothing.

    Raises:
        ModelUnavailableError, OutputError: as `store.obtain` and `Model.load`.
        DeviceError, UsageError: as `Model`.
    """
    entry = craft.needed(entry)
    files = fetch(entry, offline=offline, quiet=quiet)
    for other in craft.others:
        fetch(other, offline=offline, quiet=quiet)
    with (
        memory_limit("Close other programs, or use a smaller model."),
        console.waiting(f"Loading {entry.name}", quiet=quiet),
    ):
        import_torch()
        model = craft.load(
            entry,
            files,
            **asdict(machine),
            tell=(lambda text: None) if quiet else console.warning,
        )
    if machine.precision == "fp16" and model.device.type == "cpu" and not quiet:
        console.warning("fp16 is slow on a CPU: --precision auto takes what is fastest here.")
    return model
