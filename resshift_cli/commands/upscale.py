"""`resshift upscale`: images, one after another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import choice, console, pages, progress, ready
from resshift_cli.commands.exits import explain
from resshift_cli.commands.groups import Enlarging, Reporting
from resshift_cli.commands.options import InputsArgument, OutputOption
from resshift_cli.errors import ResShiftError, UsageError, memory_limit, printable

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Handling, Loaded, Loader, Result
    from resshift_cli.imaging.formats import SaveOptions
    from resshift_cli.imaging.sources import Source
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry


def upscale(
    inputs: InputsArgument,
    *,
    output: OutputOption = None,
    compare: pages.CompareOption = False,
    enlarging: Enlarging,
    reporting: Reporting,
) -> None:
    """Enlarge images, and animations frame by frame.

    All inputs and outputs are checked before the work starts. If an image fails later on, the
    others are still done, and the exit code is that of the first failure.

    Progress and a summary go to stderr. stdout stays empty on a terminal; in a pipe it gets the
    path of every result, one per line, or with --json one object that holds everything.

    `resshift upscale - < photo.jpg > large.jpg` reads from stdin and writes to stdout, where
    nothing else goes then: with `-o -` for any single input, without -o for an image from stdin.
    A file that is called - is given as ./-.
    """
    from resshift_cli.imaging.files import Loader

    handling, overwrite = enlarging.handling(), enlarging.writing.overwrite
    model, computation = enlarging.model, enlarging.computation
    to_stdout = _check_streams(inputs, output, as_json=reporting.as_json)
    if to_stdout and compare:
        raise UsageError(
            "A result that goes to stdout is no file to compare (--compare).",
            hint="Give a file with -o, or leave out --compare.",
        )
    entry = choice.candidate(model)
    report = Report(__version__, entry.name)
    quiet = reporting.quiet
    try:
        spec = ready.spec_of(entry, offline=model.offline, quiet=quiet)
        scale = float(spec.scale) if computation.scale is None else computation.scale
        with (
            _opened(inputs) as sources,
            _planned(sources, output, scale, handling, to_stdout=to_stdout) as outputs,
        ):
            with console.waiting("Checking the images", quiet=quiet):
                loader = Loader(handling)
                tasks, sizes = _check(sources, outputs, scale, report, loader, overwrite)
                if compare:
                    tasks = _with_pages(tasks)
            job = choice.Job(sizes, computation, enlarging.machine)
            entry = choice.settle(entry, model, job)
            report.model = entry.name
            upscaler = ready.load(entry, enlarging.machine, offline=model.offline, quiet=quiet)
            settings = upscaler.settings(**computation.arguments())
            if not quiet:
                choice.announce(entry, upscaler.spec, settings, job)
            run = Run(entry, upscaler, settings, loader, report, reporting)
            run.enlarge_each(tasks)
    except ResShiftError as error:
        if not report.errors:
            report.fail(None, error)
        raise
    finally:
        if reporting.as_json:
            console.document(asdict(report))
    if report.errors:
        raise typer.Exit(report.errors[0]["exit_code"])


@dataclass
class Report:
    """What --json prints."""

    version: str
    model: str
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, source: Path | None, error: ResShiftError) -> None:
        """Add an error; `source` is the input that it is about, if it is about one."""
        self.errors.append({"input": None if source is None else str(source), **error.facts()})


def _check_streams(inputs: Sequence[str], output: str | None, *, as_json: bool) -> bool:
    """Find out whether stdin and stdout can be what - means; whether the result goes to stdout."""
    from resshift_cli.imaging import sources, targets

    from_stdin = "-" in inputs
    to_stdout = output == "-" or (from_stdin and output is None)
    if len(inputs) > 1 and from_stdin:
        raise UsageError(
            "An image from stdin (-) has to be the only input.",
            hint="Give the others to a command of their own.",
        )
    if len(inputs) > 1 and to_stdout:
        raise UsageError(
            "Several results can't all go to stdout.", hint="Give a folder, such as: -o results/"
        )
    if to_stdout and as_json:
        raise UsageError(
            "The result and --json can't both go to stdout.",
            hint="Give a file with -o, or leave out --json.",
        )
    if from_stdin and targets.output_folder(output, several=False) is not None:
        raise UsageError(
            "An image from stdin has no name that its result could be called after.",
            hint=f"Name the file, such as: -o {printable(output).rstrip('/')}/large.png",
        )
    if from_stdin:
        sources.check_stdin()
    if to_stdout:
        targets.check_stdout()
    return to_stdout


@contextmanager
def _opened(inputs: Sequence[str]) -> Iterator[list[Source]]:
    """The inputs; what comes in on stdin is kept until the work is done."""
    from resshift_cli.imaging import sources

    if inputs == ["-"]:
        with sources.stdin() as source:
            yield [source]
    else:
        yield [sources.Source(Path(name)) for name in inputs]


@contextmanager
def _planned(
    sources: Sequence[Source],
    output: str | None,
    scale: float,
    handling: Handling,
    *,
    to_stdout: bool,
) -> Iterator[list[Path] | None]:
    """Where the results go, None being stdout; a new folder that got nothing is removed again."""
    from resshift_cli.imaging import targets

    if to_stdout:
        yield None
        return
    paths = [source.path for source in sources]
    planned = targets.plan_outputs(paths, scale=scale, destination=output, options=handling.options)
    with targets.made_folder(targets.output_folder(output, several=len(paths) > 1)):
        yield planned


@dataclass(frozen=True, slots=True)
class Task:
    """One file to be enlarged.

    Attributes:
        source: the input.
        target: the result, or what messages call it.
        options: how it is encoded.
        overwrite: whether it may replace a file; None if it goes to stdout.
        page: where the two are compared, if they are.
    """

    source: Source
    target: Path
    options: SaveOptions
    overwrite: bool | None
    page: Path | None = None


def _check(
    sources: Sequence[Source],
    outputs: Sequence[Path] | None,
    scale: float,
    report: Report,
    loader: Loader,
    overwrite: bool,
) -> tuple[list[Task], Counter[tuple[int, int]]]:
    """Find out before the work whether every input can be read and every result written.

    Returns the tasks, and how many images and frames of every height and width will be enlarged.

    Inputs are decoded, which takes little beside enlarging them, so that a damaged one is known
    now and not hours later. Small ones stay with the loader.
    """
    from resshift_cli.imaging import files, targets

    given = loader.handling.options
    tasks, sizes = [], Counter[tuple[int, int]]()
    for number, source in enumerate(sources):
        try:
            loaded = loader.load(source)
            if outputs is None:
                options = files.without_a_name(loaded, given)
                task = Task(source, targets.STDOUT, options, None)
            else:
                task = Task(source, outputs[number], given, overwrite)
                targets.check_writable(task.target, overwrite=overwrite, options=task.options)
            height, width = loaded.size
            large = (max(1, round(height * scale)), max(1, round(width * scale)))
            files.check(loaded, task.target, size=large, options=task.options)
        except ResShiftError as error:
            report.fail(source.path, error)
            raise
        tasks.append(task)
        sizes[loaded.size] += loaded.frames
    return tasks, sizes


def _with_pages(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with a page beside every result.

    Raises:
        UsageError: two pages would have the same name.
        OutputError: one can't be written.
    """
    from resshift_cli.imaging import targets

    found: dict[Path, Task] = {}
    for task in tasks:
        page = pages.name_for(task.target, "_compare.html")
        if page in found:
            raise UsageError(
                f"{printable(found[page].target)} and {printable(task.target)} would both be "
                f"compared in {printable(page)}.",
                hint="Upscale them one by one, or run `resshift compare` afterwards with -o.",
            )
        targets.check_place(page, overwrite=bool(task.overwrite))
        found[page] = replace(task, page=page)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Run:
    """What the images of a command have in common."""

    entry: ModelEntry
    upscaler: Upscaler
    settings: Settings
    loader: Loader
    report: Report
    reporting: Reporting

    def enlarge_each(self, tasks: Sequence[Task]) -> None:
        """Enlarge every image, whatever becomes of the others, and enter it in the report."""
        for number, task in enumerate(tasks, 1):
            source = task.source.path
            title = source.name if len(tasks) == 1 else f"[{number}/{len(tasks)}] {source.name}"
            started = time.monotonic()
            try:
                loaded, result = self._enlarge(task, title)
                self._enter(task, loaded, result, time.monotonic() - started)
                if task.page is not None:
                    self._compare(task, task.page, result)
            except ResShiftError as error:
                self.report.fail(source, error)
                explain(error, debug=self.reporting.debug)
            except KeyboardInterrupt as interrupt:
                if finished := len(self.report.results):
                    interrupt.args = (f"{finished} of {len(tasks)} images were finished",)
                raise

    def _enlarge(self, task: Task, title: str) -> tuple[Loaded, Result]:
        from resshift_cli.imaging import files, targets
        from resshift_cli.restoration import provenance
        from resshift_cli.restoration.settings import target_size

        smaller = f"Use a --tile smaller than {self.settings.tile} for {task.source.path.name}."
        with (
            memory_limit(smaller),
            progress.bars(quiet=self.reporting.quiet) as bars,
        ):
            loaded = self.loader.take(task.source)
            result = files.enlarge(
                loaded,
                self.upscaler.enlarging(self.settings),
                progress.shares(bars(total=1, desc=title, unit="")),
                size=target_size(*loaded.size, self.settings.scale),
                note=provenance.note(
                    self.entry, self.settings, self.upscaler.device, self.upscaler.dtype
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

        height, width = result.size
        most = max(self.loader.handling.max_pixels, height * width)
        handling = replace(self.loader.handling, max_pixels=most)
        pair = [task.source, Source(task.target)]
        pages.of_files(
            pair, page, handling, overwrite=bool(task.overwrite), quiet=self.reporting.quiet
        )
        self.report.results[-1]["page"] = str(page)
        if not self.reporting.quiet:
            console.note(f"{page} compares them")

    def _enter(self, task: Task, loaded: Loaded, result: Result, seconds: float) -> None:
        """Add a result to the report, and tell of it."""
        from resshift_cli.restoration import provenance
        from resshift_cli.system.device import precision_name

        source, target = task.source.path, task.target
        device, precision = str(self.upscaler.device), precision_name(self.upscaler.dtype)
        (height, width), (tall, wide) = loaded.size, result.size
        self.report.results.append(
            {
                "input": str(source),
                "output": str(target),
                "width": wide,
                "height": tall,
                "input_width": width,
                "input_height": height,
                **asdict(self.settings),
                "device": device,
                "precision": precision,
                "threads": provenance.threads(self.upscaler.device),
                "seconds": round(seconds, 3),
                "warnings": loaded.warnings,
            }
        )
        if self.reporting.quiet:
            return
        for warning in loaded.warnings:
            console.warning(f"warning: {warning}")
        steps = f"{self.settings.steps} step{'s' * (self.settings.steps != 1)}"
        console.note(
            f"{source} {width}x{height} -> {target} {wide}x{tall}, {self.entry.name}, {steps}, "
            f"{device} {precision}, {console.elapsed(seconds)}"
        )
        if not self.reporting.as_json and task.overwrite is not None:
            console.result(target)
