"""One field of Gaussian noise per image, addressed by (seed, step, latent position).

A tile, its neighbour, another tile size or another machine draw the same number at the same place:
the field is made of fixed blocks, and each block has its own counter-based generator.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float64s = NDArray[np.float64]

BLOCK = 32  # latent positions along each side of a block
MAX_SEED = 2**64 - 1

# Which draw of the field is what; draw t > 0 belongs to step t of the chain.
PRIOR = 0
PLANES = 1 << 32


class Field(Protocol):
    """What `field` is: any source of noise that answers alike may stand in for it."""

    def __call__(
        self, seed: int, step: int, channels: int, *, top: int, left: int, height: int, width: int
    ) -> Tensor:
        """See `field`."""


def field(
    seed: int, step: int, channels: int, *, top: int, left: int, height: int, width: int
) -> Tensor:
    """A window of the field: float32 (1, channels, height, width), N(0, 1), on the CPU.

    Args:
        seed: 0..2^64 - 1, the image's.
        step: which draw of the chain, 0..2^64 - 1; every step has a field of its own.
        channels: of the latent.
        top: first row, in latent positions from the top of the image, not negative.
        left: first column.
        height: rows.
        width: columns.
    """
    window = np.empty((channels, height, width), dtype=np.float32)
    for block_y in range(top // BLOCK, (top + height - 1) // BLOCK + 1):
        for block_x in range(left // BLOCK, (left + width - 1) // BLOCK + 1):
            y, x = block_y * BLOCK - top, block_x * BLOCK - left
            rows = slice(max(y, 0), min(y + BLOCK, height))
            columns = slice(max(x, 0), min(x + BLOCK, width))
            block = _block(seed, step, channels, block_y, block_x)
            window[:, rows, columns] = block[
                :, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x
            ]
    return torch.from_numpy(window)[None]


def shifted(field: Field, above: int, beside: int) -> Field:
    """The same noise for what begins so many rows and columns into the image."""

    def moved(
        seed: int, step: int, channels: int, *, top: int, left: int, height: int, width: int
    ) -> Tensor:
        place = {"top": top + above, "left": left + beside, "height": height, "width": width}
        return field(seed, step, channels, **place)

    return moved


def _block(seed: int, step: int, channels: int, block_y: int, block_x: int) -> NDArray[np.float32]:
    # Raw Philox words are the same in every numpy version, unlike Generator.standard_normal;
    # Box and Muller make a pair of normal numbers of each pair of words.
    key = np.array([seed, step], dtype=np.uint64)
    counter = np.array([0, 0, block_y, block_x], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(channels * BLOCK * BLOCK)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = uniform.reshape(2, -1)
    radius = np.sqrt(-2.0 * _log(radius))
    cosine, sine = _cos_sin(angle)
    normal = np.concatenate([radius * cosine, radius * sine])
    return normal.astype(np.float32).reshape(channels, BLOCK, BLOCK)


# The last bits of a system's logarithm, cosine and sine differ from machine to machine, and with
# them an image. Sums, products, quotients and square roots are rounded alike everywhere: series of
# these, to the precision of float64, give the same bits.


def _log(x: Float64s) -> Float64s:
    """The natural logarithm of numbers in (0, 1)."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)  # log m = 2 (s + s^3 / 3 + s^5 / 5 ...)
    series = _series(s * s, [1.0 / (2 * k + 1) for k in range(11)])
    return (exponent - small) * math.log(2.0) + 2.0 * s * series


def _cos_sin(turns: Float64s) -> tuple[Float64s, Float64s]:
    """Cosine and sine of 2 pi times numbers in [0, 1)."""
    quarters = np.rint(4.0 * turns)
    angle = (4.0 * turns - quarters) * (0.5 * math.pi)
    square = angle * angle
    cosine = _series(square, [(-1.0) ** k / math.factorial(2 * k) for k in range(9)])
    sine = angle * _series(square, [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(9)])
    quadrant = quarters.astype(np.int64) % 4
    return (
        np.choose(quadrant, [cosine, -sine, -cosine, sine]),
        np.choose(quadrant, [sine, cosine, -sine, -cosine]),
    )


def _series(x: Float64s, coefficients: list[float]) -> Float64s:
    """c_0 + c_1 x + c_2 x^2 ..."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
