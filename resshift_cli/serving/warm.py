"""The models of a service: what is told of them, and those that are loaded and stay so."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import ResShiftError, UsageError, memory_limit
from resshift_cli.imaging import detection
from resshift_cli.restoration import rates
from resshift_cli.restoration.crafts import Craft, Upscale
from resshift_cli.restoration.model import Model, Resources
from resshift_cli.restoration.rates import Machine
from resshift_cli.serving import asking
from resshift_cli.system.device import choose_device, choose_dtype
from resshift_cli.system.progress import Bars
from resshift_cli.weights import registry, store
from resshift_cli.weights.registry import ModelEntry
from resshift_cli.weights.store import Files

ModelT = TypeVar("ModelT", bound=Model)

MOST = 2
"""Models that stay loaded; the one that was used the longest ago is let go of."""


@dataclass(frozen=True, slots=True)
class Warm:
    """A model that is loaded, and the files that it is of."""

    files: Files
    model: Model


@dataclass
class Models:
    """What can be asked for.

    Attributes:
        default: the model that enlarges where none is named.
        registry: a file with more models.
        offline: touch no network.
        resources: where to compute and with how much.
    """

    default: ModelEntry
    registry: Path | None = None
    offline: bool = False
    resources: Resources = field(default_factory=lambda: Resources())
    _loaded: dict[str, Warm] = field(default_factory=dict, init=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def all(self, task: str = "upscale") -> dict[str, ModelEntry]:
        """Those for a task, the default one first: the first that is here, but for enlarging."""
        known = map(asking.TASKS[task].needed, registry.models(self.registry).values())
        fitting = {entry.name: entry for entry in known if entry.task in registry.RUN_BY[task]}
        if task == "upscale":
            return {self.default.name: self.default} | fitting
        here_first = sorted(fitting.values(), key=lambda entry: not self.is_here(entry))
        return {entry.name: entry for entry in here_first}

    def find(self, name: str | None, task: str = "upscale") -> ModelEntry:
        """A model by name, or the default one for a task.

        Raises:
            UnknownModelError: there is none.
            UsageError: it is for another task.
        """
        fitting = self.all(task)
        if name is None and fitting:
            return next(iter(fitting.values()))
        if name in fitting:
            return fitting[name]
        entry = registry.find(name or "", self.registry)
        raise UsageError(
            f"'{entry.name}' is for {entry.task}, and not for what is asked for.",
            hint=f"`/api/models` lists those whose task is {task}.",
        )

    def spec(self, entry: ModelEntry) -> ModelSpec | None:
        """How a model is run, if that can be known without fetching it."""
        if entry.name in self._loaded:
            return self._loaded[entry.name].model.spec
        files = store.located(entry)
        if files is not None:
            return store.spec_of(entry, files.weights)
        return entry.spec

    def warm(self, entry: ModelEntry, craft: Craft[ModelT], fetching: Bars) -> ModelT:
        """A model that is loaded for a task, which gets those that it takes besides.

        They are fetched if need be, and stay loaded together.

        Raises:
            ModelUnavailableError, OutputError: as `store.obtain` and `Craft.load`.
            DeviceError, UsageError: as `Model`.
        """
        # Out here nobody waits for what is fetched but who needs it.
        files = self._files(entry, craft, fetching)
        others = [(other, self._files(other, Upscale(), fetching)) for other in craft.others]
        with self._loading:
            for each in (entry, *craft.others):  # what is here already is let go of last
                if each.name in self._loaded:
                    self._loaded[each.name] = self._loaded.pop(each.name)
            craft.take([self._warm(*other, Upscale()) for other in others])
            return self._warm(entry, files, craft)

    def _files(self, entry: ModelEntry, craft: Craft[Any], fetching: Bars) -> Files:
        """All files of a model that are here, or else those that a task needs."""
        needed = entry if self.is_here(entry) else craft.needed(entry)
        return store.obtain(needed, offline=self.offline, progress=fetching)

    def _warm(self, entry: ModelEntry, files: Files, craft: Craft[ModelT]) -> ModelT:
        known = self._loaded.pop(entry.name, None)
        if known is None or known.files != files:
            known = None
            while len(self._loaded) >= MOST:
                del self._loaded[next(iter(self._loaded))]
            with memory_limit("Use a smaller model."):
                known = Warm(files, craft.load(entry, files, **self.resources))
        self._loaded[entry.name] = known
        loaded: Any = known.model
        return cast(ModelT, loaded)

    def is_here(self, entry: ModelEntry) -> bool:
        """Whether nothing has to be fetched for it."""
        return store.located(entry) is not None

    def missing(self, entry: ModelEntry, task: str) -> str | None:
        """Why a model can't do a task here, and what helps; None if it can."""
        try:
            if task == "face":
                detection.check_installed()
            if self.offline and not self.is_here(entry):
                store.obtain(entry, offline=True)
        except ResShiftError as error:
            return f"{error} {error.hint}"
        return None

    @property
    def loaded(self) -> list[str]:
        """Those that are, by name."""
        return list(self._loaded)

    @cached_property
    def machine(self) -> Machine:
        """How fast this machine is, measured when it is first asked."""
        device = choose_device(self.resources.get("device", "auto"))
        precision = self.resources.get("precision", "auto")
        return rates.measure(device, choose_dtype(precision, device))

    def documents(self) -> list[dict[str, Any]]:
        """What clients are told of all of them."""
        return [
            self._document(entry, task, is_default=not place)
            for task in asking.TASKS
            for place, entry in enumerate(self.all(task).values())
        ]

    def _document(self, entry: ModelEntry, task: str, *, is_default: bool) -> dict[str, Any]:
        spec = self.spec(entry)
        told: dict[str, Any] = {
            "name": entry.name,
            "task": task,
            "description": entry.description,
            "homepage": entry.homepage,
            "licence": entry.licence,
            "licence_urls": [licence.url for licence in entry.licences if licence.url],
            "commercial": entry.commercial,
            "here": self.is_here(entry),
            "loaded": entry.name in self._loaded,
            "missing": self.missing(entry, task),
            "bytes": sum(file.bytes for file in entry.files),
            "default": is_default,
        }
        if spec is not None:
            dial = spec.mean or spec.steps > 1
            told |= {"scale": spec.scale, "steps": spec.steps, "dial": dial}
            told["detail"] = spec.detail if dial else None
        return told
