"""What networks compute, against what torch counts of them as they are."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import shapes, small_unet_spec, small_vq_spec
from torch.utils.flop_counter import FlopCounterMode

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.autoencoder import VQAutoencoder
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import DenoiserSpec, SpaceToDepthSpec, VQSpec
from resshift_cli.restoration import counting
from resshift_cli.weights import registry
from resshift_cli.weights.registry import BundledSource

REALSR = registry.find("realsr-x4-v2").spec
assert REALSR is not None and isinstance(REALSR.autoencoder, VQSpec)
PUBLISHED, VQ = REALSR.denoiser, REALSR.autoencoder
BUNDLED = registry.find("chain-x4").weights.sources[0]
assert isinstance(BUNDLED, BundledSource)
TINY = specs.read_spec(BUNDLED.path).denoiser
ONE_STEP = registry.find("tiny-x4").weights.sources[0]
assert isinstance(ONE_STEP, BundledSource)

# Everything at once that a layout may have: a feature extractor, a mask, planes of noise, a level
# without a Swin layer, more blocks in a row, and windows of another size.
ODD = small_unet_spec(
    channel_mult=(1, 3, 2),
    num_res_blocks=3,
    swin_levels=(0, 2),
    swin_depth=3,
    window=4,
    lq_ratio=8,
    lq_mask=True,
    noise_channels=2,
)
ODD_VQ = small_vq_spec(ch_mult=(1, 2, 4, 8), num_res_blocks=(1, 2, 3, 4), z_channels=8)


def counted(run: Any, *inputs: torch.Tensor) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "spec, known",
    [(PUBLISHED, 101.3), (TINY, 9.2), (specs.read_spec(ONE_STEP.path).denoiser, 28.0)],
    ids=["published", "chain-x4", "tiny-x4"],
)
def test_a_call_of_a_denoiser_at_64x64_takes_the_known_number_of_operations(
    spec: DenoiserSpec, known: float
) -> None:
    assert counting.denoiser(spec).call.of(64 * 64) == pytest.approx(known * 1e9, rel=0.02)


def test_coding_256x256_pixels_takes_the_known_numbers_of_operations() -> None:
    cost = counting.autoencoder(VQ)
    assert cost.encode.of(64 * 64) == pytest.approx(345e9, rel=0.02)
    assert cost.decode.of(64 * 64) == pytest.approx(671e9, rel=0.02)


@pytest.mark.parametrize("spec", [PUBLISHED, ODD], ids=["published", "odd"])
def test_a_denoiser_costs_exactly_what_torch_counts(spec: DenoiserSpec) -> None:
    height, width = 2 * spec.size_multiple, 3 * spec.size_multiple
    with torch.device("meta"):
        network = SwinUNet(spec)
        x = torch.empty(1, spec.latent_channels, height, width)
        sides = (height * spec.lq_ratio, width * spec.lq_ratio)
        lq = torch.empty(1, 4 if spec.lq_mask else 3, *sides)
        noise = torch.empty(1, spec.noise_channels, height, width)
        timestep = torch.zeros(1, dtype=torch.long)
        features = network.features(lq)
    cost = counting.denoiser(spec)
    assert cost.features.of(height * width) == counted(network.features, lq)
    assert cost.call.of(height * width) == counted(network, x, timestep, features, noise)
    assert cost.parameters == pytest.approx(parameters(network), rel=0.03)


@pytest.mark.parametrize("spec", [VQ, ODD_VQ], ids=["published", "odd"])
def test_an_autoencoder_costs_exactly_what_torch_counts(spec: VQSpec) -> None:
    with torch.device("meta"):
        network = VQAutoencoder(spec)
        latent = torch.empty(1, spec.channels, 32, 48)
        pixels = torch.empty(1, 3, 32 * spec.factor, 48 * spec.factor)
    cost = counting.autoencoder(spec)
    assert cost.encode.of(32 * 48) == counted(network.encode, pixels)
    assert cost.decode.of(32 * 48) == counted(network.decode, latent)
    assert cost.parameters == pytest.approx(parameters(network), rel=0.03)


def parameters(network: torch.nn.Module) -> int:
    derived = ("attn_mask", "relative_position_index")
    return sum(prod(shape) for name, shape in shapes(network).items() if not name.endswith(derived))


def test_an_autoencoder_without_weights_costs_nothing() -> None:
    cost = counting.autoencoder(SpaceToDepthSpec(factor=4, latent_scale=2.0))
    assert (cost.encode.of(64), cost.decode.of(64), cost.parameters) == (0, 0, 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESSHIFT_CACHE", str(tmp_path))
    counting.denoiser.cache_clear()
    return tmp_path / counting.FOLDER


def test_what_was_counted_is_kept_for_later_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_unet_spec()
    first = counting.denoiser(spec)
    counting.denoiser.cache_clear()
    monkeypatch.setattr(counting, "SwinUNet", None)  # nothing is built
    assert counting.denoiser(spec) == first
    assert isinstance(first.call.fixed, int) and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "[]", "[[1, 2], [3, 4], 5]", '["a", "b", "c"]', "null"])
def test_a_damaged_file_is_counted_again(folder: Path, content: str) -> None:
    first = counting.denoiser(small_unet_spec())
    (file,) = folder.iterdir()
    file.write_text(content)
    counting.denoiser.cache_clear()
    assert counting.denoiser(small_unet_spec()) == first
    assert json.loads(file.read_text())[2] == first.parameters


def test_a_cache_that_can_t_be_written_is_done_without(folder: Path) -> None:
    folder.write_text("no folder")
    assert counting.denoiser(small_unet_spec()).parameters > 0
