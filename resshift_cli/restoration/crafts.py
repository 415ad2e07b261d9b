"""Kinds of work with images: with which class of models each is done, and what of an image it is.

What needs torch is imported when a model is loaded. A craft goes to other processes with all that
it was asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from resshift_cli.imaging.masks import Hole, Mask
from resshift_cli.system.digests import digest

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.imaging.files import Enlarge, Loaded
    from resshift_cli.imaging.opening import Header
    from resshift_cli.imaging.picture import Pixels
    from resshift_cli.restoration.inpainter import Inpainter
    from resshift_cli.restoration.model import Model, Progress, Resources
    from resshift_cli.restoration.restorer import Restorer
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files

ModelT = TypeVar("ModelT", bound="Model")

Where = NDArray[np.bool_]
"""True where something is."""


class Craft(Generic[ModelT]):
    """What is done with images.

    Attributes:
        task: what it is called, as the command that does it with single images.
        mark: what stands behind a name in that of its result; "" where that is how large it is.
        is_done_together: whether small images may be computed at a time.
        is_cut: whether bands of a large image may be computed one by one, see `cuts`.
        foreseen: whether the time that it takes shows before the work.
    """

    task: ClassVar[str]
    mark: ClassVar[str] = ""
    is_done_together: ClassVar[bool] = False
    is_cut: ClassVar[bool] = False
    foreseen: ClassVar[bool] = True

    @property
    def beside(self) -> tuple[Path, ...]:
        """Files that are read beside the image."""
        return ()

    def facts(self) -> dict[str, Any]:
        """What was asked of it besides the model's settings, by name, as JSON has it."""
        return {}

    def found(self) -> dict[str, Any]:
        """What it found in the image that was done last, likewise."""
        return {}

    def remark(self) -> str:
        """What the line about the image that was done last says besides, or ""."""
        return ""

    @property
    def others(self) -> tuple[ModelEntry, ...]:
        """Models that it takes besides, all of which enlarge."""
        return ()

    def take(self, others: Sequence[Upscaler]) -> None:
        """Be done with `others` that are loaded already; else `load` loads them."""

    def asked_of_others(self, settings: Settings) -> Mapping[str, Any]:
        """What is asked of `others` where these are the model's settings."""
        return {}

    def needed(self, entry: ModelEntry) -> ModelEntry:
        """A model with all files that it takes for this, and no others."""
        return entry

    def of(self, place: str) -> Craft[ModelT]:
        """The same for one image of a folder; `place` is its path there, with slashes.

        Raises:
            ResShiftError: something is missing for it.
        """
        return self

    def sha256_beside(self, place: str) -> str | None:
        """The digest of what is read beside one image of a folder, None where there is nothing.

        Args:
            place: of the image, as `of` has it.

        Raises:
            ResShiftError, OSError: it can't be read.
        """
        return "+".join(map(digest, self.of(place).beside)) or None

    def state_beside(self, place: str) -> str | None:
        """What tells that from other content without reading it, likewise.

        Args:
            place: of the image, as `of` has it.

        Raises:
            ResShiftError, OSError: something is missing.
        """
        return "+".join(map(_state, self.of(place).beside)) or None

    def load(self, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> ModelT:
        """A model that can do it.

        Raises:
            ResShiftError: as `Model.load`.
        """
        raise NotImplementedError

    def check(self, spec: ModelSpec, name: str) -> None:
        """Refuse a model that can't do it.

        Raises:
            UsageError: it was made for another kind of work.
        """
        raise NotImplementedError

    def settings(self, spec: ModelSpec, name: str, options: Mapping[str, Any]) -> Settings:
        """Check what is asked of a model, and fill in what it says; see `settings.settings`.

        Raises:
            UsageError: something is outside its range.
        """
        from resshift_cli.restoration import settings

        return settings.settings(spec, name=name, **options)

    def refuse(self, loaded: Loaded) -> None:
        """Refuse an image that it can't be done with.

        Raises:
            ResShiftError: it can't.
        """

    def where(self, model: ModelT, loaded: Loaded) -> Where | None:
        """Where in an image that was not refused something is done, (H, W); None: everywhere.

        Raises:
            ResShiftError: that can't be found.
        """
        return None

    def part(self, rows: slice, columns: slice) -> Craft[ModelT]:
        """The same for a part of an image that was not refused.

        Raises:
            UsageError: nothing is done there.
        """
        return self

    def share(self, spec: ModelSpec, settings: Settings) -> float:
        """What is computed of the tiles of an image that was not refused, 0 to 1."""
        return 1.0

    def computed(self, header: Header, spec: ModelSpec, settings: Settings) -> float:
        """How many whole images are computed for a file, as far as that is known by its header.

        Raises:
            ResShiftError: it will be refused.
        """
        return header.frames

    def run(self, model: ModelT, settings: Settings) -> Enlarge:
        """What `imaging.files.enlarge` is handed for an image that was not refused."""
        raise NotImplementedError

    def band(self, model: ModelT, settings: Settings, rows: range) -> Enlarge:
        """What is handed the pixels of a large image to compute some of its rows."""
        raise NotImplementedError

    def together(
        self,
        model: ModelT,
        images: Sequence[Pixels],
        settings: Settings,
        count: int,
        progress: Progress,
    ) -> list[Pixels]:
        """Do small images at a time, where that can be; as `Upscaler.together`."""
        raise NotImplementedError


def _state(file: Path) -> str:
    found = os.stat(file)
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


@dataclass(frozen=True)
class Upscale(Craft["Upscaler"]):
    """Enlarges."""

    task = "upscale"
    is_done_together = True
    is_cut = True

    def load(self, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> Upscaler:
        """See `Craft.load`."""
        from resshift_cli.restoration.upscaler import Upscaler

        return Upscaler.load(entry, files, **resources)

    def check(self, spec: ModelSpec, name: str) -> None:
        """See `Craft.check`."""
        from resshift_cli.restoration.upscaler import Upscaler

        Upscaler.check(spec, name)

    def computed(self, header: Header, spec: ModelSpec, settings: Settings) -> float:
        """See `Craft.computed`; alpha is enlarged beside the colours."""
        return (2 if header.alpha else 1) * header.frames

    def run(self, model: Upscaler, settings: Settings) -> Enlarge:
        """See `Craft.run`."""
        return model.enlarging(settings)

    def band(self, model: Upscaler, settings: Settings, rows: range) -> Enlarge:
        """See `Craft.band`."""
        return lambda pixels, shape, told: model.band(pixels, shape, settings, rows, told)

    def together(
        self,
        model: Upscaler,
        images: Sequence[Pixels],
        settings: Settings,
        count: int,
        progress: Progress,
    ) -> list[Pixels]:
        """See `Craft.together`."""
        return model.together(images, settings, count, progress)


@dataclass(frozen=True)
class Restore(Craft["Restorer"]):
    """Takes damage away at an image's own size.

    Attributes:
        strength: how far it is replaced by what the model makes of it, 0 to 1.
    """

    strength: float = 1.0

    task = "restore"
    mark = "_restored"

    def facts(self) -> dict[str, Any]:
        """See `Craft.facts`."""
        return {"strength": self.strength}

    def load(self, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> Restorer:
        """See `Craft.load`."""
        from resshift_cli.restoration.restorer import Restorer

        return Restorer.load(entry, files, **resources)

    def check(self, spec: ModelSpec, name: str) -> None:
        """See `Craft.check`."""
        from resshift_cli.restoration.restorer import Restorer

        Restorer.check(spec, name)

    def run(self, model: Restorer, settings: Settings) -> Enlarge:
        """See `Craft.run`."""
        return model.restoring(settings, self.strength)


class Filling(Craft["Inpainter"]):
    """Fills holes, wherever they are told."""

    task = "inpaint"
    mark = "_filled"

    def load(self, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> Inpainter:
        """See `Craft.load`."""
        from resshift_cli.restoration.inpainter import Inpainter

        return Inpainter.load(entry, files, **resources)

    def check(self, spec: ModelSpec, name: str) -> None:
        """See `Craft.check`."""
        from resshift_cli.restoration.inpainter import Inpainter

        Inpainter.check(spec, name)

    def settings(self, spec: ModelSpec, name: str, options: Mapping[str, Any]) -> Settings:
        """See `Craft.settings`: what is known keeps its colours."""
        return super().settings(spec, name, {**options, "scale": 1, "color_fix": "none"})


@dataclass
class Inpaint(Filling):
    """Fills the hole that a mask tells.

    Attributes:
        mask: it.
    """

    mask: Mask
    _hole: Hole | None = field(default=None, init=False, repr=False)  # of the photo, once known

    @property
    def beside(self) -> tuple[Path, ...]:
        """See `Craft.beside`."""
        return () if self.mask.file is None else (self.mask.file,)

    def facts(self) -> dict[str, Any]:
        """See `Craft.facts`."""
        return self.mask.facts()

    def refuse(self, loaded: Loaded) -> None:
        """See `Craft.refuse`."""
        name = loaded.source.name
        self._hole = self.mask.hole(loaded.rows, loaded.shape, name)
        self.mask.check(self._hole, name)

    def where(self, model: Inpainter, loaded: Loaded) -> Where | None:
        """See `Craft.where`: in the hole."""
        return None if self._hole is None else self._hole.unknown

    def part(self, rows: slice, columns: slice) -> Inpaint:
        """See `Craft.part`."""
        assert self._hole is not None  # or the image was never looked at
        hole = self._hole.part(rows, columns)
        self.mask.check(hole, "this part of the photo")
        part = Inpaint(Mask("part", light=hole.unknown))
        part._hole = hole
        return part

    def share(self, spec: ModelSpec, settings: Settings) -> float:
        """See `Craft.share`."""
        from resshift_cli.restoration import mending

        return 1.0 if self._hole is None else mending.share_of_work(spec, settings, self._hole)

    def computed(self, header: Header, spec: ModelSpec, settings: Settings) -> float:
        """See `Craft.computed`; a mask that the photo's own pixels tell is not known by then."""
        if not self.mask.looks_at_photo:
            self._hole = self.mask.hole((), (header.height, header.width, 3), "the photo")
            self.mask.check(self._hole, "the photo")
        return header.frames * self.share(spec, settings)

    def run(self, model: Inpainter, settings: Settings) -> Enlarge:
        """See `Craft.run`."""
        return model.filling(settings, self._hole_of)

    def _hole_of(self, rows: Iterable[Pixels], shape: tuple[int, int, int]) -> Hole | None:
        """The hole of an image, or of one frame, which may have none."""
        hole = self._hole
        if hole is None or self.mask.looks_at_photo:
            hole = self.mask.hole(rows, shape, "the photo")
        return hole if hole.unknown.any() else None
