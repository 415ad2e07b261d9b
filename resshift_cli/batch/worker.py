"""What one image takes: it is read, done, and its result written.

Nothing here knows of ledgers and threads: those are the runner's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from resshift_cli.batch import pieces
from resshift_cli.batch.groups import Group, Piece
from resshift_cli.batch.places import Place
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.resume import Job
from resshift_cli.errors import OutputError, ResShiftError, expected, memory_limit
from resshift_cli.imaging import files
from resshift_cli.imaging.files import Enlarge, Loaded, Result
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.crafts import Craft
from resshift_cli.restoration.settings import Settings, single_tile
from resshift_cli.restoration.size import target_size
from resshift_cli.system import atomic
from resshift_cli.system.device import forget_peak, peak_memory
from resshift_cli.system.digests import digest_of

if TYPE_CHECKING:
    from resshift_cli.restoration.model import Model

SPARE = 64 << 20  # bytes that have to be free on the disk beside the next result

Advance = Callable[[int, float], None]
"""(place of an image in its group, share of it that is computed)."""


class DiskFullError(OutputError):
    """There is no room for more results: no image's own fault, and the end of a batch."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"There is no room for {target}: the disk is full, or nearly so.",
            hint="Make room, then run the same command again: it goes on from here.",
        )


@dataclass(frozen=True, slots=True)
class Read:
    """A file that was read, what is done with it, and what the ledger is told of it."""

    loaded: Loaded
    craft: Craft[Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Computed:
    """What was made of an image.

    Attributes:
        result: the enlarged image, or why there is none.
        seconds: of computing.
        peak_bytes: most memory that was taken, of a GPU's own by this image's group, else of the
            process so far; None where that can't be told.
        found: tells what was found in it, see `Craft.found`; of a stream, once it is written.
    """

    result: Result | ResShiftError
    seconds: float
    peak_bytes: int | None
    found: Callable[[], Mapping[str, Any]] = dict

    @property
    def is_stream(self) -> bool:
        """Whether it is computed only while it is written."""
        return isinstance(self.result, Result) and self.result.encode is None


class Worker:
    """Reads images, does what is to be done with them, and writes them.

    Args:
        model: that does it, as the recipe's craft loads it.
        recipe: how the results are made.
        output: where the results go, opened.
    """

    def __init__(self, model: Model, recipe: Recipe, output: Place) -> None:
        self.model = model
        self.recipe = recipe
        self.output = output

    def read(self, job: Job) -> Read | ResShiftError:
        """Read an image, and make sure that its result could be written."""
        handling = self.recipe.handling
        try:
            with memory_limit(f"Reduce {job.source.name} first."):
                craft = self.recipe.craft.of(job.input)
                beside = {"mask_state": craft.state_beside(job.input)}
                beside["mask_sha256"] = craft.sha256_beside(job.input)
                loaded = files.load(job.source.fetched(), handling)
                files.check_length(loaded, handling)
                sha256 = loaded.source.digest()
                loaded.source.check_unchanged(loaded.state)
                target, size = Path(job.output), self._target_size(loaded)
                files.check(loaded, target, size=size, options=handling.options)
                craft.refuse(loaded)
        except Exception as error:
            return expected(error)
        facts: dict[str, Any] = {"input_sha256": sha256, **beside}
        facts["warnings"] = loaded.warnings or None
        facts["scale"] = self._settings(loaded).scale
        if loaded.state is not None:
            is_here = loaded.source.remote is None
            facts["input_bytes"] = loaded.state.size
            facts["input_mtime_ns"] = loaded.state.mtime_ns if is_here else None
            facts["input_version"] = loaded.state.version or None
        return Read(loaded, craft, facts)

    def compute(
        self, group: Group, reads: Sequence[Read | ResShiftError], advance: Advance
    ) -> list[Computed]:
        """Enlarge the images of a group; what can't be at a time, after all, is one by one."""
        device = self.model.device
        forget_peak(device)
        started = time.monotonic()
        alike = self._together(group, reads, advance)
        share = (time.monotonic() - started) / max(len(alike), 1)
        computed: list[Computed] = []
        for place, (job, read) in enumerate(zip(group.jobs, reads, strict=True)):
            started = time.monotonic()
            run, spent = None, 0.0
            if place in alike:
                run, spent = partial(_enlarged_before, alike[place]), share
            elif group.pieces and isinstance(read, Read):
                run = partial(self._joined, group.pieces, read.loaded)
            result = self._enlarge(job, read, run, partial(advance, place))
            seconds = spent + time.monotonic() - started
            computed.append(Computed(result, seconds, peak_memory(device), _found(read, result)))
        return computed

    def make_piece(self, job: Job, rows: range, advance: Callable[[float], None]) -> Piece:
        """Compute a band of an image, and have it as a piece.

        Args:
            job: of the image, but that its result is the piece.
            rows: of the image.
            advance: called with the share of it that is computed.
        """
        seen: tuple[object, ...] = ()
        try:
            with memory_limit(self._smaller(job)):
                loaded = files.load(job.source.fetched(), self.recipe.handling)
                run = self.recipe.craft.band(self.model, self._settings(loaded), rows)
                seen = pieces.seen(loaded)
                bands = run(loaded.rows, loaded.shape, lambda done, total: advance(done / total))
                content = partial(pieces.write, bands)
                self.output.save(content, job.output, overwrite=True, finished=lambda file: None)
        except Exception as error:
            failure = expected(error)
        else:
            return Piece(job.output, seen)
        self.model.release_memory()  # out here nothing holds what the failed band took
        return Piece(job.output, seen, failure)

    def write(
        self, job: Job, computed: Computed, begin: Callable[[Mapping[str, Any]], None]
    ) -> dict[str, Any]:
        """Write a result; one that is a stream is computed meanwhile.

        Args:
            job: of the image.
            computed: what was made of it.
            begin: called just before the file takes its name, with what is known of it.

        Returns:
            What the ledger is told of it.

        Raises:
            DiskFullError: there is no room for it.
            ResShiftError: it can't be made, or not be written.
        """
        started = time.monotonic()
        result = computed.result
        if isinstance(result, ResShiftError):
            raise result
        height, width = result.size
        facts: dict[str, Any] = {"width": width, "height": height}

        def finished(file: BinaryIO) -> None:
            facts["output_sha256"] = digest_of(file)
            facts["output_bytes"] = file.tell()
            facts["found"] = computed.found() or None
            begin(facts)

        try:
            with memory_limit(self._smaller(job)):
                self._save(job, result, finished)
        except Exception as error:
            is_known = isinstance(error, DiskFullError) or atomic.is_too_large(error)
            if atomic.is_full(error) and not is_known:
                raise DiskFullError(self.output.shown(job.output)) from error
            raise expected(error) from None
        if computed.is_stream:
            facts["seconds"] = round(computed.seconds + time.monotonic() - started, 3)
            facts["peak_bytes"] = peak_memory(self.model.device)
        return facts

    def _save(self, job: Job, result: Result, finished: Callable[[BinaryIO], None]) -> None:
        content = result.content()
        most = result.most if callable(content) else len(content)
        room = self.output.room()
        if room is not None and room < SPARE + most:
            raise DiskFullError(self.output.shown(job.output))
        if job.replaces and self.output.replaces(job.output, job.source):
            raise OutputError(
                f"The result of {job.source.name} would replace it.",
                hint="Give another folder with -o; inputs are never overwritten.",
            )
        self.output.save(content, job.output, overwrite=job.replaces, finished=finished)

    def _together(
        self, group: Group, reads: Sequence[Read | ResShiftError], advance: Advance
    ) -> dict[int, Pixels]:
        """Larger images by their places in a group, as far as they can be computed at a time."""
        pixels = {
            place: read.loaded.picture.pixels
            for place, read in enumerate(reads)
            if isinstance(read, Read) and self._is_of(read.loaded, group)
        }
        if not pixels:
            return {}

        def progress(done: int, total: int) -> None:
            whole = done * len(group.jobs) / total
            place = min(int(whole), len(group.jobs) - 1)
            advance(place, whole - place)

        try:
            larger = self.recipe.craft.together(
                self.model, list(pixels.values()), self.recipe.settings, group.count, progress
            )
        except Exception as error:
            expected(error)  # what it holds is let go of; the images will tell what is wrong
            self.model.engine.tell(
                f"{group.count} images could not be computed at a time: going on one by one."
            )
            return {}
        return dict(zip(pixels, larger, strict=True))

    def _is_of(self, loaded: Loaded, group: Group) -> bool:
        """Whether an image is what its header promised when the group was made."""
        if group.size is None or loaded.animation is not None:
            return False
        size = single_tile(self.recipe.spec, *loaded.size, self.recipe.settings)
        return size == group.size and loaded.picture.pixels.shape[2] in (1, 3)

    def _enlarge(
        self,
        job: Job,
        read: Read | ResShiftError,
        run: Enlarge | None,
        advance: Callable[[float], None],
    ) -> Result | ResShiftError:
        """Enlarge an image by `run`, or else by itself."""
        if isinstance(read, ResShiftError):
            return read
        try:
            with memory_limit(self._smaller(job)):
                return files.enlarge(
                    read.loaded,
                    run or read.craft.run(self.model, self._settings(read.loaded)),
                    lambda done, total: advance(done / total),
                    size=self._target_size(read.loaded),
                    note=self.recipe.note(),
                    target=Path(job.output),
                    options=self.recipe.handling.options,
                )
        except Exception as error:
            failure = expected(error)
        self.model.release_memory()  # out here nothing holds what the failed image took
        return failure

    def _joined(
        self, made: Sequence[Piece], loaded: Loaded, rows: object, shape: object, told: object
    ) -> Iterator[Pixels]:
        """What `files.enlarge` is handed where the result is there in pieces."""
        return pieces.joined(
            made, self.output, loaded, (*self._target_size(loaded), loaded.shape[2])
        )

    def _target_size(self, loaded: Loaded) -> tuple[int, int]:
        return target_size(*loaded.size, self._settings(loaded).scale)

    def _settings(self, loaded: Loaded) -> Settings:
        return self.recipe.settings_for(*loaded.size, loaded.source.name)

    def _smaller(self, job: Job) -> str:
        """What helps where memory is too small."""
        tile = self.recipe.settings.tile
        return f"Use a --tile smaller than {tile} for {job.source.name}."


def _found(
    read: Read | ResShiftError, result: Result | ResShiftError
) -> Callable[[], Mapping[str, Any]]:
    """See `Computed.found`."""
    if isinstance(read, ResShiftError):
        return dict
    is_stream = isinstance(result, Result) and result.encode is None
    return read.craft.found if is_stream else partial(dict, read.craft.found())


def _enlarged_before(
    pixels: Pixels, rows: object, shape: tuple[int, int, int], told: Callable[[int, int], None]
) -> Iterator[Pixels]:
    """What `files.enlarge` is handed where the result is there already."""
    return iter([pixels])
