"""What is done to a network before it is trained: its first weights, and how it saves memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from resshift_cli.diffusion.denoiser import ResBlock, SwinUNet
from resshift_cli.diffusion.swin import SwinBlock, SwinLayer


def initialise(network: SwinUNet, *, preconditioned: bool) -> None:
    """Start every residual branch at zero and every Swin layer at the identity.

    A Swin layer replaces its input, so random projections at its ends would scramble the features
    of every level before anything is learned.

    Of the first features of a preconditioned network, half start as differences within the
    low-quality image alone: what it tells lies in faint local contrast, which the strong noise of
    the latent's many channels would drown in every mixed feature.
    """
    if preconditioned:
        latent_channels = network.spec.latent_channels
        with torch.no_grad():
            first = network.get_parameter("input_blocks.0.0.weight")
            half = len(first) // 2
            first[:half, :latent_channels] = 0
            first[:half] -= first[:half].mean((2, 3), keepdim=True)
            first[:half] *= (first.shape[1] / (first.shape[1] - latent_channels)) ** 0.5 * 8
            first[half:, latent_channels:] = 0
    for module in network.modules():
        if isinstance(module, ResBlock):
            _zero(module.out_layers[-1])
        elif isinstance(module, SwinBlock):
            _zero(module.attn.proj)
            _zero(module.mlp.fc2)
        elif isinstance(module, SwinLayer):
            for projection in (module.patch_embed.proj, module.patch_unembed.proj):
                nn.init.dirac_(projection.weight)
                nn.init.zeros_(projection.bias)  # type: ignore[arg-type]  # it has a bias
    _zero(network.out[-1])


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def recompute_activations(network: SwinUNet) -> None:
    """Have the inner activations of every block computed anew for the gradient, not kept."""
    for module in network.modules():
        if isinstance(module, ResBlock | SwinBlock):
            forward = partial(
                recomputed, module.forward, use_reentrant=False, preserve_rng_state=False
            )
            module.forward = forward  # type: ignore[method-assign]
