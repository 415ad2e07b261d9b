"""Averages of two models, one of which may have fewer blocks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_spec

from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import ModelSpec, read_spec
from resshift_cli.training.network import FIRST
from resshift_cli.weights import checkpoint


@pytest.fixture
def average() -> Iterator[Callable[..., None]]:
    scripts = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, scripts)
    import average_weights

    yield average_weights.main
    sys.path.remove(scripts)


def spec_of(blocks: int) -> ModelSpec:
    return replace(tiny_spec(), denoiser=replace(tiny_spec().denoiser, num_res_blocks=blocks))


def saved(path: Path, blocks: int, seed: int) -> SwinUNet:
    torch.manual_seed(seed)
    network = SwinUNet(spec_of(blocks).denoiser)
    checkpoint.save_model(path, spec_of(blocks), network)
    return network


def read(path: Path, blocks: int) -> SwinUNet:
    network = SwinUNet(spec_of(blocks).denoiser)
    checkpoint.load_network(network, path)
    return network


@torch.no_grad()
def made(network: SwinUNet) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, network.spec.latent_channels, 16, 16, generator=rng)
    lq = torch.randn(1, 3, 16 * network.spec.lq_ratio, 16 * network.spec.lq_ratio, generator=rng)
    return network(x, torch.tensor([0]), network.features(lq))


def test_weights_lie_between_those_of_both(average: Callable[..., None], tmp_path: Path) -> None:
    networks = [saved(tmp_path / f"{seed}.safetensors", 1, seed) for seed in (0, 1)]
    average(*(tmp_path / f"{name}.safetensors" for name in ("0", "1", "both")), share=0.25)
    ours, theirs = (network.state_dict() for network in networks)
    for name, weights in read(tmp_path / "both.safetensors", 1).state_dict().items():
        between = (0.25 * ours[name] + 0.75 * theirs[name]).to(weights.dtype)
        torch.testing.assert_close(weights, between, rtol=1e-3, atol=1e-3)


def test_beyond_one_the_way_goes_on_and_a_mean_beside_samples_is_kept(
    average: Callable[..., None], tmp_path: Path
) -> None:
    samples, mean = (tmp_path / f"{name}.safetensors" for name in ("samples", "mean"))
    theirs = saved(mean, 1, 1)
    torch.manual_seed(0)
    ours = SwinUNet(spec_of(1).denoiser)
    checkpoint.save_model(samples, spec_of(1), ours, None, theirs)
    average(samples, mean, tmp_path / "further.safetensors", share=1.5, eight_bits=True)
    spec = read_spec(tmp_path / "further.safetensors")
    further = checkpoint.load(spec, tmp_path / "further.safetensors")[0]
    assert further.mean is not None
    first, second = ours.state_dict(), theirs.state_dict()
    for name, weights in further.network.state_dict().items():
        beyond = 1.5 * first[name] - 0.5 * second[name]
        torch.testing.assert_close(weights, beyond.to(weights.dtype), rtol=0.02, atol=0.02)
    torch.testing.assert_close(made(further.mean), made(theirs), rtol=0.1, atol=0.05)


def test_another_mean_goes_beside_samples_in_place_of_theirs(
    average: Callable[..., None], tmp_path: Path
) -> None:
    samples, other, whole = (tmp_path / f"{name}.safetensors" for name in ("s", "other", "whole"))
    torch.manual_seed(0)
    ours, first = (SwinUNet(spec_of(2).denoiser) for _ in range(2))
    checkpoint.save_model(samples, spec_of(2), ours, None, first)
    mean = saved(other, 1, 1)
    average(samples, samples, whole, share=1.0, mean=other)
    found = checkpoint.load(read_spec(whole), whole)[0]
    assert found.mean is not None
    torch.testing.assert_close(made(found.network), made(ours), rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(made(found.mean), made(mean), rtol=2e-2, atol=2e-3)


def test_a_network_is_shown_more_of_its_planes_of_noise(
    average: Callable[..., None], tmp_path: Path
) -> None:
    spec = replace(tiny_spec(), denoiser=replace(tiny_spec().denoiser, noise_channels=3))
    network = SwinUNet(spec.denoiser)
    samples, louder = tmp_path / "samples.safetensors", tmp_path / "louder.safetensors"
    checkpoint.save_model(samples, spec, network)
    average(samples, samples, louder, share=1.0, noise=1.5)
    found = SwinUNet(spec.denoiser)
    checkpoint.load_network(found, louder)
    first, theirs = (each.get_parameter(FIRST) for each in (network, found))
    torch.testing.assert_close(theirs[:, :-3], first[:, :-3], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(theirs[:, -3:], 1.5 * first[:, -3:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("share", "alike"), [(0.0, 1), (1.0, 0)])
def test_a_smaller_network_is_grown_to_the_size_of_the_other(
    average: Callable[..., None], tmp_path: Path, share: float, alike: int
) -> None:
    networks = [saved(tmp_path / f"{n}.safetensors", n, n) for n in (2, 1)]
    average(*(tmp_path / f"{name}.safetensors" for name in ("2", "1", "both")), share=share)
    found = made(read(tmp_path / "both.safetensors", 2))
    torch.testing.assert_close(found, made(networks[alike]), rtol=2e-2, atol=2e-3)
    assert not torch.allclose(found, made(networks[1 - alike]), rtol=2e-2, atol=2e-3)
