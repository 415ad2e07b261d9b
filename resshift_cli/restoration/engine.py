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
"""Held while float32 networks are made; not an engine's own, since locks can't be pickled."""


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


Compute = Callable[[Networks, Sequence[Box]], Tensor]
"""The tiles of N images in some boxes, box after box."""


@dataclass(slots=True)
class Engine:
    """Networks on a device, and what is known of them; any number of runs share it.

    Attributes:
        spec: the model's table.
        name: for messages.
        networks: on the device, in `dtype`.
        device: where to compute.
        dtype: what the networks compute in.
        whole_batches: never compute fewer tiles at a time than were chosen, since the networks are
            compiled for so many.
        tell: called with a sentence about what had to be done otherwise.
    """

    spec: ModelSpec
    name: str
    networks: Networks
    device: torch.device
    dtype: torch.dtype
    whole_batches: bool = False
    tell: Callable[[str], None] = warnings.warn
    _exact: Networks | None = field(default=None, init=False, repr=False)
    _most: float = field(default=math.inf, init=False, repr=False)

    def exact(self) -> Networks:
        """The same networks in float32, made when they are first needed."""
        with _MAKING:
            if self._exact is None:
                self.tell(
                    f"'{self.name}' gave values that are not finite in {self.dtype}: those tiles "
                    "are computed in float32."
                )
                self._exact = copy.deepcopy(self.networks).placed(self.device, torch.float32)
            return self._exact

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
    """

    engine: Engine
    tile_batch: int
    bar: Bar
    field: noise.Field = noise.field

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
            result = compute(self.engine.exact(), [box])
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
            missing = self.tile_batch - len(some) if self.engine.whole_batches else 0
            given = [*some, *[some[-1]] * missing]
            try:
                result = compute(self.engine.networks, given)
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
