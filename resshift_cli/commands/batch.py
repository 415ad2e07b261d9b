"""`resshift batch`: a folder of images, overnight if need be."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from resshift_cli.commands import choice, console, progress, proof, ready
from resshift_cli.commands.groups import Enlarging, Options, Reporting
from resshift_cli.commands.options import (
    DryRunOption,
    ExcludeOption,
    FailFastOption,
    FolderArgument,
    HiddenOption,
    IncludeOption,
    ResultsOption,
    TableOption,
    VerifyOption,
)
from resshift_cli.errors import (
    InputMissingError,
    ResShiftError,
    UsageError,
    counted,
    printable,
)

if TYPE_CHECKING:
    from resshift_cli.batch.ledger import Ledger, Record
    from resshift_cli.batch.plan import Headers, Plan
    from resshift_cli.batch.recipe import Recipe
    from resshift_cli.batch.report import Report
    from resshift_cli.imaging.files import Handling
    from resshift_cli.imaging.folders import Found
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files

SHOWN = 10  # failures that are told of
KINDS = 8  # extensions of files that are told of


@dataclass(frozen=True, slots=True)
class Inputs(Options):
    """Which files of the folder are taken."""

    panel = "Which files"

    include: IncludeOption = None
    exclude: ExcludeOption = None
    hidden: HiddenOption = False

    def find(self, folder: Path, results: Path, *, quiet: bool) -> Found:
        """The inputs.

        Raises:
            InputMissingError: there are none that --include asks for.
        """
        from resshift_cli.imaging import folders, own

        selection = folders.Selection(self.include or (), self.exclude or (), self.hidden)
        with console.waiting("Looking for images", quiet=quiet):
            found = folders.find(folder, results, selection)
            own.leave_out(folder, found)
        if self.include and not found.images:
            patterns = " or ".join(f"'{printable(pattern)}'" for pattern in self.include)
            raise InputMissingError(
                f"No file in {printable(folder)} is like {patterns}.",
                hint="--include takes patterns such as '*.png'; --hidden takes hidden files, too.",
            )
        return found


@dataclass(frozen=True, slots=True)
class Course(Options):
    """How a batch is gone about."""

    panel = "How to go about it"

    fail_fast: FailFastOption = False
    dry_run: DryRunOption = False
    verify: VerifyOption = False
    report: TableOption = None

    def check(self) -> None:
        """Refuse what can't be.

        Raises:
            UsageError: --verify beside --dry-run, or a report of no known kind.
        """
        if self.dry_run and (self.verify or self.report):
            raise UsageError(
                "--dry-run does nothing that could be proven or reported.",
                hint="Leave out --dry-run, or --verify and --report.",
            )
        if self.report is not None:
            from resshift_cli.batch.table import check_format

            check_format(self.report)


def batch(
    folder: FolderArgument,
    *,
    output: ResultsOption = None,
    course: Course,
    inputs: Inputs,
    enlarging: Enlarging,
    reporting: Reporting,
) -> None:
    """Enlarge all images and animations of a folder, and of the folders in it.

    What is finished is entered in resshift-batch.jsonl among the results, and not done again: the
    same command goes on where an earlier one was stopped. An image that fails does not keep the
    others from being done; in the end the exit code is then 1.
    """
    _check_folder(folder)
    course.check()
    if course.verify:
        proof.verify(folder, output, inputs.find, course.report, reporting)
        return
    handling = enlarging.handling()  # or it is refused now
    enlarging.computation.box()  # likewise
    entry = choice.choose(enlarging.model, enlarging.computation.steps)
    from resshift_cli.batch.report import Report

    report = Report(entry.name, folder)
    with _telling(report, reporting, summary=not course.dry_run):
        recipe = _recipe(entry, handling, enlarging, dry_run=course.dry_run, quiet=reporting.quiet)
        report.settings = recipe.options()
        from resshift_cli.batch import ledger, names, plan, table

        report.output = output or names.results_folder(folder, recipe.mark)
        found = inputs.find(folder, report.output, quiet=reporting.quiet)
        names.check_apart(folder, report.output, found.images)

        def make_plan(book: Ledger) -> Plan:
            with console.waiting("Looking for what is finished", quiet=reporting.quiet):
                overwrite = enlarging.writing.overwrite
                report.plan = plan.make(folder, book, recipe, found, overwrite=overwrite)
            return report.plan

        if course.dry_run or not (found.images or found.unreadable):
            made = make_plan(ledger.Ledger(report.output))
            if course.dry_run:
                _forecast(made, report, quiet=reporting.quiet)
        else:
            with ledger.opened(report.output) as book:
                work = _Work(report, enlarging, reporting, course.fail_fast)
                work.do(make_plan(book), book)
        if course.report is not None:
            table.write(course.report, report.rows(), f"resshift batch {folder}")
    if report.failed:
        raise typer.Exit(ResShiftError.exit_code)


@contextmanager
def _telling(report: Report, reporting: Reporting, *, summary: bool) -> Iterator[None]:
    """Tell in the end what became of a batch, whatever ends it."""
    try:
        yield
        if summary and not reporting.quiet:
            _summary(report)
    except KeyboardInterrupt as interrupt:
        if report.found:
            finished = f"{report.done + report.skipped} of {report.found} images are finished"
            interrupt.args = (f"{finished}, and the same command goes on from there",)
        raise
    except ResShiftError as error:
        report.errors.append({"input": None, **error.facts()})
        raise
    finally:
        if not reporting.quiet:
            _tell_warnings(report)
        _tell_failures(report)
        if reporting.as_json:
            console.document(report.document())


def _check_folder(folder: Path) -> None:
    if not os.path.lexists(folder):
        raise InputMissingError(f"There is no folder {printable(folder)}.", hint="Check its name.")
    if not folder.is_dir():
        raise UsageError(
            f"{printable(folder)} is not a folder.",
            hint=f"`resshift upscale {printable(folder)}` enlarges a single image.",
        )


def _recipe(
    entry: ModelEntry, handling: Handling, enlarging: Enlarging, *, dry_run: bool, quiet: bool
) -> Recipe:
    """How the results are made; the model is fetched for that, unless nothing is to be done."""
    from resshift_cli.weights import store

    machine, offline = enlarging.machine, enlarging.model.offline
    files = store.located(entry) if dry_run else ready.fetch(entry, offline=offline, quiet=quiet)
    spec = (
        ready.spec_of(entry, offline=offline, quiet=quiet)
        if files is None
        else store.spec_of(entry, files.weights)
    )
    with console.waiting(f"Checking {entry.name}", quiet=quiet):
        ready.import_torch()
        from resshift_cli.batch.recipe import Recipe
        from resshift_cli.restoration import settings
        from resshift_cli.system.device import choose_device, choose_dtype

        chosen = settings.settings(spec, name=entry.name, **enlarging.computation.arguments())
        device = choose_device(machine.device)
        dtype = choose_dtype(machine.precision, device)
        weights = "" if files is None else _digest(files)
    box = enlarging.computation.box()
    return Recipe(entry, spec, chosen, handling, device, dtype, weights, box)


def _digest(files: Files) -> str:
    from resshift_cli.system.digests import digest

    paths = (files.weights, files.autoencoder)
    return "+".join(digest(path) for path in paths if path is not None)


def _headers(plan: Plan, inputs: Sequence[str], *, quiet: bool) -> Headers:
    with console.waiting("Reading the images' sizes", quiet=quiet):
        return plan.headers(inputs)


def _forecast(plan: Plan, report: Report, *, quiet: bool) -> None:
    """Tell what would be done, and what it would take."""
    from resshift_cli.batch.forecast import forecast
    from resshift_cli.system.device import precision_name

    report.forecast = figures = forecast(
        plan, _headers(plan, [job.input for job in plan.jobs], quiet=quiet)
    )
    if quiet:
        return
    refused = figures["refused"]
    console.note(
        f"{counted(report.found, 'image')} in {report.folder}: {figures['images']} to do, "
        f"{report.skipped} finished before, {len(refused)} that can't be done. Nothing was written."
    )
    for why in refused[:SHOWN]:
        console.error(why["message"], why["hint"])
    if len(refused) > SHOWN:
        console.note(f"and {len(refused) - SHOWN} more")
    _tell_others(report)
    if figures["images"]:
        console.note(
            f"About {console.duration(figures['seconds'])} on {plan.recipe.device} in "
            f"{precision_name(plan.recipe.dtype)}, {console.size(figures['peak_bytes'])} of memory "
            f"at the peak, and up to about {console.size(figures['disk_bytes'])} in "
            f"{report.output}, where {console.size(figures['free_bytes'])} are free."
        )


@dataclass
class _Work:
    """What is to be done of a plan, done, entered in the ledger, and told."""

    report: Report
    enlarging: Enlarging
    reporting: Reporting
    fail_fast: bool

    def do(self, plan: Plan, book: Ledger) -> None:
        """Do it."""
        from resshift_cli.batch import runner

        watch = runner.Watch(self._tell)
        plan.remove_leftovers(book)
        failures = plan.failures[:1] if self.fail_fast else plan.failures
        if not plan.jobs or (self.fail_fast and failures):
            runner.enter(plan, failures, book, watch)
            return
        every = [*(job.input for job in plan.jobs), *(record.input for record in plan.finished)]
        known = _headers(plan, every, quiet=self.reporting.quiet)
        self._warn_of_space(plan, known)
        # As in the ledger, whatever "auto" may mean by now.
        device, precision = plan.recipe.place()
        machine = replace(self.enlarging.machine, device=device, precision=precision)
        upscaler = ready.load(
            plan.recipe.entry,
            machine,
            offline=self.enlarging.model.offline,
            quiet=self.reporting.quiet,
        )
        runner.enter(plan, failures, book, watch)
        if not self.reporting.quiet:
            sizes = Counter[tuple[int, int]]()
            for header in (known[job.input] for job in plan.jobs):
                if not isinstance(header, ResShiftError):
                    sizes[header.height, header.width] += header.frames
            job = choice.Job(sizes, self.enlarging.computation, machine)
            choice.announce(plan.recipe.entry, plan.recipe.spec, plan.recipe.settings, job)
        with progress.bars(quiet=self.reporting.quiet) as bars:
            run = runner.Runner(upscaler, plan, book, replace(watch, bars=bars))
            run.run(plan.groups(known, upscaler.at_once), fail_fast=self.fail_fast)

    def _tell(self, record: Record) -> None:
        self.report.add(record)
        if record.status == "failed" and self.report.failed <= SHOWN:
            console.error(record.error or "", record.hint or "")
        if record.status == "done" and not (self.reporting.quiet or self.reporting.as_json):
            assert self.report.output is not None
            console.result(self.report.output / record.output)

    def _warn_of_space(self, plan: Plan, known: Headers) -> None:
        from resshift_cli.batch import forecast

        need = forecast.disk_bytes(plan, known)
        free = forecast.free_bytes(plan.output)
        if need > free and not self.reporting.quiet:
            console.warning(
                f"The results may take {console.size(need)}, and {console.size(free)} are free in "
                f"{plan.output}: the work stops before the disk is full."
            )


def _summary(report: Report) -> None:
    if report.found or report.failed:
        console.note(
            f"{counted(report.found, 'image')} in {report.folder}: {report.done} done, "
            f"{report.skipped} finished before, {report.failed} failed. "
            f"Results are in {report.output}"
        )
    else:
        console.note(f"There are no images in {report.folder}.")
    _tell_others(report)


def _tell_others(report: Report) -> None:
    """What is in the folder beside images, by extension."""
    others = Counter(report.others)
    if not others:
        return
    kinds = ", ".join(f"{kind or 'no extension'} {n}" for kind, n in others.most_common(KINDS))
    more = ", ..." if len(others) > KINDS else ""
    are = "other file was" if others.total() == 1 else "other files were"
    console.note(f"{others.total()} {are} left alone: {kinds}{more}")


def _tell_warnings(report: Report) -> None:
    """What was wrong with images that were done nonetheless, but not of a thousand."""
    for warning in report.warnings[:SHOWN]:
        console.warning(f"warning: {warning}")
    _tell_more(report, len(report.warnings) - SHOWN, "more warnings")


def _tell_failures(report: Report) -> None:
    """Where failures are told of that were not, of more than a few."""
    _tell_more(report, report.failed - SHOWN, "more")


def _tell_more(report: Report, count: int, what: str) -> None:
    if count > 0 and report.output is not None:
        from resshift_cli.batch.ledger import NAME

        console.note(f"and {count} {what}, see {report.output / NAME}")
