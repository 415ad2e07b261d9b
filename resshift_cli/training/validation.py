"""What the averaged network makes of held-out pictures: measured, and to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from resshift_cli.diffusion import chain
from resshift_cli.restoration import quality, realism, resize
from resshift_cli.training.adversary import Adversary
from resshift_cli.training.trainer import Pair, Trainer, parted


@torch.no_grad()
def measure(trainer: Trainer, pairs: Sequence[Pair]) -> dict[str, float]:
    """What one step from the end of the chain is worth, over pictures.

    Args:
        trainer: whose averaged network enlarges.
        pairs: pictures and their low-resolution partners.

    Returns:
        `gain_db` of PSNR-Y over bicubic in the mean, and `worst_db` of the picture that gains
        least; with an adversary also `realism`, see `restoration.realism`. Pictures with holes
        are filled, and otherwise as they were.
    """
    gains, results, originals = [], [], []
    for sharp, blurry in _placed(trainer, pairs):
        bicubic = resize.enlarge(blurry[:, :3], trainer.run.model.scale)
        restored = _put(blurry, _one_step(trainer, blurry))
        gains.append(quality.psnr_y(restored, sharp) - quality.psnr_y(bicubic, sharp))
        if trainer.adversary is not None:
            results.append(_described(trainer.adversary, restored))
            originals.append(_described(trainer.adversary, sharp))
    found = {"gain_db": sum(gains) / len(gains), "worst_db": min(gains)}
    if results:
        joined = (realism.join(parts) for parts in (results, originals))
        found["realism"] = realism.distance(*joined)
    return found


def _put(blurry: Tensor, restored: Tensor) -> Tensor:
    """What was made of a picture; if it has a hole, the picture with that in it."""
    unknown = blurry[:, 3:] > 0
    return restored.where(unknown, blurry[:, :3]) if unknown.any() else restored


def _described(adversary: Adversary, image: Tensor) -> realism.Patches:
    """Patches of an image on the levels that a file has."""
    levels = (image.clamp(0, 1) * 255).round() / 255
    return realism.describe(adversary.features, realism.cut(levels))


@torch.no_grad()
def samples(trainer: Trainer, pairs: Sequence[Pair]) -> list[list[Tensor]]:
    """Of each pair: degraded, result of one step and of the whole chain, original.

    Each is (3, H, W) in about [0, 1]; the degraded ones are smaller.
    """
    return [
        [blurry[0, :3], _one_step(trainer, blurry)[0], _walked(trainer, blurry)[0], sharp[0]]
        for sharp, blurry in _placed(trainer, pairs)
    ]


def _placed(trainer: Trainer, pairs: Sequence[Pair]) -> Iterator[Pair]:
    for sharp, blurry in pairs:
        yield sharp.to(trainer.device), blurry.to(trainer.device)


def _start(
    trainer: Trainer, blurry: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(x_T, y_0, planes of noise)."""
    y0 = trainer.autoencoder.encode(trainer.enlarged(blurry))
    count, channels, *size = y0.shape
    channels += trainer.run.model.denoiser.noise_channels
    drawn = torch.randn((count, channels, *size), generator=generator).to(y0)
    noise, planes = parted(drawn, trainer.run.model)
    return chain.prior(y0, noise, trainer.schedule, trainer.run.model.prior), y0, planes


def _one_step(trainer: Trainer, blurry: Tensor) -> Tensor:
    x_t, y0, planes = _start(trainer, blurry, torch.Generator().manual_seed(0))
    return trainer.autoencoder.decode(trainer.mean(x_t, y0, blurry, planes)) / 2 + 0.5


def _walked(trainer: Trainer, blurry: Tensor) -> Tensor:
    """By as many steps as the model takes by default."""
    generator = torch.Generator().manual_seed(0)
    schedule = trainer.schedule.respaced(trainer.run.model.steps)
    x_t, y0, planes = _start(trainer, blurry, generator)

    def predict(x_t: Tensor, t: int) -> Tensor:
        steps = torch.tensor([t], device=trainer.device)
        return trainer.average(x_t, y0, blurry * 2 - 1, schedule, steps, planes)

    def noise(t: int) -> Tensor:
        return torch.randn(y0.shape, generator=generator).to(y0)

    sampler = chain.Ancestral(schedule, trainer.run.model.temperature)
    step = partial(sampler.step, noise=noise)
    *_, last = chain.walk(x_t, predict, step, schedule.steps)
    return trainer.autoencoder.decode(last.x0) / 2 + 0.5
