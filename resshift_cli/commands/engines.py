"""Who does a batch: this process, one for each device of this machine, or a cluster's workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resshift_cli.commands import console, ready
from resshift_cli.commands.groups import Machine, Options
from resshift_cli.commands.options import AddressOption, DevicesOption, EngineOption
from resshift_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from resshift_cli.batch.crew import Task
    from resshift_cli.batch.places import Place
    from resshift_cli.batch.plan import Plan
    from resshift_cli.batch.runner import Engine, Watch

Begin = Callable[["Watch"], "Engine"]
"""Has an engine ready for who is told of it."""


@dataclass(frozen=True, slots=True)
class Workers(Options):
    """Who does the work."""

    panel = "How to go about it"

    devices: DevicesOption = None
    engine: EngineOption = "local"
    address: AddressOption = None

    def check(self, machine: Machine) -> None:
        """Refuse what can't be.

        Raises:
            UsageError: options that are for other engines, or Ray is not installed.
        """
        if self.devices and machine.device != "auto":
            raise UsageError(
                "--device and --devices both say where to compute.", hint="Leave one of them out."
            )
        if self.engine == "local":
            if self.address is not None:
                raise UsageError(
                    "--address is that of a cluster, which takes --engine ray.",
                    hint="Add it, or leave out --address.",
                )
            return
        if self.devices:
            raise UsageError(
                "--devices are of this machine, and --engine ray takes all of a cluster.",
                hint="Leave one of them out; --device cuda or cpu says which kind.",
            )
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise UsageError(
                f"--engine ray needs a package that is not installed ({error.name}).",
                hint="Install it with `pip install 'resshift[ray]'`, here and on all nodes.",
            ) from error

    def found(self, place: str) -> str:
        """A path or URL by which all find it who work: nodes of a cluster are in other folders."""
        from resshift_cli.system.storage import is_url

        is_found = self.engine == "local" or is_url(place)
        return place if is_found else str(Path(place).absolute())

    def place(self, machine: Machine) -> tuple[torch.device, torch.dtype]:
        """Where it is computed, or the first of several places, and what in.

        Raises:
            DeviceError, UsageError: as `device.choose_device` and `device.choose_dtype`.
        """
        from resshift_cli.system import device

        if self.engine == "ray":
            return device.choose_elsewhere(machine.device, machine.precision)
        first = device.choose_devices(self.devices or machine.device)[0]
        return first, device.choose_dtype(machine.precision, first)

    def begin(
        self, plan: Plan, place: Place, tasks: int, machine: Machine, *, offline: bool, quiet: bool
    ) -> Begin:
        """What does the work, ready to begin but for who is told of it.

        Args:
            plan: the work.
            place: where the results go, closed.
            tasks: how many workers could share it at most.
            machine: where it is computed, `auto` settled.
            offline: touch no network for the model.
            quiet: tell nothing.
        """
        recipe, book = plan.recipe, plan.ledger
        if self.engine == "local" and self.devices is None:
            from resshift_cli.batch.runner import Runner

            model = ready.load_as(recipe.craft, recipe.entry, machine, offline=offline, quiet=quiet)
            return partial(Runner, model, recipe, plan.facts(), book)
        tell = (lambda text: None) if quiet else console.warning
        task = _task(plan, place, machine, offline=offline, quiet=quiet)
        if self.engine == "ray":
            from resshift_cli.batch.cluster import Cluster, Elsewhere

            found = Elsewhere.of(plan, tasks, offline=offline)
            return lambda watch: Cluster(task, found, self.address, book, watch, tell)
        from resshift_cli.batch.processes import Processes
        from resshift_cli.system.device import choose_devices

        assert self.devices is not None
        devices = [str(device) for device in choose_devices(self.devices)]
        return partial(Processes, task, devices, book, tell=tell)


def _task(plan: Plan, place: Place, machine: Machine, *, offline: bool, quiet: bool) -> Task:
    from resshift_cli.batch.crew import Task

    files = ready.fetch(plan.recipe.entry, offline=offline, quiet=quiet)
    resources = {name: value for name, value in asdict(machine).items() if name != "device"}
    folder = plan.facts()["folder"]
    return Task(plan.recipe, files, resources, folder, place, (plan.shard,))
