"""The faces of photos as a kind of work with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from resshift_cli.imaging.faces import check_cut_out
from resshift_cli.restoration.crafts import Craft, Where

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.imaging.files import Enlarge, Loaded
    from resshift_cli.imaging.opening import Header
    from resshift_cli.restoration.face_restorer import FaceRestorer, Found, Which
    from resshift_cli.restoration.model import Resources
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler
    from resshift_cli.weights.registry import ModelEntry
    from resshift_cli.weights.store import Files

PHOTO_ITSELF = "none"  # in place of a model for the background


@dataclass(frozen=True, slots=True)
class Over:
    """What faces are put over.

    Attributes:
        background: what makes all that is no face: a model that enlarges, by name, or `none` for
            the photo itself, at larger scales by Lanczos' kernel. By default none at scale 1, or
            with `aligned`, else the bundled one.
    """

    background: str | None = None

    def model(self, *, aligned: bool, scale: float | None) -> str | None:
        """The name of that model; None for the photo itself.

        Args:
            aligned: see `face_restorer.Which`.
            scale: output size over input size; None for 1.
        """
        from resshift_cli.weights import registry

        if self.background is None and not aligned and scale not in (None, 1):
            return registry.bundled("real-world")[0].name
        return None if self.background in (None, PHOTO_ITSELF) else self.background


@dataclass
class Portray(Craft["FaceRestorer"]):
    """Restores faces over a background.

    Attributes:
        background: the model that makes it; None for the photo itself.
        tiles: tile and overlap of that.
        aligned: see `face_restorer.Which`.
        only_largest: likewise.
        min_size: likewise.
        blend: likewise.
    """

    background: ModelEntry | None
    tiles: Mapping[str, Any]
    aligned: bool
    only_largest: bool
    min_size: float
    blend: float
    _upscaler: Upscaler | None = field(default=None, init=False, repr=False)
    _found: list[Found] = field(default_factory=list, init=False, repr=False)

    task = "face"
    mark = "_faces"
    foreseen = False  # how many faces there are shows when they are found

    @property
    def others(self) -> tuple[ModelEntry, ...]:
        """See `Craft.others`."""
        return () if self.background is None else (self.background,)

    def take(self, others: Sequence[Upscaler]) -> None:
        """See `Craft.take`."""
        self._upscaler = next(iter(others), None)

    def asked_of_others(self, settings: Settings) -> Mapping[str, Any]:
        """See `Craft.asked_of_others`."""
        return {**self.tiles, "scale": settings.scale, "seed": settings.seed}

    def needed(self, entry: ModelEntry) -> ModelEntry:
        """See `Craft.needed`."""
        from resshift_cli.weights import registry

        return replace(entry, detector=None) if self.aligned else registry.finding_faces(entry)

    def facts(self) -> dict[str, Any]:
        """See `Craft.facts`."""
        told: dict[str, Any] = {
            "aligned": self.aligned,
            "only_largest": self.only_largest,
            "min_size": self.min_size,
            "blend": self.blend,
            "background": "none" if self.background is None else self.background.name,
        }
        if self.background is not None:
            told |= {f"background_{name}": value for name, value in self.tiles.items()}
        return told

    def found(self) -> dict[str, Any]:
        """See `Craft.found`."""
        if self.aligned:
            return {}
        return {
            "faces": sum(len(found.restored) for found in self._found),
            "turned": sum(found.turned for found in self._found),
            "small": sum(found.small for found in self._found),
        }

    def remark(self) -> str:
        """See `Craft.remark`."""
        if len(self._found) == 1:
            return str(self._found[0])
        return f"{self.found()['faces']} faces in all frames" if self._found else ""

    def refuse(self, loaded: Loaded) -> None:
        """See `Craft.refuse`."""
        if self.aligned:
            check_cut_out(*loaded.size, loaded.source.name)

    def where(self, model: FaceRestorer, loaded: Loaded) -> Where | None:
        """See `Craft.where`: in the largest face that is restored, and around it."""
        from resshift_cli.imaging import faces
        from resshift_cli.imaging.alpha import visible

        height, width, channels = loaded.shape
        where = np.zeros((height, width), bool)
        if self.aligned:
            return ~where
        photo = visible(loaded.rows, channels)
        found = model.find(photo, (height, width, 1 if channels < 3 else 3), self._which())
        for face in found.restored[-1:]:
            region = faces.seen(face.upright).within(height, width)
            where[region.top : region.bottom, region.left : region.right] = True
        return where if found.restored else None

    def computed(self, header: Header, spec: ModelSpec, settings: Settings) -> float:
        """See `Craft.computed`: as if each had one face, and the background took nothing."""
        from resshift_cli.restoration.settings import grid

        if self.aligned:
            check_cut_out(header.height, header.width, "The photo")
        return header.frames / len(grid(spec, header.height, header.width, settings))

    def load(self, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> FaceRestorer:
        """See `Craft.load`; the background's model has to be here, or taken already."""
        from resshift_cli.restoration.face_restorer import FaceRestorer
        from resshift_cli.restoration.upscaler import Upscaler
        from resshift_cli.weights import store

        if self.background is not None and self._upscaler is None:
            here = store.obtain(self.background, offline=True)
            self._upscaler = Upscaler.load(self.background, here, **resources)
        return FaceRestorer.load(entry, files, **resources)

    def check(self, spec: ModelSpec, name: str) -> None:
        """See `Craft.check`."""
        from resshift_cli.restoration.face_restorer import FaceRestorer

        FaceRestorer.check(spec, name)

    def settings(self, spec: ModelSpec, name: str, options: Mapping[str, Any]) -> Settings:
        """See `Craft.settings`."""
        from resshift_cli.restoration.face_restorer import settings

        return settings(spec, name, aligned=self.aligned, **options)

    def run(self, model: FaceRestorer, settings: Settings) -> Enlarge:
        """See `Craft.run`."""
        from resshift_cli.restoration.face_restorer import Background

        background = None
        if self._upscaler is not None:
            usual = self._upscaler.settings(**self.tiles)
            background = Background(self._upscaler, usual)
        self._found = []  # those of the image, or the frames, at hand
        return model.restoring(settings, self._which(), background, self._found.append)

    def _which(self) -> Which:
        from resshift_cli.restoration.face_restorer import Which

        return Which(self.aligned, self.blend, self.min_size, self.only_largest)
