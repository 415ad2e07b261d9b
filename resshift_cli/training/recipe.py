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
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.tables import from_table, written_by_the_user
from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.training.dataset import VALIDATION_CROP, DataSpec, Partners
from resshift_cli.weights import registry, store

Objective = Literal["plain", "weighted", "balanced", "absolute"]
OptimiserName = Literal["adamw", "muon", "muon32"]
Amp = Literal["auto", "off", "bf16", "fp16"]


LEAST_JUDGED = 32  # pixels a side, of which the judges' coarsest features see 4

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
class AdversarySpec:
    """Judges of restored crops, and how much their word counts; see `adversary`.

    Each gradient is scaled to the norm of that of fidelity, the absolute error, before its weight.

    Attributes:
        weight: of the judges' gradient.
        learning_rate: of the judges at its peak; it rises and falls as the model's does.
        features: weight of the gradient of the distance of features.
        reduction: weight of the error of the reduced crops within fidelity.
        grid: weight, within fidelity, of the error on average at each pixel of the latent's grid,
            against meshes.
        restraint: damage of a low-resolution crop, in 8-bit levels, at which its judges' gradient
            counts half, see `objective.detail_share`; 0 for all of it always.
        ramp: optimiser steps over which the weight rises.
        shift: judged crops are cut at a random offset of up to so many pixels, so that the judges
            do not come to know any grid.
        penalty: weight of how much the verdicts on patches change under faint noise, which keeps
            the judges from running away.
        even: how far the judges' gradients of single crops are made as large as each other, from 0,
            not at all, to 1; they are so sure of damaged crops that these else learn little.
        clean: share of the judges' gradient that is left to a crop without any damage, 0 to 1.
        keep_mean: the weights that the run starts from are those of the mean; they are written
            into the model's file beside those of samples, see `specs.ModelSpec.mean`.
    """

    weight: float
    learning_rate: float
    features: float = 0.0
    reduction: float = 0.0
    grid: float = 0.0
    restraint: float = 0.0
    ramp: int = 0
    shift: int = 0
    penalty: float = 0.0
    even: float = 0.0
    clean: float = 1.0
    keep_mean: bool = False

    def problems(self) -> Iterator[str]:
        """What is wrong with the numbers."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                yield f"adversary.{field.name} can't be negative"
        if self.weight == 0:
            yield "adversary.weight must be above 0"
        for name in ("even", "clean"):
            if getattr(self, name) > 1:
                yield f"adversary.{name} can't be above 1"


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """How a model is trained.

    Attributes:
        steps: optimiser steps in all.
        batch: crops per optimiser step, over all processes.
        crop: side of a crop in high-resolution pixels.
        crop_tries: each crop is the most detailed of so many random ones.
        learning_rate: peak, reached after `warmup` steps and lowered to `final_rate` along half a
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
        objective: see `objective.denoising_loss`; `absolute` is `objective.absolute_loss`.
        perceptual: a second term of the loss.
        adversary: judges in place of the objective, so that the model gives samples and not means.
        restraint: damage to a low-resolution image, in 8-bit levels, at which the model learns to
            add half of the detail, see `objective.detail_share`; 0 to learn all of it always.
        final_rate: learning rate at the end.
        decay: share of the steps, at the end, in which the learning rate falls; 0 to 1.
        optimiser: `adamw`, or `muon` for the matrices within the network, see `Optimiser`; `muon32`
            is the same in float32, see `muon`.
        beta1: how much AdamW keeps of its average of gradients; 0 to 1.
        beta2: and of that of squared gradients.
        accumulate: parts that each process computes its share of a batch in, one after the
            other, to save memory.
        amp: what the network computes in beside float32: `bf16`, `fp16` with scaled gradients,
            `off`, or `auto`, the fastest that is safe on the device.
        checkpointing: compute activations anew for the gradient, to save memory.
        compile: have the network compiled, which takes a minute and pays off in long runs.
        cut: how crops are cut, see `DataSpec`.
        reduce: how much of a picture may be reduced to a crop, see `DataSpec`.
        flat: share of crops that are made up of one colour or two, see `DataSpec`.
        grain: faint noise that good photos have, in 8-bit levels, see `DataSpec`.
        holes: share of crops with damage drawn over, for a model that takes a mask; 0 to 1.
        validate_on: held-out pictures to validate on, at most.
        samples: held-out crops on the sheet that each validation writes; 0 for no sheets.
        bits: of a weight in the file of the model, 16 or 8, see `weights.rounding`.
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
    adversary: AdversarySpec | None = None
    restraint: float = 0.0
    final_rate: float = 0.0
    decay: float = 1.0
    optimiser: OptimiserName = "adamw"
    beta1: float = 0.9
    beta2: float = 0.99
    accumulate: int = 1
    amp: Amp = "auto"
    checkpointing: bool = False
    compile: bool = False
    cut: Literal["detail", "largest"] = "detail"
    reduce: float = 1.0
    flat: float = 0.0
    grain: float = 0.0
    holes: float = 0.0
    validate_on: int = 100
    samples: int = 4
    bits: Literal[16, 8] = 16

    def rate(self, step: int) -> float:
        """The learning rate of the step after so many: linear warm-up, peak, half a cosine."""
        return self._scheduled(step, self.learning_rate, self.final_rate)

    def judges_rate(self, step: int) -> float:
        """That of the judges, which ends at 0."""
        assert self.adversary is not None  # who else asks
        return self._scheduled(step, self.adversary.learning_rate, 0.0)

    def _scheduled(self, step: int, peak: float, final: float) -> float:
        if step < self.warmup:
            return peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        fallen = max(done - (1 - self.decay), 0.0) / self.decay
        height = 0.5 * (1 + math.cos(math.pi * min(fallen, 1.0)))
        return final + (peak - final) * height

    @property
    def keeps_mean(self) -> bool:
        """Whether the weights that the run starts from go into its model's file."""
        return self.adversary is not None and self.adversary.keep_mean


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
            train.flat,
            train.grain,
            train.holes if self.model.denoiser.lq_mask else None,
            self.model.prefill,
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
            hint="training/tiny-x4-mean.toml in the repository is an example.",
        ) from error
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, or nested without end
        raise UsageError(
            f"{printable(path)} is not TOML: {error}.", hint="Mend that line."
        ) from error
    if isinstance(table.get("model"), dict):
        table["model"] = _inherited(table["model"], path)
    with written_by_the_user():
        run = from_table(RunSpec, table, str(path))
    for problem in _problems(run):
        raise UsageError(f"{printable(path)}: {problem}.", hint=f"Change it in {printable(path)}.")
    return run


def _inherited(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """A model's table with what it takes over from the registry's model that it is like."""
    name = table.pop("like", None)
    if name is None:
        return table
    spec = store.known_spec(registry.find(name)) if isinstance(name, str) else None
    if spec is None:
        raise UsageError(
            f"{printable(path)}.model is like {name!r}, whose table is not known here.",
            hint="`like` names a model that weights.toml describes, or whose file is here.",
        )
    inherited = json.loads(specs.to_json(spec))
    inherited.pop("mean", None)  # which is of a file, not of what is trained
    return registry.merged(inherited, table)


def _problems(run: RunSpec) -> Iterator[str]:
    """What would fail later, or in the middle of the run."""
    train = run.train
    yield from (f"{name} must be at least 1" for name in _COUNTS if getattr(train, name) < 1)
    yield from (f"{name} can't be negative" for name in _AMOUNTS if getattr(train, name) < 0)
    yield from _problems_of_the_model(run)
    if train.batch % train.accumulate:
        yield f"batch {train.batch} can't be computed in {train.accumulate} equal parts"
    yield from _wrong_ranges(train)
    if train.perceptual is not None and train.perceptual.weight < 0:
        yield "perceptual.weight can't be negative"
    if train.objective == "absolute" and train.restraint:
        yield "the absolute objective is of pixels, and the restraint of latents"
    if train.adversary is not None:
        yield from _problems_of_judging(train, train.adversary)
        if run.model.denoiser.lq_mask and (train.adversary.reduction or train.adversary.grid):
            yield "adversary.reduction and adversary.grid are for models that fill no holes"
    if run.data.problem is not None:
        yield run.data.problem


def _wrong_ranges(train: TrainSpec) -> Iterator[str]:
    if not 0 <= train.last_share <= 1:
        yield "last_share must be within 0..1"
    if not (0 <= train.ema < 1 and 0 <= train.beta2 < 1):
        yield "ema and beta2 must be at least 0 and below 1"
    if not 0 < train.decay <= 1:
        yield "decay must be above 0 and at most 1"
    if not 0 <= train.beta1 < 1:
        yield "beta1 must be at least 0 and below 1"
    if train.clip_norm <= 0:
        yield "clip_norm must be above 0"


def _problems_of_judging(train: TrainSpec, adversary: AdversarySpec) -> Iterator[str]:
    yield from adversary.problems()
    if train.accumulate > 1:
        yield "with an adversary a batch is not computed in parts: accumulate must be 1"
    if train.restraint:
        yield "with an adversary the restraint is adversary.restraint"
    if train.perceptual is not None:
        yield "with an adversary the weight of features is adversary.features"
    if adversary.shift % 2:
        yield "adversary.shift must be even, since pixels are judged in squares of two"
    if train.crop - adversary.shift < LEAST_JUDGED:
        yield f"crop less adversary.shift must be at least {LEAST_JUDGED}"


def _problems_of_the_model(run: RunSpec) -> Iterator[str]:
    model = run.model
    multiple = model.autoencoder.factor * model.denoiser.size_multiple
    if model.condition != "pixels":
        yield "only models that are shown the pixels of the image train"
    if run.train.holes and not model.denoiser.lq_mask:
        yield "holes are for a model that is told where they are (lq_mask)"
    if model.mean:
        yield "the model's file says `mean` where adversary.keep_mean wrote it: leave it out"
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
