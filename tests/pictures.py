"""Pictures to learn from, and to degrade, in tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from resshift_cli.imaging.icc import Primaries
from resshift_cli.training.photos import Photo

P3 = Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329))
"""Of Display P3, as phones have it."""


def made_up_photo(seed: int, side: int) -> Photo:
    """Two gradients under waves, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = [np.sin(40 * (a * rows + b * columns)) for a, b in rng.normal(size=(3, 2))]
    levels = 128 + 60 * (rows - columns)[..., None] + 50 * np.stack(waves, axis=2)
    return levels.clip(0, 255).astype(np.uint8)


def detailed(height: int = 64, width: int = 96) -> Tensor:
    """Smooth colours under fine detail, (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.2, 0.8, width).expand(1, 3, height, width)
    return (ramp + 0.1 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def assert_eight_bits(image: Tensor) -> None:
    """Every value is one of 0/255 .. 255/255."""
    assert image.min() >= 0 and image.max() <= 1
    assert torch.equal((image * 255).round() / 255, image)
