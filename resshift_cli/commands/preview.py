"""`resshift preview`: what settings do, seen on one crop before the work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import choice, console, pages, progress, ready, values
from resshift_cli.commands.file_options import OverwriteOption
from resshift_cli.commands.groups import Computation, Machine, Model, Options, Reading, Reporting
from resshift_cli.commands.options import (
    DetailsOption,
    ModelsOption,
    OfflineOption,
    RegistryOption,
    ScaleOption,
    StepCountsOption,
)
from resshift_cli.commands.pages import OpenOption
from resshift_cli.errors import UsageError, memory_limit, printable

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Loaded
    from resshift_cli.imaging.picture import Pixels
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.viewing.crops import Crop, Sight
    from resshift_cli.viewing.exhibits import Exhibit
    from resshift_cli.weights.registry import ModelEntry

MOST = 24  # settings that are tried
EXTENSIONS = (".png", *pages.EXTENSIONS)


@dataclass(frozen=True, slots=True)
class Trials(Options):
    """What is to be chosen between: every one of these with every other."""

    panel = "What to choose between"

    model: ModelsOption = None
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.safetensors",
            readable=False,
            help="A weight file of your own; may be repeated.",
        ),
    ] = None
    steps: StepCountsOption = None
    detail: DetailsOption = None
    seed: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            callback=values.each_within(0, 2**64 - 1),
            help="Start of the random numbers; may be repeated. By default 0.",
        ),
    ] = None
    scale: ScaleOption = None
    registry: RegistryOption = None
    offline: OfflineOption = False

    def arguments(self) -> Iterator[dict[str, Any]]:
        """As `Upscaler.settings` takes them, one after another."""
        counts: list[int | None] = [*(self.steps or [])] or [None]
        details: list[float | None] = [*(self.detail or [])] or [None]
        for steps, detail, seed in product(counts, details, self.seed or [0]):
            yield {"steps": steps, "detail": detail, "seed": seed, "scale": self.scale}


@dataclass(frozen=True, slots=True)
class Part(Options):
    """Which part of the photo is shown."""

    panel = "Which part"

    at: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="Its middle, in pixels from the left and from the top. By default where most is "
            "to be seen.",
        ),
    ] = None
    size: Annotated[
        int,
        typer.Option(metavar="PIXELS", callback=values.within(16, 1024), help="Its side."),
    ] = 128

    def point(self) -> tuple[int, int] | None:
        """Its middle, if that is said.

        Raises:
            UsageError: it is no place.
        """
        if self.at is None:
            return None
        x, _, y = self.at.partition(",")
        if not (x.strip().isdecimal() and y.strip().isdecimal()):
            raise UsageError(
                f"--at '{printable(self.at)}' is no place.", hint="Give pixels, such as: --at 40,25"
            )
        return int(x), int(y)


@dataclass(frozen=True, slots=True)
class SheetWriting(Options):
    """How the sheet is written."""

    panel = "How to write the sheet"

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.png|FILE.html|DIR",
            help="A sheet as an image, or a page that compares in the browser; a folder is created "
            "if it ends with a slash. By default that of photo.jpg is photo_preview.png beside it.",
        ),
    ] = None
    overwrite: OverwriteOption = False
    opened: OpenOption = False


def preview(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", readable=False, help="What is to be enlarged.")
    ],
    *,
    trials: Trials,
    part: Part,
    writing: SheetWriting,
    machine: Machine,
    reading: Reading,
    reporting: Reporting,
) -> None:
    """Show one crop of a photo at settings to choose between, bicubic first.

    Beside each stands what it took, and about what the whole photo will take. The crop is enlarged
    with a little of what is around it: what a model makes up there differs somewhat from what it
    will in the whole photo.
    """
    from resshift_cli.viewing.crops import Sight

    quiet = reporting.quiet
    point = part.point()
    usual = pages.name_for(photo, "_preview.png")
    with pages.placed(
        usual, writing.output, [photo], overwrite=writing.overwrite, extensions=EXTENSIONS
    ) as path:
        with console.waiting("Reading the photo", quiet=quiet):
            loaded = _loaded(photo, reading)
            crop = _crop(loaded, point, part.size)
            sight = Sight.of(crop, loaded.rows, loaded.size)
        shots = list(_shots(trials, sight, loaded, machine, quiet=quiet))
        place = f"{crop.width}x{crop.height} at {crop.left}, {crop.top}"
        exhibits = _exhibits(shots, sight, loaded.picture.icc)
        _write(path, f"{photo.name}, {place}", exhibits, overwrite=writing.overwrite, quiet=quiet)
    if reporting.as_json:
        console.document(_document(photo, path, crop, shots))
    elif not quiet:
        console.note(f"{photo} {place} at {len(shots)} settings -> {path}")
        console.result(path)
    if writing.opened:
        pages.show(path)


@dataclass(frozen=True, slots=True)
class Shot:
    """The crop as one model makes it with one choice of settings.

    Attributes:
        entry: the model.
        settings: how.
        pixels: the result.
        seconds: that it took.
        whole: about the seconds that the photo will take.
    """

    entry: ModelEntry
    settings: Settings
    pixels: Pixels
    seconds: float
    whole: float

    @property
    def title(self) -> str:
        """What tells it from others."""
        how = self.settings
        steps = f"{how.steps} step{'s' * (how.steps != 1)}"
        return f"{self.entry.name}, {steps}, detail {how.detail:g}, seed {how.seed}"


def _loaded(photo: Path, reading: Reading) -> Loaded:
    from resshift_cli.imaging import files
    from resshift_cli.imaging.sources import Source

    return files.load(Source(photo), replace(reading.handling(), first_frame=True))


def _crop(loaded: Loaded, point: tuple[int, int] | None, side: int) -> Crop:
    """The part that is shown.

    Raises:
        UsageError: the point is not in the photo.
    """
    from resshift_cli.viewing import crops

    height, width = loaded.size
    if point is not None and not (point[0] < width and point[1] < height):
        raise UsageError(
            f"--at {point[0]},{point[1]} is outside of {loaded.source.name}, which is "
            f"{width}x{height}.",
            hint=f"Give a place up to {width - 1},{height - 1}.",
        )
    return crops.chosen(loaded.rows, point, side, loaded.size)


def _shots(
    trials: Trials, sight: Sight, loaded: Loaded, machine: Machine, *, quiet: bool
) -> Iterator[Shot]:
    """The crop by every model at every choice of settings.

    Raises:
        UsageError: there are too many.
    """
    job = choice.Job({loaded.size: 1}, Computation(scale=trials.scale), machine)
    common = Model(registry=trials.registry, offline=trials.offline)
    entries = choice.several(trials.model, trials.weights, common, job)
    count = len(entries) * len(list(trials.arguments()))
    if count > MOST:
        raise UsageError(
            f"{count} settings are more than the {MOST} that a sheet is for.",
            hint="Repeat fewer of --model, --steps, --detail and --seed.",
        )
    for entry in entries:
        yield from _by_model(entry, trials, sight, job, quiet=quiet)


def _by_model(
    entry: ModelEntry, trials: Trials, sight: Sight, job: choice.Job, *, quiet: bool
) -> Iterator[Shot]:
    """The crop by one model, with all that it can do of what is asked for; the rest is told."""
    from resshift_cli.restoration import estimate

    upscaler = ready.load(entry, job.machine, offline=trials.offline, quiet=quiet)
    ((height, width),) = job.sizes
    for settings in _settings(upscaler, trials, quiet=quiet):
        with (
            memory_limit("Choose a smaller crop (--size)."),
            progress.bars(quiet=quiet) as bars,
        ):
            title = f"{entry.name}, {settings.steps} steps"
            advance = progress.shares(bars(total=1, desc=title, unit=""))
            started = time.monotonic()
            large = upscaler.enlarge(sight.pixels, settings, advance)
            seconds = time.monotonic() - started
        whole = estimate.estimate(
            upscaler.spec, job.measured, settings, height=height, width=width
        ).seconds
        shown = sight.of_enlarged(large, settings.scale)
        yield Shot(entry, settings, shown, seconds, whole)


def _settings(upscaler: Upscaler, trials: Trials, *, quiet: bool) -> list[Settings]:
    """Those that a model can do, each once.

    Raises:
        UsageError: there are none.
    """
    found: dict[Settings, None] = {}
    refused: list[UsageError] = []
    for arguments in trials.arguments():
        try:
            found[upscaler.settings(**arguments)] = None
        except UsageError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    if not quiet:
        for text in dict.fromkeys(map(str, refused)):
            console.note(f"Left out: {text}")
    return list(found)


def _exhibits(shots: Sequence[Shot], sight: Sight, icc: bytes | None) -> list[Exhibit]:
    """What is shown, bicubic first."""
    from resshift_cli.viewing import preview
    from resshift_cli.viewing.exhibits import Exhibit

    def exhibit(title: str, large: Pixels, facts: dict[str, str]) -> Exhibit:
        height, width, channels = large.shape
        return Exhibit(title, (height, width, channels), [large], icc, facts)

    scale = max(shot.settings.scale for shot in shots)
    plain = sight.of_enlarged(preview.bicubic(sight.pixels, scale), scale)
    return [
        exhibit("bicubic", plain, {}),
        *(
            exhibit(
                shot.title,
                shot.pixels,
                {
                    "crop": console.elapsed(shot.seconds),
                    "whole photo": f"about {console.duration(shot.whole)}",
                },
            )
            for shot in shots
        ),
    ]


def _write(
    path: Path, title: str, exhibits: Sequence[Exhibit], *, overwrite: bool, quiet: bool
) -> None:
    from resshift_cli.imaging import targets
    from resshift_cli.viewing import preview
    from resshift_cli.viewing.page import Page

    if path.suffix.lower() in pages.EXTENSIONS:
        pages.save(Page(title, exhibits), path, overwrite=overwrite, quiet=quiet)
    else:
        targets.save(preview.png(exhibits), path, overwrite=overwrite)


def _document(photo: Path, path: Path, crop: Crop, shots: Sequence[Shot]) -> dict[str, Any]:
    """What --json prints."""
    return {
        "version": __version__,
        "input": str(photo),
        "output": str(path),
        "crop": asdict(crop),
        "previews": [
            {
                "model": shot.entry.name,
                **asdict(shot.settings),
                "seconds": round(shot.seconds, 3),
                "photo_seconds": round(shot.whole, 3),
            }
            for shot in shots
        ],
        "errors": [],
    }
