"""Networks that begin as smaller ones: deeper, and doing at first what those do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_spec
from tiny_run import RUN, write_config

from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import DenoiserSpec, Norm
from resshift_cli.errors import ModelUnavailableError
from resshift_cli.training import train
from resshift_cli.training.growing import grown, smaller
from resshift_cli.weights import checkpoint

LEVELS = replace(
    tiny_spec().denoiser, channel_mult=(1, 2), num_res_blocks=2, swin_levels=(1,), window=4
)


def made(network: SwinUNet) -> torch.Tensor:
    """What a network makes of the same input every time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        x, lq = torch.randn(2, 48, 16, 16), torch.randn(2, 3, 16, 16)
        return network(x, torch.tensor([0, 3]), network.features(lq))


@pytest.mark.parametrize("norm", ["group", "none"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_deeper_network_makes_at_first_what_the_smaller_one_makes(times: int, norm: Norm) -> None:
    spec = replace(LEVELS, norm=norm)
    deeper = replace(spec, num_res_blocks=2 * times)
    few, many = SwinUNet(spec), SwinUNet(deeper)
    assert not torch.allclose(made(many), made(few), atol=1e-3)
    assert smaller(deeper, spec) == spec
    grown(few, many, 0.0)
    torch.testing.assert_close(made(many), made(few))


def test_every_weight_of_a_grown_network_can_be_learned() -> None:
    many = SwinUNet(replace(LEVELS, num_res_blocks=4))
    grown(SwinUNet(LEVELS), many, 0.0)
    optimiser = torch.optim.SGD(many.parameters(), lr=0.1)
    for _ in range(2):  # what follows a layer that starts at nothing has to move first
        optimiser.zero_grad()
        x, lq = torch.randn(1, 48, 16, 16), torch.randn(1, 3, 16, 16)
        many(x, torch.tensor([0]), lq).square().mean().backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in many.parameters())


@pytest.mark.parametrize(
    "ours", [replace(LEVELS, num_res_blocks=3), replace(LEVELS, num_res_blocks=1)]
)
def test_blocks_that_are_no_multiple_of_the_file_s_are_left_to_be_refused(
    ours: DenoiserSpec,
) -> None:
    assert smaller(ours, LEVELS) == ours


def test_a_run_starts_from_a_network_of_fewer_blocks(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    deeper = replace(RUN.model.denoiser, num_res_blocks=2)
    run = replace(RUN, model=replace(RUN.model, denoiser=deeper))
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "steps": 1}
    config = write_config(tmp_path / "run.toml", run, **still)
    list(train.train(config, [photos], tmp_path / "run", init=tiny_weights))
    few, many = SwinUNet(RUN.model.denoiser), SwinUNet(deeper)
    checkpoint.load_network(few, tiny_weights)
    checkpoint.load_network(many, tmp_path / "run" / "model.safetensors")
    torch.testing.assert_close(made(many), made(few))
    with pytest.raises(ModelUnavailableError, match="does not fit its network"):
        config = write_config(tmp_path / "back.toml", RUN, **still)
        deep = tmp_path / "run" / "model.safetensors"
        list(train.train(config, [photos], tmp_path / "back", init=deep))
