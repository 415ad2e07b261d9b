"""Muon with its iteration in float32, for processors that only emulate bfloat16.

torch's own iterates in bfloat16, which takes ten times as long on a CPU without AVX512 or AMX: of
a step of chain-x4, half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5 (Jordan et al., see `Optimiser`)
ITERATIONS = 5
MOMENTUM = 0.95
AS_ADAMW = 0.2  # root mean square of an update of AdamW (arXiv:2502.16982)
_LEAST = 1e-7


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with singular values of about 1 in place of their own.

    Newton-Schulz iterations of the fifth order; values end up between 0.7 and 1.2.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(_LEAST)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        squares = x @ x.mT
        weights = torch.baddbmm(squares, squares, squares, beta=third, alpha=fifth)
        x = torch.baddbmm(x, weights, x, beta=first)
    return x.mT if tall else x


class Muon32(torch.optim.Optimizer):
    """Muon as `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but for the precision.

    Matrices of one shape are iterated together.

    Args:
        params: matrices.
        lr: learning rate.
        weight_decay: decoupled, as of AdamW.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # torch has two
        """Take a step along orthogonal updates."""
        assert closure is None  # nobody here has one
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter, update in self._updates(group):
                alike.setdefault(parameter.shape, []).append((parameter, update))
            for shape, pairs in alike.items():
                updates = orthogonal(torch.stack([update for _, update in pairs]))
                rate = group["lr"] * AS_ADAMW * max(shape) ** 0.5
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-rate)

    def _updates(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter that has a gradient, and its momentum after Nesterov."""
        for parameter in group["params"]:
            if parameter.grad is not None:
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = state["momentum_buffer"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                yield parameter, parameter.grad.lerp(momentum, MOMENTUM)
