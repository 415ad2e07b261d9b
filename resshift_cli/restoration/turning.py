"""A tile turned and mirrored: eight views of it, whose predictions are averaged.

A network that was trained on photos is not the same to all sides, and its errors are not either:
those of eight views cancel in part (the self-ensemble of Lim et al., arXiv:1707.02921, section
3.4). It is known as test-time augmentation, TTA.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to lay a square on itself.

    Attributes:
        quarters: of a full turn, 0 to 3.
        mirrored: whether left and right are exchanged after that.
    """

    quarters: int = 0
    mirrored: bool = False

    def __call__(self, image: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W), or to (N, C, W, H) for odd quarters."""
        turned = torch.rot90(image, self.quarters, (-2, -1))
        return turned.flip(-1) if self.mirrored else turned

    def back(self, image: Tensor) -> Tensor:
        """Undo it."""
        turned = image.flip(-1) if self.mirrored else image
        return torch.rot90(turned, -self.quarters, (-2, -1))


STILL = (Turn(),)
TURNS = tuple(Turn(quarters, mirrored) for mirrored in (False, True) for quarters in range(4))


def turns(tta: bool) -> tuple[Turn, ...]:
    """The views of a tile that are predicted from."""
    return TURNS if tta else STILL
