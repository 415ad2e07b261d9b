"""Pictures to learn from in tests."""

from __future__ import annotations

import numpy as np

from resshift_cli.degrade import Pixels


def made_up_photo(seed: int, side: int) -> Pixels:
    """Two gradients under waves, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = [np.sin(40 * (a * rows + b * columns)) for a, b in rng.normal(size=(3, 2))]
    levels = 128 + 60 * (rows - columns)[..., None] + 50 * np.stack(waves, axis=2)
    return levels.clip(0, 255).astype(np.uint8)
