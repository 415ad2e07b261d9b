"""What is done to a network before it is trained: its first weights, and how it saves memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from resshift_cli.diffusion.denoiser import ResBlock, SwinUNet
from resshift_cli.diffusion.specs import DenoiserSpec
from resshift_cli.diffusion.swin import SwinBlock, SwinLayer

FIRST = "input_blocks.0.0.weight"  # of the layer that is shown latent, image and planes of noise
PLANES_STD = 0.04
"""Of the weights that planes of noise start with: from nothing, they are hardly ever found."""


def initialise(network: SwinUNet, *, preconditioned: bool) -> None:
    """Start every residual branch at zero and every Swin layer at the identity.

    A Swin layer replaces its input, so random projections at its ends would scramble the features
    of every level before anything is learned.

    Of the first features of a preconditioned network, half start as differences within the
    low-quality image alone: what it tells lies in faint local contrast, which the strong noise of
    the latent's many channels would drown in every mixed feature.

    Without normalisation residual branches start small in place of zero, and all first features of
    such a network are of the low-quality image, or, where it is not preconditioned, of its latent
    and, with the mask, of the image itself. Planes of noise count for little at first.
    """
    plain = network.spec.norm == "none"
    with torch.no_grad():
        first = network.get_parameter(FIRST)
        if preconditioned:
            _start_plain(first, network.spec) if plain else _start(first, network.spec)
        elif plain:
            _start_shown(first, network)
        if planes := network.spec.noise_channels:
            nn.init.normal_(first[:, -planes:], std=PLANES_STD)
        for module in network.modules():
            if isinstance(module, ResBlock):
                _shrink(module.out_layers[-1], 0.2 if plain else 0.0)
            elif isinstance(module, SwinBlock):
                _shrink(module.attn.proj, 0.0)
                _shrink(module.mlp.fc2, 0.0)
            elif isinstance(module, SwinLayer):
                for projection in (module.patch_embed.proj, module.patch_unembed.proj):
                    nn.init.dirac_(projection.weight)
                    nn.init.zeros_(projection.bias)  # type: ignore[arg-type]  # it has a bias
        _shrink(network.out[-1], 0.1 if plain else 0.0)


def _start(first: nn.Parameter, spec: DenoiserSpec) -> None:
    latent, half = spec.latent_channels, len(first) // 2
    first[:half, :latent] = 0
    first[:half] -= first[:half].mean((2, 3), keepdim=True)
    first[:half] *= (first.shape[1] / (first.shape[1] - latent)) ** 0.5 * 8
    first[half:, latent:] = 0


def _start_plain(first: nn.Parameter, spec: DenoiserSpec) -> None:
    first.zero_()
    shown, half = first[:, spec.latent_channels :], len(first) // 2
    nn.init.normal_(shown, std=(shown[0].numel() * 3) ** -0.5)
    shown[:half] -= shown[:half].mean((2, 3), keepdim=True)
    shown[:half] *= 6


def _start_shown(first: nn.Parameter, network: SwinUNet) -> None:
    for module in network.feature_extractor.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    latent, half = network.spec.latent_channels, len(first) // 2
    nn.init.normal_(first, std=(first[0].numel() * 3) ** -0.5)
    first[:half, :latent] -= first[:half, :latent].mean((1, 2, 3), keepdim=True)
    first[:half, :latent] *= 4


def _shrink(layer: nn.Module, factor: float) -> None:
    """Of what it starts with, keep a share of the weights and no bias."""
    for name, parameter in layer.named_parameters():
        if factor and name == "weight":
            parameter.mul_(factor)
        else:
            parameter.zero_()


def recompute_activations(network: SwinUNet) -> None:
    """Have the inner activations of every block computed anew for the gradient, not kept."""
    for module in network.modules():
        if isinstance(module, ResBlock | SwinBlock):
            forward = partial(
                recomputed, module.forward, use_reentrant=False, preserve_rng_state=False
            )
            module.forward = forward  # type: ignore[method-assign]
