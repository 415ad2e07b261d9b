"""The way from image to image as the papers write it, without a thought of tiles."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.diffusion import chain, noise
from resshift_cli.diffusion.noise import PLANES, PRIOR
from resshift_cli.restoration.tiling import Frame
from resshift_cli.restoration.upscaler import Upscaler


@torch.inference_mode()
def restore(upscaler: Upscaler, lq: Tensor, *, seed: int, steps: int | None = None) -> Tensor:
    """What `Upscaler.restore` has to give for an image of one tile."""
    spec, codec = upscaler.spec, upscaler.autoencoder
    schedule = spec.schedule.build().respaced(spec.steps if steps is None else steps)
    multiple = spec.denoiser.size_multiple * spec.autoencoder.factor // spec.scale
    height, width = (-(-s // multiple) * multiple for s in lq.shape[-2:])
    padded = Frame(0, 0, height, width).pad(lq)
    enlarged = F.interpolate(padded, scale_factor=spec.scale, mode="bicubic")
    y0 = codec.encode(enlarged.clamp(-1, 1) if spec.clip_lq else enlarged)
    height, width = y0.shape[-2:]

    def draw(step: int, channels: int = y0.shape[1]) -> Tensor:
        return noise.field(seed, step, channels, top=0, left=0, height=height, width=width)

    shown = {
        "pixels": padded,
        "latent": y0,
        "resized": F.interpolate(enlarged, (height, width), mode="bicubic").clamp(-1, 1),
    }[spec.condition]
    planes = draw(PLANES, spec.denoiser.noise_channels) if spec.denoiser.noise_channels else None
    first = schedule.kappa * (1.0 if spec.prior == "kappa" else schedule.sqrt_eta[-1])

    def predict(x_t: Tensor, t: int) -> Tensor:
        return upscaler.denoiser(x_t, y0, shown, schedule, torch.tensor([t]), planes)

    step = partial(chain.Ancestral(schedule).step, noise=draw)
    states = list(chain.walk(y0 + first * draw(PRIOR), predict, step, schedule.steps))
    image = codec.decode(states[-1].x0).clamp(-1, 1)
    return image[..., : lq.shape[-2] * spec.scale, : lq.shape[-1] * spec.scale]
