"""Restore the faces of photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, SupportsFloat, Unpack

import numpy as np

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError, counted, out_of_memory
from resshift_cli.imaging import detection
from resshift_cli.imaging.alpha import fill_hidden, visible
from resshift_cli.imaging.detection import Detector
from resshift_cli.imaging.faces import SIDE, Face, Placement, check_cut_out
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import arrays, estimate, passes
from resshift_cli.restoration import settings as choosing
from resshift_cli.restoration.arrays import ImageT, channels_first, channels_last
from resshift_cli.restoration.model import Model, Progress, Resources
from resshift_cli.restoration.pasting import Pasting
from resshift_cli.restoration.resize import lanczos
from resshift_cli.restoration.settings import Settings, Tuning
from resshift_cli.restoration.size import target_size
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system import memory
from resshift_cli.system.device import release_memory
from resshift_cli.system.progress import Bar, bars_of, silent
from resshift_cli.weights import registry
from resshift_cli.weights.registry import ModelEntry
from resshift_cli.weights.store import Files

SMALLEST = 24.0  # pixels of the faces that are restored unless told otherwise


class FaceOptions(Tuning, total=False):
    """How faces may be asked to be restored.

    Attributes:
        scale: output size over input size, 1, the default, to 16.
        color_fix: as in `Tuning`, of every face against the photo; by default `wavelet`, or for
            faces that are cut out already as the model says.
        tile: of the background, which alone is cut into tiles.
        overlap: likewise.
    """

    scale: SupportsFloat


@dataclass(frozen=True, slots=True)
class Which:
    """Which faces are restored, and how far.

    Attributes:
        aligned: the image is a face that was cut out upright, as `imaging.faces` does: nothing is
            to be found.
        blend: how far faces are replaced by what the model makes of them, 0 to 1.
        min_size: pixels in the input along the longer side of the smallest face that is restored.
        only_largest: leave all others as they are.
    """

    aligned: bool = False
    blend: float = 1.0
    min_size: float = SMALLEST
    only_largest: bool = False

    def __post_init__(self) -> None:
        """Refuse what lies outside its range.

        Raises:
            UsageError: something does.
        """
        choosing.strength(self.blend, "blend")
        if not self.min_size >= 0:
            raise UsageError(
                f"No face is as small as {self.min_size:g} pixels.",
                hint="Give a number of pixels from 0 (--min-size).",
            )


@dataclass(frozen=True, slots=True)
class Found:
    """The faces of an image.

    Attributes:
        restored: those that are restored, the smallest first.
        turned: how many look away too far.
        small: how many are smaller than was asked for.
    """

    restored: tuple[Face, ...]
    turned: int = 0
    small: int = 0

    def __str__(self) -> str:
        """In words: 2 faces, 1 turned away."""
        missed = "no face restored" if self.turned or self.small else "no face found"
        words = [counted(len(self.restored), "face") if self.restored else missed]
        words += [f"{self.turned} turned away"] if self.turned else []
        words += [f"{self.small} too small"] if self.small else []
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Background:
    """What the faces of a photo are put over in place of the photo itself.

    Attributes:
        upscaler: what makes it.
        settings: how, but for scale and seed.
    """

    upscaler: Upscaler
    settings: Settings

    def of(self, settings: Settings) -> Settings:
        """How it is made for a result of these settings."""
        return replace(self.settings, scale=settings.scale, seed=settings.seed)

    def gigaflops(self, settings: Settings, size: tuple[int, ...]) -> float:
        """What it takes, for an image of (H, W, ...)."""
        return _gigaflops(self.upscaler.spec, self.of(settings), size)


def settings(
    spec: ModelSpec, name: str, *, aligned: bool = False, **options: Unpack[FaceOptions]
) -> Settings:
    """As `FaceRestorer.settings`, of a model that is called so."""
    choosing.refuse_unknown(options, FaceOptions)
    usual = None if aligned else "wavelet"
    own = {k: v for k, v in options.items() if k not in ("tile", "overlap")}
    own["color_fix"] = options.get("color_fix") or usual
    return choosing.settings(spec, name=name, tile=SIDE, overlap=0, **own)  # type: ignore[arg-type]


class FaceRestorer(Model):
    """A model that restores faces; see `Model` for how it is made.

    Attributes:
        detector: the file of what finds faces; None where they are cut out already.
    """

    detector: Path | None = None

    @staticmethod
    def check(spec: ModelSpec, name: str) -> None:
        """See `Model.check`."""
        multiple = spec.denoiser.size_multiple * spec.lq_pixels
        if spec.scale != 1 or spec.denoiser.lq_mask or SIDE % multiple:
            raise UsageError(
                f"'{name}' does not restore faces of {SIDE}x{SIDE} pixels.",
                hint="`resshift models list --task face` shows the models that do.",
            )

    @classmethod
    def needed(cls, entry: ModelEntry) -> ModelEntry:
        """See `Model.needed`."""
        return registry.finding_faces(entry)

    @classmethod
    def load(cls, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> Self:
        """See `Model.load`."""
        restorer = super().load(entry, files, **resources)
        restorer.detector = files.detector
        return restorer

    def __call__(
        self,
        image: ImageT,
        *,
        aligned: bool = False,
        blend: float = 1.0,
        min_size: float = SMALLEST,
        only_largest: bool = False,
        background: Upscaler | None = None,
        progress: Progress = None,
        **options: Unpack[FaceOptions],
    ) -> ImageT:
        """Restore the faces of an image.

        Args:
            image: as `Upscaler.__call__` takes it.
            aligned: see `Which`, as the next three.
            blend: how far faces are replaced.
            min_size: of the smallest face.
            only_largest: leave all others.
            background: what enlarges, or cleans, all that is no face; by default that is the image
                itself, enlarged by Lanczos' kernel if at all.
            progress: see `Upscaler.__call__`.
            options: how, all of them by name, see `FaceOptions`.

        Returns:
            The image, of the kind and type that was given, `scale` times as large; its alpha, and
            what that hides, are the background's.

        Raises:
            UsageError: an argument outside its range, or OpenCV, which finds faces, is not here;
                `ImageArgumentError` if it is the image.
            UnsupportedImageError: a PIL image of a mode that is not handled.
            ModelUnavailableError: the detector's file is damaged.
        """
        which = Which(aligned, blend, min_size, only_largest)
        settings = self.settings(aligned=aligned, **options)
        pixels, like = arrays.taken(image)
        shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
        behind = None
        if background is not None:
            tiles = {k: v for k, v in options.items() if k in ("tile", "overlap")}
            behind = Background(background, background.settings(**tiles))  # type: ignore[arg-type]
        height, width = target_size(shape[0], shape[1], settings.scale)
        bands = self.stream([pixels], shape, settings, which, behind, progress)
        return like(memory.collected(bands, (height, width, shape[2])))

    def stream(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, int, int],
        settings: Settings,
        which: Which,
        background: Background | None = None,
        progress: Progress = None,
        tell: Callable[[Found], object] | None = None,
    ) -> Iterator[Pixels]:
        """Restore the faces of an image that comes and goes in bands.

        Args:
            rows: bands, float32 (n, W, C) in [0, 1]; they are gone through again and again.
            shape: (H, W, C) of the image.
            settings: see `FaceRestorer.settings`.
            which: of its faces.
            background: what they are put over; None for the image itself.
            progress: see `Upscaler.__call__`.
            tell: called with the faces that were found; by default a warning says if there are
                none.

        Yields:
            Bands of the result, float32 (n, W', C) in [0, 1].

        Raises:
            ResShiftError: the result is not finite, or as `__call__`.
            Exception: memory does not hold a face.
        """
        height, width, channels = shape
        target = target_size(height, width, settings.scale)
        photo = visible(rows, channels)
        if which.aligned:
            check_cut_out(height, width)
            places = [Placement(complex(SIDE / height), 0j)]
        else:
            found = self.find(photo, (height, width, 1 if channels < 3 else 3), which)
            places = [face.upright for face in found.restored]
            if tell is not None:
                tell(found)
            elif not places:
                self.engine.tell(f"Nothing is restored: {found}.")
        with closing(self._bar(len(places), shape, settings, background, progress)) as bar:
            work = _Work(self, settings, self._at_once(), bar)
            pasting = Pasting(work.restore, work.at_once, which.blend, which.aligned)
            large = work.background(rows, shape, background)
            yield from pasting.onto(large, (*target, channels), photo, (height, width), places)

    def find(self, photo: Iterable[Pixels], shape: tuple[int, int, int], which: Which) -> Found:
        """The faces of an image without alpha, see `stream`.

        Raises:
            UsageError: OpenCV is not here, or no detector.
            ModelUnavailableError: the detector's file is damaged.
        """
        if self.detector is None:
            raise UsageError(
                f"'{self.name}' was loaded without what finds faces.",
                hint="Load it by `from_pretrained` or `from_file`, or give faces that are cut out "
                "already (--aligned).",
            )
        detector = Detector(self.detector)
        seen, step = detection.looked_at(photo, shape)
        faces = [face.larger(step) for face in detector.find(seen, which.min_size / step)]
        large = [face for face in faces if face.size >= which.min_size]
        facing = [face for face in large if not face.is_turned]
        turned, small = len(large) - len(facing), len(faces) - len(large)
        return Found(tuple(facing[:1] if which.only_largest else facing[::-1]), turned, small)

    def restoring(
        self,
        settings: Settings,
        which: Which,
        background: Background | None,
        tell: Callable[[Found], object] | None = None,
    ) -> Callable[[Iterable[Pixels], tuple[int, int, int], Progress], Iterator[Pixels]]:
        """What `imaging.files.enlarge` is handed: `stream` with these settings."""
        return lambda rows, shape, progress: self.stream(
            rows, shape, settings, which, background, progress, tell
        )

    def settings(self, *, aligned: bool = False, **options: Unpack[FaceOptions]) -> Settings:
        """Check the options of `__call__`, and fill in what the model says.

        Args:
            aligned: see `Which`.
            options: see `__call__`.

        Raises:
            UsageError: an argument outside its range.
        """
        return settings(self.spec, self.name, aligned=aligned, **options)

    def _at_once(self) -> int:
        return self.chosen_batch or self._budget().tiles_at_once(SIDE)

    def _bar(
        self,
        faces: int,
        shape: tuple[int, int, int],
        settings: Settings,
        background: Background | None,
        progress: Progress,
    ) -> Bar:
        """A bar of the work on so many faces and what is behind them, in GFLOP."""
        work = faces * _gigaflops(self.spec, replace(settings, scale=1.0), (SIDE, SIDE))
        if background is not None:
            work += background.gigaflops(settings, shape)
        return bars_of(progress)(total=max(work, 1.0), unit="GFLOP")


@dataclass(slots=True)
class _Work:
    """The faces and the background of one image, on their way.

    Attributes:
        model: what restores faces.
        settings: how.
        at_once: faces per call of its networks; halved when memory runs out.
        bar: told what is done, in GFLOP.
    """

    model: FaceRestorer
    settings: Settings
    at_once: int
    bar: Bar

    def restore(self, faces: Sequence[Pixels]) -> list[Pixels]:
        """What becomes of faces that were cut out, see `pasting.Restore`."""
        spec, settings = self.model.spec, replace(self.settings, scale=1.0)
        job = passes.Job(self.model.engine, 1, settings, silent)
        restored: list[Pixels] = []
        while len(restored) < len(faces):
            some = faces[len(restored) : len(restored) + self.at_once]
            new: list[Pixels] | None = None
            try:
                new = passes.together(job, some, self.at_once)
            except Exception as error:
                if self.at_once == 1 or not out_of_memory(error):
                    raise
            if new is None:  # out here the failed call is over, and its memory free
                release_memory(self.model.device)
                self.at_once //= 2
                now = counted(self.at_once, "face")
                self.model.engine.tell(f"Memory ran out: going on with {now} at a time.")
                continue
            restored += new
            self.bar.update(len(some) * _gigaflops(spec, settings, (SIDE, SIDE)))
        return restored

    def background(
        self, rows: Iterable[Pixels], shape: tuple[int, int, int], background: Background | None
    ) -> Iterator[Pixels]:
        """What faces are put over, in bands."""
        if background is None:
            return _enlarged(rows, shape, self.settings.scale)
        work, before = background.gigaflops(self.settings, shape), 0.0

        def advance(done: int, total: int) -> None:
            nonlocal before
            self.bar.update(work * done / total - before)
            before = work * done / total

        how = background.of(self.settings)
        return background.upscaler.stream(rows, shape, how, advance)


def _enlarged(
    rows: Iterable[Pixels], shape: tuple[int, int, int], scale: float
) -> Iterator[Pixels]:
    """An image without anything made up: as it is, or enlarged by Lanczos' kernel."""
    height, width, channels = shape
    target = target_size(height, width, scale)
    if target == (height, width):
        yield from rows
        return
    if channels % 2 == 0:
        pixels = np.concatenate(list(rows))
        colours, alpha = pixels[..., :-1], pixels[..., -1:]
        rows = [np.concatenate([fill_hidden(colours, alpha), alpha], axis=-1)]
    for band in lanczos(map(channels_first, rows), (height, width), target):
        yield channels_last(band).clip(0, 1)


def _gigaflops(spec: ModelSpec, settings: Settings, size: tuple[int, ...]) -> float:
    """What the networks take for an image of (H, W, ...), in 10^9 operations."""
    return sum(estimate.work(spec, settings, size[0], size[1])) / 1e9
