"""Networks on a device, called for some tiles at a time."""

from __future__ import annotations

import copy
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from resshift_cli.diffusion import noise, packing
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import ResShiftError, out_of_memory
from resshift_cli.restoration.tiling import Box
from resshift_cli.system.device import compile_parts, place, release_memory
from resshift_cli.system.progress import Bar

_MAKING = threading.Lock()
"""Held while networks are made of others; not an engine's own, since locks can't be pickled."""

_KEPT = 4
"""Networks made of two sets of weights that an engine keeps at most: for the details in use."""


@dataclass(frozen=True, slots=True)
class Networks:
    """A denoiser and its way to the latent and back."""

    denoiser: Denoiser
    autoencoder: Autoencoder

    def placed(
        self, device: torch.device, dtype: torch.dtype, compiled: Path | None = None
    ) -> Networks:
        """The same networks, moved in place, and packed, or compiled into a folder.

        Raises:
            DeviceError: as `compile_parts`.
        """
        for network in (self.denoiser.eval(), self.autoencoder.eval()):
            place(network, device, dtype)
            if compiled is None:
                packing.pack(network)
            else:
                compile_parts(network.parts, device, compiled)
        return self

    def at(self, detail: float) -> Networks:
        """The same with weights between mean and samples, see `Denoiser.at`."""
        return Networks(self.denoiser.at(detail), copy.deepcopy(self.autoencoder))


Compute = Callable[[Networks, Sequence[Box]], Tensor]
"""The tiles of N images in some boxes, box after box."""


@dataclass(slots=True)
class Engine:
    """Networks on a device, and what is known of them; any number of runs share it.

    Attributes:
        spec: the model's table.
        name: for messages.
        networks: on the device, in `dtype`; of a model with two sets of weights as they were
            loaded, since what runs is made of them.
        device: where to compute.
        dtype: what the networks compute in.
        compiled: a folder to compile the networks into, or None. Then no call has fewer tiles than
            were chosen, since they are compiled for so many.
        tell: called with a sentence about what had to be done otherwise.
    """

    spec: ModelSpec
    name: str
    networks: Networks
    device: torch.device
    dtype: torch.dtype
    compiled: Path | None = None
    tell: Callable[[str], None] = warnings.warn
    _made: dict[float, Networks] = field(default_factory=dict, init=False, repr=False)
    _exact: dict[float, Networks] = field(default_factory=dict, init=False, repr=False)
    _most: float = field(default=math.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        """Put the networks on the device.

        Raises:
            DeviceError: as `compile_parts`.
        """
        if not self.spec.mean:
            self.networks.placed(self.device, self.dtype, self.compiled)

    def at(self, detail: float) -> Networks:
        """The networks for so much detail: of a single set of weights always the same."""
        if not self.spec.mean:
            return self.networks
        with _MAKING:
            return self._kept(self._made, detail, self._between)

    def exact(self, detail: float) -> Networks:
        """The same in float32, made when they are first needed."""
        networks = self.at(detail)
        with _MAKING:
            if not self._exact:
                self.tell(
                    f"'{self.name}' gave values that are not finite in {self.dtype}: those tiles "
                    "are computed in float32."
                )
            return self._kept(
                self._exact,
                detail if self.spec.mean else 1.0,
                lambda _: copy.deepcopy(networks).placed(self.device, torch.float32),
            )

    def _between(self, detail: float) -> Networks:
        return self.networks.at(detail).placed(self.device, self.dtype, self.compiled)

    @staticmethod
    def _kept(
        kept: dict[float, Networks], detail: float, make: Callable[[float], Networks]
    ) -> Networks:
        """What was made for a detail before, the latest few of which are kept."""
        kept[detail] = kept.pop(detail) if detail in kept else make(detail)
        while len(kept) > _KEPT:
            del kept[next(iter(kept))]
        return kept[detail]

    def at_most(self, tiles: int, positions: int) -> int:
        """As many tiles of so many positions as memory held in earlier runs, but at least one."""
        return max(1, int(min(tiles, self._most // positions)))

    def held_only(self, positions: int) -> None:
        """Remember that memory ran out with more positions at a time than that."""
        self._most = min(self._most, positions)


@dataclass(slots=True)
class Run:
    """One job of an engine's, and what its stages share.

    Attributes:
        engine: see there.
        tile_batch: tiles per call of a network; halved when memory runs out.
        bar: told the units of work that are done, about one for each tile and call of the denoiser.
        field: the noise; other than `noise.field` to repeat what was computed elsewhere.
        detail: see `settings.Settings`.
    """

    engine: Engine
    tile_batch: int
    bar: Bar
    field: noise.Field = noise.field
    detail: float = 1.0

    def begin(self, positions: int) -> None:
        """Take no more tiles at a time than memory held before, of so many positions each."""
        self.tile_batch = self.engine.at_most(self.tile_batch, positions)

    def call(self, compute: Compute, boxes: Sequence[Box]) -> Tensor:
        """Compute tiles, the tiles of N images box after box.

        Raises:
            Exception: the device's memory does not hold a single tile.
        """
        parts = list(self._parts(compute, boxes))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def call_exactly(self, compute: Compute, box: Box) -> Tensor:
        """Compute a tile that was not finite once more, in float32.

        Raises:
            ResShiftError: it is not finite in float32 either.
        """
        if self.engine.dtype is not torch.float32:
            result = compute(self.engine.exact(self.detail), [box])
            if torch.isfinite(result).all():
                return result
        raise ResShiftError(
            f"'{self.engine.name}' gave values that are not finite.",
            hint="Its weights may be damaged: `resshift models verify` tells.",
        )

    def _parts(self, compute: Compute, boxes: Sequence[Box]) -> Iterator[Tensor]:
        done = 0
        while done < len(boxes):
            some = boxes[done : done + self.tile_batch]
            missing = self.tile_batch - len(some) if self.engine.compiled else 0
            given = [*some, *[some[-1]] * missing]
            try:
                result = compute(self.engine.at(self.detail), given)
            except Exception as error:
                if len(given) == 1 or not out_of_memory(error):
                    raise
                result = None
            if result is None:  # out here the failed call is over, and its memory free
                self._halve(len(given), positions=boxes[0].height * boxes[0].width)
                continue
            done += len(some)
            yield result[: len(result) // len(given) * len(some)]

    def _halve(self, tiles: int, *, positions: int) -> None:
        """Of a call of so many tiles memory ran out."""
        release_memory(self.engine.device)
        self.tile_batch = tiles // 2
        self.engine.held_only(self.tile_batch * positions)
        now = f"{self.tile_batch} tiles" if self.tile_batch > 1 else "one tile"
        self.engine.tell(f"Memory ran out: going on with {now} at a time.")
