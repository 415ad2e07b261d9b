"""A model of every ordinary part at the smallest size, with random weights, for quick tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resshift_cli.diffusion import noise, specs
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.diffusion.specs import (
    DenoiserSpec,
    ModelSpec,
    ScheduleSpec,
    SpaceToDepthSpec,
    TileSpec,
)
from resshift_cli.restoration import pipeline
from resshift_cli.restoration.engine import Run
from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system.progress import silent
from resshift_cli.weights import checkpoint


def tiny_spec(**changes: Any) -> ModelSpec:
    """Four steps at x4; tiles are multiples of 8 input pixels."""
    spec = ModelSpec(
        scale=4,
        predict="residual",
        precondition=True,
        clip_lq=False,
        temperature=1.0,
        tile=TileSpec(size=64, overlap=16, margin=0),
        schedule=ScheduleSpec(steps=4, kappa=2.0, p=0.3, min_noise=0.2, sqrt_eta_end=0.99),
        denoiser=DenoiserSpec(
            latent_channels=48,
            model_channels=32,
            channel_mult=(1,),
            num_res_blocks=1,
            swin_levels=(),
            swin_depth=2,
            swin_embed_dim=32,
            num_head_channels=32,
            window=8,
            mlp_ratio=1,
            swin="standard",
            lq_ratio=1,
            lq_mask=False,
            noise_channels=0,
        ),
        autoencoder=SpaceToDepthSpec(factor=4, latent_scale=8.0),
    )
    return replace(spec, **changes)


def tiny_fills(**changes: Any) -> ModelSpec:
    """The same at x1, with a mask; tiles are multiples of 32 pixels."""
    network = replace(tiny_spec().denoiser, lq_ratio=4, lq_mask=True)
    return tiny_spec(**{"scale": 1, "denoiser": network} | changes)


def tiny_networks(spec: ModelSpec) -> tuple[Denoiser, Autoencoder]:
    """The networks of a spec, with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return checkpoint.build(spec)


def tiny_upscaler(
    precision: str = "fp32",
    tile_batch: int | None = None,
    max_memory: int | None = None,
    compiled: bool = False,
    tell: Callable[[str], None] = warnings.warn,
    **changes: Any,
) -> Upscaler:
    """An upscaler on the CPU, the same every time; `changes` are those of `tiny_spec`."""
    spec = tiny_spec(**changes)
    return Upscaler(
        spec,
        *tiny_networks(spec),
        name="tiny",
        device="cpu",
        precision=precision,
        tile_batch=tile_batch,
        max_memory=max_memory,
        compiled=compiled,
        tell=tell,
    )


@torch.inference_mode()
def restore(
    upscaler: Upscaler | Inpainter,
    lq: Tensor,
    *,
    field: noise.Field = noise.field,
    **options: Any,
) -> Tensor:
    """Images (N, 3, h, w) in [-1, 1] enlarged once by the model's own factor, uncorrected."""
    run = Run(upscaler.engine, upscaler.chosen_batch or 1, silent(), field)
    size = (lq.shape[-2], lq.shape[-1])
    bands = pipeline.restore(run, [lq], size, upscaler.settings(**options))
    return torch.cat(list(bands), dim=-2)


def load_model(path: Path) -> tuple[ModelSpec, Denoiser, Autoencoder]:
    """What a file holds that says in its metadata which model it is."""
    spec = specs.read_spec(path)
    return spec, *checkpoint.load(spec, path)


def output_and_target(
    denoiser: Denoiser,
    x0: Tensor,
    x_t: Tensor,
    y0: Tensor,
    lq: Tensor,
    schedule: ShiftSchedule,
    t: Tensor,
) -> tuple[Tensor, Tensor]:
    """What the network itself returns, and what it should; shapes as `Denoiser.forward`."""
    shown, base, weight = denoiser._meaning(x_t, y0, schedule, t)
    output = denoiser._run(shown, denoiser.features(lq), schedule, t, None)
    return output, (x0 - base) / weight
