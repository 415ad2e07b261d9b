"""A training configuration: what is trained, and how, as frozen types from one TOML file."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.specs import ModelSpec, SpecError, from_table
from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.training.dataset import VALIDATION_CROP, DataSpec, Partners
from resshift_cli.weights import registry

Objective = Literal["plain", "weighted", "balanced"]
OptimiserName = Literal["adamw", "muon"]
Amp = Literal["auto", "off", "bf16", "fp16"]


_COUNTS = (
    *("steps", "batch", "crop", "crop_tries", "save_every", "validate_every"),
    *("validate_on", "accumulate"),
)
_AMOUNTS = (
    *("learning_rate", "final_rate", "warmup", "weight_decay", "late_steps", "samples"),
    "restraint",
)


@dataclass(frozen=True, slots=True)
class PerceptualSpec:
    """A distance of features of the decoded x_0, added to the loss.

    Attributes:
        weight: what it is multiplied by.
        features: file of a network exported by `torch.export.save`, beside the configuration; see
            `objective.FeatureDistance`.
        but_last: crops at the last step T go without, so that a chain of one step still gives the
            mean, and the steps after it what the mean lacks.
    """

    weight: float
    features: str
    but_last: bool = False


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """How a model is trained.

    Attributes:
        steps: optimiser steps in all.
        batch: crops per optimiser step, over all processes.
        crop: side of a crop in high-resolution pixels.
        crop_tries: each crop is the most detailed of so many random ones.
        learning_rate: peak, reached after `warmup` steps and lowered to `final_rate` along a
            cosine.
        warmup: steps of linear warm-up.
        weight_decay: on weights of two or more dimensions.
        clip_norm: largest norm of the gradient.
        ema: decay of the averaged weights, which are the ones that get exported.
        late_steps: step t of the chain is drawn in proportion to t to this power.
        last_share: fraction of crops that get the last step T instead, on which alone a chain of
            one step relies; 0 to 1.
        save_every: optimiser steps between saved states.
        validate_every: optimiser steps between validations.
        degrade: how low-resolution partners are made, or that they are files.
        objective: see `objective.denoising_loss`.
        perceptual: a second term of the loss.
        restraint: damage to a low-resolution image, in 8-bit levels, at which the model learns to
            add half of the detail, see `objective.detail_share`; 0 to learn all of it always.
        final_rate: learning rate at the end.
        optimiser: `adamw`, or `muon` for the matrices within the network, see `Optimiser`.
        beta2: how much AdamW keeps of its average of squared gradients; 0 to 1.
        accumulate: parts that each process computes its share of a batch in, one after the
            other, to save memory.
        amp: what the network computes in beside float32: `bf16`, `fp16` with scaled gradients,
            `off`, or `auto`, the fastest that is safe on the device.
        checkpointing: compute activations anew for the gradient, to save memory.
        compile: have the network compiled, which takes a minute and pays off in long runs.
        cut: how crops are cut, see `DataSpec`.
        reduce: how much of a picture may be reduced to a crop, see `DataSpec`.
        validate_on: held-out pictures to validate on, at most.
        samples: held-out crops on the sheet that each validation writes; 0 for no sheets.
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
    degrade: Partners
    objective: Objective = "balanced"
    perceptual: PerceptualSpec | None = None
    restraint: float = 0.0
    final_rate: float = 0.0
    optimiser: OptimiserName = "adamw"
    beta2: float = 0.99
    accumulate: int = 1
    amp: Amp = "auto"
    checkpointing: bool = False
    compile: bool = False
    cut: Literal["detail", "largest"] = "detail"
    reduce: float = 1.0
    validate_on: int = 100
    samples: int = 4

    def rate(self, step: int) -> float:
        """The learning rate of the step after so many: a linear warm-up, then a cosine."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        height = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.final_rate + (self.learning_rate - self.final_rate) * height


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A training configuration file.

    Attributes:
        photos: CSV beside the configuration with the columns `file` and `split` (`train` or
            `held-out`), or "" to take every image of the folder and hold out every tenth.
        model: what is trained. In the file it may say `like = "NAME"`: it then is the model of
            that name in the registry, but for what it says itself.
        train: how.
        autoencoder: for a VQGAN, the registry's name of a model that has it, or a safetensors
            file beside the configuration; it stays as it is.
    """

    photos: str
    model: ModelSpec
    train: TrainSpec
    autoencoder: str = ""

    @property
    def data(self) -> DataSpec:
        """What batches are made of."""
        train = self.train
        return DataSpec(
            self.model.scale,
            train.batch,
            train.crop,
            train.crop_tries,
            train.degrade,
            train.cut,
            train.reduce,
        )


def read(path: Path) -> RunSpec:
    """Read a training configuration.

    Raises:
        InputMissingError: the file can't be read.
        UsageError: not TOML, keys that do not fit, or numbers that nothing can be trained with.
        UnknownModelError: it is like a model that does not exist.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputMissingError(
            f"The configuration {printable(path)} can't be read: {error.strerror}.",
            hint="training/tiny-x4.toml in the repository is an example.",
        ) from error
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, or nested without end
        raise UsageError(
            f"{printable(path)} is not TOML: {error}.", hint="Mend that line."
        ) from error
    if isinstance(table.get("model"), dict):
        table["model"] = _inherited(table["model"], path)
    try:
        run = from_table(RunSpec, table, str(path))
    except SpecError as error:
        raise UsageError(str(error), hint="docs/training.md lists the keys.") from error
    for problem in _problems(run):
        raise UsageError(f"{printable(path)}: {problem}.", hint=f"Change it in {printable(path)}.")
    return run


def _inherited(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """A model's table with what it takes over from the registry's model that it is like."""
    name = table.pop("like", None)
    if name is None:
        return table
    spec = registry.find(name).spec if isinstance(name, str) else None
    if spec is None:
        raise UsageError(
            f"{printable(path)}.model is like {name!r}, whose table is not in the registry.",
            hint="`like` names a model whose network weights.toml describes.",
        )
    return registry.merged(json.loads(specs.to_json(spec)), table)


def _problems(run: RunSpec) -> Iterator[str]:
    """What would fail later, or in the middle of the run."""
    train = run.train
    yield from (f"{name} must be at least 1" for name in _COUNTS if getattr(train, name) < 1)
    yield from (f"{name} can't be negative" for name in _AMOUNTS if getattr(train, name) < 0)
    yield from _problems_of_the_model(run)
    if train.batch % train.accumulate:
        yield f"batch {train.batch} can't be computed in {train.accumulate} equal parts"
    if not 0 <= train.last_share <= 1:
        yield "last_share must be within 0..1"
    if not (0 <= train.ema < 1 and 0 <= train.beta2 < 1):
        yield "ema and beta2 must be at least 0 and below 1"
    if train.clip_norm <= 0:
        yield "clip_norm must be above 0"
    if train.perceptual is not None and train.perceptual.weight < 0:
        yield "perceptual.weight can't be negative"
    if run.data.problem is not None:
        yield run.data.problem


def _problems_of_the_model(run: RunSpec) -> Iterator[str]:
    model = run.model
    multiple = model.autoencoder.factor * model.denoiser.size_multiple
    shown_more = model.denoiser.lq_mask or model.denoiser.noise_channels
    if model.scale < 2 or shown_more or model.condition != "pixels":
        yield "only models that enlarge, and are shown the image but no mask or noise, train"
    if run.train.crop % multiple:
        yield f"crop {run.train.crop} is no multiple of {multiple}"
    if VALIDATION_CROP % multiple:
        yield f"it is validated on {VALIDATION_CROP} pixels, which is no multiple of {multiple}"
    if run.autoencoder and model.autoencoder.kind != "vq":
        yield "a space-to-depth model has no autoencoder to load"


def to_table(run: RunSpec) -> dict[str, Any]:
    """A configuration as plain data, for comparing and for JSON."""
    table: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(run)))
    return table
