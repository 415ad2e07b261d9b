"""Models of every kind with networks of the smallest size, and what they are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_model import tiny_spec
from torch import Tensor

from resshift_cli.diffusion.specs import VQSpec
from resshift_cli.restoration.model import Model

# Every way in which a published model is run, with networks of the smallest size.
NETWORK = replace(tiny_spec().denoiser, latent_channels=3)
CODEC = VQSpec(32, (1, 1, 1), (1, 1, 1), z_channels=3, codes=64, quantize=False)
VQGAN = {"predict": "x0", "precondition": False, "denoiser": NETWORK, "autoencoder": CODEC}
STUDENT = VQGAN | {
    "denoiser": replace(NETWORK, noise_channels=1),
    "prior": "kappa",
    "condition": "latent",
    "max_steps": 1,
}
KINDS: dict[str, dict[str, Any]] = {
    "bundled": {},
    "quantised": VQGAN | {"autoencoder": replace(CODEC, quantize=True)},
    "clipped": VQGAN | {"clip_lq": True},
    "x2": VQGAN | {"scale": 2, "denoiser": replace(NETWORK, lq_ratio=2)},
    "x1": VQGAN | {"scale": 1, "denoiser": replace(NETWORK, lq_ratio=4)},
    "distilled": VQGAN | {"max_steps": 1},
    "student": STUDENT,
    "student-resized": STUDENT | {"condition": "resized"},
    "student-x2": STUDENT | {"scale": 2},
    "student-x2-resized": STUDENT | {"scale": 2, "condition": "resized"},
    "planes-at-every-step": STUDENT | {"max_steps": None},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def random_lq(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def calls(upscaler: Model) -> list[tuple[Any, ...]]:
    """What the denoiser is given at every call from now on: the arguments of its `forward`."""
    seen: list[tuple[Any, ...]] = []
    upscaler.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args))
    return seen
