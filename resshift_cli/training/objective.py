"""What training minimises: steps of the chain are drawn, and errors of x_0 weighed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.diffusion.autoencoder import Autoencoder, VQAutoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.errors import InputMissingError, ModelUnavailableError, printable
from resshift_cli.restoration import quality
from resshift_cli.restoration.resize import shrink
from resshift_cli.training.recipe import Objective

_LEAST_ERROR = 2 / 255  # of flat crops, which would else outweigh all others
_LUMA_RANGE = 219  # levels of black to white
_BORDER = 2  # low-resolution pixels that the bicubic reduction reaches beyond
_EXPORT = "torch.export.save(torch.export.export(network, (crops,)), FILE) writes one."


def draw_steps(
    count: int, chain_length: int, power: float, last_share: float, rng: np.random.Generator
) -> Tensor:
    """Steps t of the chain, (count,), spread evenly over the batch.

    They are drawn in proportion to t^power, but for `last_share` of them that are the last.
    """
    weights = np.arange(1, chain_length + 1, dtype=np.float64) ** power
    weights *= (1 - last_share) / weights.sum()
    weights[-1] += last_share
    edges = np.cumsum(weights)
    even = (rng.permutation(count) + rng.random(count)) / count
    return torch.from_numpy(np.minimum(np.searchsorted(edges, even), chain_length - 1) + 1)


def bound_weights(schedule: ShiftSchedule) -> tuple[float, ...]:
    """Weight of the squared error of x_0 at each step in the variational bound.

    alpha_t^2 / (2 eta_t^2 v_t) with the posterior's variance v_t (equations 6 and 7 of the
    paper); v_1, which is 0, is replaced by v_2.
    """
    found = []
    for t in range(1, schedule.steps + 1):
        _, weight, _ = schedule.posterior(t)  # alpha_t / eta_t
        _, _, std = schedule.posterior(max(t, 2))
        found.append(weight**2 / (2 * std**2))
    return tuple(found)


def denoising_loss(
    predicted: Tensor,
    x0: Tensor,
    y0: Tensor,
    denoiser: Denoiser,
    schedule: ShiftSchedule,
    t: Tensor,
    kind: Objective,
) -> Tensor:
    """Squared error of each crop, (N,), in the mean over its latent.

    `plain` is the error of the network's output (equation 12 of the paper). `weighted` is the
    error of x_0 times `bound_weights`. `balanced` is `plain`, where each crop counts in proportion
    to 1 / (energy of its residual): decibels are relative, and otherwise the few busiest crops
    would drown all others.

    Args:
        predicted: x_0 as the network has it, (N, C, H, W).
        x0: sharp latent.
        y0: latent of the enlarged low-quality image.
        denoiser: what predicted it.
        schedule: the chain.
        t: int64 (N,), 1-based steps.
        kind: which of the three.
    """
    error = predicted - x0
    if kind == "weighted":
        weights = bound_weights(schedule)
        of_step = torch.tensor([weights[step - 1] for step in t.tolist()], device=t.device)
        return error.square().mean((1, 2, 3)) * of_step
    loss = (error / denoiser.output_scale(schedule, t, error.device)).square().mean((1, 2, 3))
    if kind == "balanced":
        loss = loss / ((y0 - x0).square().mean((1, 2, 3)) + 0.5)
    return loss


def absolute_loss(
    restored: Tensor, sharp: Tensor, enlarged: Tensor, unknown: Tensor | None = None
) -> Tensor:
    """Absolute error of each crop's pixels, (N,), over that which the enlarged input has.

    It leads to the median of what may be, not the mean. Half of it is of the three channels, half
    of the luma, in which people see detail. As with the balanced objective each crop counts in
    proportion to what is to be mended of it. Of a crop with a hole that is the hole alone: what is
    known is put back as it was.

    Args:
        restored: (N, 3, H, W) in about [0, 1].
        sharp: the originals.
        enlarged: the low-resolution images at full size.
        unknown: (N, 1, H, W), 1 in holes and else 0, for models that fill them.
    """
    luma = (quality.luma(restored) - quality.luma(sharp)).abs() / _LUMA_RANGE
    error = ((restored - sharp).abs().mean(1, keepdim=True) + luma) / 2
    own = (enlarged - sharp).abs().mean(1, keepdim=True)
    if unknown is None:
        return error.mean((1, 2, 3)) / (own.mean((1, 2, 3)) + _LEAST_ERROR)
    counted = unknown.where(unknown.amax((1, 2, 3), keepdim=True) > 0, 1.0)
    ours, theirs = ((x * counted).sum((1, 2, 3)) / counted.sum((1, 2, 3)) for x in (error, own))
    return ours / (theirs + _LEAST_ERROR)


def detail_share(sharp: Tensor, blurry: Tensor, restraint: float) -> Tensor:
    """How much of the detail that the posterior mean lacks is worth learning, (N,) in 0..1.

    The worse an image is damaged by noise and compression, the more of the detail that fits it is
    invented, out of the damage as it were. The share is r^2 / (r^2 + d^2), as in a Wiener filter,
    with the restraint r and the damage d: the root mean square difference from the antialiased
    bicubic reduction of the sharp image, in 8-bit levels.

    Args:
        sharp: (N, 3, H, W) in [0, 1].
        blurry: their low-resolution partners, (N, 3 or 4, h, w) in [0, 1]; a hole is damage, too.
        restraint: r, above 0.
    """
    clean = shrink(sharp, sharp.shape[2] // blurry.shape[2])
    # Partners were cut from larger images, so that they differ at the border in any case.
    inner = (clean - blurry[:, :3])[..., _BORDER:-_BORDER, _BORDER:-_BORDER] * 255
    return restraint**2 / (restraint**2 + inner.square().mean((1, 2, 3)))


def decode(codec: Autoencoder, latent: Tensor) -> Tensor:
    """As `Autoencoder.decode`, but with a gradient through the codebook's lookup.

    The nearest codes are constant almost everywhere; the gradient passes them unchanged (the
    straight-through estimator of VQ-VAE, arXiv:1711.00937).
    """
    if isinstance(codec, VQAutoencoder) and codec.snap:
        latent = latent + (codec.quantize(latent) - latent).detach()
        pixels: Tensor = codec.decoder(codec.post_quant_conv(latent))
        return pixels
    return codec.decode(latent)


def feature_distance(found: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Squared distance of features (N, C, h, w) in direction, in the mean over places.

    Added up over what is compared, the features of one network at several resolutions.
    """
    pairs = zip(found, real, strict=True)
    apart = [(F.normalize(a.float()) - F.normalize(b.float())).square().sum(1) for a, b in pairs]
    return torch.stack([x.mean() for x in apart]).sum()


class FeatureDistance:
    """Squared distance of features that a network of the user's own sees in two images.

    The network takes images (N, 3, H, W) in [0, 1] and returns a tensor or several, each
    (N, ...). LPIPS is of this kind if the network returns the normalised features of each layer,
    times the square roots of that layer's weights.

    Args:
        path: file that `torch.export.save` wrote; its batch and sides fit the crops. Only files
            whose origin is trusted should be loaded.
        device: where to compute.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: it holds no exported network.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        if not path.is_file():
            raise InputMissingError(f"There is no feature network {printable(path)}.", hint=_EXPORT)
        try:
            self.network: nn.Module = torch.export.load(path).module().to(device)
        except Exception as error:  # torch raises many kinds for what it can't read
            raise ModelUnavailableError(
                f"{printable(path)} holds no network that torch.export saved "
                f"({type(error).__name__}).",
                hint=_EXPORT,
            ) from error
        self.network.requires_grad_(False)

    def __call__(self, images: Tensor, references: Tensor) -> Tensor:
        """Distance of each image from its reference, (N,); both (N, 3, H, W) in [0, 1].

        Raises:
            ModelUnavailableError: the network does not take such images.
        """
        try:
            pairs = zip(self._features(images), self._features(references), strict=True)
            apart = [(a - b.detach()).square().flatten(1).mean(1) for a, b in pairs]
        except (AssertionError, RuntimeError, ValueError) as error:
            if "memory" in str(error):
                raise
            raise ModelUnavailableError(
                f"{printable(self.path)} takes no images of {tuple(images.shape)}: "
                f"{str(error).splitlines()[0]}",
                hint="Export it for crops of that shape, or with dynamic sizes.",
            ) from error
        return torch.stack(apart).sum(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        found = self.network(images)
        return [found] if isinstance(found, Tensor) else list(found)
