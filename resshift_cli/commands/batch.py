"""`resshift batch`: a folder of images, overnight if need be."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from resshift_cli import __version__
from resshift_cli.commands import console, ready
from resshift_cli.commands.groups import (
    Computation,
    Machine,
    Model,
    Reading,
    Reporting,
    Writing,
)
from resshift_cli.commands.options import (
    DryRunOption,
    ExcludeOption,
    FailFastOption,
    FolderArgument,
    HiddenOption,
    IncludeOption,
    ResultsOption,
)
from resshift_cli.errors import InputMissingError, ResShiftError, UsageError, printable
from resshift_cli.system import digests

if TYPE_CHECKING:
    import torch

    from resshift_cli.batch.ledger import Ledger, Record
    from resshift_cli.batch.runner import Failure, Group, Job, Sorted
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.imaging.files import Handling
    from resshift_cli.imaging.opening import Header
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files

SHOWN = 10  # failures that the summary tells of
PLAIN_EVERY = 30.0  # seconds between plain lines of progress


def batch(
    folder: FolderArgument,
    *,
    output: ResultsOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    hidden: HiddenOption = False,
    fail_fast: FailFastOption = False,
    dry_run: DryRunOption = False,
    model: Model,
    computation: Computation,
    machine: Machine,
    reading: Reading,
    writing: Writing,
    reporting: Reporting,
) -> None:
    """Enlarge the images of a folder, and of those in it.

    What is finished is entered in resshift-batch.jsonl among the results, and not done again: the
    same command goes on where an earlier one was stopped. An image that fails does not keep the
    others from being done; in the end the exit code is then 1.
    """
    _check_folder(folder)
    handling = writing.handling(reading)
    quiet, as_json = reporting.quiet, reporting.as_json
    entry = ready.choose(model)
    report = Report(__version__, entry.name, str(folder), as_json=as_json)
    try:
        made = _made_by(
            entry,
            folder,
            handling,
            machine,
            offline=model.offline,
            quiet=quiet,
            dry_run=dry_run,
            **computation.arguments(),
        )
        report.settings = made.told()
        results = output or _beside(folder, made.settings.scale)
        report.output = str(results)
        _check_apart(folder, results)

        from resshift_cli.batch import ledger
        from resshift_cli.batch import runner as room
        from resshift_cli.system import atomic

        with console.waiting("Looking for images", quiet=quiet):
            found = room.find(
                folder, results, include=include or (), exclude=exclude or (), hidden=hidden
            )
            names = room.name_outputs(
                found.images, scale=made.settings.scale, options=handling.options
            )

        def sort_out(book: Ledger) -> Sorted:
            with console.waiting("Looking for what is finished", quiet=quiet):
                sorted_out = room.sort_out(
                    folder, results, names, book, made.identity(), overwrite=writing.overwrite
                )
            sorted_out.failures[:0] = found.failures
            report.found = len(names)
            report.skipped = len(sorted_out.finished)
            return sorted_out

        if dry_run:
            _forecast(made, sort_out(ledger.Ledger(results)), results, report, quiet=quiet)
        elif names or found.failures:
            atomic.make_folder(results)
            with ledger.locked(results):
                book = ledger.Ledger(results)
                sorted_out = sort_out(book)
                under_way = [record.output for record in book.begun.values()]
                to_do = [job.output for job in sorted_out.jobs]
                atomic.remove_temporaries(results / name for name in (*under_way, *to_do))
                _work(
                    made,
                    sorted_out,
                    book,
                    report,
                    fail_fast=fail_fast,
                    quiet=quiet,
                )
        if not quiet and not dry_run:
            _summary(report)
    except KeyboardInterrupt as interrupt:
        if report.found:
            finished = f"{report.done + report.skipped} of {report.found} images are finished"
            interrupt.args = (f"{finished}, and the same command goes on from there",)
        raise
    except ResShiftError as error:
        report.errors.append(
            {
                "input": None,
                **error.facts(),
            }
        )
        raise
    finally:
        if not quiet:
            _tell_warnings(report)
        _tell_failures(report)
        if as_json:
            console.document(report.document())
    if report.failed:
        raise typer.Exit(ResShiftError.exit_code)


@dataclass
class Report:
    """What is told in the end, and what --json prints.

    Attributes:
        as_json: whether stdout is for one JSON object.
        found: images in the folder.
        skipped: those that were finished before.
        results: what was done, as the ledger has it.
        failures: what failed, likewise, unreadable folders included.
        errors: what ended the batch.
        forecast: what --dry-run says.
    """

    version: str
    model: str
    folder: str
    as_json: bool
    output: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    found: int = 0
    skipped: int = 0
    results: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None

    @property
    def done(self) -> int:
        """Images that this run has finished."""
        return len(self.results)

    @property
    def failed(self) -> int:
        """Images and folders that could not be done."""
        return len(self.failures)

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        failed_images = sum(bool(record.output) for record in self.failures)
        left = self.found - self.skipped - self.done - failed_images
        forecast = {} if self.forecast is None else {"dry_run": self.forecast}
        return {
            "version": self.version,
            "model": self.model,
            "folder": self.folder,
            "output": self.output,
            "settings": self.settings,
            "counts": {
                "found": self.found,
                "done": self.done,
                "skipped": self.skipped,
                "failed": self.failed,
                "left": left,
            },
            **forecast,
            "results": [record.facts() for record in self.results],
            "failures": [record.facts() for record in self.failures],
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """How the results are made.

    Attributes:
        digest: SHA-256 of the weight files, joined by "+"; "" where they are not here.
    """

    entry: ModelEntry
    folder: Path
    handling: Handling
    machine: Machine
    spec: ModelSpec
    settings: Settings
    device: torch.device
    dtype: torch.dtype
    digest: str
    offline: bool

    def identity(self) -> dict[str, Any]:
        """What a finished result has to have in common with one that would be made now."""
        from resshift_cli.system.device import precision_name

        return {
            "model": self.entry.name,
            "weights": self.digest,
            **self.told(),
            "precision": precision_name(self.dtype),
        }

    def told(self) -> dict[str, Any]:
        """All settings that a result depends on."""
        return {
            **asdict(self.settings),
            **asdict(self.handling.options),
            "first_frame": self.handling.first_frame,
        }


def _check_folder(folder: Path) -> None:
    if not os.path.lexists(folder):
        raise InputMissingError(f"There is no folder {printable(folder)}.", hint="Check its name.")
    if not folder.is_dir():
        raise UsageError(
            f"{printable(folder)} is not a folder.",
            hint=f"`resshift upscale {printable(folder)}` enlarges a single image.",
        )


def _check_apart(folder: Path, results: Path) -> None:
    """Refuse results that would fall among the inputs."""
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(results)):
        raise UsageError(
            f"The results in {printable(results)} would fall among the inputs.",
            hint="Give another folder with -o; it may lie within the input folder.",
        )


def _beside(folder: Path, scale: float) -> Path:
    """DIR_x4 for DIR, and for DIR/, ., .. and links what they mean."""
    whole = folder if folder.name not in ("", "..") else Path(os.path.realpath(folder))
    return whole.with_name(f"{whole.name}_x{scale:g}")


def _made_by(
    entry: ModelEntry,
    folder: Path,
    handling: Handling,
    machine: Machine,
    *,
    offline: bool,
    quiet: bool,
    dry_run: bool,
    **arguments: Any,
) -> Made:
    """Everything about how images are enlarged but the loaded model, fetched unless it's dry."""
    from resshift_cli.weights import store

    files = store.located(entry) if dry_run else ready.fetch(entry, offline=offline, quiet=quiet)
    spec = (
        ready.spec_of(entry, offline=offline, quiet=quiet)
        if files is None
        else store.spec_of(entry, files.weights)
    )
    with console.waiting(f"Checking {entry.name}", quiet=quiet):
        from resshift_cli.restoration import settings as plan
        from resshift_cli.system.device import choose_device, choose_dtype

        settings = plan.settings(spec, name=entry.name, **arguments)
        run_on = choose_device(machine.device)
        dtype = choose_dtype(machine.precision, run_on)
        digest = "" if files is None else _digest(files)
    return Made(entry, folder, handling, machine, spec, settings, run_on, dtype, digest, offline)


def _digest(files: Files) -> str:

    paths = (files.weights, files.autoencoder)
    return "+".join(digests.digest(path) for path in paths if path is not None)


def _headers(made: Made, inputs: Iterable[str], *, quiet: bool) -> dict[str, Header | None]:
    from resshift_cli.imaging.opening import read_header

    handling = made.handling

    def read(path: Path) -> Header | None:
        try:
            return read_header(
                path, first_frame=handling.first_frame, max_pixels=handling.max_pixels
            )
        except Exception:  # what is wrong with it is said when its turn comes
            return None

    with console.waiting("Reading the images' sizes", quiet=quiet):
        return {name: read(made.folder / name) for name in inputs}


def _space(tasks: Sequence[Job], scale: float) -> int:
    """About what the results will take on the disk: inputs' bytes per pixel, more pixels."""
    total = 0
    for job in tasks:
        try:
            total += job.source.stat().st_size
        except OSError:
            continue  # it will fail
    return int(total * scale**2)


def _free(folder: Path) -> int:
    """Bytes free where a folder is or will be."""
    whole = folder.absolute()
    return shutil.disk_usage(next(p for p in (whole, *whole.parents) if p.exists())).free


def _forecast(
    made: Made, sorted_out: Sorted, results: Path, report: Report, *, quiet: bool
) -> None:
    """Tell what would be done, and what it would take."""
    from resshift_cli.restoration import estimate, rates

    tasks = sorted_out.jobs
    headers = list(_headers(made, (job.input for job in tasks), quiet=quiet).values())
    seconds, peak = 0.0, 0
    cache: dict[tuple[int, int], estimate.Estimate] = {}
    machine = rates.measure(made.device, made.dtype) if tasks else None
    for header in headers:
        if header is None or machine is None:
            continue
        size = (header.height, header.width)
        if size not in cache:
            cache[size] = estimate.estimate(
                made.spec, machine, made.settings, height=header.height, width=header.width
            )
        seconds += cache[size].seconds * (2 if header.alpha else 1) * header.frames
        peak = max(peak, cache[size].bytes)
    report.forecast = {
        "images": len(tasks),
        "unknown": headers.count(None),
        "refused": [
            {"input": failure.input, "message": str(failure.error)}
            for failure in sorted_out.failures
        ],
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "disk_bytes": _space(tasks, made.settings.scale),
        "free_bytes": _free(results),
    }
    if not quiet:
        _tell_forecast(report, made, sorted_out.failures)


def _tell_forecast(report: Report, made: Made, failures: Sequence[Failure]) -> None:
    from resshift_cli.system.device import precision_name

    told = report.forecast or {}
    console.note(
        f"{report.found} images in {report.folder}: {told['images']} to do, {report.skipped} "
        f"finished before, {len(failures)} that can't be done. Nothing was written."
    )
    for failure in failures[:SHOWN]:
        console.error(str(failure.error), failure.error.hint)
    if len(failures) > SHOWN:
        console.note(f"and {len(failures) - SHOWN} more")
    if told["images"]:
        unknown = f", {told['unknown']} of unknown size not counted" if told["unknown"] else ""
        console.note(
            f"About {console.duration(told['seconds'])} on {made.device} in "
            f"{precision_name(made.dtype)}, {console.size(told['peak_bytes'])} of memory at "
            f"the peak, and up to about {console.size(told['disk_bytes'])} in {report.output}, "
            f"where {console.size(told['free_bytes'])} are free{unknown}."
        )


def _work(
    made: Made,
    sorted_out: Sorted,
    book: Ledger,
    report: Report,
    *,
    fail_fast: bool,
    quiet: bool,
) -> None:
    """Do what is to be done, and enter it in the ledger and the report."""
    from resshift_cli.batch import runner as room
    from resshift_cli.restoration import provenance
    from resshift_cli.system.device import precision_name

    tasks, failures = sorted_out.jobs, sorted_out.failures
    facts = {
        "folder": os.path.realpath(made.folder),
        **made.identity(),
        "device": str(made.device),
        "version": __version__,
    }
    if fail_fast and failures:
        tasks, failures = [], failures[:1]
    if not tasks:
        _enter(book, failures, facts, report)
        return
    known = _headers(made, (job.input for job in tasks), quiet=quiet)
    need, free = _space(tasks, made.settings.scale), _free(book.path.parent)
    if need > free and not quiet:
        console.warning(
            f"The results may take {console.size(need)}, and {console.size(free)} are free in "
            f"{report.output}: the work stops before the disk is full."
        )
    # As in the ledger, whatever "auto" may mean by now.
    machine = replace(made.machine, device=str(made.device), precision=precision_name(made.dtype))
    upscaler = ready.load(made.entry, machine, offline=made.offline, quiet=quiet)
    _enter(book, failures, facts, report)
    if not quiet:
        sizes = Counter[tuple[int, int]]()
        for header in known.values():
            if header:
                sizes[header.height, header.width] += header.frames
        ready.announce(made.entry, upscaler, made.settings, sizes)
    groups = _groups(made, upscaler, sorted_out, known, quiet=quiet)
    names = [job.input for group in groups for job in group.jobs]
    work = [
        room.work_of(made.spec, header, made.settings) if (header := known[name]) else 0
        for name in names
    ]
    with _progress(names, work, quiet=quiet) as show:

        def tell(record: Record) -> None:
            (report.failures if record.status == "failed" else report.results).append(record)
            if record.status == "done" and not (quiet or report.as_json):
                console.result(book.path.parent / record.output)

        runner = room.Runner(
            upscaler,
            made.settings,
            book,
            facts,
            handling=made.handling,
            note=provenance.note(made.entry, made.settings),
            tell=tell,
            advance=show,
        )
        runner.run(groups, fail_fast=fail_fast)


def _groups(
    made: Made,
    upscaler: Upscaler,
    sorted_out: Sorted,
    known: dict[str, Header | None],
    *,
    quiet: bool,
) -> list[Group]:
    """Jobs, small images of one padded size together; what is finished counts, see `grouped`."""
    from resshift_cli.batch import runner as room
    from resshift_cli.restoration import settings as plan

    def size(header: Header | None) -> tuple[int, int] | None:
        if header is None or header.alpha or header.frames > 1:
            return None
        return plan.single_tile(made.spec, header.height, header.width, made.settings)

    finished = [record.input for record in sorted_out.finished]
    headers = known | _headers(made, finished, quiet=quiet)
    sizes = {name: size(header) for name, header in headers.items()}
    return room.grouped(sorted_out.jobs, sizes, upscaler.at_once)


def _enter(
    book: Ledger, failures: Sequence[Failure], facts: dict[str, Any], report: Report
) -> None:
    from resshift_cli.batch import runner as room

    report.failures += room.enter(failures, book, facts)


class Show(Protocol):
    """Tells how far a batch is: the number of an image, from 0, and what share of it is done."""

    def __call__(self, number: int, share: float) -> None:
        """Show it."""


@contextmanager
def _progress(names: Sequence[str], work: Sequence[float], *, quiet: bool) -> Iterator[Show]:
    """Show images and the work on one, with the time left as the work so far lets expect.

    Args:
        names: of the images.
        work: what each takes, in any unit; 0 where that is not known.
        quiet: show nothing.
    """
    known = [amount for amount in work if amount]
    usual = sum(known) / len(known) if known else 1.0
    amounts = [amount or usual for amount in work]
    total = sum(amounts)
    before = [0.0]
    for amount in amounts:
        before.append(before[-1] + amount)
    started = time.monotonic()

    def left(done: float) -> str:
        if not done:
            return ""
        return f"about {console.clock((time.monotonic() - started) / done * (total - done))} left"

    if quiet:
        yield lambda number, share: None
    elif console.is_live(sys.stderr):
        with _bars(names) as draw:

            def show(number: int, share: float) -> None:
                done = before[number] + share * amounts[number]
                draw(number, share, done / total, left(done))

            yield show
    else:
        told_at = started

        def tell(number: int, share: float) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at < PLAIN_EVERY:
                return
            told_at = now
            done = before[number] + share * amounts[number]
            console.note(
                f"[{number + 1}/{len(names)}] {names[number]}: {share:.0%}, all {done / total:.0%},"
                f" {console.clock(now - started)} gone, {left(done)}"
            )

        yield tell


class Draw(Protocol):
    """Draws both bars: an image's number and share, the share of all, and the time left."""

    def __call__(self, number: int, share: float, whole: float, left: str) -> None:
        """Draw them."""


@contextmanager
def _bars(names: Sequence[str]) -> Iterator[Draw]:
    from rich import progress as bars
    from rich.table import Column

    terminal = console.stderr()
    terminal.width -= 3  # room for the ^C that a terminal shows, which else breaks the line
    title = Column(no_wrap=True, overflow="ellipsis", max_width=terminal.width // 3)
    columns: list[bars.ProgressColumn] = [
        bars.TextColumn("{task.description}", markup=False, table_column=title),
        bars.BarColumn(bar_width=None),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
    ]
    with bars.Progress(*columns, console=terminal, transient=True, refresh_per_second=4) as bar:
        images = bar.add_task(f"0/{len(names)} images", total=1, left="")
        tiles = bar.add_task("", total=1, left="")

        def draw(number: int, share: float, whole: float, left: str) -> None:
            bar.update(
                images,
                description=f"{number + 1}/{len(names)} images",
                completed=whole,
                left=left,
            )
            bar.update(tiles, description=printable(names[number]), completed=share)

        yield draw


def _summary(report: Report) -> None:
    if not report.found and not report.failed:
        console.note(f"There are no images in {report.folder}.")
        return
    console.note(
        f"{report.found} images in {report.folder}: {report.done} done, {report.skipped} finished "
        f"before, {report.failed} failed. Results are in {report.output}"
    )


def _tell_warnings(report: Report) -> None:
    """What was wrong with images that were done nonetheless, but not of a thousand."""
    warnings = [warning for record in report.results for warning in record.warnings or ()]
    for warning in warnings[:SHOWN]:
        console.warning(f"warning: {warning}")
    if len(warnings) > SHOWN:
        from resshift_cli.batch.ledger import NAME

        more = len(warnings) - SHOWN
        console.note(f"and {more} more warnings, see {Path(report.output) / NAME}")


def _tell_failures(report: Report) -> None:
    """Why images failed, but not for all of a thousand."""
    for record in report.failures[:SHOWN]:
        console.error(record.error or "", record.hint or "")
    if len(report.failures) > SHOWN:
        from resshift_cli.batch.ledger import NAME

        more = len(report.failures) - SHOWN
        console.note(f"and {more} more, see {Path(report.output) / NAME}")
