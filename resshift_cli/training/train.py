"""A training run from top to bottom: configuration, photos, the loop, and what it leaves.

Everything random in a step follows from the run's seed and the step's number, so a run that was
interrupted goes on to exactly the weights that it would have had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from resshift_cli.errors import UsageError, printable
from resshift_cli.system import atomic
from resshift_cli.system.device import card_name
from resshift_cli.training import card, dataset, recipe, runlog, sheet, states, validation
from resshift_cli.training.degradation import MildSpec
from resshift_cli.training.photos import Pictures, is_list_of
from resshift_cli.training.ranks import Ranks, joined
from resshift_cli.training.recipe import RunSpec
from resshift_cli.training.trainer import Pair, Trainer

LOG_EVERY = 50  # steps; validations and saved states are logged as well
COLUMNS = ("degraded", "one step", "whole chain", "original")  # of a sheet of samples


@dataclass(frozen=True, slots=True)
class Session:
    """Where a run goes on this time.

    Attributes:
        device: where to train.
        workers: processes that make batches ahead of time, for each one that trains.
        ranks: the processes that train together, each of which calls `train`; only the first
            writes.
        command: the command line, to be kept with the run.
        stopping: what all steps are taken in; it says after each whether to save and stop there.
        stepped: called after every step, with its number.
    """

    device: torch.device = torch.device("cpu")
    workers: int = 0
    ranks: Ranks = Ranks()
    command: Sequence[str] = ()
    stopping: AbstractContextManager[Callable[[], bool]] = field(
        default_factory=lambda: nullcontext(lambda: False)
    )
    stepped: Callable[[int], None] = lambda step: None


HERE = Session()
"""In this process alone, on the CPU."""


def train(
    config: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    seed: int = 0,
    init: Path | None = None,
    autoencoder: Path | None = None,
    session: Session = HERE,
) -> Generator[dict[str, float], None, None]:
    """Train, or go on where an earlier run with the same `out` was interrupted.

    Writes into `out`, see `runlog`: the configuration, where it ran, what was measured, sheets of
    samples, `state.pt` to go on from, and `model.safetensors` (the averaged weights in half
    precision, ready for `--weights`) with a draft of its card.

    Args:
        config: TOML file, see `RunSpec`.
        photos: folders of pictures; for which of them, see `list_of` and `photos.split`.
        out: folder of the run; processes on several machines share it.
        seed: of everything random.
        init: weight file to start from.
        autoencoder: file of the autoencoder's weights, where it has any.
        session: where to train.

    Yields:
        What was measured at each step that is logged.

    Raises:
        InputMissingError: photos or another file is missing.
        ImageUnreadableError, UnsupportedImageError: a photo can't be decoded.
        UsageError: the configuration does not fit, the photos are too small, or the seed is not
            the run's.
        ModelUnavailableError: `init`, `autoencoder`, or the state in `out`, is damaged or of
            another model.
        OutputError: `out` can't be written to.
        ResShiftError: training diverged.
    """
    run = recipe.read(config)
    if run.model.autoencoder.kind == "vq" and autoencoder is None:
        raise UsageError(
            f"{printable(config)} has an autoencoder with weights, "
            "and does not say where they are.",
            hint='Give it a key `autoencoder = "MODEL"`, or the option --autoencoder.',
        )
    keeps_mean = run.train.keeps_mean
    if keeps_mean and init is None and not (out / runlog.MEAN).exists():
        raise UsageError(
            f"{printable(config)} keeps the weights of the mean, and the run starts from none.",
            hint="Give them with --init, or leave `keep_mean` out.",
        )
    listed = config.parent / run.photos if run.photos else None
    training, held_out = dataset.open_pictures(photos, list_of(run, config, photos), run.data)
    ranks, perceptual = session.ranks, run.train.perceptual
    with joined(ranks, session.device):
        trainer = Trainer(
            run,
            seed=seed,
            device=session.device,
            ranks=ranks,
            autoencoder=autoencoder,
            features=config.parent / perceptual.features if perceptual else None,
        )
        if (out / runlog.STATE).exists():
            states.restore(trainer, out / runlog.STATE)
        elif init is not None:
            states.start_from(trainer, init)
        ranks.agree(
            (trainer.step, recipe.to_table(run), len(training)),
            "The processes of this run have different configurations, photos or states.",
            hint="Give all machines the same files, and one shared folder for --out.",
        )
        if trainer.step >= run.train.steps:
            return
        if not ranks.leads:
            yield from _steps(trainer, training, session)
            return
        with runlog.held(out):
            runlog.keep_config(out, config, listed, trainer.step)
            files = {
                "init": "" if init is None else str(init),
                "autoencoder": "" if autoencoder is None else str(autoencoder),
                "pictures": {"training": len(training), "held out": len(held_out)},
            }
            runlog.note_session(out, _facts(trainer, session) | files)
            codec = "" if autoencoder is None else autoencoder.name
            if keeps_mean and trainer.step == 0 and init is not None:
                states.keep_mean(trainer, init, out / runlog.MEAN)
            record = _Record(out, trainer, training, held_out, codec)
            yield from _steps(trainer, training, session, record)


def list_of(run: RunSpec, config: Path, photos: Sequence[Path]) -> Path | None:
    """The list of photos that a configuration names, if it is one of the first folder.

    If it is one of other photos, all of the folder are taken.

    Raises:
        InputMissingError, UsageError: it can't be read, or does not fit.
    """
    if not run.photos:
        return None
    listed = config.parent / run.photos
    paired = isinstance(run.data.degrade, dataset.PairedSpec)
    return listed if is_list_of(photos[0], listed, paired=paired) else None


def _facts(trainer: Trainer, session: Session) -> dict[str, object]:
    """What `environment.json` keeps of a session."""
    device = session.device
    name = card_name(device) or device.type
    return {
        "from_step": trainer.step,
        "seed": trainer.seed,
        "device": name,
        "processes": session.ranks.count,
        "threads": torch.get_num_threads(),
        "computes_in": str(trainer.dtype or torch.float32).removeprefix("torch."),
        "command": list(session.command),
    }


def _steps(
    trainer: Trainer, training: Pictures, session: Session, record: _Record | None = None
) -> Generator[dict[str, float], None, None]:
    """The loop; only the first process has a record to keep."""
    run = trainer.run
    spec = run.train
    started, first = time.monotonic(), trainer.step
    losses: list[dict[str, Tensor]] = []
    numbers = range(trainer.step, spec.steps)
    workers, share = session.workers, trainer.share
    ahead = dataset.batches(training, run.data, trainer.seed, numbers, workers, share)
    with (
        nullcontext() if record is None else record.log() as write,
        closing(ahead) as batches,
        session.stopping as stops,
    ):
        for batch in batches:
            losses.append({"loss": trainer.advance(*batch)} | trainer.terms)
            session.stepped(trainer.step)
            stopped = stops()
            last = trainer.step == spec.steps
            validates = last or trainer.step % spec.validate_every == 0
            saves = last or stopped or trainer.step % spec.save_every == 0
            if trainer.step % LOG_EVERY and not validates and not saves:
                continue
            metrics: dict[str, float] = {
                "step": trainer.step,
                **_means(losses, trainer.ranks),
                "learning_rate": trainer.optimiser.learning_rate,
                "seconds_per_step": (time.monotonic() - started) / (trainer.step - first),
            }
            losses.clear()
            if record is not None and write is not None:
                if validates:
                    metrics |= record.validate()
                write(metrics)
                if saves:
                    record.save()
            yield metrics
            if stopped:
                return


def _means(losses: Sequence[Mapping[str, Tensor]], ranks: Ranks) -> dict[str, float]:
    """The mean of each term over steps and processes."""
    return {
        name: ranks.mean(torch.stack([terms[name] for terms in losses]).mean())
        for name in losses[0]
    }


class _Record:
    """What the first process writes into the folder of the run.

    Args:
        out: the folder.
        trainer: what is trained.
        training: pictures to train on.
        held_out: pictures to validate on.
        autoencoder: name of the file that holds the autoencoder's weights, or "".
    """

    def __init__(
        self, out: Path, trainer: Trainer, training: Pictures, held_out: Pictures, autoencoder: str
    ) -> None:
        spec = trainer.run.train
        self.out, self.trainer, self.autoencoder = out, trainer, autoencoder
        self.counts = (len(training), len(held_out))
        pictures, data = held_out.first(spec.validate_on), trainer.run.data
        self.pairs = dataset.validation_pairs(pictures, data)
        self.others: dict[str, list[Pair]] = {}  # by what stands before the names of their figures
        if trainer.adversary is not None and isinstance(data.degrade, MildSpec):
            self.others["damaged_"] = dataset.validation_pairs(pictures, data, damaged=True)
        if data.holes:
            self.others["holes_"] = dataset.validation_pairs(pictures, data, holes=True)

    def log(self) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
        """See `runlog.log`."""
        return runlog.log(self.out, self.trainer.step)

    def validate(self) -> dict[str, float]:
        """Measure, and show on a sheet."""
        trainer, samples = self.trainer, self.trainer.run.train.samples
        if samples:
            path = self.out / runlog.SAMPLES / f"{trainer.step:06}.png"
            atomic.make_folder(path.parent)
            rows = validation.samples(trainer, self.pairs[:samples])
            sheet.save(path, sheet.draw([list(zip(COLUMNS, row, strict=True)) for row in rows]))
        found = validation.measure(trainer, self.pairs)
        for kind, pairs in self.others.items():
            figures = validation.measure(trainer, pairs)
            found |= {f"{kind}{name}": value for name, value in figures.items()}
        return found

    def save(self) -> None:
        """Write weights, card and, last, the state: what it says was done has then been written."""
        trainer = self.trainer
        mean = self.out / runlog.MEAN if trainer.run.train.keeps_mean else None
        states.export(trainer, self.out / runlog.WEIGHTS, mean)
        latest: dict[str, float] = {}
        for entry in runlog.measured(self.out):
            latest |= entry
        training, held_out = self.counts
        card.draft(
            self.out / runlog.CARD,
            trainer.run,
            latest,
            training=training,
            held_out=held_out,
            start=trainer.start,
            autoencoder=self.autoencoder,
        )
        states.save(trainer, self.out / runlog.STATE)
