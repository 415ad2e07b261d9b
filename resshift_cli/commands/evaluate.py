"""`resshift eval`: how well models do on images whose originals are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import console, progress, ready
from resshift_cli.commands.groups import Machine, Model, Options, Placement, Reporting
from resshift_cli.commands.options import (
    CropOption,
    LimitOption,
    MeasuredModelsOption,
    OfflineOption,
    RegistryOption,
    SeedOption,
    StepCountsOption,
    TemperatureOption,
    TileOption,
    WholeScaleOption,
)
from resshift_cli.errors import InputMissingError, ResShiftError, UsageError, printable
from resshift_cli.system import digests

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.evaluation.book import Book
    from resshift_cli.evaluation.comparison import Row, Study
    from resshift_cli.evaluation.pairs import Task
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.weights.registry import ModelEntry

REPORT, TABLE, SHEET, PAGE = "results.json", "per-image.csv", "sheet.png", "index.html"


@dataclass(frozen=True, slots=True)
class Candidates(Options):
    """The models to be measured."""

    panel = "Which models"

    model: MeasuredModelsOption = None
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.safetensors",
            readable=False,
            help="A weight file of your own to measure; may be repeated.",
        ),
    ] = None
    registry: RegistryOption = None
    offline: OfflineOption = False

    def entries(self) -> list[ModelEntry]:
        """Them, or the default one."""
        common = Model(registry=self.registry, offline=self.offline)
        entries = [ready.choose(replace(common, model=name)) for name in self.model or ()]
        for path in self.weights or ():
            try:
                entries.append(ready.choose(replace(common, weights=path)))
            except UsageError as error:  # here --model does not say what a file is like
                hint = "Have it say so: resshift models convert FILE OUT.safetensors --like MODEL."
                raise UsageError(str(error), hint=hint) from error
        return entries or [ready.choose(common)]


@dataclass(frozen=True, slots=True)
class Walks(Options):
    """How the models are run."""

    panel = "What to compute"

    steps: StepCountsOption = None
    seed: SeedOption = 0
    tile: TileOption = None
    temperature: TemperatureOption = None


@dataclass(frozen=True, slots=True)
class Measurement(Options):
    """What is measured."""

    panel = "What to measure"

    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What to measure; may be repeated. psnr-y, ssim-y, psnr-rgb, ssim-rgb, sharpness "
            "(the original's is 1) and colour-shift are ours and the default; lpips, clipiqa, "
            "musiq, niqe and more come with pip install 'resshift[metrics]'.",
        ),
    ] = None
    crop: CropOption = None
    limit: LimitOption = None


def evaluate(
    *,
    hq: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="The folder of originals, searched at any depth.",
            show_default=False,
        ),
    ],
    lq: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="The folder of low-quality partners, by the same names; x4 or _x4 may follow.",
        ),
    ] = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How partners are made where there is no --lq: bicubic (antialiased; the "
            "default), mild (and blur, noise and JPEG 50 to 90) or realistic (blur, resizing, "
            "noise and JPEG as in real-world training, but gentler).",
        ),
    ] = None,
    scale: WholeScaleOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            readable=False,
            help="A folder for everything: results.json, per-image.csv, sheet.png and index.html "
            "with details side by side, and the enlarged images. The same command goes on there "
            "where an earlier one was stopped.",
        ),
    ] = None,
    candidates: Candidates,
    walks: Walks,
    measurement: Measurement,
    placement: Placement,
    reporting: Reporting,
) -> None:
    """Measure models on images with known originals.

    Bicubic enlargement is measured beside them. PSNR and SSIM are of images rounded to 8 bits,
    without as many pixels of border as the scale, as papers have them; Y is BT.601 luma in 16..235,
    and SSIM has the Gaussian window of 11 pixels and deviation 1.5. Other metrics are of whole
    images. Intervals are 95 % bootstrap intervals of the mean over images.

    An image that can't be used is left out of all rows, and the exit code is then 1.
    """
    quiet, as_json = reporting.quiet, reporting.as_json
    report: dict[str, Any] = {"version": __version__, "errors": []}
    try:
        _check(hq, lq, degrade)
        contestants = [
            _contestant(
                entry,
                walks.steps,
                offline=candidates.offline,
                quiet=quiet,
                scale=scale,
                seed=walks.seed,
                tile=walks.tile,
                temperature=walks.temperature,
            )
            for entry in candidates.entries()
        ]
        factor = _scale(contestants)
        with console.waiting("Looking for images", quiet=quiet):
            from resshift_cli.evaluation import comparison, metrics, pairs
            from resshift_cli.evaluation.book import Book
            from resshift_cli.system.device import choose_device, choose_dtype, precision_name

            run_on = choose_device(placement.device)
            dtype = choose_dtype(placement.precision, run_on)
            titles = (title for one in contestants for title in one.runs)
            comparison.check_titles([comparison.BICUBIC, *titles])
            if output is not None:
                Book(output)  # refuses a folder of other things
            found, left_out = pairs.find_pairs(
                hq, lq, scale=factor, output=output, limit=measurement.limit
            )
            names = dict.fromkeys(measurement.metric or metrics.OWN)
            task = pairs.Task(
                scale=factor,
                degrade=_degradation(degrade),
                seed=walks.seed,
                crop=measurement.crop,
                metrics=[metrics.find(name, run_on) for name in names],
            )
        report |= _asked(hq, lq, task) | {
            "device": str(run_on),
            "precision": precision_name(dtype),
        }
        with _book(output) as book:
            study = comparison.Study(found, task, book, left_out)
            load = partial(_rows, placement=placement, offline=candidates.offline)
            _measure(study, contestants, load, quiet=quiet)
            _enter(report, study, contestants)
            if study.names and output is not None:
                _write(output, study, report)
        if not study.names:
            raise next(iter(study.left_out.values()))
        _tell(report, study, output, quiet=quiet, as_json=as_json)
    except ResShiftError as error:
        report["errors"].append(error.facts())
        raise
    finally:
        if as_json:
            console.document(report)
    if report["left_out"]:
        raise typer.Exit(ResShiftError.exit_code)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model, and its rows: how it is run, by title."""

    entry: ModelEntry
    spec: ModelSpec
    digest: str
    runs: dict[str, Settings]


def _check(hq: Path, lq: Path | None, degrade: str | None) -> None:
    for folder, option in ((hq, "--hq"), (lq, "--lq")):
        if folder is not None and not folder.is_dir():
            raise InputMissingError(
                f"There is no folder {printable(folder)}.", hint=f"Check {option}."
            )
    if lq is not None and degrade is not None:
        raise UsageError("--degrade makes what --lq has already.", hint="Leave out one of the two.")


def _degradation(kind: str | None) -> str:
    from resshift_cli.evaluation.pairs import DEGRADATIONS

    kind = kind or "bicubic"
    if kind not in DEGRADATIONS:
        near = get_close_matches(kind, DEGRADATIONS, n=1)
        known = ", ".join(DEGRADATIONS)
        raise UsageError(
            f"There is no degradation named '{printable(kind)}'.",
            hint=f"Did you mean '{near[0]}'?" if near else f"Known are {known}.",
        )
    return kind


def _contestant(
    entry: ModelEntry,
    steps: Sequence[int] | None,
    *,
    offline: bool,
    quiet: bool,
    **arguments: Any,
) -> Contestant:
    """A model with its files here, and the rows that it can have; others are told of."""
    from resshift_cli.restoration import settings as plan
    from resshift_cli.weights import store

    files = ready.fetch(entry, offline=offline, quiet=quiet)
    spec = store.spec_of(entry, files.weights)
    able = [count for count in dict.fromkeys(steps or ()) if count <= spec.steps]
    for count in dict.fromkeys(steps or ()):
        if count > spec.steps and able:
            console.note(f"{entry.name} walks at most {spec.steps} steps: no row with {count}.")
    runs = {}
    # Where none is possible, `settings` refuses the first.
    for chosen in able or (list(steps[:1]) if steps else [spec.steps]):
        settings = plan.settings(spec, name=entry.name, steps=chosen, **arguments)
        plural = "s" * (settings.steps != 1)
        runs[f"{entry.name}, {settings.steps} step{plural}"] = settings
    paths = [path for path in (files.weights, files.autoencoder) if path is not None]
    return Contestant(entry, spec, "+".join(digests.digest(path) for path in paths), runs)


def _scale(contestants: Sequence[Contestant]) -> int:
    scales = {settings.scale for one in contestants for settings in one.runs.values()}
    if len(scales) > 1:
        several = ", ".join(f"{one.entry.name} x{one.spec.scale}" for one in contestants)
        raise UsageError(
            f"The models enlarge by different factors: {several}.",
            hint="Say with --scale which one to measure at.",
        )
    (factor,) = scales
    return int(factor)


def _rows(contestant: Contestant, *, placement: Placement, offline: bool) -> Iterator[Row]:
    """A model's rows; it is loaded for the first of them."""
    from resshift_cli.evaluation.comparison import Row
    from resshift_cli.system.device import precision_name

    machine = Machine(**asdict(placement))
    upscaler = ready.load(contestant.entry, machine, offline=offline, quiet=True)
    for title, settings in contestant.runs.items():
        made_by = {
            "model": contestant.digest,
            **asdict(settings),
            "precision": precision_name(upscaler.dtype),
        }
        yield Row(title, made_by, partial(upscaler.enlarge, settings=settings))


def _measure(
    study: Study,
    contestants: Sequence[Contestant],
    load: Callable[[Contestant], Iterable[Row]],
    *,
    quiet: bool,
) -> None:
    """Bicubic first, then row after row."""
    from resshift_cli.evaluation import comparison

    total = (1 + sum(len(one.runs) for one in contestants)) * len(study.pairs)
    rows = itertools.chain.from_iterable(map(load, contestants))
    try:
        with progress.bars(quiet=quiet) as bars:
            bar = bars(total=total, desc="Measuring", unit="result")
            for row in itertools.chain([comparison.bicubic(study.task.scale)], rows):

                def told(name: str, title: str = row.title) -> None:
                    bar.set_postfix_str(title)
                    bar.update()

                study.measure(row, told)
    except KeyboardInterrupt as interrupt:
        if study.book is not None:
            interrupt.args = ("the same command goes on from here",)
        raise


@contextmanager
def _book(output: Path | None) -> Iterator[Book | None]:
    """The folder of results, for this process alone."""
    if output is None:
        yield None
        return
    from resshift_cli.batch import ledger
    from resshift_cli.evaluation.book import Book
    from resshift_cli.system import atomic

    atomic.make_folder(output)
    with ledger.locked(output):
        yield Book(output)


def _asked(hq: Path, lq: Path | None, task: Task) -> dict[str, Any]:
    """What is to be measured, for --json."""
    return {
        "hq": str(hq),
        "lq": None if lq is None else str(lq),
        "degrade": None if lq is not None else task.degrade,
        "scale": task.scale,
        "border": task.scale,
        "crop": task.crop,
        "seed": task.seed,
        "metrics": [
            {"name": one.name, "title": one.title, "better": one.better, "digits": one.digits}
            for one in task.metrics
        ],
    }


def _enter(report: dict[str, Any], study: Study, contestants: Sequence[Contestant]) -> None:
    """What was found out, for --json."""
    made = {
        title: {
            "model": one.entry.name,
            "weights": one.digest,
            "commercial": one.entry.commercial,
            **asdict(settings),
        }
        for one in contestants
        for title, settings in one.runs.items()
    }
    report["images"] = len(study.names)
    report["left_out"] = [
        {"image": name, **error.facts()} for name, error in study.left_out.items()
    ]
    report["rows"] = [
        {"name": row["name"], **made.get(row["name"], {}), "metrics": row["metrics"]}
        for row in (study.summary() if study.names else [])
    ]


def _notes(report: dict[str, Any]) -> list[str]:
    """How the figures came about."""
    partners = (
        f"partners from {report['lq']}"
        if report["degrade"] is None
        else f"partners by {report['degrade']} degradation, seed {report['seed']}"
    )
    crop = "" if report["crop"] is None else f", the middle {report['crop']} pixels of each"
    left_out = f", {len(report['left_out'])} left out" if report["left_out"] else ""
    notes = [
        f"{report['images']} images of {report['hq']}{crop}{left_out}; x{report['scale']}, "
        f"{partners}.",
        f"PSNR and SSIM leave out {report['border']} pixels at each border; images are rounded to "
        "8 bits; Y is BT.601 luma in 16..235; SSIM has the Gaussian window 11/1.5.",
        "Intervals hold 95 % of the means over images drawn again (bootstrap).",
    ]
    for metric in report["metrics"]:
        counted = report["rows"][0]["metrics"][metric["name"]]["images"]
        if counted < report["images"]:
            notes.append(
                f"{metric['title']} is over {counted} images: for others it has no finite value."
            )
    return notes


def _write(output: Path, study: Study, report: dict[str, Any]) -> None:
    """The files for people."""
    import json

    from resshift_cli.evaluation import details, page
    from resshift_cli.system import atomic

    strips = details.strips(study)
    atomic.write(output / REPORT, json.dumps(report, indent=2).encode("ascii"))
    atomic.write(output / TABLE, study.table().encode("utf-8", "surrogateescape"))
    with atomic.replacing(output / SHEET) as temporary:
        details.sheet(strips).save(temporary, "PNG")
    whole = page.page(report, strips, _notes(report))
    atomic.write(output / PAGE, whole.encode("utf-8"))


def _tell(
    report: dict[str, Any], study: Study, output: Path | None, *, quiet: bool, as_json: bool
) -> None:
    from resshift_cli.evaluation.page import interval, number

    for error in study.left_out.values():
        console.error(str(error), f"It is left out of all rows. {error.hint}")
    if quiet:
        return
    for note in _notes(report):
        console.note(note)
    if not as_json:
        lines: list[list[str | console.Cell]] = []
        for metric in report["metrics"]:
            lines.append([f"{metric['title']} ({metric['better']})", "", "", "", ""])
            for row in report["rows"]:
                figures, digits = row["metrics"][metric["name"]], metric["digits"]
                gain = figures["difference"]
                lines.append(
                    [
                        f"  {row['name']}",
                        number(figures["mean"], digits),
                        interval(figures["interval"], digits),
                        "" if gain is None else number(gain, digits, signed=True),
                        interval(figures["difference_interval"], digits, signed=True),
                    ]
                )
        console.table(["", "mean", "95 %", "to bicubic", "95 %"], lines)
    if output is not None:
        console.note(f"Details side by side: {printable(output / PAGE)}")
