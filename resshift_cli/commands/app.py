"""The command `resshift`: one thin function per command, and `main`, the one place that catches.

Nothing heavy is imported before a command has its arguments, and torch only once the cheap checks
are passed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from resshift_cli import __version__
from resshift_cli.commands import batch as cli_batch
from resshift_cli.commands import bench as cli_bench
from resshift_cli.commands import console
from resshift_cli.commands import evaluate as cli_eval
from resshift_cli.commands import models as cli_models
from resshift_cli.commands import ready as jobs
from resshift_cli.commands import train as cli_train
from resshift_cli.commands.options import (
    MAX_PIXELS,
    AllowTruncatedOption,
    ColorFixOption,
    CommandLine,
    CompileOption,
    CompressionOption,
    ConsistencyOption,
    DebugOption,
    DepthOption,
    DeviceOption,
    FirstFrameOption,
    FormatOption,
    InputsArgument,
    JsonOption,
    LosslessOption,
    MaxMemoryOption,
    MaxPixelsOption,
    ModelOption,
    OfflineOption,
    OutputOption,
    OverlapOption,
    OverwriteOption,
    PrecisionOption,
    QualityOption,
    QuietOption,
    RegistryOption,
    ScaleOption,
    SeedOption,
    StepsOption,
    StripOption,
    TemperatureOption,
    TileOption,
    WeightsOption,
)
from resshift_cli.errors import (
    BUG,
    ResShiftError,
    UsageError,
    memory_limit,
    out_of_memory,
    printable,
)

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Handling
    from resshift_cli.imaging.formats import SaveOptions
    from resshift_cli.imaging.sources import Source
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry

INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # the rest is in errors.py

EPILOG = """\b
Exit codes:
  0    done
  1    a job failed, of too little memory for instance
  2    the request can't be read, or asks for the impossible
  3    an input file is missing, or can't be opened
  4    an input file is no image, is damaged or too large
  5    an image of a kind that is not handled yet
  6    a result can't be written (disk full, for instance), or would replace a file
  7    weights can't be fetched, are missing, damaged or do not fit
  8    the device or precision asked for is not here
  70   a bug in resshift
  130  interrupted by Ctrl-C (143: terminated, 141: nobody reads the output)
"""

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_models.app, name="models")


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything that cleans up after Ctrl-C cleans up after it too."""


def _show_version(on: bool) -> None:
    if on:
        print(f"resshift {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True, epilog=EPILOG)
def resshift(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version."),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Enlarge images with ResShift, a diffusion model that walks from blurry to sharp.

    `resshift upscale photo.jpg` writes photo_x4.jpg. Every command explains itself with --help.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def upscale(
    context: typer.Context,
    inputs: InputsArgument,
    output: OutputOption = None,
    scale: ScaleOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    registry: RegistryOption = None,
    offline: OfflineOption = False,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    tile: TileOption = None,
    overlap: OverlapOption = None,
    temperature: TemperatureOption = None,
    color_fix: ColorFixOption = "wavelet",
    consistency: ConsistencyOption = 0.0,
    max_memory: MaxMemoryOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    file_format: FormatOption = None,
    quality: QualityOption = None,
    lossless: LosslessOption = False,
    compression: CompressionOption = None,
    depth: DepthOption = None,
    strip_metadata: StripOption = False,
    first_frame: FirstFrameOption = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    allow_truncated: AllowTruncatedOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
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
    from resshift_cli.imaging.files import Handling
    from resshift_cli.imaging.formats import SaveOptions

    handling = Handling(
        SaveOptions(
            format=file_format,
            quality=quality,
            lossless=lossless,
            compression=compression,
            depth=depth,
            strip_metadata=strip_metadata,
        ),
        first_frame=first_frame,
        max_pixels=max_pixels,
        allow_truncated=allow_truncated,
    )
    to_stdout = _check_streams(inputs, output, as_json=as_json)
    entry = cli_models.choose(model, weights, registry, offline=offline)
    report = Report(__version__, entry.name)
    try:
        spec = jobs.spec_of(entry, offline=offline, quiet=quiet)
        factor = float(spec.scale) if scale is None else scale
        with (
            _opened(inputs) as sources,
            _planned(sources, output, factor, handling, to_stdout=to_stdout) as outputs,
        ):
            with console.waiting("Checking the images", quiet=quiet):
                tasks, sizes = _check(sources, outputs, factor, report, handling, overwrite)
            upscaler = jobs.load(
                entry,
                offline=offline,
                quiet=quiet,
                device=device,
                precision=precision,
                max_memory=max_memory,
                compiled=compiled,
            )
            settings = upscaler.settings(
                scale=factor,
                steps=steps,
                seed=seed,
                tile=tile,
                overlap=overlap,
                temperature=temperature,
                color_fix=color_fix,
                consistency=consistency,
            )
            if not quiet:
                jobs.announce(entry, upscaler, settings, sizes)
            _upscale_each(
                tasks,
                entry,
                upscaler,
                settings,
                report,
                handling,
                quiet=quiet,
                as_json=as_json,
                debug=context.ensure_object(CommandLine).debug,
            )
    except ResShiftError as error:
        if not report.errors:
            report.fail(None, error)
        raise
    finally:
        if as_json:
            console.document(asdict(report))
    if report.errors:
        raise typer.Exit(report.errors[0]["exit_code"])


app.command()(cli_batch.batch)
app.command()(cli_bench.bench)
app.command("eval")(cli_eval.evaluate)
app.command()(cli_train.train)


@dataclass
class Report:
    """What --json prints."""

    version: str
    model: str
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, source: Path | None, error: ResShiftError) -> None:
        """Add an error; `source` is the input that it is about, if it is about one."""
        self.errors.append(
            {
                "input": None if source is None else str(source),
                **error.facts(),
            }
        )


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
    from resshift_cli.system import atomic

    if to_stdout:
        yield None
        return
    paths = [source.path for source in sources]
    planned = targets.plan_outputs(paths, scale=scale, destination=output, options=handling.options)
    folder = targets.output_folder(output, several=len(paths) > 1)
    if folder is None:
        yield planned
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    atomic.make_folder(folder)
    try:
        yield planned
    finally:
        with suppress(OSError):  # the first one that is not empty
            for path in new:
                path.rmdir()


@dataclass(frozen=True, slots=True)
class Task:
    """One file to be enlarged.

    Attributes:
        source: the input.
        target: the result, or what messages call it.
        options: how it is encoded.
        overwrite: whether it may replace a file; None if it goes to stdout.
    """

    source: Source
    target: Path
    options: SaveOptions
    overwrite: bool | None


def _check(
    sources: Sequence[Source],
    outputs: Sequence[Path] | None,
    scale: float,
    report: Report,
    handling: Handling,
    overwrite: bool,
) -> tuple[list[Task], Counter[tuple[int, int]]]:
    """Find out before the work whether every input can be read and every result written.

    Returns the tasks, and how many images and frames of every height and width will be enlarged.

    Inputs are decoded, which takes little beside enlarging them, so that a damaged one is known
    now and not hours later.
    """
    from resshift_cli.imaging import files, targets

    tasks, sizes = [], Counter[tuple[int, int]]()
    for number, source in enumerate(sources):
        try:
            loaded = files.load(source, handling)
            if outputs is None:
                options = files.without_a_name(loaded, handling.options)
                task = Task(source, targets.STDOUT, options, None)
            else:
                task = Task(source, outputs[number], handling.options, overwrite)
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


def _upscale_each(
    tasks: Sequence[Task],
    entry: ModelEntry,
    upscaler: Upscaler,
    settings: Settings,
    report: Report,
    handling: Handling,
    *,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Enlarge every image, whatever becomes of the others, and enter it in the report."""
    from resshift_cli.imaging import files, targets
    from resshift_cli.restoration import provenance
    from resshift_cli.restoration import settings as plan
    from resshift_cli.system.device import precision_name

    note = provenance.note(entry, settings)
    precision = precision_name(upscaler.dtype)
    machine = {"device": str(upscaler.device), "precision": precision}
    for number, task in enumerate(tasks, 1):
        source, target = task.source.path, task.target
        title = source.name if len(tasks) == 1 else f"[{number}/{len(tasks)}] {source.name}"
        started = time.monotonic()
        try:
            with (
                memory_limit(f"Use a --tile smaller than {settings.tile} for {source.name}."),
                console.progress(title, "tile steps", quiet=quiet) as advance,
            ):
                loaded = files.load(task.source, handling)
                result = files.enlarge(
                    loaded,
                    upscaler.enlarging(settings),
                    advance,
                    size=plan.target_size(*loaded.size, settings.scale),
                    note=note,
                    target=target,
                    options=task.options,
                )
                content = result.content()
                if task.overwrite is None:
                    targets.to_stdout(content)
                else:
                    targets.save(content, target, overwrite=task.overwrite)
        except ResShiftError as error:
            report.fail(source, error)
            _explain(error, debug=debug)
            continue
        except KeyboardInterrupt as interrupt:
            if report.results:
                interrupt.args = (f"{len(report.results)} of {len(tasks)} images were finished",)
            raise
        seconds = time.monotonic() - started
        (height, width), (tall, wide) = loaded.size, result.size
        report.results.append(
            {
                "input": str(source),
                "output": str(target),
                "width": wide,
                "height": tall,
                "input_width": width,
                "input_height": height,
                **asdict(settings),
                **machine,
                "seconds": round(seconds, 3),
                "warnings": loaded.warnings,
            }
        )
        if quiet:
            continue
        for warning in loaded.warnings:
            console.warning(f"warning: {warning}")
        console.note(
            f"{source} {width}x{height} -> {target} {wide}x{tall}, {report.model}, "
            f"{settings.steps} step{'s' * (settings.steps != 1)}, "
            f"{' '.join(machine.values())}, {seconds:.1f} s"
        )
        if not as_json and task.overwrite is not None:
            console.result(target)


def run(arguments: Sequence[str]) -> int:
    """Run a command line, without the program's name; returns the exit code.

    It is `main` without what concerns the whole process.

    Raises:
        BrokenPipeError: nobody reads what it prints.
    """
    settings = CommandLine()
    try:
        command = typer.main.get_command(app)
        # Not `command()`, which would print errors in its own way and swallow Ctrl-C.
        with command.make_context("resshift", list(arguments), obj=settings) as context:
            command.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        return _explain(error, debug=settings.debug)
    return 0


def _explain(error: BaseException, *, debug: bool) -> int:
    """Print one line about an error, after its traceback if asked for; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        what = "Terminated" if isinstance(error, Terminated) else "Interrupted"
        console.note(f"{what}; {str(error) or 'nothing was written'}.")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    if isinstance(error, ResShiftError):
        console.error(str(error), error.hint)
        return error.exit_code
    if out_of_memory(error):
        console.error("There is not enough memory.", "Close other programs, or use smaller images.")
        return ResShiftError.exit_code
    if isinstance(error, OSError):
        console.error(f"{error}.", "Run again with --debug for the traceback.")
        return ResShiftError.exit_code
    # Typer brings its own copy of click, and older ones use click itself: go by the interface.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        context = getattr(error, "ctx", None)
        command = "resshift" if context is None else context.command_path
        message = " ".join(format_message().split())
        console.error(message if message.endswith(".") else f"{message}.", f"See {command} --help.")
        return UsageError.exit_code
    console.error(
        f"This is a bug in resshift: {type(error).__name__}: {error}.",
        "Run again with --debug for the traceback.",
    )
    return BUG


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Run the command line of this process."""
    signal.signal(signal.SIGTERM, _terminate)
    if "_RESSHIFT_COMPLETE" in os.environ:  # the shell asks, in Typer's way, how a word may end
        app(prog_name="resshift")
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:
        # Else Python fails once more when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)
