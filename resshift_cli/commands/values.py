"""The values that options take: which there are, how they are read, and what is refused."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from resshift_cli.errors import OutputError, ResShiftError, UsageError

DEFAULT_MODEL = "realsr-x4-v2"
DEFAULT_VARIABLE = "RESSHIFT_MODEL"
BUNDLED_MODEL = "tiny-x4"
BUNDLED_MENDER = "tiny-x1"  # and filler of thin holes
MAX_PIXELS = 100_000_000
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
COLOUR_FIXES = ("none", "wavelet", "adain")
PROFILES = ("srgb", "display-p3", "a98-rgb", "cmyk")
WRAPS = ("none", "x", "y", "xy")
FORMATS = ("png", "jpg", "webp", "avif", "tiff", "gif", "bmp", "tga", "heic", "jxl")


@dataclass
class CommandLine:
    """What `main` has to know of the command line."""

    debug: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work that models do.

    Attributes:
        command: what does it.
        default: the model that does it where none is named.
        stand_in: the bundled one that does where the default is not to be had, if another.
    """

    command: str
    default: str
    stand_in: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """What its models were trained for."""
        from resshift_cli.weights import registry

        return registry.RUN_BY[self.command]

    @property
    def taken(self) -> str:
        """What does it where no model is named, in words."""
        instead = f", or the bundled {self.stand_in} where that is not to be had"
        return self.default + (instead if self.stand_in else "")

    def models(self, incomplete: str) -> list[str]:
        """Names of its models that begin so, for the shell."""
        return _names(incomplete, self.tasks)


UPSCALE = Work("upscale", DEFAULT_MODEL, BUNDLED_MODEL)
INPAINT = Work("inpaint", "inpaint-imagenet", BUNDLED_MENDER)
RESTORE = Work("restore", BUNDLED_MENDER)
FACE = Work("face", "face")
WORKS = (UPSCALE, INPAINT, RESTORE, FACE)


def set_debug(context: typer.Context, on: bool) -> bool:
    """Have errors shown with their traceback."""
    line = context.ensure_object(CommandLine)
    line.debug |= on  # `resshift --debug upscale` says it for upscale, too
    return line.debug


def goes_to_stdout(on: bool) -> bool:
    """Refuse what goes to stdout where that is closed."""
    if on and sys.stdout.closed:
        raise OutputError("stdout is closed, and --json goes there.", hint="Leave --json out.")
    return on


def device_name(name: str) -> str:
    """A device, in small letters."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", name.lower()):
        raise typer.BadParameter(f"'{name}' is none of auto, cpu, cuda, cuda:N, mps and xpu.")
    return name.lower()


def device_names(names: str | None) -> str | None:
    """Devices with commas between them, of one kind, in small letters; or all."""
    if names is None or names.lower() == "all":
        return names and "all"
    devices = [device_name(name.strip()) for name in names.split(",")]
    if "auto" in devices or len({name.partition(":")[0] for name in devices}) > 1:
        raise typer.BadParameter(f"'{names}' is no list of one kind, such as cuda:0,cuda:1.")
    return ",".join(devices)


def shard(text: str | None) -> str | None:
    """A part of so many such as 3/8, with auto replaced by what a scheduler says."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,7}|auto)/(\d{1,7})", text)
    if match is None:
        raise typer.BadParameter(f"'{text}' is no part of so many, such as 3/8.")
    number = _task_number() if match[1] == "auto" else int(match[1])
    if not 1 <= number <= int(match[2]):
        raise typer.BadParameter(
            f"{number}/{match[2]} is none of 1/{match[2]} to {match[2]}/{match[2]}."
        )
    return f"{number}/{int(match[2])}"


def _task_number() -> int:
    """Which task of an array this is, from 1."""
    for name, first in (
        ("SLURM_ARRAY_TASK_ID", os.environ.get("SLURM_ARRAY_TASK_MIN", "1")),
        ("JOB_COMPLETION_INDEX", "0"),
    ):
        value = os.environ.get(name)
        if value and value.isdecimal() and first.isdecimal():
            return int(value) - int(first) + 1
    raise typer.BadParameter(
        "auto needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX in the environment."
    )


def precision_name(name: str) -> str:
    """A precision, in small letters."""
    return one_of(PRECISIONS, name)


def precision_names(names: list[str] | None) -> list[str] | None:
    """The same for an option that may be repeated."""
    return None if names is None else [precision_name(name) for name in names]


def colour_fix(name: str | None) -> str | None:
    """A colour fix, in small letters."""
    return None if name is None else one_of(COLOUR_FIXES, name)


def wrap(axes: str) -> str:
    """Axes, in small letters."""
    return one_of(WRAPS, axes)


def one_of(values: Sequence[str], name: str) -> str:
    """One of a few values, in small letters."""
    if name.lower() not in values:
        *others, last = values
        raise typer.BadParameter(f"'{name}' is none of {', '.join(others)} and {last}.")
    return name.lower()


def factor(text: str | float) -> float:
    """A factor such as 4, 2.5, 4x or x4."""
    try:
        return float(str(text).lower().strip("x"))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no number, such as 4 or 2.5.") from None


@dataclass(frozen=True, slots=True)
class Sides:
    """Width and height in pixels, as 1920x1080."""

    width: int
    height: int


def sides(text: str | Sides) -> Sides:
    """Two sides such as 1920x1080."""
    match = re.fullmatch(r"(\d{1,9}) *[x×] *(\d{1,9})", str(text).lower())
    if match is None or "0" in match.groups():
        raise typer.BadParameter(f"'{text}' is no size, such as 1920x1080.")
    return Sides(*map(int, match.groups()))


def part_of_a_name(text: str | None) -> str | None:
    """Text that may stand in a file's name."""
    if text is not None and re.search(r"[/\\\0]", text):
        raise typer.BadParameter(f"'{text}' can't be part of a file's name.")
    return text


def place(text: str | None) -> str | None:
    """A folder or a file: a path, or a URL as it is."""
    from resshift_cli.system.storage import is_url

    return text if text is None or is_url(text) else str(Path(text))


def completed(*values: str) -> Callable[[str], list[str]]:
    """What the shell offers where one of a few values is wanted."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def byte_count(size: str | int) -> int:
    """Bytes of 4G, 1.5GiB, 800MB and the like, by powers of 1024."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) *([KMGT]?)(?:i?B)?", str(size), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"'{size}' is no size, such as 4G or 800M.")
    number, unit = match.groups()
    count = int(float(number) * 1024 ** " KMGT".index(unit.upper() or " "))
    if 0 < count < 1024**2:  # somebody meant another unit
        raise typer.BadParameter(f"'{size}' is {count} bytes; give a unit, such as 4G or 800M.")
    return count


def within(low: int, high: float) -> Callable[[float | None], float | None]:
    """A check that, unlike Typer's own, refuses nan and reads the same whatever the version."""

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            span = f"{low} or more" if high == math.inf else f"from {low} to {high}"
            raise typer.BadParameter(f"{value} is not {span}.")
        return value

    return check


def each_within(low: int, high: float) -> Callable[[list[float] | None], list[float | None] | None]:
    """The same for an option that may be repeated."""
    check = within(low, high)
    return lambda values: None if values is None else [check(value) for value in values]


def model_names(incomplete: str) -> list[str]:
    """Names of models of every kind that begin so, for the shell."""
    return _names(incomplete, None)


def background_names(incomplete: str) -> list[str]:
    """What may make the background of faces and begins so, for the shell."""
    return [*completed("none")(incomplete), *UPSCALE.models(incomplete)]


def _names(incomplete: str, tasks: Sequence[str] | None) -> list[str]:
    from resshift_cli.weights import registry

    try:
        known = registry.models().values()
    except ResShiftError:  # a broken registry is told of when a command runs
        return []
    of_these = [entry.name for entry in known if tasks is None or entry.task in tasks]
    return [name for name in of_these if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True)
class Area:
    """Pixels from the left, from the top, across and down, as 10,20,300,40."""

    x: int
    y: int
    width: int
    height: int


def area(text: str | Area) -> Area:
    """A rectangle such as 10,20,300,40."""
    from resshift_cli.imaging.masks import Rectangle

    try:
        found = Rectangle.of(str(text))
    except UsageError as error:
        raise typer.BadParameter(f"{error} {error.hint}") from error
    return Area(found.x, found.y, found.width, found.height)
