"""The command `resshift`: one thin function per command, and `main`, the one place that catches.

Nothing heavy is imported before a command has its arguments, and torch only once the cheap checks
are passed.
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from resshift_cli import __version__, console
from resshift_cli.errors import InputMissingError, ResShiftError, UsageError

if TYPE_CHECKING:
    from resshift_cli.upscaler import Settings, Upscaler

DEFAULT_MODEL = "tiny-x4"
BUG, INTERRUPTED, BROKEN_PIPE, TERMINATED = 70, 130, 141, 143  # the rest is in errors.py

EPILOG = """\b
Exit codes:
  0    done
  1    a job failed
  2    the request can't be read, or asks for the impossible
  3    an input file is missing, or can't be opened
  4    an input file is no image, is damaged or too large
  5    an image of a kind that is not handled yet
  6    a result can't be written, or would replace a file
  7    a weight file is missing, damaged or does not fit
  8    the device or precision asked for is not here
  70   a bug in resshift
  130  interrupted by Ctrl-C (143: terminated, 141: nobody reads the output)
"""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(rich_markup_mode=None, help="The models that --model knows.")
app.add_typer(models_app, name="models")


@dataclass
class CommandLine:
    """What `main` has to know of the command line."""

    debug: bool = False


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything that cleans up after Ctrl-C cleans up after it too."""


def _set_debug(context: typer.Context, on: bool) -> bool:
    context.ensure_object(CommandLine).debug |= on
    return on


def _show_version(on: bool) -> None:
    if on:
        print(f"resshift {__version__}")
        raise typer.Exit()


def _device_name(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise typer.BadParameter(f"'{name}' is none of auto, cpu, cuda, cuda:N and mps.")
    return name


def _precision_name(name: str) -> str:
    if name not in ("auto", "fp32", "bf16", "fp16"):
        raise typer.BadParameter(f"'{name}' is none of auto, fp32, bf16 and fp16.")
    return name


def _within(low: int, high: float) -> Callable[[float | None], float | None]:
    """A check that, unlike Typer's own, refuses nan and reads the same whatever the version."""

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            span = f"{low} or more" if high == math.inf else f"from {low} to {high}"
            raise typer.BadParameter(f"{value} is not {span}.")
        return value

    return check


# `readable=False` leaves it to the rooms that read to say what can't be read.
InputsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT", readable=False, help="Images to enlarge.", show_default=False),
]
OutputOption = Annotated[
    str | None,  # a Path would lose the slash at its end
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="Where the result goes: a file, or a folder, which is created if it ends with a "
        "slash. By default photo.jpg becomes photo_x4.jpg beside it.",
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        callback=_within(1, 16),
        help="Output over input size along each side, any number from 1 to 16. By default the "
        "model's own factor, 4 for tiny-x4.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"One of `resshift models list`. By default {DEFAULT_MODEL}.",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.safetensors",
        readable=False,
        help="A weight file of your own, as `resshift train` writes it, instead of --model.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=_within(1, math.inf),
        help="Steps of the chain, from 1 (smooth, fast) to the number that the model was trained "
        "with (detailed; the default, 15 for tiny-x4).",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=_within(0, 2**64 - 1),
        help="Start of the random numbers, 0 to 2^64 - 1; the same seed gives the same result.",
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=_within(1, math.inf),
        help="Largest side of the tiles that large images are cut into, in pixels of the input; "
        "smaller ones need less memory. By default as the model says, 96 for tiny-x4.",
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=_within(0, math.inf),
        help="What neighbouring tiles share, in pixels of the input; less than --tile. By default "
        "as the model says, 8 for tiny-x4.",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        callback=_within(0, 1),
        help="What the noise of the chain's steps is multiplied by, 0 to 1: lower is cleaner, "
        "higher has more texture. By default as the model says, 0.95 for tiny-x4.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        callback=_device_name,
        help="Where to compute: auto (a GPU if there is one), cpu, cuda, cuda:N or mps.",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        callback=_precision_name,
        help="What to compute in: auto (the fastest that is safe on the device), fp32, bf16 or "
        "fp16.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", help="Whether to replace existing files.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", is_eager=True, callback=_set_debug, help="Show the traceback of an error."
    ),
]


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
    steps: StepsOption = None,
    seed: SeedOption = 0,
    tile: TileOption = None,
    overlap: OverlapOption = None,
    temperature: TemperatureOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Enlarge images.

    All inputs and outputs are checked before the work starts. If an image fails later on, the
    others are still done, and the exit code is that of the first failure.

    Progress and a summary go to stderr. stdout stays empty on a terminal; in a pipe it gets the
    path of every result, one per line, or with --json one object that holds everything.
    """
    from resshift_cli import images, specs

    if model is not None and weights is not None:
        raise UsageError("--model and --weights exclude each other.", hint="Leave one out.")
    name = model or DEFAULT_MODEL
    report = Report(__version__, name if weights is None else weights.name)
    try:
        spec = specs.read_spec(specs.find(name).path if weights is None else weights)
        factor = float(spec.scale) if scale is None else scale
        targets = images.plan_outputs(inputs, scale=factor, destination=output)
        jobs = list(zip(inputs, targets, strict=True))
        with _created(images.output_folder(output, several=len(jobs) > 1)):
            with console.waiting("Checking the images", quiet=quiet):
                _check(jobs, factor, report, overwrite=overwrite)
            with console.waiting(f"Loading {report.model}", quiet=quiet):
                from resshift_cli.upscaler import Upscaler

                machine = {"device": device, "precision": precision}
                upscaler = (
                    Upscaler.from_pretrained(name, **machine)
                    if weights is None
                    else Upscaler.from_file(weights, **machine)
                )
            settings = upscaler.settings(
                scale=factor,
                steps=steps,
                seed=seed,
                tile=tile,
                overlap=overlap,
                temperature=temperature,
            )
            _upscale_each(
                jobs,
                upscaler,
                settings,
                report,
                overwrite=overwrite,
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


@models_app.command("list")
def list_models(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the models that --model knows."""
    from resshift_cli import specs

    known = specs.registry()
    if as_json:
        entries = [{"name": name, **asdict(entry)} for name, entry in known.items()]
        console.document({"version": __version__, "models": entries})
        return
    console.table(
        ("NAME", "LICENCE", "COMMERCIAL USE", "DESCRIPTION"),
        [
            (name, entry.licence, "yes" if entry.commercial else "no", entry.description)
            for name, entry in known.items()
        ],
    )


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", readable=False, help="TOML file, as training/tiny-x4.toml."
        ),
    ],
    photos: Annotated[
        Path,
        typer.Option(
            metavar="DIR", readable=False, help="The folder of pictures.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The folder of the run: its state, its metrics, and model.safetensors for "
            "--weights. A run that is there already goes on.",
            show_default=False,
        ),
    ],
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors", readable=False, help="A weight file to start from."
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Train a model, or go on where an earlier run was interrupted."""
    for path, kind, there in (
        (config, "file", config.is_file()),
        (photos, "folder", photos.is_dir()),
        (init, "file", init is None or init.is_file()),
    ):
        if not there:
            raise InputMissingError(f"There is no {kind} {path}.", hint="Check its name.")
    with console.waiting("Starting"):
        from resshift_cli import train as training
        from resshift_cli.device import choose_device

        total = training.read_config(config).train.steps
        run_on = choose_device(device)
    steps = training.train(config, photos, out, seed=seed, device=run_on, init=init)
    gain = ""
    try:
        with (
            _memory_limit(f"Lower `batch` or `crop` in {config}."),
            console.progress(out.name, "steps") as advance,
        ):
            for metrics in steps:
                if "gain_db" in metrics:
                    gain = f", {metrics['gain_db']:+.2f} dB over bicubic"
                advance(int(metrics["step"]), total, f"loss {metrics['loss']:.4f}{gain}")
    except KeyboardInterrupt as interrupt:
        interrupt.args = ("the same command goes on from the last saved step",)
        raise
    weights = out / "model.safetensors"
    console.note(f"{total} steps of training are done{gain}: {weights}")
    console.result(weights)


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


def _check(
    jobs: Sequence[tuple[Path, Path]], scale: float, report: Report, *, overwrite: bool
) -> None:
    """Find out before the work whether every input can be read and every result written.

    Inputs are decoded, which takes little beside enlarging them, so that a damaged one is known
    now and not hours later.
    """
    from resshift_cli import images

    for source, target in jobs:
        try:
            picture = images.read(source)
            images.check_writable(target, overwrite=overwrite)
            height, width = (max(1, round(side * scale)) for side in picture.pixels.shape[:2])
            images.check_encodable(picture, target, size=(height, width))
        except ResShiftError as error:
            report.fail(source, error)
            raise


def _upscale_each(
    jobs: Sequence[tuple[Path, Path]],
    upscaler: Upscaler,
    settings: Settings,
    report: Report,
    *,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Enlarge every image, whatever becomes of the others, and enter it in the report."""
    from resshift_cli import images
    from resshift_cli.device import DTYPES

    precision = next(name for name, dtype in DTYPES.items() if dtype == upscaler.dtype)
    machine = {"device": str(upscaler.device), "precision": precision}
    for number, (source, target) in enumerate(jobs, 1):
        title = source.name if len(jobs) == 1 else f"[{number}/{len(jobs)}] {source.name}"
        started = time.monotonic()
        try:
            with (
                _memory_limit(f"Use a --tile smaller than {settings.tile} for {source.name}."),
                console.progress(title, "tile steps", quiet=quiet) as advance,
            ):
                picture = images.read(source)
                pixels = upscaler.enlarge(picture.pixels, settings, advance)
                images.write(picture.with_pixels(pixels), target, overwrite=overwrite)
        except ResShiftError as error:
            report.fail(source, error)
            _explain(error, debug=debug)
            continue
        except KeyboardInterrupt as interrupt:
            if report.results:
                interrupt.args = (f"{len(report.results)} of {len(jobs)} images were finished",)
            raise
        seconds = time.monotonic() - started
        (height, width), (tall, wide) = picture.pixels.shape[:2], pixels.shape[:2]
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


@contextmanager
def _memory_limit(hint: str) -> Iterator[None]:
    """Turn what Python and torch raise when memory runs out into an error with a way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("out of memory", "can't allocate memory")
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        raise ResShiftError("There is not enough memory.", hint=hint) from error


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
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:
        # Else Python fails once more when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)
