"""First weights from a smaller network: one of fewer blocks, or one that is shown no noise.

What the larger network makes at first is what the smaller one makes, but for planes of noise that
are given a little weight (after Net2Net, Chen et al., arXiv:1511.05641).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.diffusion.denoiser import ResBlock, SwinUNet
from resshift_cli.diffusion.specs import DenoiserSpec
from resshift_cli.training.network import FIRST


def smaller(ours: DenoiserSpec, theirs: DenoiserSpec) -> DenoiserSpec:
    """Our sizes, but for those of a file's network that `grown` can bring up to ours.

    Args:
        ours: of the network that is to be filled.
        theirs: of the network in the file.

    Returns:
        As many blocks as the file has, if ours are a multiple of them, and no planes of noise if
        it has none; else our own number of either.
    """
    deeper = ours.num_res_blocks % theirs.num_res_blocks == 0
    return replace(
        ours,
        num_res_blocks=theirs.num_res_blocks if deeper else ours.num_res_blocks,
        noise_channels=ours.noise_channels if theirs.noise_channels else 0,
    )


def grown(network: SwinUNet, into: SwinUNet, planes_std: float) -> None:
    """Fill a network from a smaller one, whose sizes are those of `smaller`.

    Args:
        network: the smaller one.
        into: the one that is filled.
        planes_std: of the weights of planes of noise that only this one is shown.
    """
    with torch.no_grad():
        for module in into.modules():
            if isinstance(module, ResBlock):
                _pass_through(module)
    weights = into.state_dict() | _deepened(network, into.spec)
    if planes := into.spec.noise_channels - network.spec.noise_channels:
        # Planes come last among what the first layer is shown.
        first = F.pad(weights[FIRST], (0, 0, 0, 0, 0, planes))
        nn.init.normal_(first[:, -planes:], std=planes_std)
        weights[FIRST] = first
    into.load_state_dict(weights)


def _pass_through(block: ResBlock) -> None:
    """Have a block give what comes first in its input: features, before a skip connection's."""
    for parameter in block.out_layers[-1].parameters():
        nn.init.zeros_(parameter)
    if isinstance(block.skip_connection, nn.Conv2d):
        nn.init.dirac_(block.skip_connection.weight)
        nn.init.zeros_(block.skip_connection.bias)  # type: ignore[arg-type]  # it has a bias


def _deepened(network: SwinUNet, spec: DenoiserSpec) -> dict[str, Tensor]:
    """The weights by the names that they have in a network of more blocks.

    Of every level, each block is followed by blocks that pass through what it gives, and the last
    one on the way up by none: so every skip connection still brings what it brought.
    """
    few, many = network.spec.num_res_blocks, spec.num_res_blocks
    levels = len(spec.channel_mult)
    down, up = {0: 0}, {}
    for level in range(levels):
        for i in range(few + 1):  # down: the blocks of a level, and what makes the next
            down[1 + level * (few + 1) + i] = 1 + level * (many + 1) + i * many // few
            up[level * (few + 1) + i] = level * (many + 1) + i * many // few
    places = {"input_blocks": down, "output_blocks": up}
    weights = {}
    for name, tensor in network.state_dict().items():
        part, _, rest = name.partition(".")
        if part in places:
            index, _, rest = rest.partition(".")
            name = f"{part}.{places[part][int(index)]}.{rest}"
        weights[name] = tensor
    return weights
