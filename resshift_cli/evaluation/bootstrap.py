"""Means over images, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % confidence interval, which a single image does not give."""

    mean: float
    low: float | None
    high: float | None


def means(values: NDArray[np.float64], seed: int) -> list[Estimate]:
    """The mean of every column, with the percentile bootstrap's interval (Efron 1979).

    The images are drawn again with replacement, the same for all columns; the interval holds
    the middle 95 % of the means so obtained. It tells how much the choice of images matters, not
    how much the noise of the model does.

    Args:
        values: (images, columns), all finite, at least one image.
        seed: of the draws.
    """
    count = len(values)
    centre = values.mean(axis=0)
    if count == 1:
        return [Estimate(float(mean), None, None) for mean in centre]
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    low, high = np.percentile(weights @ values, PERCENTILES, axis=0)
    return [Estimate(*map(float, three)) for three in zip(centre, low, high, strict=True)]
