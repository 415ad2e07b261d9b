"""`resshift upscale`: images, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import choice, console, pages, progress, ready, tasks
from resshift_cli.commands.exits import explain
from resshift_cli.commands.groups import Enlarging, Reporting
from resshift_cli.commands.options import (
    InputsArgument,
    OutputOption,
    SkipExistingOption,
    SuffixOption,
)
from resshift_cli.commands.tasks import Task, Wanted
from resshift_cli.errors import ResShiftError, UsageError, memory_limit

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Loaded, Loader, Result
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry


def upscale(
    inputs: InputsArgument,
    *,
    output: OutputOption = None,
    suffix: SuffixOption = None,
    skip_existing: SkipExistingOption = False,
    compare: pages.CompareOption = False,
    enlarging: Enlarging,
    reporting: Reporting,
) -> None:
    """Enlarge images, and animations frame by frame.

    All inputs and outputs are checked before the work starts. If an image fails later on, the
    others are still done, and the exit code is that of the first failure. Results of earlier runs
    that *.png names, too, are left alone; without other images beside them they are enlarged.

    Progress and a summary go to stderr. stdout stays empty on a terminal; in a pipe it gets the
    path of every result, one per line, or with --json one object that holds everything.

    `resshift upscale - < photo.jpg > large.jpg` reads from stdin and writes to stdout, where
    nothing else goes then: with `-o -` for any single input, without -o for an image from stdin.
    A file that is called - is given as ./-.
    """
    computation = enlarging.computation
    box = computation.box()
    handling, overwrite = enlarging.handling(), enlarging.writing.overwrite
    if overwrite and skip_existing:
        raise UsageError(
            "--overwrite and --skip-existing exclude each other.", hint="Leave one of them out."
        )
    to_stdout = tasks.check_streams(inputs, output, as_json=reporting.as_json)
    if to_stdout and compare:
        raise UsageError(
            "A result that goes to stdout is no file to compare (--compare).",
            hint="Give a file with -o, or leave out --compare.",
        )
    entry = choice.candidate(enlarging.model)
    report = Report(__version__, entry.name)
    try:
        spec = ready.spec_of(entry, offline=enlarging.model.offline, quiet=reporting.quiet)
        scale = float(spec.scale) if computation.scale is None else computation.scale
        if suffix is None:
            suffix = f"_x{scale:g}" if box is None else f"_{box}"
        wanted = tasks.Wanted(
            output, suffix, scale, box, handling, overwrite, skip_existing, compare
        )
        _do(inputs, wanted, entry, enlarging, Telling(report, reporting), to_stdout=to_stdout)
    except ResShiftError as error:
        if not report.errors:
            report.fail(None, error)
        raise
    finally:
        if reporting.as_json:
            console.document(asdict(report))
    if report.errors:
        raise typer.Exit(report.errors[0]["exit_code"])


def _do(
    inputs: Sequence[str],
    wanted: Wanted,
    entry: ModelEntry,
    enlarging: Enlarging,
    telling: Telling,
    *,
    to_stdout: bool,
) -> None:
    """Check everything, then load the model and do the work, if there is any."""
    from resshift_cli.imaging.files import Loader

    model, computation, machine = enlarging.model, enlarging.computation, enlarging.machine
    report, quiet = telling.report, telling.reporting.quiet
    loader = Loader(wanted.handling)
    with ExitStack() as stack:
        given = stack.enter_context(tasks.opened(inputs))
        with console.waiting("Checking the images", quiet=quiet):
            found = tasks.Tasks.of(given)
            outputs = stack.enter_context(tasks.planned(found, wanted, to_stdout=to_stdout))
            found.check(outputs, wanted, loader, report.fail)
        report.skipped = found.skipped()
        for line in () if quiet else found.told():
            console.note(line)
        if not found.todo:
            return
        job = choice.Job(found.sizes, computation, machine)
        entry = choice.settle(entry, model, job)
        report.model = entry.name
        upscaler = ready.load(entry, machine, offline=model.offline, quiet=quiet)
        settings = upscaler.settings(**computation.arguments())
        if not quiet:
            choice.announce(entry, upscaler.spec, settings, job)
        Run(entry, upscaler, settings, loader, telling).enlarge_each(found.todo)


@dataclass
class Report:
    """What --json prints."""

    version: str
    model: str
    results: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, source: Path | None, error: ResShiftError) -> None:
        """Add an error; `source` is the input that it is about, if it is about one."""
        self.errors.append({"input": None if source is None else str(source), **error.facts()})


@dataclass(frozen=True, slots=True)
class Telling:
    """What is told, and how."""

    report: Report
    reporting: Reporting


@dataclass(frozen=True, slots=True)
class Run:
    """What the images of a command have in common."""

    entry: ModelEntry
    upscaler: Upscaler
    settings: Settings
    loader: Loader
    telling: Telling

    def enlarge_each(self, todo: Sequence[Task]) -> None:
        """Enlarge every image, whatever becomes of the others, and enter it in the report."""
        report, reporting = self.telling.report, self.telling.reporting
        for number, task in enumerate(todo, 1):
            source = task.source.path
            title = source.name if len(todo) == 1 else f"[{number}/{len(todo)}] {source.name}"
            started = time.monotonic()
            try:
                loaded, result = self._enlarge(task, title)
                self._enter(task, loaded, result, time.monotonic() - started)
                if task.page is not None:
                    self._compare(task, task.page, result)
            except ResShiftError as error:
                report.fail(source, error)
                explain(error, debug=reporting.debug)
            except KeyboardInterrupt as interrupt:
                if finished := len(report.results):
                    interrupt.args = (f"{finished} of {len(todo)} images were finished",)
                raise

    def _enlarge(self, task: Task, title: str) -> tuple[Loaded, Result]:
        from resshift_cli.imaging import files, targets
        from resshift_cli.restoration import provenance
        from resshift_cli.restoration.size import target_size

        settings = replace(self.settings, scale=task.scale)
        smaller = f"Use a --tile smaller than {self.settings.tile} for {task.source.path.name}."
        with (
            memory_limit(smaller),
            progress.bars(quiet=self.telling.reporting.quiet) as bars,
        ):
            loaded = self.loader.take(task.source)
            result = files.enlarge(
                loaded,
                self.upscaler.enlarging(settings),
                progress.shares(bars(total=1, desc=title, unit="")),
                size=target_size(*loaded.size, task.scale),
                note=provenance.note(
                    self.entry, settings, self.upscaler.device, self.upscaler.dtype
                ),
                target=task.target,
                options=task.options,
            )
            content = result.content()
            if task.overwrite is None:
                targets.to_stdout(content)
            else:
                targets.save(content, task.target, overwrite=task.overwrite)
        return loaded, result

    def _compare(self, task: Task, page: Path, result: Result) -> None:
        """Write the page with input and result."""
        from resshift_cli.imaging.sources import Source

        (height, width), reporting = result.size, self.telling.reporting
        most = max(self.loader.handling.max_pixels, height * width)
        handling = replace(self.loader.handling, max_pixels=most)
        pair = [task.source, Source(task.target)]
        pages.of_files(pair, page, handling, overwrite=bool(task.overwrite), quiet=reporting.quiet)
        self.telling.report.results[-1]["page"] = str(page)
        if not reporting.quiet:
            console.note(f"{page} compares them")

    def _enter(self, task: Task, loaded: Loaded, result: Result, seconds: float) -> None:
        """Add a result to the report, and tell of it."""
        from resshift_cli.restoration import provenance
        from resshift_cli.system.device import precision_name

        source, target, reporting = task.source.path, task.target, self.telling.reporting
        device, precision = str(self.upscaler.device), precision_name(self.upscaler.dtype)
        (height, width), (tall, wide) = loaded.size, result.size
        self.telling.report.results.append(
            {
                "input": str(source),
                "output": str(target),
                "width": wide,
                "height": tall,
                "input_width": width,
                "input_height": height,
                **asdict(replace(self.settings, scale=task.scale)),
                "device": device,
                "precision": precision,
                "threads": provenance.threads(self.upscaler.device),
                "seconds": round(seconds, 3),
                "warnings": loaded.warnings,
            }
        )
        if reporting.quiet:
            return
        for warning in loaded.warnings:
            console.warning(f"warning: {warning}")
        steps = f"{self.settings.steps} step{'s' * (self.settings.steps != 1)}"
        console.note(
            f"{source} {width}x{height} -> {target} {wide}x{tall}, {self.entry.name}, {steps}, "
            f"{device} {precision}, {console.elapsed(seconds)}"
        )
        if not reporting.as_json and task.overwrite is not None:
            console.result(target)
