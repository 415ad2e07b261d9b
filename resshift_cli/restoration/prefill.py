"""What stands in a hole before a network sees it: its surroundings, drawn in from the edge.

A network that corrects that has far less to learn than one that starts from black, and what it does
not know yet is at least smooth.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

DEEPEST = 64
"""Pixels from a hole's edge up to which anything is drawn in; all beyond is gray."""

_SMOOTHED = 8  # times: rings that meet from several sides then go over into each other

REACH = DEEPEST + _SMOOTHED
"""How far around a pixel that looks."""


def prefilled(colours: Tensor, unknown: Tensor) -> Tensor:
    """Images whose holes hold what is around them.

    Ring by ring, each unknown pixel becomes the mean of its neighbours that are known by then; in
    the end each is brought towards the mean of all its neighbours.

    Args:
        colours: (N, 3, H, W) in any range; what they are where unknown does not matter.
        unknown: bool (N, 1, H, W).

    Returns:
        (N, 3, H, W); known pixels as they were, those too deep in a hole gray: 0.
    """
    if not unknown.any():
        return colours
    colours, empty = colours.masked_fill(unknown, 0.0), unknown
    for _ in range(DEEPEST):
        if not empty.any():
            break
        known = _around((~empty).to(colours))
        ring = empty & (known > 0)
        colours = colours.where(~ring, _around(colours) / known.clamp(min=1e-3))
        empty = empty & ~ring
    for _ in range(_SMOOTHED):
        colours = colours.where(~(unknown & ~empty), _around(colours))
    return colours


def _around(planes: Tensor) -> Tensor:
    """The mean of each pixel and its neighbours."""
    return F.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
