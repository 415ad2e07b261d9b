"""What each precision owes to float32, and the fast paths to the plain one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from goldens_support import (
    BUNDLED,
    CODE_MARGIN,
    NETWORK,
    channels_last,
    error,
    golden_unet,
    golden_vq,
    small_vq_spec,
)
from plain_chain import restore
from safetensors.torch import load_file
from tiny_model import tiny_networks, tiny_spec, tiny_upscaler
from torch import Tensor, nn

from resshift_cli.diffusion import packing, swin
from resshift_cli.diffusion.autoencoder import VQAutoencoder
from resshift_cli.diffusion.denoiser import Denoiser, SwinUNet
from resshift_cli.diffusion.layers import GroupNorm
from resshift_cli.diffusion.packing import PackedConv2d
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.evaluation.unoptimised import unoptimise
from resshift_cli.system import device

CPU = torch.device("cpu")
HALVES = [torch.bfloat16, torch.float16]
SCHEDULE = ShiftSchedule.geometric(steps=15, kappa=2.0, p=0.3, min_noise=0.04, sqrt_eta_end=0.99)

# Root mean square of the error of one call, in standard deviations of the float32 golden.
CALL = {torch.bfloat16: 0.03, torch.float16: 0.004}


def rms(actual: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference, in standard deviations of the reference."""
    difference = actual.double() - reference.double()
    return (difference.square().mean().sqrt() / reference.double().std()).item()


def psnr(actual: Tensor, reference: Tensor) -> float:
    """Of images in [-1, 1], in dB."""
    return 10 * math.log10(4 / (actual.double() - reference.double()).square().mean().item())


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def placed(network: nn.Module, dtype: torch.dtype, *, packed: bool = True) -> nn.Module:
    """A copy of a network, as it is run on a CPU."""
    network = copy.deepcopy(network)
    device.place(network, CPU, dtype)
    if packed:
        packing.pack(network)
    return network


def first_case(file: str) -> dict[str, Tensor]:
    """The tensors of a golden's first case."""
    tensors = load_file(BUNDLED / f"{file}.safetensors")
    case = min(name.split(".")[0] for name in tensors)
    return {n.removeprefix(f"{case}."): t for n, t in tensors.items() if n.startswith(f"{case}.")}


# Parity with the float32 goldens


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["unet_small", "unet_small_x2"])
def test_a_half_precision_call_of_the_unet_is_near_the_official_one(
    name: str, dtype: torch.dtype
) -> None:
    g = first_case(name)
    network = placed(golden_unet(name), dtype)
    assert isinstance(network, SwinUNet)
    with torch.inference_mode():
        out = network(g["x"].to(dtype), g["t"], network.features(g["lq"].to(dtype)))
    assert rms(out, g["out"]) < CALL[dtype]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["vq_small", "vq_f8_small"])
def test_half_precision_autoencoders_are_near_the_official_ones(
    name: str, dtype: torch.dtype
) -> None:
    g = first_case(name)
    network = placed(golden_vq(name), dtype)
    assert isinstance(network, VQAutoencoder)
    with torch.inference_mode():
        assert rms(network.encode(g["image"]), g["z"]) < CALL[dtype]
        assert rms(network.decode(g["z"]), g["decoded"]) < CALL[dtype]


@pytest.mark.parametrize("precision, decibels", [("bf16", 40), ("fp16", 55)])
def test_a_half_precision_job_is_the_float32_one_to_the_eye(
    precision: str, decibels: float
) -> None:
    lq = random(1, 3, 16, 24).clamp(-1, 1)
    exact, half = tiny_upscaler(), tiny_upscaler(precision)
    assert psnr(restore(half, lq, seed=1), restore(exact, lq, seed=1)) > decibels


@pytest.mark.parametrize("dtype", HALVES)
def test_the_codebook_stays_exact_in_half_precision(dtype: torch.dtype) -> None:
    g = first_case("vq_f8_small")
    network = placed(golden_vq("vq_f8_small"), dtype)
    assert isinstance(network, VQAutoencoder)
    clear = g["code_margin"] > CODE_MARGIN
    assert torch.equal(network.quantize.nearest(g["z"])[clear], g["codes"][clear])


# Ranges


@pytest.mark.parametrize("dtype", HALVES)
def test_vq_activations_of_thousands_give_no_nan(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = VQAutoencoder(small_vq_spec(ch_mult=(1, 2), num_res_blocks=(1, 1), quantize=False))
    network.eval().requires_grad_(False)
    for conv in (network.encoder.conv_in, network.decoder.conv_in):
        conv.weight *= 3e3  # what follows is normalised: the result is as ordinary as ever
    half = placed(network, dtype)
    assert isinstance(half, VQAutoencoder)
    with torch.inference_mode():
        for actual, expected in (
            (half.encode(random(1, 3, 32, 32)), network.encode(random(1, 3, 32, 32))),
            (half.decode(random(1, 3, 16, 16)), network.decode(random(1, 3, 16, 16))),
        ):
            assert rms(actual, expected) < 20 * torch.finfo(dtype).eps


# The plain path


def networks() -> list[tuple[nn.Module, Callable[[nn.Module], Tensor]]]:
    """Networks of both window conventions and both autoencoders' attention, with a way to run."""
    x, t = random(2, 3, 64, 64), torch.tensor([3, 9])

    def unet(network: nn.Module) -> Tensor:
        return network(x, t, x.clamp(-1, 1))

    def vq(network: nn.Module) -> Tensor:
        assert isinstance(network, VQAutoencoder)
        return network.decode(network.encode(x))

    return [
        (golden_unet("unet_small"), unet),
        (golden_unet("unet_small", swin="standard"), unet),
        (golden_vq("vq_small", quantize=False), vq),
    ]


@pytest.mark.parametrize("which", range(3), ids=["reference", "standard", "vq"])
def test_the_plain_path_computes_what_the_fast_one_does(which: int) -> None:
    network, run = networks()[which]
    fast = placed(network, torch.float32)
    with torch.inference_mode():
        expected = run(fast)
        unoptimise(fast)  # also undoes what the first run left behind
        assert error(run(fast), expected) < 4 * NETWORK
    assert not any(isinstance(part, PackedConv2d) for part in fast.modules())
    assert fast.state_dict().keys() == network.state_dict().keys()


def test_the_plain_path_fuses_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, run = networks()[0]
    network = copy.deepcopy(network)
    unoptimise(network)

    def never(*_: object, **__: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", never)
    monkeypatch.setattr(swin, "_cached_mask", never)
    with torch.inference_mode():
        run(network)
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in network.parameters())


# Packed weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_compute_the_same_whatever_the_size(dtype: torch.dtype) -> None:
    network = golden_unet("unet_small")
    loose = placed(network, dtype, packed=False)
    packed = placed(network, dtype)
    with torch.inference_mode():
        for height, width in ((64, 64), (64, 128)):
            x = random(1, 3, height, width).to(dtype)
            expected = loose(x, torch.tensor([3]), x)
            actual = packed(x, torch.tensor([3]), x)
            assert error(actual, expected) < (NETWORK if dtype == torch.float32 else 0.1)


def packed_conv() -> tuple[PackedConv2d, nn.Conv2d]:
    """One that was called, so that its weights are packed, and what it was made of."""
    conv = nn.Conv2d(8, 16, 3, stride=2, padding=1).requires_grad_(False)
    channels_last(conv)
    stage = nn.Sequential(copy.deepcopy(conv))
    packing.pack(stage)
    with torch.inference_mode():
        stage(random(1, 8, 6, 6))
    packed = stage[0]
    assert isinstance(packed, PackedConv2d)
    assert "weight" not in dict(packed.named_parameters())
    return packed, conv


def test_packed_weights_are_held_once_and_seen_as_they_were() -> None:
    packed, conv = packed_conv()
    assert torch.equal(packed.weight, conv.weight)
    packed, conv = packed_conv()
    assert torch.equal(packed.state_dict()["weight"], conv.weight)


def test_packed_convolutions_can_be_copied_and_moved() -> None:
    packed, conv = packed_conv()
    assert torch.equal(copy.deepcopy(packed).weight, conv.weight)
    packed, conv = packed_conv()
    assert torch.equal(packed.double().weight, conv.weight.double())
    x = random(1, 8, 6, 6).double()
    with torch.inference_mode():
        assert torch.equal(packed(x), conv.double()(x))


def test_unpacking_gives_ordinary_convolutions_back() -> None:
    packed, conv = packed_conv()
    stage = nn.Sequential(packed)
    packing.unpack(stage)
    assert type(stage[0]) is nn.Conv2d
    assert torch.equal(stage[0].weight, conv.weight)
    assert stage[0].stride == conv.stride


# What is computed once


def test_features_of_the_low_quality_image_serve_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denoiser = Denoiser(golden_unet("unet_small_x2"), predict="x0", precondition=False)
    x, lq = random(1, 3, 64, 64), random(1, 3, 128, 128).clamp(-1, 1)
    t = torch.tensor([5])
    with torch.inference_mode():
        expected = denoiser(x, x, lq, SCHEDULE, t)
        features = denoiser.features(lq)
        monkeypatch.setattr(SwinUNet, "features", None)  # not called again
        actual = denoiser(x, x, lq, SCHEDULE, t, features=features)
    assert torch.equal(actual, expected)


def test_silu_in_place_changes_nothing_that_is_still_needed() -> None:
    denoiser, _ = tiny_networks(tiny_spec())
    x, lq = random(1, 48, 16, 16), random(1, 3, 16, 16)
    before = x.clone(), lq.clone()
    t = torch.tensor([2])
    schedule = tiny_spec().schedule.build()
    learning = denoiser(x, x, lq, schedule, t)
    with torch.inference_mode():
        torch.testing.assert_close(denoiser(x, x, lq, schedule, t), learning)
    assert torch.equal(x, before[0]) and torch.equal(lq, before[1])


# Normalisation


def test_the_precision_of_a_normalisation_does_not_fall_with_the_size_of_the_map() -> None:
    torch.manual_seed(0)
    norm = GroupNorm(128)
    x = (random(2, 128, 160, 192) * 2 + 3).contiguous(memory_format=torch.channels_last)
    exact = torch.nn.functional.group_norm(x.double().contiguous(), 32, eps=norm.eps)
    with torch.inference_mode():
        ours, torchs = error(norm(x), exact), error(nn.GroupNorm.forward(norm, x), exact)
    assert ours < 4e-6 < torchs, "torch's own loses digits"
