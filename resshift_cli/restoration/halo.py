"""What some rows of a result depend on: for every stage a few rows of tiles more than for the next.

Tiles are blended after every stage, so what is blended wrongly at a border that is none would
spread by a tile with every step of the chain. Whoever computes some rows by themselves therefore
computes, at every stage, all tiles that reach into what the next stage looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration.stages import DECODE_UNITS, ENCODE_UNITS
from resshift_cli.restoration.tiling import Grid

BICUBIC_REACH = 2
"""Input pixels that bicubic enlargement looks at on either side."""


def reduction_reach(spec: ModelSpec) -> int:
    """Pixels of the enlarged image that its reduction to a condition looks at on either side.

    Bicubic reduction without antialiasing looks less than two pixels around its own.
    """
    factor = spec.autoencoder.factor
    return -(-2 // factor) * factor if spec.condition == "resized" else 0


@dataclass(frozen=True, slots=True)
class Halo:
    """What is computed for some rows of a result, within the image's frame.

    Attributes:
        tiles: rows of tiles: of the encoder, of every step in the order of the walk, and of the
            decoder.
        low: rows of the frame, in input pixels, that all of it is made of.
    """

    tiles: tuple[range, ...]
    low: range

    @classmethod
    def of(
        cls, spec: ModelSpec, grid: Grid, steps: int, rows: range | None = None, batch: int = 1
    ) -> Self:
        """That of some rows.

        Args:
            spec: of the model.
            grid: how the frame is cut, in latent positions.
            steps: of the chain.
            rows: of the frame, in latent positions; by default all.
            batch: tiles per call of a network, on which the last bits depend: those that share a
                call do so here, too.
        """
        axis, height = grid.rows, grid.rows.length * spec.lq_pixels
        rows = range(axis.length) if rows is None else rows
        found: list[range] = []
        for _ in range(steps + 2):
            found.append(_together(axis.touched(rows), grid.rows_at_once(batch), len(axis.starts)))
            rows = axis.covered(found[-1])
        reach = reduction_reach(spec) // spec.scale
        first = max(rows.start * spec.lq_pixels - reach, 0)
        last = min(rows.stop * spec.lq_pixels + reach, height)
        low = range(max(first - BICUBIC_REACH, 0), min(last + BICUBIC_REACH, height))
        return cls(tuple(found[::-1]), low)

    @property
    def steps(self) -> Sequence[range]:
        """Rows of tiles of every step."""
        return self.tiles[1:-1]

    def units(self, spec: ModelSpec, views: int) -> int:
        """Work on one column of tiles, as `stages.units`, with so many views of each."""
        kind = spec.autoencoder.kind
        encode, decode = ENCODE_UNITS[kind], DECODE_UNITS[kind]
        steps = views * sum(map(len, self.steps))
        return encode * len(self.tiles[0]) + steps + decode * len(self.tiles[-1])


def _together(tiles: range, at_once: int, count: int) -> range:
    """Those, and what is computed with them at a time."""
    last = -(-tiles.stop // at_once) * at_once
    return range(tiles.start // at_once * at_once, min(last, count))
