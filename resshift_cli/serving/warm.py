"""The models of a service: what is told of them, and those that are loaded and stay so."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError, memory_limit
from resshift_cli.restoration import rates
from resshift_cli.restoration.model import Resources
from resshift_cli.restoration.rates import Machine
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system.device import choose_device, choose_dtype
from resshift_cli.system.progress import Bars
from resshift_cli.weights import registry, store
from resshift_cli.weights.registry import ModelEntry

MOST = 2
"""Models that stay loaded; the one that was used the longest ago is let go of."""


@dataclass
class Models:
    """What can be asked for.

    Attributes:
        default: the model that nobody named.
        registry: a file with more models.
        offline: touch no network.
        resources: where to compute and with how much.
    """

    default: ModelEntry
    registry: Path | None = None
    offline: bool = False
    resources: Resources = field(default_factory=lambda: Resources())
    _loaded: dict[str, Upscaler] = field(default_factory=dict, init=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def all(self) -> dict[str, ModelEntry]:
        """Those that enlarge, the default one first."""
        known = registry.models(self.registry).values()
        fitting = {entry.name: entry for entry in known if entry.task in registry.RUN_BY["upscale"]}
        return {self.default.name: self.default} | fitting

    def find(self, name: str | None) -> ModelEntry:
        """A model by name, or the default one.

        Raises:
            UnknownModelError: there is none.
            UsageError: it does not enlarge.
        """
        if name is None or name == self.default.name:
            return self.default
        entry = registry.find(name, self.registry)
        if entry.task not in registry.RUN_BY["upscale"]:
            raise UsageError(
                f"'{entry.name}' is for {entry.task}, and does not enlarge.",
                hint="`/api/models` lists those that do.",
            )
        return entry

    def spec(self, entry: ModelEntry) -> ModelSpec | None:
        """How a model is run, if that can be known without fetching it."""
        if entry.name in self._loaded:
            return self._loaded[entry.name].spec
        files = store.located(entry)
        if files is not None:
            return store.spec_of(entry, files.weights)
        return entry.spec

    def warm(self, entry: ModelEntry, fetching: Bars) -> Upscaler:
        """A model that is loaded; it is fetched if need be.

        Raises:
            ModelUnavailableError, OutputError: as `store.obtain` and `Upscaler.load`.
            DeviceError, UsageError: as `Upscaler`.
        """
        # Out here nobody waits for what is fetched but who needs it.
        files = store.obtain(entry, offline=self.offline, progress=fetching)
        with self._loading:
            upscaler = self._loaded.pop(entry.name, None)
            if upscaler is None:
                while len(self._loaded) >= MOST:
                    del self._loaded[next(iter(self._loaded))]
                with memory_limit("Use a smaller model."):
                    upscaler = Upscaler.load(entry, files, **self.resources)
            self._loaded[entry.name] = upscaler
            return upscaler

    def is_here(self, entry: ModelEntry) -> bool:
        """Whether nothing has to be fetched for it."""
        return entry.name in self._loaded or store.located(entry) is not None

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
        return [self._document(entry) for entry in self.all().values()]

    def _document(self, entry: ModelEntry) -> dict[str, Any]:
        spec = self.spec(entry)
        told: dict[str, Any] = {
            "name": entry.name,
            "description": entry.description,
            "homepage": entry.homepage,
            "licence": entry.licence,
            "licence_urls": [licence.url for licence in entry.licences if licence.url],
            "commercial": entry.commercial,
            "here": self.is_here(entry),
            "loaded": entry.name in self._loaded,
            "bytes": sum(file.bytes for file in entry.files),
            "default": entry.name == self.default.name,
        }
        if spec is not None:
            dial = spec.mean or spec.steps > 1
            told |= {"scale": spec.scale, "steps": spec.steps, "dial": dial}
            told["detail"] = spec.detail if dial else None
        return told
