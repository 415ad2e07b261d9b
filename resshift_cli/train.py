"""Training: one loop from top to bottom, batch, loss, step, EMA, checkpoint.

Everything random in a step follows from the run's seed and the step's number, so a run that was
interrupted goes on to exactly the weights that it would have had.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from resshift_cli import atomic, chain, checkpoint, degrade, evaluate
from resshift_cli.degrade import DegradeSpec, Pixels
from resshift_cli.denoiser import ResBlock, SwinUNet
from resshift_cli.device import has_fast_bf16, place
from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UsageError,
)
from resshift_cli.specs import ModelSpec, SpecError, from_table
from resshift_cli.swin import SwinBlock, SwinLayer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VALIDATION_CROP = 256  # high-resolution pixels from the middle of each held-out photo
MARGIN = 8  # low-resolution pixels by which a degraded patch is larger than its crop
LOG_EVERY = 50  # steps; validations and saved states are logged as well


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """How a model is trained.

    Attributes:
        steps: optimiser steps in all.
        batch: crops per step.
        crop: side of a crop in high-resolution pixels.
        crop_tries: each crop is the most detailed of so many random ones.
        learning_rate: peak, reached after `warmup` steps and lowered to 0 along a cosine.
        warmup: steps of linear warm-up.
        weight_decay: of AdamW, on weights of two or more dimensions.
        clip_norm: largest norm of the gradient.
        ema: decay of the averaged weights, which are the ones that get exported.
        late_steps: step t of the chain is drawn in proportion to t to this power.
        last_share: fraction of crops that get the last step T instead, on which alone a chain of
            one step relies; 0 to 1.
        save_every: optimiser steps between saved states.
        validate_every: optimiser steps between validations.
        degrade: how low-resolution partners are made.
    """

    steps: int
    batch: int
    crop: int
    crop_tries: int
    learning_rate: float
    warmup: int
    weight_decay: float
    clip_norm: float
    ema: float
    late_steps: float
    last_share: float
    save_every: int
    validate_every: int
    degrade: DegradeSpec


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A training configuration file.

    Attributes:
        photos: CSV beside the configuration with the columns `file` and `split` (`train` or
            `held-out`), or "" to take every image of the folder and hold out every tenth.
        model: what is trained.
        train: how.
    """

    photos: str
    model: ModelSpec
    train: TrainSpec


def read_config(path: Path) -> RunSpec:
    """Read a training configuration.

    Raises:
        InputMissingError: the file can't be read.
        SpecError: not TOML, or keys that do not fit.
        UsageError: numbers that nothing can be trained with.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputMissingError(
            f"The configuration {path} can't be read: {error.strerror}.",
            hint="training/tiny-x4.toml in the repository is an example.",
        ) from error
    except ValueError as error:  # also what is not UTF-8
        raise SpecError(f"{path} is not TOML: {error}.", hint="Mend that line.") from error
    run = from_table(RunSpec, table, str(path))
    _check(run, path)
    return run


def _check(run: RunSpec, path: Path) -> None:
    """Refuse numbers that would fail later, or in the middle of the run."""
    train, model = run.train, run.model
    multiple = model.autoencoder.factor * model.denoiser.size_multiple
    counts = ("steps", "batch", "crop", "crop_tries", "save_every", "validate_every")
    too_small = [name for name in counts if getattr(train, name) < 1]
    low, high = train.degrade.jpeg
    problem = None
    if too_small:
        problem = f"{too_small[0]} must be at least 1"
    elif (
        model.autoencoder.kind == "vq"
        or model.denoiser.lq_mask
        or model.denoiser.noise_channels
        or model.condition != "pixels"
    ):
        problem = "only space-to-depth models shown the image, and no mask or noise, can be trained"
    elif train.crop % multiple:
        problem = f"crop {train.crop} is no multiple of {multiple}"
    elif not 1 <= low <= high <= 100:
        problem = "degrade.jpeg must be two rising qualities within 1..100"
    elif min(train.degrade.blur, train.degrade.noise) < 0:
        problem = "degrade.blur and degrade.noise can't be negative"
    elif not 0 <= train.last_share <= 1:
        problem = "last_share must be within 0..1"
    if problem is not None:
        raise UsageError(f"{path}: {problem}.", hint=f"Change it in {path}.")


def split_photos(config: Path, run: RunSpec, folder: Path) -> tuple[list[Path], list[Path]]:
    """The photos to train on, and those held out for validation.

    Raises:
        InputMissingError: the list, a listed photo, or any photo at all, is missing.
        UsageError: the list lacks a column, or has a split that is neither.
    """
    if run.photos:
        splits = _read_splits(config.parent / run.photos)
        kept, held_out = ([folder / n for n in splits[split]] for split in ("train", "held-out"))
    else:
        suffixes = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes)
        held_out = found[::10]
        kept = [path for i, path in enumerate(found) if i % 10]
    missing = [path for path in kept + held_out if not path.is_file()]
    if missing or not kept or not held_out:
        what = f"{missing[0]} is missing" if missing else f"{folder} has too few images"
        raise InputMissingError(f"{what}.", hint="--photos names the folder to train on.")
    return kept, held_out


def _read_splits(listed: Path) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {"train": [], "held-out": []}
    try:
        with listed.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                splits[row["split"]].append(row["file"])
    except OSError as error:
        raise InputMissingError(
            f"The list of photos {listed} can't be read: {error.strerror}.",
            hint='`photos = ""` in the configuration takes every image of the folder.',
        ) from error
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"The list of photos {listed} does not fit: {error}.",
            hint="It needs the columns `file` and `split`, which is `train` or `held-out`.",
        ) from error
    return splits


def load_photos(paths: list[Path], smallest: int) -> list[Pixels]:
    """Decode photos to uint8 (H, W, 3), leaving out those with a side below `smallest`.

    Raises:
        ImageUnreadableError: a file is no image, or a damaged one.
        UsageError: none is left.
    """
    photos = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if min(image.size) >= smallest:
                    photos.append(np.array(image.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageUnreadableError(
                f"{path} can't be decoded: {error}.", hint="Take it out of the photos."
            ) from error
    if not photos:
        raise UsageError(
            f"Of {len(paths)} photos, the first being {paths[0]}, none has {smallest} pixels along "
            "both sides.",
            hint=f"Photos to train on must exceed `crop`; held-out ones need {VALIDATION_CROP} px.",
        )
    return photos


def to_tensor(pixels: Pixels) -> Tensor:
    """Uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def initialise(network: SwinUNet) -> None:
    """Start every residual branch at zero and every Swin layer at the identity.

    A Swin layer replaces its input, so random projections at its ends would scramble the features
    of every level before anything is learned.

    Of the first features, half start as differences within the low-quality image alone: what it
    tells lies in faint local contrast, which the strong noise of the latent's many channels would
    drown in every mixed feature.
    """
    latent_channels = network.spec.latent_channels
    with torch.no_grad():
        first = network.get_parameter("input_blocks.0.0.weight")
        half = len(first) // 2
        first[:half, :latent_channels] = 0
        first[:half] -= first[:half].mean((2, 3), keepdim=True)
        first[:half] *= (first.shape[1] / (first.shape[1] - latent_channels)) ** 0.5 * 8
        first[half:, latent_channels:] = 0
    for module in network.modules():
        if isinstance(module, ResBlock):
            _zero(module.out_layers[-1])
        elif isinstance(module, SwinBlock):
            _zero(module.attn.proj)
            _zero(module.mlp.fc2)
        elif isinstance(module, SwinLayer):
            for projection in (module.patch_embed.proj, module.patch_unembed.proj):
                nn.init.dirac_(projection.weight)
                nn.init.zeros_(projection.bias)  # type: ignore[arg-type]  # it has a bias
    _zero(network.out[-1])


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def make_batch(photos: list[Pixels], run: RunSpec, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The crops of one step: (N, 3, crop, crop) and their low-resolution partners, in [0, 1].

    Partners are cut from a larger degraded patch at a random offset, since the blocks of a JPEG
    may lie anywhere.
    """
    train, scale = run.train, run.model.scale
    rng = np.random.default_rng([seed, step])
    sharp, blurry = [], []
    for _ in range(train.batch):
        photo = photos[rng.integers(len(photos))]
        patch = degrade.pick_crop(photo, train.crop + MARGIN * scale, train.crop_tries, rng)
        hq = to_tensor(patch)
        lq = degrade.degrade(hq, scale, train.degrade, rng)
        y, x = rng.integers(MARGIN + 1, size=2)
        side = train.crop // scale
        sharp.append(hq[..., y * scale :, x * scale :][..., : train.crop, : train.crop])
        blurry.append(lq[..., y : y + side, x : x + side])
    return torch.cat(sharp), torch.cat(blurry)


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


class Trainer:
    """The state of a run: weights, their average, optimiser and step number.

    Args:
        run: the configuration.
        seed: of everything random.
        device: where to train.
    """

    def __init__(self, run: RunSpec, *, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.run = run
        self.seed = seed
        self.device = device
        self.step = 0
        model = run.model
        self.schedule = model.schedule.build()
        self.denoiser, self.autoencoder = checkpoint.build(model)
        network = self.denoiser.network
        initialise(network)
        self.autoencoder.to(device)
        place(self.denoiser, device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        decay = [p for p in network.parameters() if p.ndim >= 2]
        plain = [p for p in network.parameters() if p.ndim < 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": run.train.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=run.train.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to 0."""
        train = self.run.train
        if self.step < train.warmup:
            return train.learning_rate * (self.step + 1) / train.warmup
        done = (self.step - train.warmup) / max(train.steps - train.warmup, 1)
        return train.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def loss(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Mean squared error of the network's output (equation 12 of the paper, reweighted).

        Each crop counts in proportion to 1 / (energy of its residual): decibels are relative, and
        otherwise the few busiest crops would drown all others.
        """
        scale = self.run.model.scale
        x0 = self.autoencoder.encode(sharp * 2 - 1)
        y0 = self.autoencoder.encode(degrade.enlarge(blurry * 2 - 1, scale))
        rng = np.random.default_rng([self.seed, self.step, 1])
        train = self.run.train
        t = draw_steps(len(x0), self.schedule.steps, train.late_steps, train.last_share, rng)
        noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
        t = t.to(x0.device)
        x_t = chain.shift(x0, y0, noise.to(x0), self.schedule, t)
        half = has_fast_bf16(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            output, target = self.denoiser.output_and_target(
                x0, x_t, y0, blurry * 2 - 1, self.schedule, t
            )
        energy = (y0 - x0).square().mean((1, 2, 3)) + 0.5
        return ((output - target).square().mean((1, 2, 3)) / energy).mean()

    def advance(self, photos: list[Pixels]) -> float:
        """Take one optimiser step; returns the loss.

        Raises:
            ResShiftError: the loss or its gradient is not finite.
        """
        sharp, blurry = make_batch(photos, self.run, self.seed, self.step)
        loss = self.loss(sharp.to(self.device), blurry.to(self.device))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.run.train.clip_norm)
        if not torch.isfinite(norm):
            raise ResShiftError(
                f"The gradient of step {self.step + 1} is not finite.",
                hint="Lower `learning_rate`; the same command goes on from the last saved step.",
            )
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.optimiser.step()
        self.step += 1
        decay = min(self.run.train.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.denoiser.parameters()), 1 - decay
            )
        return loss.item()

    @torch.no_grad()
    def validate(self, photos: list[Pixels]) -> dict[str, float]:
        """Gain over bicubic in dB of PSNR-Y for the posterior mean, averaged over photos."""
        gains = []
        scale = self.run.model.scale
        t = torch.tensor([self.schedule.steps], device=self.device)
        for photo in photos:
            top, left = ((side - VALIDATION_CROP) // 2 for side in photo.shape[:2])
            crop = photo[top : top + VALIDATION_CROP, left : left + VALIDATION_CROP]
            sharp = to_tensor(crop).to(self.device)
            blurry = degrade.shrink(sharp, scale)
            bicubic = degrade.enlarge(blurry, scale)
            y0 = self.autoencoder.encode(bicubic * 2 - 1)
            noise = torch.randn(y0.shape, generator=torch.Generator().manual_seed(0)).to(y0)
            x_t = chain.prior(y0, noise, self.schedule)
            x0 = self.average(x_t, y0, blurry * 2 - 1, self.schedule, t)
            restored = self.autoencoder.decode(x0) / 2 + 0.5
            gains.append(evaluate.psnr_y(restored, sharp) - evaluate.psnr_y(bicubic, sharp))
        return {"gain_db": sum(gains) / len(gains), "worst_db": min(gains)}

    def state(self) -> dict[str, object]:
        """Everything that `restore` needs."""
        return {
            "step": self.step,
            "weights": self.denoiser.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Go on from a saved state.

        Raises:
            ModelUnavailableError: it is damaged, or of another model.
        """
        try:
            state = torch.load(path, weights_only=True, map_location=self.device)
            self.step = state["step"]
            self.denoiser.load_state_dict(state["weights"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise ModelUnavailableError(
                f"{path} is damaged, or was saved by a run of another model.",
                hint="Give another folder with --out, or delete that file to start again.",
            ) from error

    def save(self, folder: Path) -> None:
        """Write `state.pt`, which `restore` takes, and `model.safetensors` into a folder.

        Raises:
            OutputError: they can't be written.
        """
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        atomic.write(folder / "state.pt", buffer.getvalue())
        weights = folder / "model.safetensors"
        checkpoint.save_model(weights, self.run.model, self.average.network)


def train(
    config: Path,
    photos: Path,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    init: Path | None = None,
) -> Iterator[dict[str, float]]:
    """Train, or go on where an earlier run with the same `out` was interrupted.

    Writes `state.pt` (weights, average, optimiser), `metrics.jsonl` and `model.safetensors` (the
    averaged weights in half precision, ready for `--weights`) into `out`.

    Args:
        config: TOML file, see `RunSpec`.
        photos: folder of pictures.
        out: folder of the run.
        seed: of everything random.
        device: where to train.
        init: weight file to start from.

    Yields:
        What was measured at each step that is logged.

    Raises:
        InputMissingError: the configuration or photos are missing.
        ImageUnreadableError: a photo can't be decoded.
        SpecError: the configuration does not fit.
        UsageError: its numbers can't be trained with, or all photos are too small.
        ModelUnavailableError: `init`, or the state in `out`, is damaged or of another model.
        OutputError: `out` can't be written to.
        ResShiftError: training diverged.
    """
    run = read_config(config)
    spec = run.train
    kept, held_out = split_photos(config, run, photos)
    training = load_photos(kept, spec.crop + MARGIN * run.model.scale)
    validation = load_photos(held_out, VALIDATION_CROP)
    trainer = Trainer(run, seed=seed, device=device or torch.device("cpu"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {out} can't be made: {error.strerror}.",
            hint="Give another folder with --out.",
        ) from error
    state = out / "state.pt"
    if state.exists():
        trainer.restore(state)
    elif init is not None:
        checkpoint.load_network(trainer.denoiser.network, init)
        trainer.average.load_state_dict(trainer.denoiser.state_dict())
    started, first, losses = time.monotonic(), trainer.step, []
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        while trainer.step < spec.steps:
            losses.append(trainer.advance(training))
            last = trainer.step == spec.steps
            validates = last or trainer.step % spec.validate_every == 0
            saves = last or trainer.step % spec.save_every == 0
            if trainer.step % LOG_EVERY and not validates and not saves:
                continue
            metrics: dict[str, float] = {
                "step": trainer.step,
                "loss": sum(losses) / len(losses),
                "seconds_per_step": (time.monotonic() - started) / (trainer.step - first),
            }
            losses.clear()
            if validates:
                metrics |= trainer.validate(validation)
            if saves:
                trainer.save(out)
            log.write(json.dumps(metrics) + "\n")
            log.flush()
            yield metrics
