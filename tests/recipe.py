"""Made-up weights and inputs that anybody can draw again: the goldens were computed with them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

DERIVED = (".relative_position_index", ".attn_mask")  # a network computes these itself


def normal(key: str, shape: Sequence[int], std: float = 1.0, seed: int = 0) -> Array:
    """Normal numbers that depend on the key, the seed and the shape alone."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()) + seed))
    return generator.standard_normal(tuple(shape), dtype=np.float32) * np.float32(std)


def weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Array]:
    """Fill every entry of a state dict but the derived ones."""
    return {
        name: _offset(name, shape) + normal(name, shape, _std(name, shape), seed)
        for name, shape in shapes.items()
        if not name.endswith(DERIVED)
    }


def _std(name: str, shape: Sequence[int]) -> float:
    if name.endswith(("relative_position_bias_table", "embedding.weight")):
        return 0.5
    if len(shape) > 1:
        fan_in = math.prod(shape[1:])
        # Soft attention: otherwise rounding grows to 2e-2 along a chain of 15 steps.
        return fan_in**-0.5 * (0.5 if name.endswith("attn.qkv.weight") else 1.0)
    return 0.02 if name.endswith(".bias") else 0.1


def _offset(name: str, shape: Sequence[int]) -> np.float32:
    return np.float32(len(shape) == 1 and name.endswith(".weight"))
