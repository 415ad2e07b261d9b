"""What jobs do: a photo as the commands do it, or one crop of it to see how it will be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError, memory_limit
from resshift_cli.imaging import files, targets
from resshift_cli.imaging.files import Handling, Loaded
from resshift_cli.imaging.masks import light
from resshift_cli.imaging.opening import Header
from resshift_cli.imaging.sources import Source
from resshift_cli.restoration import estimate, provenance
from resshift_cli.restoration.crafts import Craft, Upscale
from resshift_cli.restoration.model import Model
from resshift_cli.restoration.settings import Options, Settings
from resshift_cli.restoration.size import target_size
from resshift_cli.serving import asking
from resshift_cli.serving.asking import Asked, Beside, Told
from resshift_cli.serving.jobs import Job
from resshift_cli.serving.photos import Photo
from resshift_cli.serving.turns import Turns
from resshift_cli.serving.warm import Models
from resshift_cli.system.device import precision_name
from resshift_cli.system.memory import collected
from resshift_cli.system.progress import Bar, Bars, calling, silent
from resshift_cli.viewing import crops, exhibits, preview
from resshift_cli.viewing.crops import CONTEXT, Crop, Sight
from resshift_cli.viewing.exhibits import Exhibit
from resshift_cli.weights.registry import ModelEntry

PREVIEW_SIDES = (16, 1024)
"""The least and the most pixels a side of a crop."""

STAGES = {
    "upscale": "enlarging",
    "restore": "mending",
    "inpaint": "filling",
    "face": "restoring faces",
}
"""What is said while a task is done."""

PLAIN = {"upscale": "bicubic"}
"""What a crop is shown beside, where that is not the crop itself."""

ModelT = TypeVar("ModelT", bound=Model)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made of which photo.

    Attributes:
        photo: the input.
        entry: the model.
        asked: how.
        find: see `asking.Beside`.
        mask: what says where the photo is unknown: another one, alpha or a colour.
    """

    photo: Photo
    entry: ModelEntry
    asked: Asked
    find: Callable[[str], ModelEntry]
    mask: Photo | str | None = None

    def craft(self) -> Craft[Any]:
        """What is done; a mask's image is read for it.

        Raises:
            ResShiftError: it can't be, or not so.
        """
        if not isinstance(self.mask, Photo):
            told = None if self.mask is None else Told(self.mask)
            return self.asked.craft(Beside(self.find, told))
        with self.mask.source() as source:
            loaded = files.load(source, replace(self.asked.handling, first_frame=True))
            unknown = np.concatenate([light(band) for band in loaded.rows])
        return self.asked.craft(Beside(self.find, Told(self.mask.name, unknown)))

    @property
    def scale(self) -> float | None:
        """Output size over input size; None for the model's own.

        Raises:
            UsageError: the photo can't fill the box.
        """
        if self.asked.box is not None:
            return self.asked.box.scale(*self.photo.size, self.photo.name)
        scale = self.asked.options.get("scale")
        return None if scale is None else float(scale)

    @property
    def options(self) -> Options:
        """As `settings.settings` takes them.

        Raises:
            UsageError: as `scale`.
        """
        found = self.asked.options.copy()
        found["scale"] = self.scale
        return found

    def result_name(self, mark: str, scale: float) -> str:
        """What the command would call the result; `mark` is its own, see `Craft.mark`."""
        mark = mark or (f"_x{scale:g}" if self.asked.box is None else f"_{self.asked.box}")
        name = Path(self.photo.name)
        return targets.output_path(name, mark=mark, options=self.asked.handling.options).name


@dataclass(frozen=True, slots=True)
class Made:
    """A result, on the disk.

    Attributes:
        path: where it lies.
        name: what it is called.
        told: what there is to say of it.
        original: the photo that it was made of.
        handling: how that is read.
    """

    path: Path
    name: str
    told: dict[str, Any]
    original: Photo
    handling: Handling

    def facts(self) -> dict[str, Any]:
        """What clients are told."""
        return {"name": self.name, "bytes": self.path.stat().st_size, **self.told}

    @contextmanager
    def shown(self) -> Iterator[list[Exhibit]]:
        """The photo and the result, to be compared.

        Raises:
            ResShiftError: one of them can't be read.
        """
        most = max(self.handling.max_pixels, self.told["width"] * self.told["height"])
        handling = replace(self.handling, max_pixels=most)
        with self.original.source() as source:
            one, other = exhibits.of_files([source, Source(self.path)], handling)
            yield [replace(one, title=self.original.name), replace(other, title=self.name)]

    def discard(self) -> None:
        """Delete it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Shown:
    """A crop that was enlarged.

    Attributes:
        told: what there is to say of it.
        exhibits: it, beside bicubic.
    """

    told: dict[str, Any]
    exhibits: Sequence[Exhibit]

    def facts(self) -> dict[str, Any]:
        """What clients are told."""
        return self.told

    @contextmanager
    def shown(self) -> Iterator[list[Exhibit]]:
        """What is compared."""
        yield list(self.exhibits)

    def discard(self) -> None:
        """There is nothing on the disk."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What jobs work with.

    Attributes:
        models: the models.
        turns: who computes.
        folder: where results go.
    """

    models: Models
    turns: Turns
    folder: Path

    def making(self, order: Order) -> Callable[[Job], Made]:
        """What makes a result."""
        return lambda job: self._make(order, job)

    def _make(self, order: Order, job: Job) -> Made:
        craft, handling = order.craft(), order.asked.handling
        model = self.model(order.entry, craft, job)
        settings = craft.settings(model.spec, order.entry.name, order.options)
        name = order.result_name(craft.mark, settings.scale)
        target = Path(name)
        path = self.folder / f"{job.id}{target.suffix}"
        job.begin_stage("reading")
        started = time.monotonic()
        with order.photo.source() as source, memory_limit("Ask for smaller tiles (--tile)."):
            loaded = files.load(source, handling)
            size = target_size(*loaded.size, settings.scale)
            files.check(loaded, target, size=size, options=handling.options)
            craft.refuse(loaded)
            with self.turns:
                job.begin_stage(STAGES[craft.task])
                result = files.enlarge(
                    loaded,
                    craft.run(model, settings),
                    self._advancing(job),
                    size=size,
                    note=provenance.note(order.entry, settings, model.device, model.dtype),
                    target=target,
                    options=handling.options,
                )
                if result.stream is not None:  # which computes while it is written
                    targets.save(result.content(), path, overwrite=False)
            if result.stream is None:
                job.begin_stage("writing")
                targets.save(result.content(), path, overwrite=False)
        told = _told(loaded, size, settings, model, time.monotonic() - started)
        told |= {"task": craft.task, **craft.facts(), **craft.found(), "remark": craft.remark()}
        return Made(path, name, told, order.photo, handling)

    def previewing(
        self, order: Order, at: tuple[int, int] | None, side: int
    ) -> Callable[[Job], Shown]:
        """What makes a preview of the square of so many pixels around a place.

        By default that is where something is done, or the busiest one if that is everywhere.

        Raises:
            UsageError: the square is too small or large, or the place not in the photo.
        """
        least, most = PREVIEW_SIDES
        if not least <= side <= most:
            raise UsageError(
                f"A crop of {side} pixels a side can't be shown.",
                hint=f"Choose {least} to {most}.",
            )
        height, width = order.photo.size
        if at is not None and not (0 <= at[0] < width and 0 <= at[1] < height):
            raise UsageError(
                f"{at[0]},{at[1]} is outside of {order.photo.name}, which is {width}x{height}.",
                hint=f"Give a place up to {width - 1},{height - 1}.",
            )
        return lambda job: self._preview(order, at, side, job)

    def _preview(self, order: Order, at: tuple[int, int] | None, side: int, job: Job) -> Shown:
        craft, masked = order.craft(), asking.TASKS[order.asked.task].is_masked
        model = self.model(order.entry, craft, job)
        settings = craft.settings(model.spec, order.entry.name, order.options)
        settings = replace(settings, wrap="none")
        job.begin_stage("reading")
        with order.photo.source() as source:
            loaded = files.load(source, replace(order.asked.handling, first_frame=True))
            craft.refuse(loaded)
            where = craft.where(model, loaded)
            is_whole = where is not None and where.all()
            if where is None or (at is not None and not is_whole):
                crop = crops.chosen(loaded.rows, at, side, loaded.size)
            else:
                crop = crops.over(where, side, PREVIEW_SIDES[1] if masked else max(loaded.size))
            context = max(CONTEXT, (settings.tile - side) // 2) if masked else CONTEXT
            sight = Sight.of(crop, loaded.rows, loaded.size, context)
            craft = craft.part(*sight.seen.slices)
        with memory_limit("Choose a smaller crop."), self.turns:
            job.begin_stage(STAGES[craft.task])
            started, shape = time.monotonic(), sight.pixels.shape
            bands = craft.run(model, settings)([sight.pixels], shape, self._advancing(job))
            size = target_size(shape[0], shape[1], settings.scale)
            large = collected(bands, (*size, shape[2]))
            seconds = time.monotonic() - started
        plain, icc = preview.bicubic(sight.pixels, settings.scale), loaded.picture.icc
        title = f"{order.entry.name}, detail {settings.detail:g}, seed {settings.seed}"
        shown = [
            _exhibit(name, sight.of_enlarged(pixels, settings.scale), icc)
            for name, pixels in ((PLAIN.get(craft.task, "as it is"), plain), (title, large))
        ]
        told = _told_of_crop(crop, settings, seconds)
        return Shown({**told, **craft.found(), "remark": craft.remark()}, shown)

    def model(self, entry: ModelEntry, craft: Craft[ModelT], job: Job) -> ModelT:
        """A model for a job, fetched and loaded if need be.

        Raises:
            ResShiftError: as `Models.warm`.
        """
        job.begin_stage("loading")
        return self.models.warm(entry, craft, self._fetching(job))

    def _advancing(self, job: Job) -> Callable[[int, int], None]:
        """What is told of every tile: whoever waits for its turn then gets it."""

        def advance(done: int, total: int) -> None:
            job.advance(done, total)
            self.turns.step_aside()

        return advance

    def _fetching(self, job: Job) -> Bars:
        """Bars of what is fetched."""

        def bars(
            *,
            total: float | None = None,
            desc: str | None = None,
            unit: str = "it",
            unit_scale: bool = False,
            initial: float = 0,
        ) -> Bar:
            job.begin_stage("fetching")
            made = calling(job.advance) if total else silent
            return made(total=total, desc=desc, unit=unit, unit_scale=unit_scale, initial=initial)

        return bars


def seconds(
    models: Models, order: Order, craft: Craft[Any], side: int | None = None
) -> float | None:
    """About what an order takes, once its models are loaded; None if that can't be told yet.

    Args:
        models: what there is.
        order: it.
        craft: of the order; of one that is not foreseen, this is what it takes at least.
        side: pixels a side of a crop, if that is what is made.

    Raises:
        UsageError: it asks for what can't be.
    """
    spec = models.spec(order.entry)
    if spec is None:
        return None
    craft.check(spec, order.entry.name)
    how = craft.settings(spec, order.entry.name, order.options)
    height, width = order.photo.size
    frames = 1 if order.asked.handling.first_frame else order.photo.facts["frames"]
    header = Header(height, width, order.photo.facts["alpha"], frames)
    parts = [(spec, how, craft)]
    for other in craft.others:
        beside, enlarging = models.spec(other), Upscale()
        if beside is None:
            return None
        asked = craft.asked_of_others(how)
        parts.append((beside, enlarging.settings(beside, other.name, asked), enlarging))

    def of(spec: ModelSpec, how: Settings, craft: Craft[Any]) -> float:
        computed, size = craft.computed(header, spec, how), (height, width)  # or it is refused
        if side is not None:
            computed, size = 1.0, (min(side, height), min(side, width))
        one = estimate.estimate(spec, models.machine, how, height=size[0], width=size[1])
        return one.seconds * computed

    return sum(of(*part) for part in parts)


def _exhibit(title: str, pixels: Any, icc: bytes | None) -> Exhibit:
    return Exhibit(title, pixels.shape, [pixels], icc)


def _told(
    loaded: Loaded, size: tuple[int, int], settings: Settings, model: Model, took: float
) -> dict[str, Any]:
    """What --json of the command tells of a result, too."""
    return {
        "width": size[1],
        "height": size[0],
        "input_width": loaded.size[1],
        "input_height": loaded.size[0],
        **asdict(settings),
        "device": str(model.device),
        "precision": precision_name(model.dtype),
        "threads": provenance.threads(model.device),
        "seconds": round(took, 3),
        "warnings": loaded.warnings,
    }


def _told_of_crop(crop: Crop, settings: Settings, took: float) -> dict[str, Any]:
    return {"crop": asdict(crop), **asdict(settings), "seconds": round(took, 3)}
