"""The U-Net against the official one, and what the wrapper makes of its output."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch
from goldens_support import (
    BUNDLED,
    COMPLETE,
    NETWORK,
    STUDENT,
    UNET_SPECS,
    Golden,
    assert_module_parity,
    assert_parity,
    cases,
    channels_last,
    error,
    golden_unet,
    load,
    manifests,
    module_goldens,
    needs_complete,
    shapes,
    small_unet_spec,
)
from safetensors.torch import load_file
from tiny_model import output_and_target
from torch import Tensor

from resshift_cli.diffusion.denoiser import Denoiser, SwinUNet, timestep_embedding
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.diffusion.swin import SwinLayer

SCHEDULE = ShiftSchedule.geometric(steps=15, kappa=2.0, p=0.3, min_noise=0.04, sqrt_eta_end=0.99)


def tiny_network() -> SwinUNet:
    torch.manual_seed(0)
    spec = small_unet_spec(channel_mult=(1, 2), swin_levels=(0, 1), swin="standard")
    return SwinUNet(spec).eval().requires_grad_(False)


def wrapped(
    network: SwinUNet,
    predict: Literal["x0", "residual"] = "x0",
    *,
    precondition: bool = False,
    blind_start: bool = False,
) -> Denoiser:
    return Denoiser(network, predict=predict, precondition=precondition, blind_start=blind_start)


def tiny_inputs(side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, y_0 and lq for two images."""
    generator = torch.Generator().manual_seed(1)
    x_t, y0, lq = torch.randn(3, 2, 3, side, side, generator=generator)
    return x_t, y0, lq.clamp(-1, 1)


def test_a_network_without_norms_is_local_and_reads_no_map_that_it_has_changed() -> None:
    torch.manual_seed(0)
    spec = small_unet_spec(channel_mult=(1,), swin_levels=(), swin="standard")
    spec = replace(spec, norm="none", swin_depth=0, window=1)
    network = SwinUNet(spec).eval()
    assert not any("norm" in name for name in network.state_dict())
    x, _, lq = tiny_inputs(32)
    t = torch.tensor([3, 3])
    learning = network(x, t, lq)  # with a gradient no activation is in place
    with torch.no_grad():
        assert torch.equal(network(x, t, lq), learning)
        x[..., 31] += 5.0
        assert torch.equal(network(x, t, lq)[..., :8], learning[..., :8])


def test_without_norms_blocks_of_attention_have_none_either() -> None:
    network = SwinUNet(replace(small_unet_spec(swin="standard"), norm="none"))
    assert any(isinstance(part, SwinLayer) for part in network.modules())
    assert not any(isinstance(part, torch.nn.GroupNorm) for part in network.modules())


@pytest.mark.parametrize("name", UNET_SPECS)
def test_every_published_layout_has_the_official_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        network = SwinUNet(UNET_SPECS[name])
    assert shapes(network) == manifests()[name]


def test_every_published_layout_is_listed() -> None:
    assert set(UNET_SPECS) == {name for name in manifests() if name.startswith("unet")}


def test_standard_windows_add_no_buffers_of_masks() -> None:
    with torch.device("meta"):
        network = SwinUNet(small_unet_spec(swin="standard"))
    official = manifests()["unet_small"].items()
    assert shapes(network) == {k: v for k, v in official if not k.endswith(".attn_mask")}


@pytest.mark.parametrize(
    "golden",
    cases(
        "unet_small",
        "unet_small_standard",
        "unet_small_x2",
        "unet_small_mask",
        "unet_small_face",
    ),
)
def test_one_call_is_the_official_one(golden: Golden) -> None:
    name = golden[0].stem
    tensors = load(golden)
    standard = name.endswith("_standard")
    network = golden_unet(
        name.removesuffix("_standard"), swin="standard" if standard else "reference"
    )
    planes = [tensors[key].float() for key in ("lq", "mask") if key in tensors]
    with torch.inference_mode():
        features = network.features(torch.cat(planes, dim=1))
        out = network(tensors["x"], tensors["t"], features)
    assert_parity(out, tensors["out"], NETWORK)


@pytest.mark.parametrize("lq", ["latent", "pixel"])
@pytest.mark.parametrize(
    "folder", [BUNDLED, pytest.param(COMPLETE, marks=needs_complete)], ids=["bundled", "complete"]
)
def test_a_distilled_student_takes_its_noise_planes_last(folder: object, lq: str) -> None:
    g = load_file(f"{folder}/student_small.safetensors")
    student = wrapped(golden_unet("unet_small_student"))
    seen = g["z_y"] if lq == "latent" else g["pixel.cond"]
    with torch.inference_mode():
        x0 = student(g["z_T"], g["z_y"], seen, SCHEDULE, g["t"] + 1, g["eps"])
    assert_parity(x0, g[f"{lq}.z0"], STUDENT)


@pytest.mark.parametrize(
    "name, path",
    [
        ("unet_res_same", "input_blocks.1.0"),
        ("unet_res_diff", "input_blocks.4.0"),
        ("unet_down", "input_blocks.3.0"),
        ("unet_up", "output_blocks.2.1"),
        ("unet_mask_feature_extractor", "feature_extractor"),
    ],
)
def test_a_part_computes_what_the_official_one_does(name: str, path: str) -> None:
    network = golden_unet("unet_small_mask" if "mask" in name else "unet_small")
    time = [module_goldens()["emb"]] if "_res_" in name else []
    assert_module_parity(network, path, name, *time)


def test_the_time_embedding_is_the_official_one() -> None:
    g = module_goldens()
    for dim in (32, 160):
        torch.testing.assert_close(timestep_embedding(g["temb.t"], dim), g[f"temb.dim{dim}"])
    embed = golden_unet("unet_small").time_embed
    assert_parity(embed(timestep_embedding(g["temb.t"], 32)), g["temb.mlp_out"], NETWORK)


def test_channels_last_computes_the_same() -> None:
    x, _, lq = tiny_inputs()
    network = tiny_network()
    plain = network(x, torch.tensor([3, 9]), lq)
    channels_last(network)
    last = [part.contiguous(memory_format=torch.channels_last) for part in (x, lq)]
    assert_parity(network(last[0], torch.tensor([3, 9]), last[1]), plain, NETWORK)


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    x, _, lq = tiny_inputs(side=32)
    network = tiny_network()
    together = network(x, torch.tensor([3, 9]), lq)
    assert_parity(network(x[1:], torch.tensor([9]), lq[1:]), together[1:], NETWORK)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_half_precision_stays_finite_and_near(dtype: torch.dtype, size: float) -> None:
    x_t, y0, lq = tiny_inputs()
    exact = wrapped(tiny_network())
    half = wrapped(tiny_network().to(dtype))
    t = torch.tensor([15, 15])
    expected = exact(size * x_t, y0, lq, SCHEDULE, t)
    actual = half(size * x_t, y0, lq, SCHEDULE, t)
    output, _ = output_and_target(half, y0, x_t, y0, lq, SCHEDULE, t)
    assert actual.dtype == output.dtype == torch.float32
    assert error(actual, expected) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("predict, sign", [("x0", 1), ("residual", -1)])
def test_the_output_is_x0_or_what_y0_exceeds_it_by(
    predict: Literal["x0", "residual"], sign: int
) -> None:
    x_t, y0, lq = tiny_inputs()
    network = tiny_network()
    t = torch.tensor([4, 10])
    scale = torch.tensor([SCHEDULE.input_scale(4), SCHEDULE.input_scale(10)]).view(2, 1, 1, 1)
    raw = network(x_t * scale, t - 1, lq)
    x0 = wrapped(network, predict)(x_t, y0, lq, SCHEDULE, t)
    torch.testing.assert_close(x0, raw if sign > 0 else y0 - raw)


def test_a_shortened_chain_tells_the_network_its_original_timesteps() -> None:
    x_t, y0, lq = tiny_inputs()
    denoiser = wrapped(tiny_network())
    kept = SCHEDULE.keep((5, 10, 15))
    short = denoiser(x_t, y0, lq, kept, torch.tensor([1, 3]))
    torch.testing.assert_close(short, denoiser(x_t, y0, lq, SCHEDULE, torch.tensor([5, 15])))


@pytest.mark.parametrize("precondition", [False, True])
@pytest.mark.parametrize("predict", ["x0", "residual"])
def test_a_network_that_hits_its_target_restores_x0(
    precondition: bool, predict: Literal["x0", "residual"]
) -> None:
    x_t, y0, lq = tiny_inputs()
    x0 = y0.flip(3)
    t = torch.tensor([2, 14])
    denoiser = wrapped(tiny_network(), predict, precondition=precondition)
    output, target = output_and_target(denoiser, x0, x_t, y0, lq, SCHEDULE, t)
    # x_0 is linear in the output; its slope follows from moving the output by one.
    moved = copy.deepcopy(denoiser)
    bias = moved.network.get_parameter("out.2.bias")
    bias.copy_(bias + 1.0)
    now = denoiser(x_t, y0, lq, SCHEDULE, t)
    slope = moved(x_t, y0, lq, SCHEDULE, t) - now
    assert (slope > 0).all() == (predict == "x0" and not precondition)
    torch.testing.assert_close(now + slope * (target - output), x0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("t", [1, 8, 15])
def test_preconditioning_leaves_a_target_of_unit_variance_that_its_input_does_not_tell(
    t: int,
) -> None:
    generator = torch.Generator().manual_seed(2)
    y0, residual, noise = torch.randn(3, 1, 3, 128, 128, generator=generator)
    x0 = y0 - residual
    x_t = x0 + SCHEDULE.eta(t) * residual + SCHEDULE.noise_std(t) * noise
    denoiser = wrapped(tiny_network(), precondition=True)
    _, target = output_and_target(denoiser, x0, x_t, y0, y0, SCHEDULE, torch.tensor([t]))
    shown = (x_t - y0).flatten()
    assert abs(target.std().item() - 1) < 0.02
    assert abs(torch.corrcoef(torch.stack([shown, target.flatten()]))[0, 1].item()) < 0.02


@pytest.mark.parametrize(
    ("predict", "precondition"), [("x0", False), ("residual", False), ("residual", True)]
)
def test_a_blind_start_takes_y0_for_the_last_state_and_only_for_that(
    predict: Literal["x0", "residual"], precondition: bool
) -> None:
    x_t, y0, lq = tiny_inputs()
    t = torch.tensor([15, 14])
    network = tiny_network()
    seeing = wrapped(network, predict, precondition=precondition)
    blind = wrapped(network, predict, precondition=precondition, blind_start=True)
    found = blind(x_t, y0, lq, SCHEDULE, t)
    assert torch.equal(found[:1], seeing(y0, y0, lq, SCHEDULE, t)[:1])
    assert torch.equal(found[1:], seeing(x_t, y0, lq, SCHEDULE, t)[1:])
    # Of a shorter chain the last step is the last as well.
    short = SCHEDULE.keep((5, 15))
    assert torch.equal(blind(x_t, y0, lq, short, torch.tensor([2, 1]))[:1], found[:1])
