"""Options of the command line, each declared once."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from resshift_cli.errors import OutputError, ResShiftError

DEFAULT_MODEL = "realsr-x4-v2"
DEFAULT_VARIABLE = "RESSHIFT_MODEL"
BUNDLED_MODEL = "tiny-x4"
MAX_PIXELS = 100_000_000
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
COLOUR_FIXES = ("none", "wavelet", "adain")
FORMATS = ("png", "jpg", "webp", "avif", "tiff", "gif", "bmp", "heic", "jxl")


@dataclass
class CommandLine:
    """What `main` has to know of the command line."""

    debug: bool = False


def _set_debug(context: typer.Context, on: bool) -> bool:
    line = context.ensure_object(CommandLine)
    line.debug |= on  # `resshift --debug upscale` says it for upscale, too
    return line.debug


def _json(on: bool) -> bool:
    if on and sys.stdout.closed:
        raise OutputError("stdout is closed, and --json goes there.", hint="Leave --json out.")
    return on


def _device_name(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name.lower()):
        raise typer.BadParameter(f"'{name}' is none of auto, cpu, cuda, cuda:N and mps.")
    return name.lower()


def _precision_name(name: str) -> str:
    return _one_of(PRECISIONS, name)


def _precision_names(names: list[str] | None) -> list[str] | None:
    return None if names is None else [_precision_name(name) for name in names]


def _colour_fix(name: str | None) -> str | None:
    return None if name is None else _one_of(COLOUR_FIXES, name)


def _one_of(values: Sequence[str], name: str) -> str:
    if name.lower() not in values:
        *others, last = values
        raise typer.BadParameter(f"'{name}' is none of {', '.join(others)} and {last}.")
    return name.lower()


def _factor(text: str | float) -> float:
    """A factor such as 4, 2.5, 4x or x4."""
    try:
        return float(str(text).lower().strip("x"))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no number, such as 4 or 2.5.") from None


def _completed(*values: str) -> Callable[[str], list[str]]:
    """What the shell offers where one of a few values is wanted."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def _bytes(size: str | int) -> int:
    """Bytes of 4G, 1.5GiB, 800MB and the like, by powers of 1024."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) *([KMGT]?)(?:i?B)?", str(size), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"'{size}' is no size, such as 4G or 800M.")
    number, unit = match.groups()
    count = int(float(number) * 1024 ** " KMGT".index(unit.upper() or " "))
    if 0 < count < 1024**2:  # somebody meant another unit
        raise typer.BadParameter(f"'{size}' is {count} bytes; give a unit, such as 4G or 800M.")
    return count


def _within(low: int, high: float) -> Callable[[float | None], float | None]:
    """A check that, unlike Typer's own, refuses nan and reads the same whatever the version."""

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            span = f"{low} or more" if high == math.inf else f"from {low} to {high}"
            raise typer.BadParameter(f"{value} is not {span}.")
        return value

    return check


def _each_within(low: int, high: float) -> Callable[[list[int] | None], list[float | None] | None]:
    """The same for an option that may be repeated."""
    check = _within(low, high)
    return lambda values: None if values is None else [check(value) for value in values]


def _model_names(incomplete: str) -> list[str]:
    """Names that begin so, for the shell."""
    from resshift_cli.weights import registry

    try:
        return [name for name in registry.models() if name.startswith(incomplete)]
    except ResShiftError:  # a broken registry is told of when a command runs
        return []


# `readable=False` leaves it to the rooms that read to say what can't be read.
InputsArgument = Annotated[
    list[str],  # a Path would take ./- for -
    typer.Argument(
        metavar="INPUT",
        help="Images to enlarge; - reads one from stdin.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    str | None,  # a Path would lose the slash at its end
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="Where the result goes: a file, or a folder, which is created if it ends with a "
        "slash, or - for stdout. By default photo.jpg becomes photo_x4.jpg beside it, and what "
        "came from stdin goes to stdout.",
    ),
]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", readable=False, help="The folder of images.", show_default=False),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        readable=False,
        help="The folder of the results, with the same folders in it. By default DIR_x4 beside "
        "DIR.",
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Take only files like this, such as '*.png' or 'trip/*'; may be repeated. By default "
        "what has an image's extension.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Leave out files and folders like this, such as '*_small.*'; may be repeated.",
    ),
]
HiddenOption = Annotated[
    bool, typer.Option("--hidden", help="Take files and folders that begin with a dot, too.")
]
FailFastOption = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Tell what would be done, and about what time, memory and disk space it would take.",
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Prove that the folder is finished, by its ledger, without a model: every image has a "
        "result that is as it was made, of an input that is as it was.",
    ),
]
TableOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html|csv",
        readable=False,
        help="Write what became of every image to a file for people, too.",
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        parser=_factor,
        callback=_within(1, 16),
        help="Output over input size along each side, any number from 1 to 16. By default the "
        "model's own factor, mostly 4.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=_model_names,
        help=f"One of `resshift models list`, fetched when it is first used. By default "
        f"${DEFAULT_VARIABLE} or {DEFAULT_MODEL}; where that is neither here nor to be had, the "
        f"bundled {BUNDLED_MODEL}. With --weights: the model whose networks the file fits.",
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=_model_names,
        help="One of `resshift models list`, fetched when it is first used; may be repeated. By "
        "default the one that `resshift upscale` uses. With --weights: the model whose networks "
        "the file fits.",
    ),
]
MeasuredModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=_model_names,
        help="A model to measure, fetched when it is first used; may be repeated. By default the "
        "one that `resshift upscale` uses.",
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=_model_names, help="A model's name.", show_default=False
    ),
]
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", autocompletion=_model_names, help="Models' names.", show_default=False
    ),
]
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FILE.toml",
        readable=False,
        help="A file like this package's weights.toml, with more models or other ones.",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Touch no network; HF_HUB_OFFLINE=1 does the same.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.safetensors",
        readable=False,
        help="A weight file of your own, as `resshift train` writes it.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=_within(1, math.inf),
        help="Steps of the chain, from 1 (smooth, fast) to the number that the model was trained "
        "with (detailed; the default).",
    ),
]
StepCountsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--steps",
        metavar="N",
        callback=_each_within(1, math.inf),
        help="Steps of the chain, a row for each; may be repeated. By default as many as each "
        "model was trained with.",
    ),
]
WholeScaleOption = Annotated[
    int | None,
    typer.Option(
        "--scale",
        metavar="N",
        callback=_within(2, 16),
        help="Side of an original over its partner's, 2 to 16. By default the models' own factor.",
    ),
]
CropOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=_within(32, math.inf),
        help="Measure the middle of every original only, so many pixels square; 32 or more.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", callback=_within(1, math.inf), help="Take the first N originals only."
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
        "smaller ones need less memory. By default as the model says.",
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=_within(0, math.inf),
        help="What neighbouring tiles share, in pixels of the input; less than --tile. By default "
        "as the model says.",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        callback=_within(0, 1),
        help="What the noise of the chain's steps is multiplied by, 0 to 1: lower is cleaner, "
        "higher has more texture. By default as the model says.",
    ),
]
ColorFixOption = Annotated[
    str | None,
    typer.Option(
        "--color-fix",
        metavar="WAY",
        autocompletion=_completed(*COLOUR_FIXES),
        callback=_colour_fix,
        help="How results keep the colours of their input: wavelet (the low frequencies are the "
        "input's), adain (mean and contrast around every pixel are), or none. By default as the "
        "model says.",
    ),
]
ConsistencyOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        callback=_within(0, 1),
        help="How far a result is brought to where its reduction equals the input, 0 to 1. Good "
        "for clean images; brings back the noise of others.",
    ),
]
MaxMemoryOption = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=_bytes,
        help="What to take of the device's memory at most, such as 4G or 800M: tiles and batches "
        "are chosen by that. By default by what is free.",
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Have torch compile the networks, and on an NVIDIA card record them as CUDA graphs: "
        "minutes at the first image, and for every other size of tile, but kept for later runs. A "
        "CPU is faster without it.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        autocompletion=_completed(*DEVICES),
        callback=_device_name,
        help="Where to compute: auto (a GPU if there is one), cpu, cuda, cuda:N or mps.",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        autocompletion=_completed(*PRECISIONS),
        callback=_precision_name,
        help="What to compute in: auto (the fastest that is safe on the device), fp32, bf16 or "
        "fp16.",
    ),
]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="TYPE",
        autocompletion=_completed(*PRECISIONS),
        callback=_precision_names,
        help="auto, fp32, bf16 or fp16; may be repeated. By default fp32 and auto.",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="EXT",
        autocompletion=_completed(*FORMATS),
        help="Format of the results: png, jpg, webp, avif, tiff, gif, "
        "bmp, heic or jxl. By default as the name of the result says; on stdout as the input, "
        "and PNG in place of GIF.",
    ),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="1 to 100, for formats with loss: JPEG and WebP 95, AVIF and HEIC 90 by default.",
    ),
]
LosslessOption = Annotated[
    bool,
    typer.Option(
        "--lossless", help="Write WebP or JPEG XL without loss; refuse formats that can't."
    ),
]
CompressionOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="0 (none) to 9 (smallest), for PNG (6 by default) and TIFF (0).",
    ),
]
DepthOption = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        help="8 or 16 bits per channel; by default as the input has, where the format can.",
    ),
]
StripOption = Annotated[
    bool,
    typer.Option(
        "--strip-metadata", help="Leave out all metadata but colour profile and resolution."
    ),
]
FirstFrameOption = Annotated[
    bool, typer.Option("--first-frame", help="Take the first frame or page of a file only.")
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=_within(1, math.inf),
        help="Refuse images of more pixels than that, before they are decoded.",
    ),
]
AllowTruncatedOption = Annotated[
    bool,
    typer.Option(
        "--allow-truncated",
        help="Read a PNG, JPEG, GIF, BMP or TIFF that is cut short or damaged as far as it goes, "
        "of an animation the frames before the damage, with a warning. Other formats are only "
        "read whole.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", help="Whether to replace existing files.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
JsonOption = Annotated[
    bool, typer.Option("--json", callback=_json, help="Print one JSON object on stdout.")
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", is_eager=True, callback=_set_debug, help="Show the traceback of an error."
    ),
]
