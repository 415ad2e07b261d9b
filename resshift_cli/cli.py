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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from resshift_cli import __version__, cli_batch, cli_models, cli_train, console, jobs
from resshift_cli.errors import BUG, ResShiftError, UsageError
from resshift_cli.options import (
    CommandLine,
    CompressionOption,
    DebugOption,
    DepthOption,
    DeviceOption,
    FirstFrameOption,
    FormatOption,
    InputsArgument,
    JsonOption,
    LosslessOption,
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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resshift_cli.animation import Animation
    from resshift_cli.formats import SaveOptions
    from resshift_cli.images import Picture
    from resshift_cli.plan import Settings
    from resshift_cli.registry import ModelEntry
    from resshift_cli.upscaler import Upscaler

INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # the rest is in errors.py

EPILOG = """\b
Exit codes:
  0    done
  1    a job failed
  2    the request can't be read, or asks for the impossible
  3    an input file is missing, or can't be opened
  4    an input file is no image, is damaged or too large
  5    an image of a kind that is not handled yet
  6    a result can't be written, or would replace a file
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
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    file_format: FormatOption = None,
    quality: QualityOption = None,
    lossless: LosslessOption = False,
    compression: CompressionOption = None,
    depth: DepthOption = None,
    strip_metadata: StripOption = False,
    first_frame: FirstFrameOption = False,
    max_pixels: MaxPixelsOption = 100_000_000,
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
    """
    from resshift_cli import images
    from resshift_cli.formats import SaveOptions

    handling = Handling(
        SaveOptions(
            format=file_format,
            quality=quality,
            lossless=lossless,
            compression=compression,
            depth=depth,
            strip_metadata=strip_metadata,
        ),
        overwrite=overwrite,
        first_frame=first_frame,
        max_pixels=max_pixels,
    )
    entry = cli_models.choose(model, weights, registry, offline=offline)
    report = Report(__version__, entry.name)
    try:
        spec = jobs.spec_of(entry, offline=offline, quiet=quiet)
        factor = float(spec.scale) if scale is None else scale
        targets = images.plan_outputs(
            inputs, scale=factor, destination=output, options=handling.options
        )
        pairs = list(zip(inputs, targets, strict=True))
        with _created(images.output_folder(output, several=len(pairs) > 1)):
            with console.waiting("Checking the images", quiet=quiet):
                sizes = _check(pairs, factor, report, handling)
            upscaler = jobs.load(
                entry, offline=offline, quiet=quiet, device=device, precision=precision
            )
            settings = upscaler.settings(
                scale=factor,
                steps=steps,
                seed=seed,
                tile=tile,
                overlap=overlap,
                temperature=temperature,
            )
            if not quiet:
                jobs.announce(entry, upscaler, settings, sizes)
            _upscale_each(
                pairs,
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
                "message": str(error),
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        )


@contextmanager
def _created(folder: Path | None) -> Iterator[None]:
    """Have a folder for the results, and leave none behind that got nothing."""
    from resshift_cli import images

    if folder is None:
        yield
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    images.create_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # the first one that is not empty
            for path in new:
                path.rmdir()


@dataclass(frozen=True)
class Handling:
    """How image files are read and written."""

    options: SaveOptions
    overwrite: bool
    first_frame: bool
    max_pixels: int

    def open(self, source: Path) -> tuple[Picture, Animation | None]:
        """The image, or the first frame of an animation and what else there is to know of it."""
        from resshift_cli import animation, images

        moving = None if self.first_frame else animation.probe(source, max_pixels=self.max_pixels)
        if moving is not None:
            return next(animation.read(moving, max_pixels=self.max_pixels)), moving
        return images.read(source, max_pixels=self.max_pixels, first_frame=self.first_frame), None


def _check(
    pairs: Sequence[tuple[Path, Path]], scale: float, report: Report, handling: Handling
) -> list[tuple[int, int]]:
    """Find out before the work whether every input can be read and every result written.

    Returns the heights and widths of all that will be enlarged, every frame counted.

    Inputs are decoded, which takes little beside enlarging them, so that a damaged one is known
    now and not hours later.
    """
    from resshift_cli import animation, images

    sizes = []
    for source, target in pairs:
        try:
            picture, moving = handling.open(source)
            images.check_writable(target, overwrite=handling.overwrite, options=handling.options)
            if moving is not None:
                animation.check_target(target, options=handling.options)
            height, width = picture.pixels.shape[:2]
            large = (max(1, round(height * scale)), max(1, round(width * scale)))
            images.check_encodable(picture, target, size=large, options=handling.options)
            sizes += [(height, width)] * (1 if moving is None else len(moving.milliseconds))
        except ResShiftError as error:
            report.fail(source, error)
            raise
    return sizes


def _enlarge(
    source: Path,
    target: Path,
    enlarge: Callable[[NDArray[np.float32], Callable[[int, int], None]], NDArray[np.float32]],
    note: str,
    handling: Handling,
    advance: console.Advance,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Enlarge one file; returns the heights and widths before and after."""
    from resshift_cli import animation, images

    picture, moving = handling.open(source)
    before, count = picture.pixels.shape[:2], 1 if moving is None else len(moving.milliseconds)
    after = before

    def enlarged(picture: Picture, number: int) -> Picture:
        nonlocal after

        def told(done: int, total: int) -> None:
            advance(number * total + done, count * total)

        pixels = enlarge(picture.pixels, told)
        after = pixels.shape[:2]
        return replace(picture, pixels=pixels, note=note)

    overwrite, options = handling.overwrite, handling.options
    if moving is None:
        images.write(enlarged(picture, 0), target, overwrite=overwrite, options=options)
    else:  # with the same noise for every frame, so that what stands still stays so
        frames = animation.read(moving, max_pixels=handling.max_pixels)
        results = (enlarged(frame, number) for number, frame in enumerate(frames))
        animation.write(results, moving, target, overwrite=overwrite, options=options)
    return before, after


def _upscale_each(
    pairs: Sequence[tuple[Path, Path]],
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
    note = jobs.note(entry, settings)
    precision = jobs.precision_name(upscaler.dtype)
    machine = {"device": str(upscaler.device), "precision": precision}
    for number, (source, target) in enumerate(pairs, 1):
        title = source.name if len(pairs) == 1 else f"[{number}/{len(pairs)}] {source.name}"
        started = time.monotonic()
        try:
            with (
                jobs.memory_limit(f"Use a --tile smaller than {settings.tile} for {source.name}."),
                console.progress(title, "tile steps", quiet=quiet) as advance,
            ):
                (height, width), (tall, wide) = _enlarge(
                    source,
                    target,
                    lambda pixels, told: upscaler.enlarge(pixels, settings, told),
                    note,
                    handling,
                    advance,
                )
        except ResShiftError as error:
            report.fail(source, error)
            _explain(error, debug=debug)
            continue
        except KeyboardInterrupt as interrupt:
            if report.results:
                interrupt.args = (f"{len(report.results)} of {len(pairs)} images were finished",)
            raise
        seconds = time.monotonic() - started
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
            }
        )
        if not quiet:
            console.note(
                f"{source} {width}x{height} -> {target} {wide}x{tall}, {report.model}, "
                f"{settings.steps} step{'s' * (settings.steps != 1)}, "
                f"{' '.join(machine.values())}, {seconds:.1f} s"
            )
            if not as_json:
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
