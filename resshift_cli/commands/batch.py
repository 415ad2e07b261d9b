"""`resshift batch`: a folder of images, overnight if need be."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import typer

from resshift_cli.commands import choice, console, progress, proof, ready
from resshift_cli.commands.crafts import What
from resshift_cli.commands.engines import Workers
from resshift_cli.commands.groups import Enlarging, Making, Options, Reporting
from resshift_cli.commands.options import (
    DryRunOption,
    ExcludeOption,
    FailFastOption,
    FolderArgument,
    HiddenOption,
    IncludeOption,
    MaxFailuresOption,
    ResultsOption,
    ShardOption,
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
    from resshift_cli.batch.ledger import Ledger
    from resshift_cli.batch.places import Place
    from resshift_cli.batch.plan import Plan
    from resshift_cli.batch.recipe import Recipe
    from resshift_cli.batch.record import Record
    from resshift_cli.batch.report import Report
    from resshift_cli.batch.shards import Shard
    from resshift_cli.batch.survey import Leftovers, Survey
    from resshift_cli.imaging import folders
    from resshift_cli.restoration.crafts import Craft
    from resshift_cli.weights.registry import ModelEntry

SHOWN = 10  # failures that are told of
KINDS = 8  # extensions of files that are told of


@dataclass(frozen=True, slots=True)
class Inputs(Options):
    """Which files of the folder are taken."""

    panel = "Which files"

    include: IncludeOption = None
    exclude: ExcludeOption = None
    hidden: HiddenOption = False

    def tree(self, folder: str, results: str, masks: Path | None = None) -> folders.Inputs:
        """The inputs in a folder, without its results, or masks that lie in it.

        Raises:
            InputMissingError: there are none that --include asks for.
        """
        from resshift_cli.imaging import elsewhere, folders

        exclude = [*(self.exclude or ()), *_within(folder, masks)]
        selection = folders.Selection(self.include or (), exclude, self.hidden)
        tree = elsewhere.inputs_at(folder, results, selection)
        if self.include and next(tree.images(), None) is None:
            patterns = " or ".join(f"'{printable(pattern)}'" for pattern in self.include)
            raise InputMissingError(
                f"No file in {printable(tree.said)} is like {patterns}.",
                hint="--include takes patterns such as '*.png'; --hidden takes hidden files, too.",
            )
        return tree


@dataclass(frozen=True, slots=True)
class Course(Options):
    """How a batch is gone about."""

    panel = "How to go about it"

    fail_fast: FailFastOption = False
    max_failures: MaxFailuresOption = None
    dry_run: DryRunOption = False
    shard: ShardOption = None
    verify: VerifyOption = False
    report: TableOption = None

    @property
    def most(self) -> float:
        """Images that may fail before the others are left alone, that one included."""
        return 1 if self.fail_fast else self.max_failures or math.inf

    def part(self) -> Shard:
        """Which part of the work is done here."""
        from resshift_cli.batch.shards import WHOLE, Shard

        return WHOLE if self.shard is None else Shard(*map(int, self.shard.split("/")))

    def check(self) -> None:
        """Refuse what can't be.

        Raises:
            UsageError: --verify beside --dry-run or --shard, or a report of no known kind.
        """
        if self.verify and self.shard:
            raise UsageError(
                "--verify looks at the whole folder, not at a --shard.", hint="Leave out --shard."
            )
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
    what: What,
    course: Course,
    workers: Workers,
    inputs: Inputs,
    enlarging: Enlarging,
    reporting: Reporting,
) -> None:
    """Enlarge all images and animations of a folder, and of the folders in it.

    Or, with --task, mend them at their own size, fill holes in them, or restore faces.

    What is finished is entered in resshift-batch.jsonl among the results, and not done again: the
    same command goes on where an earlier one was stopped. An image that fails does not keep the
    others from being done; in the end the exit code is then 1.
    """
    _check_folder(folder, output)
    course.check()
    workers.check(enlarging.machine)
    folder, output = workers.found(folder), output and workers.found(output)
    own = enlarging.model.weights
    model = replace(enlarging.model, weights=own and Path(workers.found(str(own))))
    enlarging = replace(enlarging, model=model)
    craft = what.craft(folder, enlarging)
    find = partial(inputs.tree, masks=what.folder())
    if course.verify:
        proof.verify(folder, output, find, craft, course.report, reporting)
        return
    making = what.making(enlarging)
    entry = craft.needed(choice.choose(making.model, making.computation.steps))
    from resshift_cli.batch import names
    from resshift_cli.batch.report import Report

    keeps = reporting.as_json or course.report is not None
    report = Report(entry.name, names.said(folder), keeps=keeps)
    with _telling(report, reporting, summary=not course.dry_run):
        recipe = _recipe(entry, craft, making, course, workers, quiet=reporting.quiet)
        report.settings = recipe.options()
        from resshift_cli.batch import ledger, places, table

        place = places.at(output or names.results_at(folder, recipe.mark))
        tree, report.output = find(folder, place.root), place.said
        names.check_apart(tree, place)
        work = _Work(report, tree, place, recipe, course, workers, making, reporting)
        if course.dry_run:
            work.forecast(ledger.Ledger(place))
        elif work.is_empty():
            work.survey(ledger.Ledger(place))
        else:
            with ExitStack() as stack:
                with console.waiting("Reading the ledger", quiet=reporting.quiet):
                    book = stack.enter_context(ledger.opened(place, course.part()))
                work.do(book)
        if course.report is not None:
            table.write(course.report, report.rows(), f"resshift batch {report.folder}")
    if report.failed:
        raise typer.Exit(ResShiftError.exit_code)


def _within(folder: str, masks: Path | None) -> Iterator[str]:
    """What leaves out a folder of masks that lies within the one of the images."""
    from resshift_cli.system.storage import is_url

    if masks is None or is_url(folder):
        return
    whole, root = Path(os.path.realpath(masks)), Path(os.path.realpath(folder))
    if whole.is_relative_to(root):
        yield re.sub(r"[*?[]", "[\\g<0>]", whole.relative_to(root).as_posix())


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


def _check_folder(folder: str, output: str | None) -> None:
    from resshift_cli.system.storage import Remote, is_url

    if output is not None and is_url(output):
        Remote(output).check_writable()

    if is_url(folder):
        from resshift_cli.system import listing

        if next(listing.entries(Remote(folder)), None) is None:
            raise InputMissingError(
                f"There is nothing in {Remote(folder).shown}.",
                hint="Check its name; `resshift upscale` enlarges single images.",
            )
        return
    if not os.path.lexists(folder):
        raise InputMissingError(f"There is no folder {printable(folder)}.", hint="Check its name.")
    if not os.path.isdir(folder):
        raise UsageError(
            f"{printable(folder)} is not a folder.",
            hint=f"`resshift upscale {printable(folder)}` enlarges a single image.",
        )


def _recipe(
    entry: ModelEntry,
    craft: Craft[Any],
    making: Making,
    course: Course,
    workers: Workers,
    *,
    quiet: bool,
) -> Recipe:
    """How the results are made; the model is fetched for that, unless nothing is to be done."""
    from resshift_cli.weights import store

    machine, offline = making.machine, making.model.offline
    here = store.located(entry)
    files = here if course.dry_run else ready.fetch(entry, offline=offline, quiet=quiet)
    others = [
        store.located(other) if course.dry_run else ready.fetch(other, offline=offline, quiet=quiet)
        for other in craft.others
    ]
    spec = (
        ready.spec_of(entry, offline=offline, quiet=quiet)
        if files is None
        else store.spec_of(entry, files.weights)
    )
    with console.waiting(f"Checking {entry.name}", quiet=quiet):
        ready.import_torch()
        from resshift_cli.batch.recipe import Recipe

        craft.check(spec, entry.name)
        chosen = craft.settings(spec, entry.name, making.computation.arguments())
        device, dtype = workers.place(machine)
        every = [files, *others]
        weights = "+".join(each.digest() for each in every if each is not None)
        weights = "" if None in every else weights
    box, handling = making.computation.box(), making.handling()
    return Recipe(entry, spec, chosen, handling, device, dtype, weights, box, craft)


@dataclass
class _Work:
    """What is to be done of a folder: looked at, done, entered in the ledger, and told."""

    report: Report
    tree: folders.Inputs
    place: Place
    recipe: Recipe
    course: Course
    workers: Workers
    making: Making
    reporting: Reporting

    def is_empty(self) -> bool:
        """Whether there is nothing that could be done, or told of as a failure."""
        from resshift_cli.imaging.folders import Beside

        beside = Beside()
        return next(self.tree.images(beside), None) is None and not beside.unreadable

    def survey(self, book: Ledger, leftovers: Leftovers | None = None) -> Plan:
        """Find out how much there is to do."""
        from resshift_cli.batch import plan, survey
        from resshift_cli.restoration import fitting

        recipe = self.recipe
        at_once = partial(
            fitting.images_at_once,
            *(recipe.spec, recipe.dtype, recipe.device, self.making.machine.max_memory),
        )
        overwrite, part = self.making.writing.overwrite, self.course.part()
        made = plan.Plan(self.tree, book, recipe, at_once, overwrite, part)
        with console.waiting("Looking for what is to be done", quiet=self.reporting.quiet):
            self.report.survey = survey.survey(made, leftovers, keeps=self.report.keeps)
        return made

    def forecast(self, book: Ledger) -> None:
        """Tell what would be done, and what it would take."""
        from resshift_cli.batch.forecast import forecast

        plan, report = self.survey(book), self.report
        assert report.survey is not None
        report.forecast = forecast(plan, report.survey)
        if not self.reporting.quiet:
            _tell_forecast(report, report.forecast, self.recipe)

    def do(self, book: Ledger) -> None:
        """Do it."""
        from resshift_cli.batch import runner
        from resshift_cli.batch.survey import Leftovers

        leftovers = Leftovers.of_another(book)
        plan = self.survey(book, leftovers)
        leftovers.remove()
        found = self.report.survey
        assert found is not None
        runner.enter_others(plan, found.beside.others, book)
        if found.failed + len(found.beside.unreadable) >= self.course.most:
            runner.enter(plan, found.failures[: int(self.course.most)], book, self._tell)
            return
        if not found.jobs:
            entered = runner.groups(plan, book, self._tell) if found.failures else ()
            for _ in entered:  # none, but failures are entered on the way
                pass
            return
        self._warn_of_space(plan, found)
        self._run(plan, found)

    def _run(self, plan: Plan, found: Survey) -> None:
        from resshift_cli.batch import runner
        from resshift_cli.batch.gauge import Gauge

        # As in the ledger, whatever "auto" may mean by now.
        device, precision = plan.recipe.place()
        machine = replace(self.making.machine, device=device, precision=precision)
        offline, quiet = self.making.model.offline, self.reporting.quiet
        begin = self.workers.begin(
            plan, self.place, found.tasks, machine, offline=offline, quiet=quiet
        )
        if not quiet and self.workers.engine == "local":
            share = sum(found.computations.values()) / max(sum(found.frames.values()), 1)
            job = choice.Job(
                found.frames, self.making.computation, machine, lambda spec, settings: share
            )
            choice.announce(plan.recipe.entry, plan.recipe.spec, plan.recipe.settings, job)
        with progress.bars(quiet=quiet) as bars:
            unknown = found.jobs - found.known
            gauge = Gauge(
                bars,
                PurePath(self.tree.root).name,
                found.jobs,
                work=found.work + unknown * found.usual,
                usual=found.usual,
                failed=found.failed,
            )
            engine = begin(runner.Watch(self._tell, gauge, self._is_enough))
            engine.run(runner.groups(plan, plan.ledger, self._tell))

    def _is_enough(self) -> bool:
        return self.report.failed >= self.course.most

    def _tell(self, record: Record) -> None:
        self.report.add(record)
        if record.status == "failed" and self.report.failed <= SHOWN:
            console.error(record.error or "", record.hint or "")
        if record.status == "done" and not (self.reporting.quiet or self.reporting.as_json):
            console.result(self.place.shown(record.output))

    def _warn_of_space(self, plan: Plan, found: Survey) -> None:
        free = plan.output.room()
        if free is not None and found.disk_bytes > free and not self.reporting.quiet:
            console.warning(
                f"The results may take {console.size(int(found.disk_bytes))}, and "
                f"{console.size(free)} are free in {plan.output.said}: the work stops before the "
                "disk is full."
            )


def _tell_forecast(report: Report, figures: Mapping[str, Any], recipe: Recipe) -> None:
    from resshift_cli.system.device import precision_name

    refused, in_all = figures["refused"], figures["refused_in_all"]
    console.note(
        f"{counted(report.found, 'image')} in {report.folder}: {figures['images']} to do, "
        f"{report.skipped} finished before, {in_all} that can't be done. Nothing was written."
    )
    for why in refused[:SHOWN]:
        console.error(why["message"], why["hint"])
    if in_all > SHOWN:
        console.note(f"and {in_all - SHOWN} more")
    _tell_others(report)
    if figures["images"]:
        free = figures["free_bytes"]
        room = "" if free is None else f", where {console.size(free)} are free"
        console.note(
            f"About {console.duration(figures['seconds'])} on {recipe.device} in "
            f"{precision_name(recipe.dtype)}, {console.size(figures['peak_bytes'])} of memory "
            f"at the peak, and up to about {console.size(figures['disk_bytes'])} in "
            f"{report.output}{room}."
        )
        if not recipe.craft.foreseen:
            console.note(
                "How many faces there are shows when they are found: the time is that of one in "
                "each image, without what is behind it."
            )


def _summary(report: Report) -> None:
    if report.found or report.failed:
        console.note(
            f"{counted(report.found, 'image')} in {report.folder}: {report.done} done, "
            f"{report.skipped} finished before, {report.failed} failed. "
            f"Results are in {report.output}"
        )
        if report.faces or report.faceless:
            none = f"; {counted(report.faceless, 'image')} without" if report.faceless else ""
            console.note(f"{counted(report.faces, 'face')} restored{none}")
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
    _tell_more(report, report.warned - SHOWN, "more warnings")


def _tell_failures(report: Report) -> None:
    """Where failures are told of that were not, of more than a few."""
    _tell_more(report, report.failed - SHOWN, "more")


def _tell_more(report: Report, count: int, what: str) -> None:
    if count > 0 and report.output:
        from resshift_cli.batch.ledger import NAME

        console.note(f"and {count} {what}, see {report.output.rstrip('/')}/{NAME}")
