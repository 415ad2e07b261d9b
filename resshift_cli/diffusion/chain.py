"""The residual-shift Markov chain as functions of tensors (ResShift, arXiv:2307.12348)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from resshift_cli.diffusion.schedule import ShiftSchedule

PredictX0 = Callable[[Tensor, int], Tensor]
"""(x_t, t) -> x_0, both float32 (N, C, H, W)."""

NoiseSource = Callable[[int], Tensor]
"""t -> N(0, 1) noise of the latent's shape, for the step from x_t to x_{t-1}. The last step,
t = 1, draws none."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """One step of a walk: the latent x_t at step t and the x_0 predicted from it."""

    t: int
    x_t: Tensor
    x0: Tensor


def shift(x0: Tensor, y0: Tensor, noise: Tensor, schedule: ShiftSchedule, t: Tensor) -> Tensor:
    """Draw x_t of q(x_t | x_0, y_0), equation 2: x_0 + eta_t (y_0 - x_0) + kappa sqrt(eta_t) eps.

    Args:
        x0: sharp latent (N, C, H, W).
        y0: latent of the upsampled low-quality image.
        noise: N(0, 1) of the same shape.
        schedule: the steps.
        t: int64 (N,), 1-based.
    """
    steps = t.tolist()
    eta = x0.new_tensor([schedule.eta(s) for s in steps]).view(-1, 1, 1, 1)
    std = x0.new_tensor([schedule.noise_std(s) for s in steps]).view(-1, 1, 1, 1)
    return x0 + eta * (y0 - x0) + std * noise


def prior(
    y0: Tensor,
    noise: Tensor,
    schedule: ShiftSchedule,
    kind: Literal["shifted", "kappa"] = "shifted",
) -> Tensor:
    """Start of the reverse chain: x_T = y_0 + kappa sqrt(eta_T) eps, or y_0 + kappa eps."""
    std = schedule.kappa if kind == "kappa" else schedule.noise_std(schedule.steps)
    return y0 + std * noise


def step(x_t: Tensor, x0: Tensor, noise: Tensor, schedule: ShiftSchedule, t: int) -> Tensor:
    """Draw x_{t-1} of q(x_{t-1} | x_t, x_0, y_0), equation 6.

    Args:
        x_t: latent at step t, (N, C, H, W).
        x0: the sharp latent, as it is predicted.
        noise: N(0, 1) of the same shape.
        schedule: the steps.
        t: 2..T.
    """
    keep, weight, std = schedule.posterior(t)
    return torch.add(keep * x_t, x0, alpha=weight).add_(noise, alpha=std)


def walk(
    x_t: Tensor, predict: PredictX0, noise: NoiseSource, schedule: ShiftSchedule
) -> Iterator[ChainState]:
    """Walk the reverse chain from x_T to x_1; the last state's x0 is the result.

    `Upscaler` walks the same steps over images that never are in memory whole.
    """
    for t in range(schedule.steps, 0, -1):
        x0 = predict(x_t, t)
        yield ChainState(t, x_t, x0)
        if t > 1:
            x_t = step(x_t, x0, noise(t), schedule, t)
