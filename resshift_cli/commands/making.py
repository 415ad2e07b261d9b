"""What commands do with images, one after another: all checked, then done, and told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import choice, console, pages, progress, ready, tasks
from resshift_cli.commands.exits import explain
from resshift_cli.commands.groups import Making, Reporting
from resshift_cli.commands.tasks import Task, Wanted
from resshift_cli.errors import ResShiftError, UsageError, memory_limit

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.imaging.files import Loaded, Loader, Result
    from resshift_cli.restoration.crafts import Craft
    from resshift_cli.restoration.model import Model
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.weights.registry import ModelEntry


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that is loaded, and what it does.

    Attributes:
        model: it.
        settings: how, but for what each task has of its own.
        craft: what.
    """

    model: Model
    settings: Settings
    craft: Craft[Any]


@dataclass(frozen=True, slots=True)
class Placing:
    """Where results go; see the options of these names."""

    output: str | None
    skip_existing: bool
    compare: bool

    def check(self, inputs: Sequence[str], asked: Making, *, as_json: bool, each: int) -> bool:
        """Whether the result goes to stdout.

        Raises:
            UsageError: options exclude each other.
        """
        if asked.writing.overwrite and self.skip_existing:
            raise UsageError(
                "--overwrite and --skip-existing exclude each other.", hint="Leave one of them out."
            )
        to_stdout = tasks.check_streams(inputs, self.output, as_json=as_json, each=each)
        if to_stdout and self.compare:
            raise UsageError(
                "A result that goes to stdout is no file to compare (--compare).",
                hint="Give a file with -o, or leave out --compare.",
            )
        return to_stdout


def make(
    inputs: Sequence[str],
    marked: Callable[[ModelSpec], Mapping[str, int]],
    craft: Craft[Any],
    asked: Making,
    placing: Placing,
    reporting: Reporting,
    *,
    each: int = 1,
) -> None:
    """Do what a command is asked for.

    Args:
        inputs: images, as they were given.
        marked: what stands behind their names in those of the results, and the seed of each, for
            the model that does it.
        craft: what is done.
        asked: how.
        placing: where results go.
        reporting: what is told.
        each: results of every input.

    Raises:
        ResShiftError: it can't be.
        Exit: something went wrong with an image, which was told.
    """
    handling, computation = asked.handling(), asked.computation
    box = computation.box()
    to_stdout = placing.check(inputs, asked, as_json=reporting.as_json, each=each)
    entry = choice.candidate(asked.model)
    report = Report(__version__, entry.name)
    try:
        spec = ready.spec_of(entry, offline=asked.model.offline, quiet=reporting.quiet)
        scale = computation.factor() or float(spec.scale)
        common = Wanted(
            output=placing.output,
            mark="",
            scale=scale,
            box=box,
            handling=handling,
            overwrite=asked.writing.overwrite,
            skip_existing=placing.skip_existing,
            compare=placing.compare,
            seed=computation.seed,
            refuse=craft.refuse,
            beside=craft.beside,
        )
        every = [replace(common, mark=mark, seed=n) for mark, n in marked(spec).items()]
        work = _Work(craft, asked, Telling(report, reporting))
        work.do(inputs, every, entry, to_stdout=to_stdout)
    except ResShiftError as error:
        if not report.errors:
            report.fail(None, error)
        raise
    finally:
        if reporting.as_json:
            console.document(asdict(report))
    if report.errors:
        raise typer.Exit(report.errors[0]["exit_code"])


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done, how, and what is told."""

    craft: Craft[Any]
    asked: Making
    telling: Telling

    def do(
        self, inputs: Sequence[str], every: Sequence[Wanted], entry: ModelEntry, *, to_stdout: bool
    ) -> None:
        """Check everything, then load the model and do the work, if there is any."""
        from resshift_cli.imaging.files import Loader

        model, machine = self.asked.model, self.asked.machine
        report, quiet = self.telling.report, self.telling.reporting.quiet
        loader = Loader(every[0].handling)
        with ExitStack() as stack:
            given = stack.enter_context(tasks.opened(inputs))
            with console.waiting("Checking the images", quiet=quiet):
                found = tasks.Tasks.of(given, len(every))
                for wanted in every:
                    planned = tasks.planned(found, wanted, to_stdout=to_stdout)
                    found.check(stack.enter_context(planned), wanted, loader, report.fail)
            report.skipped = found.skipped()
            for line in () if quiet else found.told():
                console.note(line)
            if not found.todo:
                return
            job = choice.Job(found.sizes, self.asked.computation, machine, self.craft.share)
            entry = choice.settle(entry, model, job)
            report.model = entry.name
            made = self._ready(entry)
            _check_seeds(made.model, every)
            if self.craft.foreseen and not quiet:
                choice.announce(entry, made.model.spec, made.settings, job)
            Run(entry, made, loader, self.telling).do_each(found.todo)

    def _ready(self, entry: ModelEntry) -> Ready:
        """The model, loaded."""
        asked, quiet = self.asked, self.telling.reporting.quiet
        offline = asked.model.offline
        model = ready.load_as(self.craft, entry, asked.machine, offline=offline, quiet=quiet)
        options = asked.computation.arguments()
        return Ready(model, self.craft.settings(model.spec, model.name, options), self.craft)


def _check_seeds(model: Model, every: Sequence[Wanted]) -> None:
    if len(every) > 1 and not model.spec.draws:
        raise UsageError(
            f"{model.name} draws nothing at random: all {len(every)} results would be the same.",
            hint="Leave --seeds out, or name another --model.",
        )


@dataclass
class Report:
    """What --json prints."""

    version: str
    model: str
    results: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, source: str | None, error: ResShiftError) -> None:
        """Add an error; `source` is the input that it is about, if it is about one."""
        self.errors.append({"input": source, **error.facts()})


@dataclass(frozen=True, slots=True)
class Telling:
    """What is told, and how."""

    report: Report
    reporting: Reporting


@dataclass(frozen=True, slots=True)
class Run:
    """What the results of a command have in common."""

    entry: ModelEntry
    made: Ready
    loader: Loader
    telling: Telling

    def do_each(self, todo: Sequence[Task]) -> None:
        """Make every result, whatever becomes of the others, and enter it in the report."""
        report, reporting = self.telling.report, self.telling.reporting
        for number, task in enumerate(todo, 1):
            name = task.source.path.name
            title = name if len(todo) == 1 else f"[{number}/{len(todo)}] {name}"
            started = time.monotonic()
            try:
                loaded, result = self._do(task, title)
                self._enter(task, loaded, result, time.monotonic() - started)
                if task.page is not None:
                    self._compare(task, task.page, result)
            except ResShiftError as error:
                report.fail(task.source.said, error)
                explain(error, debug=reporting.debug)
            except KeyboardInterrupt as interrupt:
                if finished := len(report.results):
                    interrupt.args = (f"{finished} of {len(todo)} images were finished",)
                raise

    def _do(self, task: Task, title: str) -> tuple[Loaded, Result]:
        from resshift_cli.imaging import files, targets
        from resshift_cli.restoration import provenance
        from resshift_cli.restoration.size import target_size

        settings, model = self._settings(task), self.made.model
        smaller = f"Use a --tile smaller than {settings.tile} for {task.source.path.name}."
        with (
            memory_limit(smaller),
            progress.bars(quiet=self.telling.reporting.quiet) as bars,
        ):
            loaded = self.loader.take(task.source)
            result = files.enlarge(
                loaded,
                self.made.craft.run(model, settings),
                progress.shares(bars(total=1, desc=title, unit="")),
                size=target_size(*loaded.size, task.scale),
                note=provenance.note(self.entry, settings, model.device, model.dtype),
                target=task.target,
                options=task.options,
            )
            content = result.content()
            if task.overwrite is None:
                targets.to_stdout(content)
            elif task.remote is not None:
                targets.send(content, task.remote, overwrite=task.overwrite)
            else:
                targets.save(content, task.target, overwrite=task.overwrite)
        return loaded, result

    def _settings(self, task: Task) -> Settings:
        return replace(self.made.settings, scale=task.scale, seed=task.seed)

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

        source, target, reporting = task.source.said, task.said, self.telling.reporting
        settings, model = self._settings(task), self.made.model
        device, precision = str(model.device), precision_name(model.dtype)
        (height, width), (tall, wide) = loaded.size, result.size
        self.telling.report.results.append(
            {
                "input": source,
                "output": target,
                "width": wide,
                "height": tall,
                "input_width": width,
                "input_height": height,
                **asdict(settings),
                **self.made.craft.facts(),
                **self.made.craft.found(),
                "device": device,
                "precision": precision,
                "threads": provenance.threads(model.device),
                "seconds": round(seconds, 3),
                "warnings": loaded.warnings,
            }
        )
        if reporting.quiet:
            return
        for warning in loaded.warnings:
            console.warning(f"warning: {warning}")
        steps = f"{settings.steps} step{'s' * (settings.steps != 1)}"
        said = ", ".join(filter(None, (self.entry.name, steps, self.made.craft.remark())))
        console.note(
            f"{source} {width}x{height} -> {target} {wide}x{tall}, {said}, "
            f"{device} {precision}, {console.elapsed(seconds)}"
        )
        if not reporting.as_json and task.overwrite is not None:
            console.result(target)
