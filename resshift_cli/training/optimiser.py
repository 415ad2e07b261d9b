"""What changes the weights: AdamW, or Muon for matrices beside AdamW for all else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.errors import UsageError
from resshift_cli.training.muon import Muon32
from resshift_cli.training.recipe import TrainSpec

_NARROW = 16  # below it, a matrix has too few directions for Muon to pay off


class Optimiser:
    """The optimisers of a run, as one.

    Muon (Jordan et al., https://kellerjordan.github.io/posts/muon) makes the update of a matrix
    orthogonal, so that no direction in it lags behind; a convolution is the matrix (out, in *
    height * width). Updates are scaled to the size that AdamW's have (arXiv:2502.16982, section
    2.2), and one learning rate serves both. As its authors advise, the first and the last layer,
    tables, biases and gains are left to AdamW.

    Args:
        network: whose weights are changed.
        train: which optimiser, learning rate, weight decay and beta2.

    Raises:
        UsageError: this torch has no Muon.
    """

    def __init__(self, network: SwinUNet, train: TrainSpec) -> None:
        self.network = network
        chosen = [] if train.optimiser == "adamw" else list(_inner_matrices(network))
        self._flat = [(weight, nn.Parameter(_matrix(weight.detach()))) for weight in chosen]
        taken = {id(weight) for weight in chosen}
        rest = [weight for weight in network.parameters() if id(weight) not in taken]
        adamw = torch.optim.AdamW(
            [
                {
                    "params": [weight for weight in rest if weight.ndim >= 2],
                    "weight_decay": train.weight_decay,
                },
                {"params": [weight for weight in rest if weight.ndim < 2], "weight_decay": 0.0},
            ],
            lr=train.learning_rate,
            betas=(train.beta1, train.beta2),
            fused=True,
        )
        self.parts: list[torch.optim.Optimizer] = [adamw]
        matrices = [flat for _, flat in self._flat]
        if train.optimiser == "muon32":
            self.parts.append(Muon32(matrices, train.learning_rate, train.weight_decay))
        elif train.optimiser == "muon":
            self.parts.append(_muon_of_torch(matrices, train))

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        rate: float = self.parts[0].param_groups[0]["lr"]
        return rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.network.zero_grad()

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        """Take the scale out of the gradients, once they are whole."""
        for weight, flat in self._flat:
            flat.grad = None if weight.grad is None else _matrix(weight.grad)
        for part in self.parts:
            scaler.unscale_(part)

    def step(self, learning_rate: float) -> None:
        """Change the weights by the gradients as they now are."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Everything that `load_state_dict` needs."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is of another kind of optimiser, or of other weights.
        """
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def _muon_of_torch(matrices: list[nn.Parameter], train: TrainSpec) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise UsageError(
            f'optimiser = "muon" needs torch 2.9 or newer; this is {torch.__version__}.',
            hint='Update torch, or train with optimiser = "muon32".',
        )
    return torch.optim.Muon(
        matrices,
        lr=train.learning_rate,
        weight_decay=train.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


def _inner_matrices(network: SwinUNet) -> Iterator[Tensor]:
    outermost = (network.input_blocks[0], network.out)
    outer = {id(weight) for layer in outermost for weight in layer.parameters()}
    for name, weight in network.named_parameters():
        table = name.endswith("relative_position_bias_table")
        if table or weight.ndim < 2 or id(weight) in outer:
            continue
        if min(len(weight), weight[0].numel()) >= _NARROW:
            yield weight


def _matrix(weight: Tensor) -> Tensor:
    """The same memory as a matrix, (out, everything else)."""
    if not weight.is_contiguous():  # channels_last
        weight = weight.permute(0, 2, 3, 1)
    return weight.view(len(weight), -1)
