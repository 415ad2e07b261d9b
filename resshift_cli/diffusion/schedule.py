"""The residual-shift schedule in plain float64 numbers; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShiftSchedule:
    """How the chain moves from sharp x_0 to blurry y_0 (ResShift, arXiv:2307.12348, section 3).

    x_t = x_0 + eta_t (y_0 - x_0) + kappa sqrt(eta_t) eps,   eps ~ N(0, I),   t = 1..T

    Attributes:
        sqrt_eta: T numbers rising within (0, 1); sqrt_eta[t - 1] belongs to step t.
        kappa: noise strength, in standard deviations of the latent.
        timesteps: what the network is told at each step: 0-based indices of the schedule that
            it was trained with, rising. They differ from 0..T-1 only after `keep`.
    """

    sqrt_eta: tuple[float, ...]
    kappa: float
    timesteps: tuple[int, ...]

    @classmethod
    def geometric(
        cls, *, steps: int, kappa: float, p: float, min_noise: float, sqrt_eta_end: float
    ) -> ShiftSchedule:
        """Space sqrt(eta) geometrically from min_noise / max(kappa, 1); `p` bends the exponent.

        This is equation 8 of the paper: sqrt(eta_t) = sqrt(eta_1) b0^beta_t with
        beta_t = ((t - 1) / (T - 1))^p (T - 1). `sqrt_eta_end` bounds the square root of eta.

        Raises:
            ValueError: fewer than two steps, or bounds outside 0 < first < sqrt_eta_end < 1.
        """
        first = min_noise / max(kappa, 1.0)
        if steps < 2 or not 0.0 < first < sqrt_eta_end < 1.0:
            raise ValueError(
                f"a schedule needs steps >= 2 and 0 < sqrt(eta_1) < sqrt_eta_end < 1, "
                f"got steps {steps}, {first:g} and {sqrt_eta_end:g}"
            )
        growth = math.log(sqrt_eta_end / first)
        bend = [(i / (steps - 1)) ** p for i in range(steps)]
        roots = tuple(first * math.exp(growth * b) for b in bend)
        return cls(roots, kappa, tuple(range(steps)))

    @property
    def steps(self) -> int:
        """T, the number of steps of the chain."""
        return len(self.sqrt_eta)

    def eta(self, t: int) -> float:
        """eta_t for t = 0..T, where eta_0 = 0."""
        return self.sqrt_eta[t - 1] ** 2 if t > 0 else 0.0

    def noise_std(self, t: int) -> float:
        """Standard deviation of x_t given x_0 and y_0: kappa sqrt(eta_t)."""
        return self.kappa * self.sqrt_eta[t - 1]

    def input_scale(self, t: int) -> float:
        """What x_t is multiplied by before the network sees it: 1 / sqrt(kappa^2 eta_t + 1)."""
        return 1.0 / math.sqrt(self.noise_std(t) ** 2 + 1.0)

    def posterior(self, t: int) -> tuple[float, float, float]:
        """Return (weight of x_t, weight of x_0, noise std) of q(x_{t-1} | x_t, x_0), equation 6.

        At t = 1 they are 0, 1 and 0: the last step adds no noise and needs no clipped logarithm.
        """
        eta, before = self.eta(t), self.eta(t - 1)
        keep = before / eta
        return keep, 1.0 - keep, self.kappa * math.sqrt(keep * (eta - before))

    def keep(self, steps: tuple[int, ...]) -> ShiftSchedule:
        """A shorter chain over a subset of steps (1-based, rising), with alpha recomputed.

        Raises:
            ValueError: the steps are empty, not rising, or outside 1..T.
        """
        if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] > self.steps:
            raise ValueError(f"steps must rise within 1..{self.steps}, got {steps}")
        return ShiftSchedule(
            tuple(self.sqrt_eta[t - 1] for t in steps),
            self.kappa,
            tuple(self.timesteps[t - 1] for t in steps),
        )

    def respaced(self, count: int) -> ShiftSchedule:
        """Walk `count` evenly chosen steps, always with the last: the prior is right only there.

        Raises:
            ValueError: count is not within 1..T.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"count must be within 1..{self.steps}, got {count}")
        return self.keep(tuple(round(self.steps * i / count) for i in range(1, count + 1)))
