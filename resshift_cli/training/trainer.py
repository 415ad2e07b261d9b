"""What a run trains, and one step of it: loss, gradient, optimiser, average.

Everything random in a step follows from the run's seed and the step's number.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resshift_cli.diffusion import chain
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.tables import written_by_the_user
from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.restoration import resize
from resshift_cli.system.device import has_fast_bf16, place
from resshift_cli.training import network as networks
from resshift_cli.training import objective
from resshift_cli.training.adversary import Adversary, Judged
from resshift_cli.training.optimiser import Optimiser
from resshift_cli.training.ranks import Ranks
from resshift_cli.training.recipe import Amp, RunSpec
from resshift_cli.weights import checkpoint

Pair = tuple[Tensor, Tensor]
"""A picture and its low-resolution partner, (N, 3, H, W) in [0, 1]."""

WHOLE_SHARE = 0.98  # from this share of its detail on a crop is learned as it is
LEAST_SCALE = 1.0  # of float16 gradients: if they overflow even so, the run has diverged


def amp_dtype(amp: Amp, device: torch.device) -> torch.dtype | None:
    """What the network computes in beside float32, or None for float32 alone."""
    if amp == "auto":
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def _replica(denoiser: Denoiser, ranks: Ranks) -> nn.Module:
    """A network whose gradients are those of all processes."""
    if ranks.count == 1:
        return denoiser
    with warnings.catch_warnings():
        # The new name of this argument is newer than the oldest torch that is supported.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(denoiser, broadcast_buffers=False)


def parted(noise: Tensor, model: ModelSpec) -> tuple[Tensor, Tensor | None]:
    """Noise of the latent, and the planes that a network is shown, if it is shown any."""
    if not model.denoiser.noise_channels:
        return noise, None
    channels = model.denoiser.latent_channels
    return noise[:, :channels], noise[:, channels:]


def unknown(blurry: Tensor, model: ModelSpec) -> Tensor | None:
    """Where low-resolution crops have holes, (N, 1, H, W), if a model is told of any."""
    return blurry[:, 3:] if model.denoiser.lq_mask else None


def noise_shape(run: RunSpec) -> tuple[int, int, int, int]:
    """Of the noise that a batch takes: of the latent, then the planes that a network is shown."""
    codec, denoiser = run.model.autoencoder, run.model.denoiser
    side = run.train.crop // codec.factor
    return run.train.batch, codec.channels + denoiser.noise_channels, side, side


class Trainer:
    """The state of a run: weights, their average, optimiser, judges if any, and step number.

    Args:
        run: the configuration.
        seed: of everything random.
        device: where to train.
        ranks: the processes that train together; each computes its share of a batch.
        autoencoder: file of its weights, where it has any.
        features: file of the network of the perceptual term, where there is one.

    Raises:
        InputMissingError, ModelUnavailableError: a file is missing, damaged or does not fit.
        UsageError: the sizes make no network, or the batch can't be shared evenly.
    """

    def __init__(
        self,
        run: RunSpec,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks | None = None,
        autoencoder: Path | None = None,
        features: Path | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.run = run
        self.seed = seed
        self.device = device
        self.ranks = ranks or Ranks()
        self.step = 0
        self.start = ""  # name of the weight file that the run started from
        model, train = run.model, run.train
        parts = self.ranks.count * train.accumulate
        if train.batch % parts:
            raise UsageError(
                f"batch {train.batch} can't be shared by {self.ranks.count} processes in "
                f"{train.accumulate} parts each.",
                hint=f"Make it a multiple of {parts}.",
            )
        size = train.batch // self.ranks.count
        self.share = range(self.ranks.rank * size, (self.ranks.rank + 1) * size)
        with written_by_the_user():
            self.schedule = model.schedule.build()
            self.denoiser, self.autoencoder = checkpoint.build(model)
        network = self.denoiser.network
        networks.initialise(network, preconditioned=model.precondition)
        if autoencoder is not None:
            checkpoint.load_autoencoder(self.autoencoder, autoencoder)
        self.autoencoder.to(device).eval().requires_grad_(False)
        self.features = None if features is None else objective.FeatureDistance(features, device)
        place(self.denoiser, device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        if train.checkpointing:
            networks.recompute_activations(network)
        if train.compile:
            network.compile(dynamic=False)  # crops have one size; in place: names of weights stay
        self.dtype = amp_dtype(train.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.optimiser = Optimiser(network, train)
        self.adversary: Adversary | None = None
        self.terms: dict[str, Tensor] = {}  # of the last loss, by name, where it has several
        if train.adversary is not None:
            self.adversary = Adversary(
                train.adversary, device=device, dtype=self.dtype, ranks=self.ranks
            )
        self.replica = _replica(self.denoiser, self.ranks)

    def enlarged(self, blurry: Tensor) -> Tensor:
        """The low-quality images in [0, 1] as the autoencoder takes them: at full size, [-1, 1]."""
        large = resize.enlarge(blurry[:, :3] * 2 - 1, self.run.model.scale)
        return large.clamp(-1, 1) if self.run.model.clip_lq else large

    def drawn(self) -> tuple[Tensor, Tensor]:
        """The steps t (N,) and the noise (N, C, h, w) of the whole next batch, on the CPU.

        Noise of the latent comes first, then the planes of noise that the network is shown.
        """
        rng = np.random.default_rng([self.seed, self.step, 1])
        train = self.run.train
        t = objective.draw_steps(
            train.batch, self.schedule.steps, train.late_steps, train.last_share, rng
        )
        return t, torch.from_numpy(rng.standard_normal(noise_shape(self.run), dtype=np.float32))

    def loss(self, sharp: Tensor, blurry: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The mean loss of crops.

        Args:
            sharp: (N, 3, crop, crop) in [0, 1].
            blurry: their low-resolution partners, in [0, 1].
            t: their steps, see `drawn`.
            noise: and their noise.
        """
        sharp, blurry, t, noise = (part.to(self.device) for part in (sharp, blurry, t, noise))
        x0, y0 = self._encoded(sharp, blurry)
        if self.run.train.restraint:
            x0 = self._restrained(x0, y0, sharp, blurry, t, noise)
        predicted = self._predicted(x0, y0, blurry, t, noise)
        if self.run.train.objective == "absolute":
            enlarged = self.enlarged(blurry) / 2 + 0.5
            holes = unknown(blurry, self.run.model)
            loss = objective.absolute_loss(self._pixels(predicted), sharp, enlarged, holes)
        else:
            loss = objective.denoising_loss(
                predicted, x0, y0, self.denoiser, self.schedule, t, self.run.train.objective
            )
        perceptual = self.run.train.perceptual
        if self.features is not None and perceptual is not None:
            seen = t <= self.schedule.steps - perceptual.but_last
            if seen.any():
                restored = objective.decode(self.autoencoder, predicted[seen]) / 2 + 0.5
                apart = self.features(restored, sharp[seen])
                loss = loss.index_add(0, seen.nonzero()[:, 0], perceptual.weight * apart)
        return loss.mean()

    @torch.no_grad()
    def _encoded(self, sharp: Tensor, blurry: Tensor) -> Pair:
        """(x_0, y_0)."""
        return self.autoencoder.encode(sharp * 2 - 1), self.autoencoder.encode(
            self.enlarged(blurry)
        )

    def _predicted(
        self, x0: Tensor, y0: Tensor, blurry: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """What the network takes x_0 for, at steps t."""
        noise, planes = parted(noise, self.run.model)
        x_t = chain.shift(x0, y0, noise, self.schedule, t)
        with self._autocast():
            predicted: Tensor = self.replica(x_t, y0, blurry * 2 - 1, self.schedule, t, planes)
        return predicted

    def _pixels(self, latent: Tensor) -> Tensor:
        """What it decodes to, with its gradient, in about [0, 1]."""
        return objective.decode(self.autoencoder, latent.float()) / 2 + 0.5

    def _contested(
        self, adversary: Adversary, sharp: Tensor, blurry: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """Have crops judged, and their gradients go back through the network.

        Returns:
            The error of fidelity.
        """
        sharp, blurry, t, noise = (part.to(self.device) for part in (sharp, blurry, t, noise))
        predicted = self._predicted(*self._encoded(sharp, blurry), blurry, t, noise)
        restored = self._pixels(predicted)
        share = adversary.share(sharp, blurry)
        enlarged = self.enlarged(blurry) / 2 + 0.5
        holes, scale = unknown(blurry, self.run.model), self.run.model.scale
        crops = Judged(restored, sharp, enlarged, share, scale, holes)
        rng = np.random.default_rng([self.seed, self.step, 2])
        rate = self.run.train.judges_rate(self.step)
        gradient, self.terms = adversary.contest(crops, rng, step=self.step, rate=rate)
        restored.backward(self.scaler.scale(gradient))  # type: ignore[no-untyped-call]  # torch's own
        return self.terms["fidelity"]

    def _restrained(
        self, x0: Tensor, y0: Tensor, sharp: Tensor, blurry: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """The latents to learn: x0 brought nearer to the mean that the average network predicts.

        That mean is learned at the last step, whose crops stay as they are.
        """
        share = objective.detail_share(sharp, blurry, self.run.train.restraint)
        changed = (t < self.schedule.steps) & (share < WHOLE_SHARE)
        if not changed.any():
            return x0
        y0, blurry, noise, share = (part[changed] for part in (y0, blurry, noise, share))
        noise, planes = parted(noise, self.run.model)
        x_t = chain.prior(y0, noise, self.schedule, self.run.model.prior)
        with self._autocast():
            mean = self.mean(x_t, y0, blurry, planes).float()
        x0 = x0.clone()
        x0[changed] = torch.lerp(mean, x0[changed], share.view(-1, 1, 1, 1))
        return x0

    def advance(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Take one optimiser step with this process' share of a batch.

        Returns:
            This process' loss.

        Raises:
            ResShiftError: the gradient is not finite.
        """
        train = self.run.train
        t, noise = (x[self.share.start : self.share.stop] for x in self.drawn())
        self.optimiser.zero_grad()
        if self.adversary is not None:
            loss = self._contested(self.adversary, sharp, blurry, t, noise)
        else:
            loss = self._in_parts(sharp, blurry, t, noise)
        self.optimiser.unscale(self.scaler)
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), train.clip_norm)
        finite = bool(torch.isfinite(norm))
        # With scaled gradients one that overflows is skipped, and the scale lowered.
        scaled = self.scaler.is_enabled() and self.scaler.get_scale() > LEAST_SCALE
        if not scaled and not finite:
            raise ResShiftError(
                f"The gradient of step {self.step + 1} is not finite.",
                hint="Lower `learning_rate`; the same command goes on from the last saved step.",
            )
        if finite:
            self.optimiser.step(train.rate(self.step))
        self.scaler.update()
        self.step += 1
        decay = min(train.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.denoiser.parameters()), 1 - decay
            )
        return loss

    def _in_parts(self, sharp: Tensor, blurry: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Add up the gradients of the loss, part by part, and return it."""
        count = self.run.train.accumulate
        size = len(sharp) // count
        losses = []
        for number in range(count):
            first = number * size
            part = (x[first : first + size] for x in (sharp, blurry, t, noise))
            with self._gathering(last=number == count - 1):
                loss = self.loss(*part) / count
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def _gathering(self, *, last: bool) -> Any:
        """Where gradients of the processes are not averaged yet, or are with the last part."""
        if last or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    def mean(self, x_t: Tensor, y0: Tensor, blurry: Tensor, planes: Tensor | None) -> Tensor:
        """x_0 as the average network predicts it from x_T: the mean of all that it may be."""
        t = torch.full((len(y0),), self.schedule.steps, device=self.device)
        x0: Tensor = self.average(x_t, y0, blurry * 2 - 1, self.schedule, t, planes)
        return x0
