"""`resshift eval`: how well models do on images whose originals are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import choice, console, progress, ready
from resshift_cli.commands.groups import Machine, Model, Options, Placement, Reporting
from resshift_cli.commands.options import (
    CropOption,
    DetailsOption,
    LimitOption,
    MeasuredModelsOption,
    OfflineOption,
    RegistryOption,
    SeedOption,
    StepCountsOption,
    TemperatureOption,
    TileOption,
    TtaOption,
    WholeScaleOption,
)
from resshift_cli.errors import InputMissingError, ResShiftError, UsageError, printable
from resshift_cli.system import digests

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.evaluation.book import Book
    from resshift_cli.evaluation.comparison import Study
    from resshift_cli.evaluation.pairs import Setup
    from resshift_cli.evaluation.rows import Results, Row
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.weights.registry import ModelEntry


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
    results: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Results that were made elsewhere, measured beside them under a name of your "
            "choice: files named as the originals, and as large; may be repeated.",
        ),
    ] = None
    registry: RegistryOption = None
    offline: OfflineOption = False

    def entries(self) -> list[ModelEntry]:
        """Them, or the default one."""
        common = Model(registry=self.registry, offline=self.offline)
        return choice.several(self.model, self.weights, common)

    def folders(self) -> dict[str, Path]:
        """Where the results that were made elsewhere lie, by the names that they are to have.

        Raises:
            UsageError: they are not given as NAME=DIR, or a name is given twice.
        """
        folders: dict[str, Path] = {}
        for text in self.results or ():
            name, _, folder = text.partition("=")
            if not name or not folder:
                raise UsageError(
                    f"--results '{printable(text)}' does not name a folder.",
                    hint="Give it as NAME=DIR.",
                )
            if name in folders:
                raise UsageError(
                    f"--results names '{printable(name)}' twice.", hint="Give each its own name."
                )
            folders[name] = Path(folder)
        return folders


@dataclass(frozen=True, slots=True)
class Walks(Options):
    """How the models are run."""

    panel = "What to compute"

    scale: WholeScaleOption = None
    steps: StepCountsOption = None
    seed: SeedOption = 0
    tile: TileOption = None
    detail: DetailsOption = None
    temperature: TemperatureOption = None
    tta: TtaOption = False


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
            "musiq, niqe and more come with pip install 'resshift[metrics]', and realism, one "
            "figure of all images together, with 'resshift[realism]'.",
        ),
    ] = None
    crop: CropOption = None
    limit: LimitOption = None


@dataclass(frozen=True, slots=True)
class Partners(Options):
    """What is enlarged."""

    panel = "Low-quality partners"

    lq: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="The folder of low-quality partners, by the same names; x4 or _x4 may follow.",
        ),
    ] = None
    degrade: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How partners are made where there is no --lq: bicubic (antialiased; the "
            "default), mild (and blur, noise and JPEG 50 to 90) or realistic (blur, resizing, "
            "noise and JPEG as in real-world training, but gentler).",
        ),
    ] = None

    def check(self) -> None:
        """Refuse options that exclude each other, and a folder that is not there.

        Raises:
            InputMissingError, UsageError: they are such.
        """
        if self.lq is not None:
            _check_folder(self.lq, "--lq")
            if self.degrade is not None:
                raise UsageError(
                    "--degrade makes what --lq has already.", hint="Leave out one of the two."
                )

    def degradation(self) -> str:
        """How partners are made.

        Raises:
            UsageError: there is no such way.
        """
        from resshift_cli.evaluation.pairs import DEGRADATIONS

        kind = self.degrade or "bicubic"
        if kind not in DEGRADATIONS:
            near = get_close_matches(kind, DEGRADATIONS, n=1)
            known = ", ".join(DEGRADATIONS)
            raise UsageError(
                f"There is no degradation named '{printable(kind)}'.",
                hint=f"Did you mean '{near[0]}'?" if near else f"Known are {known}.",
            )
        return kind


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
    partners: Partners,
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
        _check_folder(hq, "--hq")
        partners.check()
        folders = candidates.folders()
        contestants = [
            _contestant(entry, walks, offline=candidates.offline, quiet=quiet)
            for entry in candidates.entries()
        ]
        with console.waiting("Looking for images", quiet=quiet):
            ready.import_torch()
            from resshift_cli.evaluation import comparison, pairs, rows
            from resshift_cli.evaluation import report as reports
            from resshift_cli.evaluation.book import Book

            titles = [title for one in contestants for title in one.runs]
            rows.check_titles([rows.BICUBIC, *titles, *folders])
            if output is not None:
                Book(output)  # refuses a folder of other things
            setup = _setup(_scale(contestants), partners, walks, measurement, placement)
            found, left_out = pairs.find_pairs(
                hq, partners.lq, scale=setup.scale, output=output, limit=measurement.limit
            )
            elsewhere = [rows.results(name, folder, found) for name, folder in folders.items()]
        report |= reports.asked(hq, partners.lq, setup) | _placed(placement)
        with _book(output) as book:
            study = comparison.Study(found, setup, book, left_out)
            _measure(
                study,
                itertools.chain(
                    [rows.bicubic(setup.scale)],
                    _rows(contestants, placement, offline=candidates.offline),
                    elsewhere,
                ),
                1 + len(titles) + len(elsewhere),
                quiet=quiet,
            )
            report |= reports.found(study, _origins(contestants, elsewhere))
            if study.names and output is not None:
                reports.write(output, study, report)
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


def _check_folder(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise InputMissingError(f"There is no folder {printable(folder)}.", hint=f"Check {option}.")


def _setup(
    scale: int, partners: Partners, walks: Walks, measurement: Measurement, placement: Placement
) -> Setup:
    """What is the same for all rows, with the networks of metrics loaded."""
    from resshift_cli.evaluation import metrics
    from resshift_cli.evaluation.pairs import Setup
    from resshift_cli.system.device import choose_device

    run_on = choose_device(placement.device)
    return Setup(
        scale=scale,
        degrade=partners.degradation(),
        seed=walks.seed,
        crop=measurement.crop,
        metrics=[
            metrics.find(name, run_on) for name in dict.fromkeys(measurement.metric or metrics.OWN)
        ],
    )


def _placed(placement: Placement) -> dict[str, str]:
    """Where it is computed, for --json."""
    from resshift_cli.system.device import choose_device, choose_dtype, precision_name

    run_on = choose_device(placement.device)
    return {
        "device": str(run_on),
        "precision": precision_name(choose_dtype(placement.precision, run_on)),
    }


def _contestant(entry: ModelEntry, walks: Walks, *, offline: bool, quiet: bool) -> Contestant:
    """A model with its files here, and the rows that it can have; others are told of."""
    from resshift_cli.restoration import settings as plan
    from resshift_cli.weights import store

    files = ready.fetch(entry, offline=offline, quiet=quiet)
    spec = store.spec_of(entry, files.weights)
    steps = list(dict.fromkeys(walks.steps or ()))
    able = [count for count in steps if count <= spec.steps]
    for count in steps:
        if count > spec.steps and able:
            console.note(f"{entry.name} walks at most {spec.steps} steps: no row with {count}.")
    runs = {}
    details: list[float | None] = list(dict.fromkeys(walks.detail or ())) or [None]
    # Where none is possible, `settings` refuses the first.
    for chosen, detail in product(able or steps[:1] or [spec.steps], details):
        settings = plan.settings(
            spec,
            name=entry.name,
            scale=walks.scale,
            steps=chosen,
            seed=walks.seed,
            tile=walks.tile,
            detail=detail,
            temperature=walks.temperature,
            tta=walks.tta,
        )
        title = f"{entry.name}, {settings.steps} step{'s' * (settings.steps != 1)}"
        title += ", eight views" * walks.tta
        runs[title if detail is None else f"{title}, detail {detail:g}"] = settings
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


def _rows(
    contestants: Iterable[Contestant], placement: Placement, *, offline: bool
) -> Iterator[Row]:
    """The models' rows; each model is loaded for the first of its own."""
    from resshift_cli.evaluation.rows import Row
    from resshift_cli.system.device import precision_name

    machine = Machine(**asdict(placement))
    for one in contestants:
        upscaler = ready.load(one.entry, machine, offline=offline, quiet=True)
        for title, settings in one.runs.items():
            made_by = {
                "model": one.digest,
                **asdict(settings),
                "precision": precision_name(upscaler.dtype),
            }
            yield Row(title, made_by, partial(upscaler.enlarge, settings=settings))


def _measure(study: Study, rows: Iterable[Row | Results], count: int, *, quiet: bool) -> None:
    """Row after row, of which there are so many."""
    try:
        with progress.bars(quiet=quiet) as bars:
            bar = bars(total=count * len(study.pairs), desc="Measuring", unit="result")
            for row in rows:

                def on_image(name: str, title: str = row.title) -> None:
                    bar.set_postfix_str(title)
                    bar.update()

                study.measure(row, on_image)
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


def _origins(
    contestants: Iterable[Contestant], elsewhere: Iterable[Results]
) -> dict[str, dict[str, Any]]:
    """What --json says of rows beside their figures, by title."""
    models = {
        title: {
            "model": one.entry.name,
            "weights": one.digest,
            "commercial": one.entry.commercial,
            **asdict(settings),
        }
        for one in contestants
        for title, settings in one.runs.items()
    }
    return models | {one.title: {"results": str(one.folder)} for one in elsewhere}


def _tell(
    report: dict[str, Any], study: Study, output: Path | None, *, quiet: bool, as_json: bool
) -> None:
    from resshift_cli.evaluation.page import interval, number
    from resshift_cli.evaluation.report import PAGE, notes

    for error in study.left_out.values():
        console.error(str(error), f"It is left out of all rows. {error.hint}")
    if quiet:
        return
    for note in notes(report):
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
