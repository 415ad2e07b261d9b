"""What the averaged network makes of held-out pictures: measured, and to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from resshift_cli.diffusion import chain
from resshift_cli.restoration import quality, resize
from resshift_cli.training.trainer import Pair, Trainer


@torch.no_grad()
def gain(trainer: Trainer, pairs: Sequence[Pair]) -> dict[str, float]:
    """Gain over bicubic in dB of PSNR-Y for the posterior mean, averaged over pictures.

    Args:
        trainer: whose averaged network enlarges.
        pairs: pictures and their low-resolution partners.

    Returns:
        `gain_db`, and `worst_db` of the picture that gains least.
    """
    gains = []
    for sharp, blurry in _placed(trainer, pairs):
        bicubic = resize.enlarge(blurry, trainer.run.model.scale)
        restored = _posterior_mean(trainer, blurry)
        gains.append(quality.psnr_y(restored, sharp) - quality.psnr_y(bicubic, sharp))
    return {"gain_db": sum(gains) / len(gains), "worst_db": min(gains)}


@torch.no_grad()
def samples(trainer: Trainer, pairs: Sequence[Pair]) -> list[list[Tensor]]:
    """Of each pair: degraded, posterior mean, result of the whole chain, original.

    Each is (3, H, W) in about [0, 1]; the degraded ones are smaller.
    """
    return [
        [blurry[0], _posterior_mean(trainer, blurry)[0], _walked(trainer, blurry)[0], sharp[0]]
        for sharp, blurry in _placed(trainer, pairs)
    ]


def _placed(trainer: Trainer, pairs: Sequence[Pair]) -> Iterator[Pair]:
    for sharp, blurry in pairs:
        yield sharp.to(trainer.device), blurry.to(trainer.device)


def _start(trainer: Trainer, blurry: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(x_T, y_0)."""
    y0 = trainer.autoencoder.encode(trainer.enlarged(blurry))
    noise = torch.randn(y0.shape, generator=generator).to(y0)
    return chain.prior(y0, noise, trainer.schedule, trainer.run.model.prior), y0


def _posterior_mean(trainer: Trainer, blurry: Tensor) -> Tensor:
    x_t, y0 = _start(trainer, blurry, torch.Generator().manual_seed(0))
    return trainer.autoencoder.decode(trainer.mean(x_t, y0, blurry)) / 2 + 0.5


def _walked(trainer: Trainer, blurry: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x_t, y0 = _start(trainer, blurry, generator)

    def predict(x_t: Tensor, t: int) -> Tensor:
        steps = torch.tensor([t], device=trainer.device)
        return trainer.average(x_t, y0, blurry * 2 - 1, trainer.schedule, steps)

    def noise(t: int) -> Tensor:
        return torch.randn(y0.shape, generator=generator).to(y0)

    sampler = chain.Ancestral(trainer.schedule, trainer.run.model.temperature)
    step = partial(sampler.step, noise=noise)
    *_, last = chain.walk(x_t, predict, step, trainer.schedule.steps)
    return trainer.autoencoder.decode(last.x0) / 2 + 0.5
