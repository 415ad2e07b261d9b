"""What `resshift batch` does with each image, and which options go with that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resshift_cli.commands import values
from resshift_cli.commands.groups import (
    Computation,
    Enlarging,
    FillingModel,
    Making,
    Model,
    Options,
    RestoringModel,
    Sampling,
    Tuning,
)
from resshift_cli.commands.holes import Holes
from resshift_cli.commands.options import StrengthOption
from resshift_cli.commands.portraits import FaceModel, Faces, Portraits
from resshift_cli.errors import InputMissingError, UsageError, printable

if TYPE_CHECKING:
    from resshift_cli.restoration.crafts import Craft


@dataclass(frozen=True, slots=True)
class Masks(Options):
    """What is to be filled of every image."""

    panel = Holes.panel

    masks: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|alpha|'#rrggbb'",
            help="With --task inpaint: a folder that has a mask for every image, under its name, "
            "with any extension; or alpha, or a colour. See `resshift inpaint --mask`.",
        ),
    ] = None
    holes: Holes = field(default_factory=Holes)


def _task(name: str) -> str:
    return values.one_of(tuple(TASKS), name)


def _tasks(incomplete: str) -> list[str]:
    return values.completed(*TASKS)(incomplete)


@dataclass(frozen=True, slots=True)
class What(Options):
    """What is done."""

    panel = "What to do with each image"

    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            callback=_task,
            autocompletion=_tasks,
            help="upscale; restore, which mends at the image's own size; inpaint, which fills "
            "what --masks and --box tell; or face, which restores faces.",
        ),
    ] = "upscale"
    strength: StrengthOption = 1.0
    where: Masks = field(default_factory=Masks)
    faces: Faces = field(default_factory=Faces)

    def craft(self, folder: str, enlarging: Enlarging) -> Craft[Any]:
        """As the rooms below have it.

        Args:
            folder: of the images.
            enlarging: how results are made.

        Raises:
            UsageError: an option does not go with the task, or one that does is missing.
            InputMissingError: there is no folder of masks.
        """
        row = TASKS[self.task]
        for name, (value, usual) in _told(self).items():
            if name not in row.options and value != usual:
                able = next(task for task, other in TASKS.items() if name in other.options)
                raise UsageError(
                    f"--{name.replace('_', '-')} does not go with --task {self.task}.",
                    hint=f"Leave it out, or use --task {able}.",
                )
        return row.craft(self, folder, enlarging)

    def folder(self) -> Path | None:
        """Of the masks, if they are in one."""
        told = self.where.masks
        return None if told is None or told == "alpha" or told.startswith("#") else Path(told)

    def making(self, enlarging: Enlarging) -> Making:
        """What is said of how results are made, as far as that goes with the task.

        Raises:
            UsageError: an option does not, or can't be met.
            ResShiftError: as `Making.handling`.
        """
        row, common = TASKS[self.task], enlarging
        known = {each.name for each in fields(row.computation)}
        taken = {}
        for name, (value, usual) in _told(common.computation).items():
            if name in known:
                taken[name] = value
            elif value != usual:
                raise UsageError(
                    f"--{name.replace('_', '-')} does not go with --task {self.task}.",
                    hint="Leave it out; with --task upscale, results have a size of their own.",
                )
        model = {name: value for name, (value, _) in _told(common.model).items()}
        which, computation = row.model(**model), row.computation(**taken)
        computation.box()  # or it is refused now
        made = Making(which, computation, common.machine, common.reading, common.writing)
        made.handling()  # likewise
        return made


@dataclass(frozen=True, slots=True)
class Row:
    """A task.

    Attributes:
        craft: what it is, of the options, the folder of images, and how results are made.
        options: those of `What` that go with it.
        model: the options for its model.
        computation: what may be asked of that.
    """

    craft: Callable[[What, str, Enlarging], Craft[Any]]
    options: tuple[str, ...] = ()
    model: type[Model] = Model
    computation: type[Sampling] = Computation


def _upscale(what: What, folder: str, enlarging: Enlarging) -> Craft[Any]:
    from resshift_cli.restoration.crafts import Upscale

    return Upscale()


def _restore(what: What, folder: str, enlarging: Enlarging) -> Craft[Any]:
    from resshift_cli.restoration.crafts import Restore

    return Restore(what.strength)


def _inpaint(what: What, folder: str, enlarging: Enlarging) -> Craft[Any]:
    from resshift_cli.batch.masks import FILES, InpaintEach

    told, masks, how = what.where.masks, what.folder(), what.where.holes
    if told is None and not how.box:
        raise UsageError(
            "Nothing says which pixels are to be filled.",
            hint="Give a folder of masks (--masks DIR), alpha or '#rrggbb', or rectangles (--box).",
        )
    if masks is None:
        return InpaintEach(how.mask(told))
    mask = how.mask(FILES)
    if not masks.is_dir():
        kind: Any = UsageError if masks.exists() else InputMissingError
        raise kind(
            f"{printable(masks)} is no folder of masks.",
            hint="--masks names a folder, with a mask in it for every image.",
        )
    if os.path.exists(folder) and masks.samefile(folder):
        raise UsageError(
            f"{printable(masks)} is the folder of the images themselves.",
            hint="Give another one with --masks; it may lie within.",
        )
    return InpaintEach(mask, masks.absolute())


def _face(what: What, folder: str, enlarging: Enlarging) -> Craft[Any]:
    return what.faces.craft(enlarging.computation, enlarging.model)


_FACES = ("aligned", "only_largest", "min_size", "blend", "background")

TASKS: Mapping[str, Row] = {
    "upscale": Row(_upscale),
    "restore": Row(_restore, ("strength",), RestoringModel, Tuning),
    "inpaint": Row(_inpaint, ("masks", "box", "invert", "grow", "feather"), FillingModel, Sampling),
    "face": Row(_face, _FACES, FaceModel, Portraits),
}


def _told(group: Options) -> dict[str, tuple[Any, Any]]:
    """The options of a group by name, but for the task: what was said, and what is by default."""
    found: dict[str, tuple[Any, Any]] = {}
    for each in fields(group):  # type: ignore[arg-type]  # every group is a dataclass
        value = getattr(group, each.name)
        if isinstance(value, Options):
            found |= _told(value)
        elif each.name != "task":
            found[each.name] = (value, each.default)
    return found
