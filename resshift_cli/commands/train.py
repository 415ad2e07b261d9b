"""`resshift train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli.commands import console, progress, ready, signals
from resshift_cli.commands.groups import Options
from resshift_cli.commands.options import DebugOption, DeviceOption, OfflineOption, SeedOption
from resshift_cli.errors import (
    InputMissingError,
    OutputError,
    UsageError,
    memory_limit,
    printable,
)
from resshift_cli.system.progress import Bar

if TYPE_CHECKING:
    from resshift_cli.training.recipe import RunSpec
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files


@dataclass(frozen=True, slots=True)
class Start(Options):
    """What a run starts from."""

    panel = "What to start from"

    init: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.safetensors|MODEL",
            help="Weights to start from: a file, or a model of `resshift models list`.",
        ),
    ] = None
    autoencoder: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.safetensors|MODEL",
            help="The autoencoder's weights, for models that have one: a file, or the model that "
            "has it. By default as the configuration says.",
        ),
    ] = None
    offline: OfflineOption = False


@dataclass(frozen=True, slots=True)
class Work(Options):
    """Where it is computed."""

    panel = "Where to compute"

    device: DeviceOption = "auto"
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Processes that make batches ahead of time; the batches are the same for any "
            "number.",
        ),
    ] = 0


def train(
    *,
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            readable=False,
            help="TOML file, as training/tiny-x4-mean.toml.",
            show_default=False,
        ),
    ],
    photos: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            readable=False,
            help="A folder of pictures, at any depth; may be repeated.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder of the run: its state, its metrics, and model.safetensors for "
            "--weights. A run that is there already goes on; Ctrl-C saves where it is.",
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Train nothing, and save a sheet of the first crops that --seed trains on, each "
            "beside its low-resolution partner, as a new file.",
        ),
    ] = None,
    seed: SeedOption = 0,
    debug: DebugOption = False,
    start: Start,
    work: Work,
) -> None:
    """Train a model, or go on with an interrupted run.

    `torchrun --nproc-per-node=N -m resshift_cli train ...` shares each batch among N processes.
    """
    for path, kind, there in (
        (config, "file", config.is_file()),
        *((folder, "folder", folder.is_dir()) for folder in photos),
    ):
        if not there:
            raise InputMissingError(
                f"There is no {kind} {printable(path)}.", hint="Check its name."
            )
    if preview is not None:
        _preview(config, photos, preview, seed)
        return
    if out is None:
        raise UsageError("The run has no folder.", hint="Give --out DIR, or --preview FILE.png.")
    with console.waiting("Starting"):
        ready.import_torch()
        from resshift_cli.system.device import choose_device
        from resshift_cli.training import ranks as processes
        from resshift_cli.training import recipe, runlog
        from resshift_cli.training import train as training

        ranks = processes.from_environment()
        run = recipe.read(config)
        run_on = choose_device(ranks.gpu(work.device))
    source = _autoencoder(run, start.autoencoder, config)
    fetch = _Fetch(offline=start.offline, quiet=not ranks.leads)
    init = None if start.init is None else fetch.weights(start.init, run)
    autoencoder = None if source is None else fetch.autoencoder(source)
    if ranks.leads:
        _tell_of_list(run, config, photos)
        if find_spec("tensorboard") is None:
            console.note("No TensorBoard here, so no events: `pip install 'resshift[train]'`.")
    with (
        memory_limit(f"Lower `batch` or `crop` in {printable(config)}, or raise `accumulate`."),
        progress.bars(quiet=not ranks.leads) as bars,
    ):
        course = _Course(bars(total=run.train.steps, desc=out.name, unit="step"), ranks.count == 1)
        session = training.Session(
            run_on, work.workers, ranks, sys.argv, course.stopping, course.stepped
        )
        course.follow(
            training.train(
                config,
                photos,
                out,
                seed=seed,
                init=init,
                autoencoder=autoencoder,
                session=session,
            )
        )
    if ranks.leads:
        weights = out / runlog.WEIGHTS
        console.note(f"{run.train.steps} steps of training are done{course.gain}: {weights}")
        console.result(weights)


class _Course:
    """How training goes, as the bar shows it, and how it ends.

    Args:
        bar: counts steps.
        alone: whether no other processes train along, which Ctrl-C finds at other steps.
    """

    def __init__(self, bar: Bar, alone: bool) -> None:
        self.bar, self.done, self.gain = bar, 0, ""
        self.postponed = signals.Postponed(
            lambda: bar.set_postfix_str("stopping after this step, Ctrl-C again stops at once")
        )
        never = nullcontext[Callable[[], bool]](lambda: False)
        self.stopping: AbstractContextManager[Callable[[], bool]] = (
            self.postponed if alone else never
        )

    def stepped(self, step: int) -> None:
        """Count a step."""
        self.bar.update(step - self.done)
        self.done = step

    def follow(self, steps: Generator[dict[str, float], None, None]) -> None:
        """Train, and show what is measured."""
        try:
            with closing(steps) as logged:
                for metrics in logged:
                    if "gain_db" in metrics:
                        self.gain = f", {metrics['gain_db']:+.2f} dB over bicubic"
                    self.bar.set_postfix_str(f"loss {metrics['loss']:.4f}{self.gain}")
        except KeyboardInterrupt as interrupt:
            place = "the last saved step"
            if self.postponed.in_order:
                place = f"step {self.done}, which is saved"
            interrupt.args = (f"the same command goes on from {place}",)
            raise


def _tell_of_list(run: RunSpec, config: Path, photos: Sequence[Path]) -> None:
    """Say where a list of photos is of no use."""
    from resshift_cli.training.train import list_of

    if run.photos and list_of(run, config, photos) is None:
        console.note(
            f"None of the pictures that {run.photos} lists is in {photos[0]}: all that are there "
            "are taken, every tenth to measure by."
        )


def _preview(config: Path, photos: list[Path], path: Path, seed: int) -> None:
    """Save a sheet of what would be trained on.

    Raises:
        UsageError: the sheet is not called a PNG.
        OutputError: there is such a file, or it can't be written.
    """
    from resshift_cli.imaging import targets

    if path.suffix.lower() != ".png":
        raise UsageError(
            f"The sheet {printable(path)} would be a PNG.", hint="Give --preview FILE.png."
        )
    if os.path.lexists(path):
        raise OutputError(
            f"{printable(path)} exists already.", hint="Give another name after --preview."
        )
    targets.check_writable(path, overwrite=False)
    with console.waiting("Making pairs"):
        ready.import_torch()
        from resshift_cli.training import dataset, recipe, sheet
        from resshift_cli.training import preview as previews
        from resshift_cli.training.train import list_of

        run = recipe.read(config)
        _tell_of_list(run, config, photos)
        training, _ = dataset.open_pictures(photos, list_of(run, config, photos), run.data)
        page = previews.draw(training, run.data, seed, previews.PAIRS)
    targets.save(sheet.encoded(page), path, overwrite=False)
    if sys.stdout.isatty():
        console.note(f"{path} shows what would be trained on.")
    console.result(path)


def _autoencoder(run: RunSpec, option: str | None, config: Path) -> str | None:
    """What names the autoencoder's weights: the option, or the configuration."""
    if run.model.autoencoder.kind != "vq":
        if option is not None:
            raise UsageError(
                f"The model of {printable(config)} has no autoencoder to load.",
                hint="Leave it out.",
            )
        return None
    if option is not None or not run.autoencoder:
        return option
    beside = config.parent / run.autoencoder
    return str(beside) if beside.is_file() else run.autoencoder


@dataclass(frozen=True)
class _Fetch:
    """Files, or models of the registry -> files on this machine."""

    offline: bool
    quiet: bool

    def weights(self, source: str, run: RunSpec) -> Path:
        """The file that a run starts from."""
        if _is_file(source):
            return Path(source)
        from resshift_cli.training.states import check_start
        from resshift_cli.weights import store

        entry, files = self._model(source)
        check_start(run.model, store.spec_of(entry, files.weights), source)
        return files.weights

    def autoencoder(self, source: str) -> Path:
        """The file that holds an autoencoder's weights."""
        if _is_file(source):
            return Path(source)
        _, files = self._model(source)
        return files.autoencoder or files.weights  # which may hold both

    def _model(self, name: str) -> tuple[ModelEntry, Files]:
        from resshift_cli.weights import registry

        entry = registry.find(name)
        return entry, ready.fetch(entry, offline=self.offline, quiet=self.quiet)


def _is_file(source: str) -> bool:
    """Whether a source is a file; else it is a model's name.

    Raises:
        InputMissingError: it looks like a file, and is not there.
    """
    path = Path(source)
    if path.is_file():
        return True
    if path.suffix == ".safetensors" or path.name != source:
        raise InputMissingError(f"There is no file {printable(source)}.", hint="Check its name.")
    return False
