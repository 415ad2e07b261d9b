"""A model's networks, ready to run: what all kinds of work with one have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypedDict, Unpack

from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration import fitting, passes
from resshift_cli.restoration.engine import Engine, Networks
from resshift_cli.restoration.fitting import Budget
from resshift_cli.restoration.settings import Settings, refuse_unknown
from resshift_cli.system import cache
from resshift_cli.system.device import choose_device, choose_dtype, release_memory
from resshift_cli.system.progress import Bars, bars_of
from resshift_cli.weights import checkpoint, store
from resshift_cli.weights.registry import ModelEntry, find, models
from resshift_cli.weights.store import Files


class Resources(TypedDict, total=False):
    """Where and in what a model computes, and with how much memory.

    Attributes:
        device: see `device.choose_device`; `auto` by default.
        precision: see `device.choose_dtype`; `auto` by default.
        tile_batch: tiles per call of a network; by default 1 on a CPU, and what fits elsewhere.
        max_memory: bytes that the process is to take on the device at most; by default what is
            free. It bounds tiles, not the image itself.
        compiled: have the networks compiled, see `device.compile_parts`.
        tell: called with a sentence where something had to be done otherwise: memory ran out, or
            the values of half precision overflowed. By default a warning.
    """

    device: str
    precision: str
    tile_batch: int | None
    max_memory: int | None
    compiled: bool
    tell: Callable[[str], None]


Progress = Bars | Callable[[int, int], object] | bool | None
"""How a caller wants to see how far a job is, see `Upscaler.__call__`."""


class Model:
    """A model, ready to run; what it does is for the classes made of this one.

    Args:
        spec: the model's table.
        denoiser: its network.
        autoencoder: its way to the latent and back.
        name: for messages.
        resources: where to compute and with how much, see `Resources`.

    Raises:
        DeviceError: the device is not here, or what torch compiles with on it.
        UsageError: unknown device or precision, or a model for another kind of work.
    """

    def __init__(
        self,
        spec: ModelSpec,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        *,
        name: str,
        **resources: Unpack[Resources],
    ) -> None:
        refuse_unknown(resources, Resources)
        self.check(spec, name)
        self.spec = spec
        self.name = name
        self.device = choose_device(resources.get("device", "auto"))
        self.dtype = choose_dtype(resources.get("precision", "auto"), self.device)
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        compiled, tell = resources.get("compiled", False), resources.get("tell", warnings.warn)
        folder = cache.folder() / "compiled" if compiled else None
        networks = Networks(denoiser.eval(), autoencoder.eval())
        self.engine = Engine(spec, name, networks, self.device, self.dtype, folder, tell)
        self.chosen_batch = resources.get("tile_batch")
        self.max_memory = resources.get("max_memory")

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        registry: Path | None = None,
        offline: bool = False,
        **resources: Unpack[Resources],
    ) -> Self:
        """Load a model by name, fetching its files if they are not here yet.

        Args:
            name: one of `resshift models list`.
            registry: a file like weights.toml, with more models.
            offline: touch no network.
            resources: see the class.

        Raises:
            UnknownModelError: there is no such model.
            ModelUnavailableError: its files can't be fetched, or are damaged.
            DeviceError, UsageError: as the class.
        """
        entry = cls.needed(find(name, registry))
        return cls.load(entry, store.obtain(entry, offline=offline), **resources)

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        like: str | None = None,
        registry: Path | None = None,
        **resources: Unpack[Resources],
    ) -> Self:
        """Load a weight file of your own.

        Args:
            path: safetensors file, as `resshift train` or `resshift models convert` writes it.
            like: the model whose networks it fits; needed where the file does not tell.
            registry: a file like weights.toml, with more models.
            resources: see the class.

        Raises:
            InputMissingError: there is no such file.
            ModelUnavailableError: it is damaged, or fits no model.
            DeviceError, UsageError: as the class; or it fits several models.
        """
        base = find(like, registry) if like is not None else None
        entry = cls.needed(store.own(Path(path), base, models(registry).values()))
        return cls.load(entry, store.obtain(entry), **resources)

    @classmethod
    def load(cls, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> Self:
        """Load the files of a model, which `store.obtain` gives.

        Raises:
            ModelUnavailableError: they are damaged, or do not fit.
            DeviceError, UsageError: as the class.
        """
        spec = store.spec_of(entry, files.weights)
        networks = checkpoint.load(spec, files.weights, files.autoencoder)
        return cls(spec, *networks, name=entry.name, **resources)

    @classmethod
    def needed(cls, entry: ModelEntry) -> ModelEntry:
        """A model with all the files that this kind of work takes."""
        return entry

    @staticmethod
    def check(spec: ModelSpec, name: str) -> None:
        """Refuse a model that was made for another kind of work.

        Raises:
            UsageError: it was.
        """
        raise NotImplementedError

    def release_memory(self) -> None:
        """Give back what is held unused, as after an image that failed."""
        release_memory(self.device)

    def _job(self, settings: Settings, progress: Progress) -> passes.Job:
        """Work with what memory allows."""
        settings, tile_batch = self._fitted(settings)
        return passes.Job(self.engine, tile_batch, settings, bars_of(progress))

    def _fitted(self, settings: Settings) -> tuple[Settings, int]:
        """Smaller tiles where memory is short; and as many of them at a time as it holds."""
        budget = self._budget()
        fitted = budget.fit(settings)
        if fitted != settings:
            self.engine.tell(
                f"Memory is short: tiles of {fitted.tile} px instead of {settings.tile}."
            )
        if self.max_memory is not None and (need := budget.needs(fitted)) > self.max_memory:
            self.engine.tell(
                f"Tiles of {fitted.tile} px take about {need / 1e6:.0f} MB in all, which is more "
                "than allowed (--max-memory)."
            )
        return fitted, self.chosen_batch or budget.tiles_at_once(fitted.tile)

    def _budget(self) -> Budget:
        """What memory allows now."""
        memory = fitting.available(self.device, self.max_memory)
        return Budget(self.spec, self.dtype, self.device, memory)
