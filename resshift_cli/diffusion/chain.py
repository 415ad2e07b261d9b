"""The residual-shift Markov chain as functions of tensors (ResShift, arXiv:2307.12348)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from resshift_cli.diffusion.noise import PRIOR
from resshift_cli.diffusion.schedule import ShiftSchedule

NoiseSource = Callable[[int], Tensor]
"""Draw -> N(0, 1) noise of the latent's shape: `noise.PRIOR` for the start, t for step t."""

XT = TypeVar("XT")
X0 = TypeVar("X0")


@dataclass(frozen=True, slots=True)
class ChainState(Generic[XT, X0]):
    """One step of a walk: the latent x_t at step t and the x_0 predicted from it."""

    t: int
    x_t: XT
    x0: X0


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


class Sampler(Protocol):
    """How a chain starts and goes on, at every latent position by itself.

    So whole latents may be given as well as any band of them.
    """

    @property
    def schedule(self) -> ShiftSchedule:
        """The steps that are walked."""

    def start(self, y0: Tensor, noise: NoiseSource) -> Tensor:
        """x_T, from the latent of the upsampled low-quality image, (N, C, H, W)."""

    def step(self, x_t: Tensor, x0: Tensor, t: int, noise: NoiseSource) -> Tensor:
        """x_{t-1}, from x_t and the x_0 predicted from it, (N, C, H, W), for t = 2..T."""


@dataclass(frozen=True, slots=True)
class Ancestral:
    """The papers' sampler: every step draws of q(x_{t-1} | x_t, x_0, y_0).

    Attributes:
        schedule: see `Sampler`.
        temperature: what the noise of the steps, but not of the start, is multiplied by.
        kind: of the start, see `prior`.
    """

    schedule: ShiftSchedule
    temperature: float = 1.0
    kind: Literal["shifted", "kappa"] = "shifted"

    def start(self, y0: Tensor, noise: NoiseSource) -> Tensor:
        """See `Sampler.start`."""
        return prior(y0, noise(PRIOR), self.schedule, self.kind)

    def step(self, x_t: Tensor, x0: Tensor, t: int, noise: NoiseSource) -> Tensor:
        """See `Sampler.step`."""
        return step(x_t, x0, self.temperature * noise(t), self.schedule, t)


def walk(
    x_t: XT, predict: Callable[[XT, int], X0], step: Callable[[XT, X0, int], XT], steps: int
) -> Iterator[ChainState[XT, X0]]:
    """Walk the reverse chain from x_T to x_1; the last state's x0 is the result.

    Latents are whatever `predict` and `step` take and give: tensors, or streams of an image that
    never is in memory whole.

    Args:
        x_t: x_T, where the walk starts.
        predict: x_0 from x_t and t.
        step: x_{t-1} from x_t, x_0 and t, for t > 1; see `Sampler.step`.
        steps: T.
    """
    for t in range(steps, 0, -1):
        x0 = predict(x_t, t)
        yield ChainState(t, x_t, x0)
        if t > 1:
            x_t = step(x_t, x0, t)
