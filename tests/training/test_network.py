from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tiny_run import (
    RUN,
)
from torch.testing import assert_close

from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.training import network


def test_an_untrained_preconditioned_network_returns_zero() -> None:
    unet = SwinUNet(replace(RUN.model.denoiser, swin_levels=(0,)))
    network.initialise(unet, preconditioned=True)
    torch.manual_seed(0)
    x, lq = torch.randn(2, 48, 16, 16), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert not unet(x, torch.tensor([0, 3]), lq).any()


def test_residual_branches_start_at_zero_and_swin_layers_at_the_identity() -> None:
    unet = SwinUNet(RUN.model.denoiser)
    network.initialise(unet, preconditioned=True)
    torch.manual_seed(0)
    h, time = torch.randn(2, 32, 16, 16), torch.randn(2, 128)
    first, swin, _ = unet.middle_block
    with torch.no_grad():
        assert torch.equal(first(h, time), h)
        assert_close(swin(h), h)


def test_half_of_the_first_features_are_differences_within_the_low_quality_image() -> None:
    unet = SwinUNet(RUN.model.denoiser)
    network.initialise(unet, preconditioned=True)
    weight = unet.get_parameter("input_blocks.0.0.weight")
    assert not weight[:16, :48].any() and not weight[16:, 48:].any()
    assert_close(weight[:16, 48:].sum((2, 3)), torch.zeros(16, 3), rtol=0.0, atol=1e-5)
    assert weight[:16, 48:].any() and weight[16:, :48].any()


def test_one_that_is_shown_the_latent_starts_from_it_and_from_the_image_with_its_mask() -> None:
    torch.manual_seed(0)
    changes: dict[str, Any] = {"swin_depth": 0, "window": 1, "lq_ratio": 4, "lq_mask": True}
    unet = SwinUNet(replace(RUN.model.denoiser, norm="none", **changes))
    network.initialise(unet, preconditioned=False)
    weight = unet.get_parameter("input_blocks.0.0.weight")
    assert_close(weight[:16, :48].sum((1, 2, 3)), torch.zeros(16), rtol=0.0, atol=1e-4)
    x, mask = torch.randn(1, 48, 16, 16), torch.full((1, 4, 64, 64), -1.0)
    holed = mask.index_fill(1, torch.tensor([3]), 1.0)
    with torch.no_grad():
        outs = [unet(s, torch.tensor([3]), unet.features(lq)) for s, lq in ((x, mask), (x, holed))]
    assert (outs[0] - outs[1]).abs().mean() > 0 and outs[0].abs().mean() < 0.5


def test_a_network_without_norms_starts_small_and_with_the_low_quality_image_alone() -> None:
    torch.manual_seed(0)
    unet = SwinUNet(replace(RUN.model.denoiser, norm="none", swin_depth=0, window=1))
    network.initialise(unet, preconditioned=True)
    assert not unet.get_parameter("input_blocks.0.0.weight")[:, :48].any()
    x, lq = torch.randn(2, 48, 16, 16), torch.rand(2, 3, 16, 16) * 2 - 1
    t = torch.tensor([3, 3])
    with torch.no_grad():
        out, other = unet(x, t, lq), unet(torch.randn_like(x), t, lq)
    assert torch.equal(out, other) and 0 < out.abs().mean() < 0.3
