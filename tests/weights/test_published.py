"""The models of weights.toml, as their entries say that they are run, against official numbers.

The goldens' networks are narrower than the published ones and stand in for them; all else is the
entry's own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import plain_chain
import pytest
import torch
from goldens_support import (
    BUNDLED,
    COMPLETE,
    NETWORK,
    STUDENT,
    UNET_SPECS,
    arrange,
    assert_parity,
    golden_unet,
    golden_vq,
    manifests,
    needs_complete,
    shapes,
)
from safetensors.torch import load_file
from tiny_model import restore
from torch import Tensor

from resshift_cli.diffusion import noise
from resshift_cli.diffusion.autoencoder import VQAutoencoder
from resshift_cli.diffusion.denoiser import Denoiser, SwinUNet
from resshift_cli.diffusion.noise import PLANES, PRIOR
from resshift_cli.diffusion.packing import unpack
from resshift_cli.diffusion.specs import ModelSpec, VQSpec
from resshift_cli.imaging.masks import Hole
from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.restoration.tiling import Frame
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.weights import registry

ModelT = TypeVar("ModelT", Upscaler, Inpainter)

SHIPPED = registry.read([registry.shipped_registry()])
SPECS = {name: entry.spec for name, entry in SHIPPED.items() if entry.spec is not None}

# Free-running chains add up rounding, see the goldens' own tolerances.
CHAIN_15 = 1e-3
CHAIN_4 = 2e-4
ONE_STEP = 1e-4
IMAGE = 1e-3


def codec_spec(spec: ModelSpec) -> VQSpec:
    assert isinstance(spec.autoencoder, VQSpec)
    return spec.autoencoder


def narrow(name: str, **changes: Any) -> Upscaler:
    """A model with the goldens' networks, and some of its entry changed."""
    return plain(Upscaler(*narrowed(name, **changes), name=name, device="cpu", precision="fp32"))


def narrowed(name: str, **changes: Any) -> tuple[ModelSpec, Denoiser, VQAutoencoder]:
    """What that is made of."""
    spec = SPECS[name]
    unet = replace(spec.denoiser, model_channels=32, swin_embed_dim=32, num_head_channels=16)
    codec = replace(codec_spec(spec), ch=32, codes=256)
    spec = replace(spec, denoiser=unet, autoencoder=codec, **changes)
    official = replace(unet, swin="reference")
    manifest = next(known for known, sizes in UNET_SPECS.items() if sizes == official)
    network = copy.deepcopy(golden_unet(manifest, unet.swin))
    autoencoder = copy.deepcopy(golden_vq("vq_small", quantize=codec.quantize))
    denoiser = Denoiser(network, predict=spec.predict, precondition=spec.precondition)
    return spec, denoiser, autoencoder


def plain(model: ModelT) -> ModelT:
    """The same as it was before it was packed."""
    # On one thread torch's norms of maps in channels_last are off by 1e-4 at 256x256.
    for part in (model.denoiser, model.autoencoder):
        unpack(part)
        arrange(part, torch.contiguous_format)
    return model


@dataclass(frozen=True)
class Run:
    """An enlarged image, the latent that it was decoded from, and the denoiser's calls."""

    image: Tensor
    latent: Tensor
    calls: list[tuple[Any, ...]]


def run(upscaler: Upscaler | Inpainter, lq: Tensor, field: noise.Field) -> Run:
    """Restore with stored noise, and look inside."""
    codec = upscaler.autoencoder
    assert isinstance(codec, VQAutoencoder)
    calls: list[tuple[Any, ...]] = []
    latents: list[Tensor] = []
    upscaler.denoiser.register_forward_pre_hook(lambda _, args: calls.append(args))
    first = codec.quantize if codec.snap else codec.post_quant_conv
    first.register_forward_pre_hook(lambda _, args: latents.append(args[0]))
    image = restore(upscaler, lq, field=field)
    (latent,) = latents
    return Run(image, latent, calls)


def stored(golden: dict[str, Tensor], steps: int) -> noise.Field:
    """The noise of a reference's chain, which lies in the order of its walk."""

    def field(seed: int, step: int, channels: int, **window: int) -> Tensor:
        return golden["noise_init"] if step == PRIOR else golden["noise_steps"][steps - step]

    return field


# Layouts


LAYOUTS = {
    "realsr-x4-v1": ("unet_realsr_x4", "ae_vq_f4"),
    "realsr-x4-v2": ("unet_realsr_x4", "ae_vq_f4"),
    "realsr-x4-v3": ("unet_realsr_x4", "ae_vq_f4"),
    "bicubic-x4": ("unet_bicsr_x4", "ae_vq_f4"),
    "inpaint-imagenet": ("unet_inpaint_imagenet", "ae_vq_f4"),
    "inpaint-face": ("unet_inpaint_face", "ae_celeba256_vq_f4_dim3_face"),
    "face": ("unet_faceir", "ae_ffhq512_vq_f8_dim8_face"),
    "deblur": ("unet_inpaint_imagenet", "ae_vq_f4"),  # but for the mask
    "nacre-x4": ("unet_realsr_x4", "ae_vq_f4"),
    "sinsr-x4": ("unet_realsr_x4", "ae_vq_f4"),
    "sinsr-x4-v2": ("unet_realsr_x4", "ae_vq_f4"),
    "rsd-x4": ("unet_student_concat", "ae_vq_f4"),
    "rsd-x2": ("unet_student_concat", "ae_vq_f4"),
}


def test_every_shipped_model_whose_file_does_not_say_its_layout_is_compared_here() -> None:
    assert set(SPECS) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_model_s_networks_have_the_names_and_shapes_of_its_files(name: str) -> None:
    unet, codec = LAYOUTS[name]
    with torch.device("meta"):
        network = SwinUNet(SPECS[name].denoiser)
        autoencoder = VQAutoencoder(codec_spec(SPECS[name]))
    expected = manifests()[unet]
    if name == "nacre-x4":  # masks are buffers of the official convention alone
        expected = {k: v for k, v in expected.items() if not k.endswith(".attn_mask")}
    if name == "deblur":
        masked = {k: v for k, v in expected.items() if shapes(network)[k] != v}
        ((first, shape),) = masked.items()
        expected = expected | {first: (shape[0], 3, *shape[2:])}
        assert first.startswith("feature_extractor.") and shape[1] == 4
    assert shapes(network) == expected
    assert shapes(autoencoder) == manifests()[codec]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        # scale, steps of how many, shown, prior, noise planes, quantised, clipped, windows
        ("realsr-x4-v1", (4, 15, 15, "pixels", "shifted", 0, True, False, "reference")),
        ("realsr-x4-v2", (4, 15, 15, "pixels", "shifted", 0, True, False, "reference")),
        ("realsr-x4-v3", (4, 4, 4, "pixels", "shifted", 0, True, False, "reference")),
        ("bicubic-x4", (4, 4, 4, "pixels", "shifted", 0, True, False, "reference")),
        ("inpaint-imagenet", (1, 4, 4, "pixels", "shifted", 0, True, False, "reference")),
        ("inpaint-face", (1, 4, 4, "pixels", "shifted", 0, True, False, "reference")),
        ("face", (1, 4, 4, "pixels", "shifted", 0, True, False, "reference")),
        ("deblur", (1, 4, 4, "pixels", "shifted", 0, True, False, "reference")),
        ("nacre-x4", (4, 4, 4, "pixels", "shifted", 0, False, True, "standard")),
        ("sinsr-x4-v2", (4, 1, 15, "pixels", "shifted", 0, True, False, "reference")),
        ("sinsr-x4", (4, 1, 15, "pixels", "shifted", 0, True, False, "reference")),
        ("rsd-x4", (4, 1, 15, "latent", "kappa", 1, False, False, "reference")),
        ("rsd-x2", (2, 1, 15, "latent", "kappa", 1, False, False, "reference")),
    ],
)
def test_every_model_is_run_as_its_authors_do(name: str, facts: tuple[object, ...]) -> None:
    spec = SPECS[name]
    assert facts == (
        spec.scale,
        spec.steps,
        spec.schedule.steps,
        spec.condition,
        spec.prior,
        spec.denoiser.noise_channels,
        codec_spec(spec).quantize,
        spec.clip_lq,
        spec.denoiser.swin,
    )
    assert (spec.predict, spec.precondition, spec.temperature) == ("x0", False, 1.0)


# The official numbers


def test_the_15_step_model_gives_the_reference_s_image() -> None:
    golden = load_file(BUNDLED / "chain15.safetensors")
    upscaler = narrow("realsr-x4-v2")
    result = run(upscaler, golden["y"], stored(golden, 15))
    assert_parity(result.latent, golden["final_latent"], CHAIN_15)
    # A code whose two nearest neighbours are equally far may flip on another machine, and attention
    # spreads that over the image: codes are compared first, and then what the reference's become.
    assert further_than_the_nearest(upscaler, golden["final_latent"], result.latent) < 1e-4
    codec = upscaler.autoencoder
    with torch.inference_mode():
        image = codec.decode(golden["final_latent"]).clamp(-1, 1)
    assert_parity(image, golden["decoded"].clamp(-1, 1), IMAGE)


def further_than_the_nearest(upscaler: Upscaler, latent: Tensor, ours: Tensor) -> float:
    """By how much, at most, the codes of our latent lie further from a latent than the nearest."""
    assert isinstance(upscaler.autoencoder, VQAutoencoder)
    codes = upscaler.autoencoder.quantize.embedding.weight.double()

    def distances(z: Tensor) -> Tensor:
        return torch.cdist(z.double().movedim(1, -1).reshape(-1, z.shape[1]), codes)

    there = distances(latent)
    chosen = there.gather(1, distances(ours).argmin(1, keepdim=True))[:, 0]
    return float((chosen - there.amin(1)).max())


@pytest.mark.parametrize("name", ["realsr-x4-v3", "bicubic-x4"])
def test_a_4_step_model_gives_the_reference_s_latent(name: str) -> None:
    golden = load_file(BUNDLED / "chain4.safetensors")
    result = run(narrow(name), golden["y"], stored(golden, 4))
    assert_parity(result.latent, golden["final_latent"], CHAIN_4)


@needs_complete
def test_an_image_of_odd_size_is_padded_and_cropped_as_the_reference_does() -> None:
    assert COMPLETE is not None
    golden = load_file(COMPLETE / "chain4_padded.safetensors")
    assert torch.equal(Frame(0, 0, 64, 64).pad(golden["y"]), golden["y_padded"])
    result = run(narrow("realsr-x4-v3"), golden["y"], stored(golden, 4))
    assert result.image.shape == golden["out"].shape
    far = (result.image - golden["out"]).abs() > IMAGE * golden["out"].std()
    assert far.float().mean() < 0.01
    assert_parity(result.latent, golden["final_latent"], CHAIN_4)


def test_sinsr_gives_the_x0_that_the_last_index_predicts_from_the_usual_prior() -> None:
    golden = load_file(BUNDLED / "chain15.safetensors")
    result = run(narrow("sinsr-x4"), golden["y"], stored(golden, 15))
    (call,) = result.calls
    assert_parity(call[0], golden["x_t"][0], NETWORK)
    assert_parity(result.latent, golden["pred_x0"][0], ONE_STEP)


@pytest.mark.parametrize(("condition", "case"), [("latent", "latent"), ("resized", "pixel")])
def test_a_distilled_student_gives_the_reference_s_image(condition: str, case: str) -> None:
    golden = load_file(BUNDLED / "student_small.safetensors")

    def field(seed: int, step: int, channels: int, **window: int) -> Tensor:
        assert channels == (1 if step == PLANES else 3)
        return golden["eps" if step == PLANES else "zT_noise"]

    result = run(narrow("rsd-x4", condition=condition), golden["lr"], field)
    ((x_t, y0, shown, schedule, t, planes),) = result.calls
    assert_parity(y0, golden["z_y"], NETWORK)
    assert_parity(x_t, golden["z_T"], NETWORK)
    assert [schedule.timesteps[step - 1] for step in t.tolist()] == golden["t"].tolist()
    assert torch.equal(planes, golden["eps"])
    if condition == "latent":
        assert torch.equal(shown, y0)
    else:
        assert_parity(shown, golden["pixel.cond"], 1e-5)
    assert_parity(result.latent, golden[f"{case}.z0"], STUDENT)
    assert_parity(result.image, golden[f"{case}.out"], IMAGE)


@needs_complete
def test_a_hole_is_filled_as_the_reference_does() -> None:
    assert COMPLETE is not None
    golden = load_file(COMPLETE / "chain4_inpaint.safetensors")
    parts = narrowed("inpaint-imagenet")
    inpainter = plain(Inpainter(*parts, name="narrow", device="cpu", precision="fp32"))
    masked = torch.cat([golden["y"], golden["mask"]], dim=1)
    result = run(inpainter, masked, stored(golden, 4))
    assert_parity(result.calls[0][2], masked, NETWORK)
    assert_parity(result.latent, golden["final_latent"], CHAIN_4)
    hole = Hole.of(golden["mask"][0, 0].numpy() > 0)
    known = (golden["y"] / 2 + 0.5)[0].movedim(0, -1).numpy()
    filling = (result.image / 2 + 0.5)[0].movedim(0, -1).numpy()
    composite = torch.from_numpy(hole.filled(known, 0, 0, filling)).movedim(-1, 0)[None]
    far = (composite - golden["composite01"]).abs() > IMAGE * golden["composite01"].std()
    assert far.float().mean() < 0.01  # a code may flip, see above


# Models without numbers of their own


@pytest.mark.parametrize("name", ["nacre-x4", "rsd-x2"])
def test_the_others_are_the_same_chain_over_networks_with_goldens(name: str) -> None:
    upscaler = narrow(name)
    generator = torch.Generator().manual_seed(0)
    lq = torch.rand(1, 3, 40, 50, generator=generator) * 2 - 1
    image = restore(upscaler, lq, steps=1, seed=3)
    assert torch.equal(image, plain_chain.restore(upscaler, lq, seed=3, steps=1))
    assert image.shape == (1, 3, 40 * upscaler.spec.scale, 50 * upscaler.spec.scale)
