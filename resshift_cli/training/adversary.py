"""What makes samples of means: judges that learn to tell restored crops from real ones.

x_0 as the network predicts it at a few steps of the chain is judged (denoising diffusion GANs,
arXiv:2112.07804; adversarial distillation, arXiv:2311.17042), by two cheap networks:

- heads on the features that a frozen `FeatureNetwork` sees (projected GANs, arXiv:2111.01007);
- a network of patches that sees the pixels beside those of the enlarged input, so that it knows
  what the detail has to fit.

Both have spectral norms and learn by the hinge loss. What reaches the restored pixels is the sum of
three gradients, each of which is scaled to the norm of the first, so that no weight depends on how
large a loss happens to be: that of fidelity, of the distance of features, and of the judges. The
last one is less where the input is damaged: detail would there be made of the damage. Crops can be
told about as much of it as each other, since judges that are sure of one hardly say what it lacks.

Of a model that fills holes only what it put there is judged, within the original: what it mends has
no detail to be invented.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from resshift_cli.restoration.features import FeatureNetwork
from resshift_cli.restoration.resize import reduced
from resshift_cli.system.device import memory_format, place
from resshift_cli.training import objective
from resshift_cli.training.ranks import Ranks
from resshift_cli.training.recipe import AdversarySpec

BETAS = (0.5, 0.99)  # of the judges' AdamW
GRID = 8  # positions of the latent along each side, over which a mesh is sought
FOLD = 2  # pixels along each side that the patch judge takes for one
LEVEL = 1 / 255
_CHANNELS = (16, 24, 40)  # of features at 1/2, 1/4 and 1/8
_BRIGHTNESS = 0.3  # what features are multiplied by, to be about as large as the judges' weights
_HEAD = 64  # channels within a head
_PATCH = ((48, 3, 1), (96, 4, 2), (128, 4, 2), (128, 3, 1))  # channels, kernel, stride
_LEAK = 0.2
_NOISE = 2 * LEVEL  # of the penalty
_FAINT = 4.0  # damage in 8-bit levels at which a crop counts half as a clean one
_MOST = 4.0  # times that evening may make the gradient of a crop larger


@dataclass(frozen=True, slots=True)
class Judged:
    """Crops that are looked at together.

    Attributes:
        restored: (N, 3, H, W), about [0, 1].
        sharp: the originals.
        enlarged: the low-resolution crops at full size, about [0, 1].
        share: of the adversary's gradient that each restored crop gets, (N,).
        factor: how many times larger than the low-resolution ones they are.
        unknown: (N, 1, H, W), 1 in holes and else 0, of models that fill them.
    """

    restored: Tensor
    sharp: Tensor
    enlarged: Tensor
    share: Tensor
    factor: int
    unknown: Tensor | None = None

    def cut(self, top: int, left: int, margin: int) -> Judged:
        """What is judged: the crops less so many pixels along each side, at an offset within these.

        Outside of holes, where there may be any, it is the originals.
        """
        shown = self.restored
        if self.unknown is not None:
            shown = shown.where(self.unknown > 0, self.sharp)
        pictures = (shown, self.sharp, self.enlarged)
        height, width = (side - margin for side in self.sharp.shape[2:])
        restored, sharp, enlarged = (
            x[..., top : top + height, left : left + width].contiguous(
                memory_format=memory_format(x.device)
            )
            for x in pictures
        )
        return replace(self, restored=restored, sharp=sharp, enlarged=enlarged)


class FeatureHeads(nn.Module):
    """A few convolutions on each resolution of a frozen network's features."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(channels, _HEAD, 3, padding=1)),
                nn.LeakyReLU(_LEAK),
                spectral_norm(nn.Conv2d(_HEAD, _HEAD, 3, stride=2, padding=1)),
                nn.LeakyReLU(_LEAK),
                spectral_norm(nn.Conv2d(_HEAD, 1, 3, padding=1)),
            )
            for channels in _CHANNELS
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """A map (N, 1, h, w) of verdicts for each resolution; above 0 is for real."""
        return [head(x * _BRIGHTNESS) for head, x in zip(self.heads, features, strict=True)]


class PatchJudge(nn.Module):
    """Convolutions on pixels, folded, and on those of the enlarged input."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 2 * 3 * FOLD**2
        for channels, kernel, stride in _PATCH:
            convolution = nn.Conv2d(width, channels, kernel, stride, padding=1)
            layers += [spectral_norm(convolution), nn.LeakyReLU(_LEAK)]
            width = channels
        layers.append(spectral_norm(nn.Conv2d(width, 1, 3, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, enlarged: Tensor) -> Tensor:
        """A map (N, 1, h, w) of verdicts on images (N, 3, H, W) in [0, 1]."""
        both = torch.cat([images, enlarged], 1) * 2 - 1
        folded = F.pixel_unshuffle(both, FOLD)
        verdicts: Tensor = self.layers(folded.contiguous(memory_format=memory_format(both.device)))
        return verdicts


class Judges(nn.Module):
    """Both of them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = FeatureHeads()
        self.patches = PatchJudge()

    def forward(self, images: Tensor, enlarged: Tensor, features: list[Tensor]) -> list[Tensor]:
        """All verdicts, see `FeatureHeads` and `PatchJudge`."""
        return [*self.heads(features), self.patches(images, enlarged)]


class Adversary:
    """The judges of a run, how they learn, and what they have to say.

    Args:
        spec: how much their word counts.
        device: where to compute.
        dtype: what they compute in beside float32, or None.
        ranks: the processes that train together; each judges its share of a batch.

    Raises:
        UsageError: the package with the frozen network is not installed.
    """

    def __init__(
        self,
        spec: AdversarySpec,
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.spec, self.device, self.ranks = spec, device, ranks or Ranks()
        # Gradients in float16 would need a scale of their own.
        self.dtype = dtype if dtype == torch.bfloat16 else None
        self.features = FeatureNetwork()
        self.judges = Judges()
        place(self.features, device)
        place(self.judges, device)
        self.optimiser = torch.optim.AdamW(
            self.judges.parameters(), spec.learning_rate, BETAS, weight_decay=0.0, fused=True
        )

    def share(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """How much of the judges' gradient each crop gets, (N,) in 0..1; see `AdversarySpec`.

        Args:
            sharp: (N, 3, H, W) in [0, 1].
            blurry: their low-resolution partners, (N, 3 or 4, h, w) in [0, 1].
        """
        kept = torch.ones(len(sharp), device=sharp.device)
        if self.spec.restraint:
            kept *= objective.detail_share(sharp, blurry, self.spec.restraint)
        if self.spec.clean < 1:
            kept *= 1 - (1 - self.spec.clean) * objective.detail_share(sharp, blurry, _FAINT)
        return kept

    def contest(
        self, crops: Judged, rng: np.random.Generator, *, step: int, rate: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the judges learn from crops, and hear what they then say of the restored ones.

        Args:
            crops: this process' share of a batch.
            rng: source of every random choice, the same in all processes.
            step: optimiser steps done before.
            rate: the judges' learning rate.

        Returns:
            The gradient of all terms at `crops.restored`, and the terms by name.
        """
        top, left = rng.integers(self.spec.shift + 1, size=2)
        crops = replace(crops, restored=crops.restored.detach().requires_grad_())
        seen = crops.cut(int(top), int(left), self.spec.shift)
        with torch.no_grad():
            real = self._see(seen.sharp)
        found = self._see(seen.restored)
        judged = self._learn(seen, real, [x.detach() for x in found], rng, rate)
        fidelity = self.fidelity(crops)
        apart = objective.feature_distance(found, real)
        self.judges.requires_grad_(False)
        doubt = -_total(verdict.mean() for verdict in self._verdicts(seen.restored, seen, found))
        self.judges.requires_grad_(True)
        ramp = min((step + 1) / self.spec.ramp, 1.0) if self.spec.ramp else 1.0
        gradient = self.balanced(
            crops.restored,
            [(fidelity, 1.0), (apart, self.spec.features), (doubt, ramp * self.spec.weight)],
            crops.share,
        )
        return gradient, {
            "fidelity": fidelity.detach(),
            "features": apart.detach(),
            "adversary": doubt.detach(),
            "judges": judged,
        }

    def fidelity(self, crops: Judged) -> Tensor:
        """Absolute error of the restored crops, of their reductions, and on the latent's grid.

        The last has two parts. One is what the error is on average, over some positions of the
        latent, at each of the pixels within a position: nothing but noise, unless a mesh repeats
        from one to the next. The other is how unevenly texture and steps lie on these pixels: a
        picture knows nothing of the grid, so that they are as large on all of them; specks are not.

        Of a model that fills holes it is `objective.absolute_loss`, of holes where there are any.
        """
        if crops.unknown is not None:
            return objective.absolute_loss(
                crops.restored, crops.sharp, crops.enlarged, crops.unknown
            ).mean()
        difference = crops.restored - crops.sharp
        error = difference.abs().mean()
        if self.spec.reduction:
            small = reduced(crops.restored, crops.factor) - reduced(crops.sharp, crops.factor)
            error = error + self.spec.reduction * small.abs().mean()
        if self.spec.grid:
            pixels = F.pixel_unshuffle(difference, crops.factor)
            mesh = F.avg_pool2d(pixels, GRID).abs().mean()
            error = error + self.spec.grid * (mesh + unevenness(crops.restored, crops.factor))
        return error

    def balanced(
        self, restored: Tensor, terms: Sequence[tuple[Tensor, float]], share: Tensor
    ) -> Tensor:
        """The gradient of all terms at the restored crops, each scaled to the norm of the first.

        Args:
            restored: (N, 3, H, W), which the terms come from.
            terms: each with its weight, the judges' last.
            share: of the last term's gradient for each crop, (N,).

        Returns:
            (N, 3, H, W); norms are those over the crops of all processes.
        """
        used = [(term, weight) for term, weight in terms if weight]
        gradients = [
            torch.autograd.grad(term, restored, retain_graph=number < len(used) - 1)[0]
            for number, (term, _) in enumerate(used)
        ]
        if self.spec.even and used[-1][0] is terms[-1][0]:
            gradients[-1] = gradients[-1] * self._evening(gradients[-1]).view(-1, 1, 1, 1)
        norms = self.ranks.sum(torch.stack([x.square().sum() for x in gradients])).sqrt()
        scales = torch.where(norms > 0, norms[0] / norms, 0.0)  # of what has no gradient, none
        total = torch.zeros_like(restored)
        for (term, weight), gradient, scale in zip(used, gradients, scales, strict=True):
            kept = share.view(-1, 1, 1, 1) if term is terms[-1][0] else 1.0
            total += weight * scale * kept * gradient
        return total

    def _evening(self, gradient: Tensor) -> Tensor:
        """Factors (N,) that make a gradient (N, 3, H, W) nearer to as large for every crop."""
        own = gradient.square().sum((1, 2, 3))
        total, count = self.ranks.sum(torch.stack([own.sum(), own.new_tensor(float(len(own)))]))
        larger = (total / count / own.clamp(min=torch.finfo(own.dtype).tiny)).sqrt()
        return larger.clamp(max=_MOST) ** self.spec.even

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs."""
        return {"judges": self.judges.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, RuntimeError, ValueError: it is of something else.
        """
        self.judges.load_state_dict(state["judges"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _learn(
        self,
        seen: Judged,
        real: list[Tensor],
        found: list[Tensor],
        rng: np.random.Generator,
        rate: float,
    ) -> Tensor:
        """Take a step of the judges by the hinge loss, and return that.

        The penalty is how much the verdicts on patches change under faint noise: R1 without second
        derivatives (arXiv:2501.08316).
        """
        true = self._verdicts(seen.sharp, seen, real)
        false = self._verdicts(seen.restored.detach(), seen, found)
        loss = _total(
            F.relu(1 - yes).mean() + F.relu(1 + no).mean()
            for yes, no in zip(true, false, strict=True)
        )
        total = loss
        if self.spec.penalty:
            noise = rng.standard_normal(seen.sharp.shape, dtype=np.float32)
            noisy = seen.sharp + _NOISE * torch.from_numpy(noise).to(self.device)
            with self._autocast():
                again = self.judges.patches(noisy, seen.enlarged)
            total = loss + self.spec.penalty * (again.float() - true[-1]).square().mean()
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.ranks.average(x.grad for x in self.judges.parameters())
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        return loss.detach()

    def _see(self, images: Tensor) -> list[Tensor]:
        with self._autocast():
            found: list[Tensor] = self.features(images, stages=len(_CHANNELS))
        return found

    def _verdicts(self, images: Tensor, seen: Judged, features: list[Tensor]) -> list[Tensor]:
        with self._autocast():
            verdicts: list[Tensor] = self.judges(images, seen.enlarged, features)
        return [verdict.float() for verdict in verdicts]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


def unevenness(images: Tensor, factor: int) -> Tensor:
    """How much texture and steps differ in size between the pixels of a position of the latent.

    Texture is what a pixel differs by from the mean of 3x3, its size the root mean square for each
    of the `factor` x `factor` pixels of a position: specks on some of them are found by it. Steps
    are those from one pixel to the next, down and across, their size the mean for each of `factor`
    places, of which the last lies between two positions: by it blocks are found.

    Args:
        images: (N, 3, H, W), sides divisible by the factor.
        factor: pixels along each side of a position.

    Returns:
        The mean distance of sizes of each kind from their mean, added up; a scalar in the units of
        the images.
    """
    texture = images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    energy = F.pixel_unshuffle(texture.square(), factor).mean((2, 3)).view(len(images), 3, -1)
    kinds = [(energy + LEVEL**2 / 4).sqrt()]
    for turned in (images, images.transpose(2, 3)):
        steps = turned.diff(dim=3)[..., factor - 1 :].abs()  # first those between positions
        kinds.append(steps.reshape(*steps.shape[:3], -1, factor).mean((2, 3)))
    return _total((size - size.mean(2, keepdim=True)).abs().mean() for size in kinds)


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
