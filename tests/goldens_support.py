"""Numbers that the official implementation computed, and the small networks they belong to.

`goldens/` beside this file has the smallest of each kind. The complete set is found through the
variable RESSHIFT_GOLDENS, or in ../shared/goldens as seen from the root of the repository; tests
that need it are skipped where it is not.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from recipe import DERIVED, weights
from safetensors import safe_open
from torch import Tensor, nn

from resshift_cli.diffusion.autoencoder import VQAutoencoder
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import DenoiserSpec, VQSpec

BUNDLED = Path(__file__).parent / "goldens"
_BESIDE = Path(__file__).parent.parent / "../shared/goldens"
COMPLETE = (
    Path(os.environ["RESSHIFT_GOLDENS"])
    if "RESSHIFT_GOLDENS" in os.environ
    else (_BESIDE if _BESIDE.is_dir() else None)
)
needs_complete = pytest.mark.skipif(
    COMPLETE is None, reason="needs the complete goldens: RESSHIFT_GOLDENS=DIRECTORY"
)

# Largest error over the standard deviation of the reference. One call of a network differs by up
# to 2e-5 between thread counts; a wrong epsilon of the U-Net's norms by 8e-5.
MODULE = 2e-5  # a part of a network
NETWORK = 5e-5  # one call of the U-Net, or `encode`
DECODED = 1e-4  # `decode`
STUDENT = 1e-4  # x_0 of a one-step student, autoencoder included
CODE_MARGIN = 1e-4  # codes whose squared distances differ by less may change places


def error(actual: Tensor, reference: Tensor) -> float:
    """Largest absolute difference, in standard deviations of the reference."""
    assert actual.shape == reference.shape
    return ((actual.double() - reference.double()).abs().max() / reference.double().std()).item()


def assert_parity(actual: Tensor, reference: Tensor, tolerance: float) -> None:
    """Fail if any element is off by more than `tolerance` standard deviations."""
    assert error(actual, reference) <= tolerance  # NaN fails too


def small_unet_spec(**changes: Any) -> DenoiserSpec:
    """Sizes of the goldens' `unet_small`, with some of them changed."""
    spec = DenoiserSpec(
        latent_channels=3,
        model_channels=32,
        channel_mult=(1, 2, 2, 4),
        num_res_blocks=2,
        swin_levels=(0, 1, 2, 3),
        swin_depth=2,
        swin_embed_dim=32,
        num_head_channels=16,
        window=8,
        mlp_ratio=4,
        swin="reference",
        lq_ratio=1,
        lq_mask=False,
        noise_channels=0,
    )
    return replace(spec, **changes)


def small_vq_spec(**changes: Any) -> VQSpec:
    """Sizes of the goldens' `vq_small`, with some of them changed."""
    spec = VQSpec(32, (1, 2, 4), (2, 2, 2), z_channels=3, codes=256, quantize=True)
    return replace(spec, **changes)


def published_unet_spec(**changes: Any) -> DenoiserSpec:
    """Sizes of the official denoisers, with some of them changed."""
    return small_unet_spec(model_channels=160, swin_embed_dim=192, num_head_channels=32, **changes)


_MASKED = {"lq_ratio": 4, "lq_mask": True}
_FACE = {"lq_ratio": 8, "latent_channels": 8}
_F4 = small_vq_spec(ch=128, codes=8192)
_F8 = small_vq_spec(ch_mult=(1, 2, 4, 8), num_res_blocks=(1, 2, 3, 4), z_channels=8)

# By the names of their manifests.
UNET_SPECS = {
    "unet_small": small_unet_spec(),
    "unet_small_x2": small_unet_spec(lq_ratio=2),
    "unet_small_mask": small_unet_spec(**_MASKED),
    "unet_small_face": small_unet_spec(**_FACE),
    "unet_small_student": small_unet_spec(noise_channels=1),
    "unet_realsr_x4": published_unet_spec(),
    "unet_bicsr_x4": published_unet_spec(),
    "unet_realsr_x2": published_unet_spec(lq_ratio=2),
    "unet_inpaint_imagenet": published_unet_spec(**_MASKED),
    "unet_inpaint_face": published_unet_spec(**_MASKED),
    "unet_faceir": published_unet_spec(**_FACE),
    "unet_student_concat": published_unet_spec(noise_channels=1),
}
VQ_SPECS = {
    "vq_small": small_vq_spec(),
    "vq_f8_small": _F8,
    "ae_vq_f4": _F4,
    "ae_celeba256_vq_f4_dim3_face": _F4,
    "ae_ffhq512_vq_f8_dim8_face": replace(_F8, ch=64, codes=4096),
}


@cache
def manifests() -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the state dict of every published and every small network."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, table in json.loads((BUNDLED / "manifests.json").read_text("utf-8")).items():
        changes = {entry: tuple(shape) for entry, shape in table["shapes"].items()}
        found[name] = found.get(table["like"], {}) | changes
    return found


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def channels_last(module: nn.Module) -> None:
    """Move a network to channels_last, in place."""
    arrange(module, torch.channels_last)


def arrange(module: nn.Module, layout: torch.memory_format) -> None:
    """Move a network to a memory layout, in place."""
    module.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it


def golden_weights(manifest_name: str, seed: int = 1) -> dict[str, Tensor]:
    """The made-up weights of a network, without the entries that it computes itself."""
    filled = weights(manifests()[manifest_name], seed)
    return {name: torch.from_numpy(array) for name, array in filled.items()}


@cache
def golden_unet(
    manifest_name: str, swin: Literal["reference", "standard"] = "reference"
) -> SwinUNet:
    """A U-Net with made-up weights; shared between tests, so not to be changed."""
    network = SwinUNet(replace(UNET_SPECS[manifest_name], swin=swin)).eval().requires_grad_(False)
    result = network.load_state_dict(golden_weights(manifest_name), strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith(DERIVED) for name in result.missing_keys)
    return network


@cache
def golden_vq(manifest_name: str, *, quantize: bool = True) -> VQAutoencoder:
    """A VQGAN with made-up weights; shared between tests, so not to be changed."""
    spec = replace(VQ_SPECS[manifest_name], quantize=quantize)
    network = VQAutoencoder(spec).eval().requires_grad_(False)
    network.load_state_dict(golden_weights(manifest_name))
    return network


def cases(*files: str) -> list[Any]:
    """Parameters (folder, file, case) for every case of some files, bundled and complete.

    A test's arguments take them as `golden: Golden`.
    """
    params = []
    for folder in (BUNDLED, COMPLETE):
        for file in files:
            if folder is None:
                params.append(pytest.param(None, marks=needs_complete, id=f"complete-{file}"))
            elif (path := folder / f"{file}.safetensors").exists() or folder is COMPLETE:
                with safe_open(path, "pt") as tensors:
                    names = sorted({name.split(".")[0] for name in tensors.keys()})  # noqa: SIM118
                where = "bundled" if folder is BUNDLED else "complete"
                params += [
                    pytest.param((path, case), id=f"{where}-{file}-{case}") for case in names
                ]
    return params


Golden = tuple[Path, str]


def load(golden: Golden) -> dict[str, Tensor]:
    """The tensors of one case, without its name in front of theirs."""
    path, case = golden
    with safe_open(path, "pt") as tensors:
        return {
            name.removeprefix(f"{case}."): tensors.get_tensor(name)
            for name in tensors.keys()  # noqa: SIM118  # safe_open has no iteration
            if name.startswith(f"{case}.")
        }


@cache
def module_goldens() -> dict[str, Tensor]:
    """NAME.in and NAME.out of single parts of the small networks."""
    with safe_open(BUNDLED / "modules.safetensors", "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def assert_module_parity(network: nn.Module, path: str, name: str, *extra: Tensor) -> None:
    """Run one part of a network on the stored input and compare with the stored output."""
    goldens = module_goldens()
    with torch.inference_mode():
        actual = network.get_submodule(path)(goldens[f"{name}.in"], *extra)
    assert_parity(actual, goldens[f"{name}.out"], MODULE)
