"""A folder of images: find them, skip what is finished, outlive failures.

    find -> name_outputs -> sort_out -> measure (sizes, from headers) -> run

Reading the next image and writing the last one go on in threads of their own while the networks
work on the one between.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resshift_cli.batch.ledger import Ledger, Record
from resshift_cli.errors import (
    BUG,
    InputMissingError,
    OutputError,
    ResShiftError,
    memory_limit,
    printable,
)
from resshift_cli.imaging import files, targets
from resshift_cli.imaging.files import Enlarge, Handling, Loaded, Result
from resshift_cli.imaging.formats import AS_IT_IS, FORMATS, SaveOptions
from resshift_cli.imaging.opening import Header
from resshift_cli.imaging.picture import Pixels
from resshift_cli.imaging.sources import Source
from resshift_cli.restoration import settings as plan
from resshift_cli.system import atomic
from resshift_cli.system.device import forget_peak, peak_memory
from resshift_cli.system.digests import digest

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.restoration.upscaler import Upscaler

EXTENSIONS = frozenset(FORMATS)
"""What is taken for an image unless --include says otherwise."""

SAME = (
    *("model", "scale", "steps", "seed", "tile", "overlap", "temperature", "precision"),
    *("color_fix", "consistency"),
    *("format", "quality", "lossless", "compression", "depth", "strip_metadata", "first_frame"),
)
"""What of a record has to be equal for its result to count as finished; its weights too."""

LEAST_ROOM = 64 << 20  # bytes that have to be free on the disk beside the next result
NAME_MAX = 255  # bytes of a file's name


class DiskFullError(OutputError):
    """There is no room for more results: no image's own fault, and the end of a batch."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What can't be done, and why: an image, or a folder, whose `output` is ""."""

    input: str
    output: str
    error: ResShiftError


@dataclass(slots=True)
class Found:
    """What is in a folder: images as paths within it, with slashes, and what can't be entered."""

    images: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be done.

    Attributes:
        input: path within the folder of inputs.
        output: path within the folder of results.
        source: where it is.
        target: where its result goes.
        replaces: whether what is at `target` may be replaced.
        work: what it takes, in units that are equal for all jobs; 0 if that is not known yet.
    """

    input: str
    output: str
    source: Path
    target: Path
    replaces: bool
    work: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that are computed at a time.

    Attributes:
        jobs: one, or small images that are padded to one size.
        count: how many images the networks are given, whatever became of some of them: a result
            depends on it, by rounding.
        size: what they are padded to; None of a job alone.
    """

    jobs: list[Job]
    count: int = 1
    size: tuple[int, int] | None = None


@dataclass(slots=True)
class Sorted:
    """What is to be done of what was found, what is finished, and what can't be done."""

    jobs: list[Job] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Read:
    """A file that was read, and what the ledger is told of it."""

    loaded: Loaded
    facts: Mapping[str, Any]


def find(
    folder: Path,
    output: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    hidden: bool = False,
) -> Found:
    """Find the images of a folder, and then of those within it, each sorted by name.

    Patterns are compared with the name and with the path within the folder, in small letters. A
    linked folder is entered if it lies elsewhere, and every folder only once.

    Args:
        folder: where to look.
        output: folder of results, which is left out.
        include: patterns of what to take in place of `EXTENSIONS`.
        exclude: patterns of files to leave out, and of folders.
        hidden: whether to take what begins with a dot.
    """
    found = Found()
    root = os.path.realpath(folder)
    entered = {os.path.realpath(output)}
    ahead = [(str(folder), "")]
    while ahead:
        path, place = ahead.pop()
        real = os.path.realpath(path)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(path) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            found.failures.append(_closed(path, place or ".", error))
            continue
        inner = []
        for entry in entries:
            within = f"{place}/{entry.name}" if place else entry.name
            if (entry.name.startswith(".") and not hidden) or _matches(within, exclude):
                continue
            if _is_folder(entry):
                if not (entry.is_symlink() and _is_within(entry.path, root)):
                    inner.append((entry.path, within))
            elif _matches(within, include) if include else _looks_like_an_image(entry.name):
                found.images.append(within)
        ahead += reversed(inner)
    return found


def name_outputs(
    inputs: Sequence[str], *, scale: float, options: SaveOptions = AS_IT_IS
) -> dict[str, str]:
    """What the result of every input is called: as the input, if it has the format that is due.

    Where another format is due, its extension comes after the name: `a.gif` becomes `a.gif.png`
    beside the `a.png` of `a.png`, whether or not there is one.
    """
    outputs: dict[str, str] = {}
    others = []
    for source in inputs:
        suffix = targets.output_path(Path(source), scale=scale, options=options).suffix
        due = FORMATS[suffix.lower()]
        if FORMATS.get(Path(source).suffix.lower()) is due:
            outputs[source] = source
        else:
            others.append((source, suffix))
    taken = set(outputs.values())
    for source, suffix in others:
        name = source
        while (name := _fitting(name, suffix)) in taken:
            pass
        taken.add(name)
        outputs[source] = name
    return outputs


def sort_out(
    folder: Path,
    output: Path,
    names: Mapping[str, str],
    ledger: Ledger,
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Sorted:
    """Tell what is to be done from what is finished and from what can't be done.

    A result counts as finished if it was made with the same settings, from an input that has not
    changed since, and is there with its recorded size; the folder of inputs may have been moved. A
    result of this very folder that nobody has touched is made anew where its input has changed. Any
    other file is only replaced if `overwrite` says so.

    Args:
        folder: of the inputs.
        output: folder of the results.
        names: inputs and outputs, as of `name_outputs`.
        ledger: of `output`.
        settings: what `SAME` names, and `weights`, "" if its digest is not known.
        overwrite: whether to replace files that are there.

    Raises:
        OutputError: results are there that were made with other settings, and `overwrite` is
            false.
    """
    result = Sorted()
    root = os.path.realpath(folder)
    for source, name in names.items():
        record, begun = (
            entry if entry and entry.output == name else None
            for entry in (ledger.results.get(source), ledger.begun.get(source))
        )
        is_here = record is not None and record.folder == root
        job = Job(source, name, folder / source, output / name, replaces=overwrite)
        there = os.path.lexists(job.target)
        if there and record is not None and record.output_bytes == _size(job.target):
            change = _difference(record, settings)
            if not change and _unchanged(record, job.source, trust_times=is_here):
                result.finished.append(record)
                continue
            if change and not overwrite:
                raise OutputError(
                    f"{printable(output)} holds results that were made otherwise: {change}.",
                    hint="Give another folder with -o, or use --overwrite to replace them.",
                )
        begun_here = begun is not None and begun.folder == root
        if not there or overwrite or begun_here or (is_here and _is_ours(record, job.target)):
            result.jobs.append(replace(job, replaces=overwrite or there))
        else:
            error = OutputError(
                f"{printable(job.target)} exists already.",
                hint="Use --overwrite to replace it, or give another folder with -o.",
            )
            result.failures.append(Failure(source, name, error))
    return result


def work_of(spec: ModelSpec, header: Header, settings: Settings) -> float:
    """What an image takes, beside others of the same settings: latent positions of its tiles."""
    grids = [
        plan.grid(spec, *size, settings)
        for size in plan.pass_sizes(spec, header.height, header.width, settings.scale)
    ]
    area = sum(len(grid.boxes) * grid.rows.size * grid.columns.size for grid in grids)
    return float(area * (2 if header.alpha else 1) * header.frames)


def grouped(
    jobs: Sequence[Job],
    sizes: Mapping[str, tuple[int, int] | None],
    at_once: Callable[[tuple[int, int]], int],
) -> list[Group]:
    """Put jobs of one size together, in the same way whatever was finished before.

    Images of a size make up whole groups, in the order of their names; what is left over is done
    one by one. A group of which some are finished stays a group.

    Args:
        jobs: in the order in which they are to be done, but for those that others draw ahead.
        sizes: of all images, those that are finished included: what they are padded to, or None
            if they can't be in a group.
        at_once: how many images of a size are best computed at a time.
    """
    alike: dict[tuple[int, int], list[str]] = {}
    for name in sorted(sizes):
        size = sizes[name]
        if size is not None:
            alike.setdefault(size, []).append(name)
    members: dict[str, Group] = {}
    for size, names in alike.items():
        count = at_once(size)
        for first in range(0, len(names) - count + 1, count) if count > 1 else ():
            members |= dict.fromkeys(names[first : first + count], Group([], count, size))
    groups: list[Group] = []
    for job in jobs:
        group = members.get(job.input)
        if group is None:
            groups.append(Group([job]))
            continue
        if not group.jobs:
            groups.append(group)
        group.jobs.append(job)
    return groups


def enter(failures: Sequence[Failure], ledger: Ledger, facts: Mapping[str, Any]) -> list[Record]:
    """Enter what can't be done in the ledger, and return what was entered.

    Raises:
        OutputError: the ledger can't be written.
    """
    records = [
        _failed({**facts, "input": failure.input, "output": failure.output}, failure.error)
        for failure in failures
    ]
    for record in records:
        ledger.append(record)
    return records


class Runner:
    """Does jobs, group after group.

    Args:
        upscaler: the model.
        settings: how images are enlarged.
        ledger: where it is entered.
        facts: what every record has: `folder`, `model`, `weights` and the like.
        handling: how files are read and written.
        note: for the results' metadata.
        tell: called with every record once it is on the disk, from a thread.
        advance: called with a job's number and the share of it that is computed.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        settings: Settings,
        ledger: Ledger,
        facts: Mapping[str, Any],
        *,
        handling: Handling,
        note: str,
        tell: Callable[[Record], None],
        advance: Callable[[int, float], None],
    ) -> None:
        self.upscaler = upscaler
        self.settings = settings
        self.ledger = ledger
        self.facts = facts
        self.handling = handling
        self.note = note
        self.tell = tell
        self.advance = advance

    def run(self, groups: Sequence[Group], *, fail_fast: bool = False) -> None:
        """Do all jobs, whatever becomes of single ones; with `fail_fast`, up to a failure.

        Whatever ends it, Ctrl-C included, results that are computed are written first; one that is
        computed while it is written is given up.

        Raises:
            DiskFullError: there is no room for the next result.
            OutputError: the ledger can't be written.
        """
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

            def begin(group: Group) -> list[Future[_Read | ResShiftError]]:
                return [reader.submit(self._read, job) for job in group.jobs]

            reading = begin(groups[0]) if groups else []
            writing: list[Future[Record]] = []
            number = 0
            for place, group in enumerate(groups):
                reads = [read.result() for read in reading]
                reading = begin(groups[place + 1]) if place + 1 < len(groups) else []
                results = self._compute(number, group, reads)
                failed = [written.result().status == "failed" for written in writing]
                if fail_fast and any(failed):
                    return
                writing = []
                for job, read, (result, seconds) in zip(group.jobs, reads, results, strict=True):
                    if isinstance(result, Result) and result.encode is None:
                        # It is computed while it is written: here, where Ctrl-C is seen.
                        wait(writing)
                        ended = self._finish(job, read, result, seconds).status == "failed"
                    else:
                        writing.append(writer.submit(self._finish, job, read, result, seconds))
                        ended = isinstance(result, ResShiftError)
                    if fail_fast and ended:
                        groups = ()
                        break
                number += len(group.jobs)
                if not groups:
                    break
            for written in writing:
                written.result()

    def _compute(
        self, number: int, group: Group, reads: Sequence[_Read | ResShiftError]
    ) -> list[tuple[Result | ResShiftError, float]]:
        """Results, or why there are none, and the seconds that each took; `number` is the first's.

        What can't be computed at a time, after all, is computed one by one.
        """
        forget_peak(self.upscaler.device)
        started = time.monotonic()
        alike = self._together(number, group, reads)
        share = (time.monotonic() - started) / max(len(alike), 1)
        results: list[tuple[Result | ResShiftError, float]] = []
        for place, (job, read) in enumerate(zip(group.jobs, reads, strict=True)):
            started = time.monotonic()
            run, spent = self.upscaler.enlarging(self.settings), 0.0
            if place in alike:
                run, spent = partial(_computed, alike[place]), share
            result = self._enlarge(number + place, job, read, run)
            results.append((result, spent + time.monotonic() - started))
        return results

    def _together(
        self, number: int, group: Group, reads: Sequence[_Read | ResShiftError]
    ) -> dict[int, Pixels]:
        """Larger images by their places in a group, as far as they can be computed at a time."""
        pixels = {
            place: read.loaded.picture.pixels
            for place, read in enumerate(reads)
            if isinstance(read, _Read) and self._is_of(read.loaded, group)
        }
        if not pixels:
            return {}

        def advance(done: int, total: int) -> None:
            whole = done * len(group.jobs) / total
            place = min(int(whole), len(group.jobs) - 1)
            self.advance(number + place, whole - place)

        try:
            larger = self.upscaler.together(
                list(pixels.values()), self.settings, group.count, advance
            )
        except Exception as error:
            _expected(error)  # what it holds is let go of; the images will tell what is wrong
            self.upscaler.engine.tell(
                f"{group.count} images could not be computed at a time: going on one by one."
            )
            return {}
        return dict(zip(pixels, larger, strict=True))

    def _is_of(self, loaded: Loaded, group: Group) -> bool:
        """Whether an image is what its header promised when the group was made."""
        if group.size is None or loaded.animation is not None:
            return False
        size = plan.single_tile(self.upscaler.spec, *loaded.size, self.settings)
        return size == group.size and loaded.picture.pixels.shape[2] in (1, 3)

    def _read(self, job: Job) -> _Read | ResShiftError:
        """Read an image, and make sure that its result could be written."""
        try:
            with memory_limit(f"Reduce {printable(job.source)} first."):
                loaded = files.load(Source(job.source), self.handling)
                sha256 = digest(job.source)
                loaded.source.check_unchanged(loaded.state)
                size = plan.target_size(*loaded.size, self.settings.scale)
                files.check(loaded, job.target, size=size, options=self.handling.options)
        except Exception as error:
            return _expected(error)
        facts: dict[str, Any] = {"input_sha256": sha256, "warnings": loaded.warnings or None}
        if loaded.state is not None:
            facts |= {"input_bytes": loaded.state.size, "input_mtime_ns": loaded.state.mtime_ns}
        return _Read(loaded, facts)

    def _enlarge(
        self, number: int, job: Job, read: _Read | ResShiftError, run: Enlarge
    ) -> Result | ResShiftError:
        if isinstance(read, ResShiftError):
            return read
        try:
            with memory_limit(self._smaller(job)):
                return files.enlarge(
                    read.loaded,
                    run,
                    lambda done, total: self.advance(number, done / total),
                    size=plan.target_size(*read.loaded.size, self.settings.scale),
                    note=self.note,
                    target=job.target,
                    options=self.handling.options,
                )
        except Exception as error:
            failure = _expected(error)
        self.upscaler.release_memory()  # out here nothing holds what the failed image took
        return failure

    def _smaller(self, job: Job) -> str:
        """What helps where memory is too small."""
        return f"Use a --tile smaller than {self.settings.tile} for {printable(job.source)}."

    def _finish(
        self,
        job: Job,
        read: _Read | ResShiftError,
        result: Result | ResShiftError,
        seconds: float,
    ) -> Record:
        """Write a result, or why there is none, and enter it in the ledger."""
        facts: dict[str, Any] = {**self.facts, "input": job.input, "output": job.output}
        if isinstance(read, _Read):
            facts |= read.facts
            facts |= {"seconds": round(seconds, 3), "peak_bytes": peak_memory(self.upscaler.device)}
        if not isinstance(result, ResShiftError):
            started = time.monotonic()
            try:
                with memory_limit(self._smaller(job)):
                    facts |= self._write(job, result, facts)
                if result.encode is None:
                    facts["seconds"] = round(seconds + time.monotonic() - started, 3)
                record = Record(status="done", time=_now(), **facts)
            except DiskFullError:
                raise
            except Exception as error:
                if atomic.is_full(error):
                    raise _disk_full(job.target) from error
                result = _expected(error)
        if isinstance(result, ResShiftError):
            record = _failed(facts, result)
        self.ledger.append(record)
        self.tell(record)
        return record

    def _write(self, job: Job, result: Result, facts: Mapping[str, Any]) -> dict[str, Any]:
        content = result.content()
        most = result.most if callable(content) else len(content)
        atomic.make_folder(job.target.parent)
        if shutil.disk_usage(job.target.parent).free < LEAST_ROOM + most:
            raise _disk_full(job.target)
        if job.replaces and job.target.exists() and os.path.samefile(job.source, job.target):
            raise OutputError(
                f"The result of {printable(job.source)} would replace it.",
                hint="Give another folder with -o; inputs are never overwritten.",
            )
        self.ledger.append(Record(status="writing", time=_now(), **facts))
        targets.save(content, job.target, overwrite=job.replaces)
        height, width = result.size
        return {
            "output_bytes": job.target.stat().st_size,
            "output_sha256": digest(job.target),
            "width": width,
            "height": height,
        }


def _computed(
    pixels: Pixels, rows: object, shape: tuple[int, int, int], told: Callable[[int, int], None]
) -> Iterator[Pixels]:
    """What `files.enlarge` is handed where the result is there already."""
    return iter([pixels])


def _closed(path: str, place: str, error: OSError) -> Failure:
    unreadable = InputMissingError(
        f"The folder {printable(path)} can't be read: {error.strerror or printable(error)}.",
        hint="Check whether you may read it (`ls -ld` shows that).",
    )
    return Failure(place, "", unreadable)


def _is_within(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reading it will tell
        return False


def _looks_like_an_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _matches(path: str, patterns: Sequence[str]) -> bool:
    path = path.lower()
    name = path.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(text, pattern.lower()) for pattern in patterns for text in (path, name)
    )


def _fitting(name: str, suffix: str) -> str:
    """A path with one more extension, its last part cut to what a file system takes."""
    folder, slash, last = name.rpartition("/")
    if len(os.fsencode(last + suffix)) > NAME_MAX:
        mark = "~" + hashlib.sha256(os.fsencode(last)).hexdigest()[:8] + suffix
        while len(os.fsencode(last + mark)) > NAME_MAX:
            last = last[:-1]
        return f"{folder}{slash}{last}{mark}"
    return f"{folder}{slash}{last}{suffix}"


def _difference(record: Record, settings: Mapping[str, Any]) -> str:
    """What a result was made with that is other now, or ""."""
    for name in SAME:
        before, now = getattr(record, name), settings[name]
        if before != now:
            told = [printable("by default" if value is None else value) for value in (before, now)]
            return f"{name.replace('_', ' ')} {told[0]}, not {told[1]}"
    return "by other weights" if settings["weights"] not in ("", record.weights) else ""


def _unchanged(record: Record, source: Path, *, trust_times: bool) -> bool:
    """Whether an input is what it was; it is read only where size and time can't tell."""
    try:
        found = source.stat()
        if found.st_size != record.input_bytes:
            return False
        same_time = trust_times and found.st_mtime_ns == record.input_mtime_ns
        return same_time or digest(source) == record.input_sha256
    except OSError:
        return False


def _is_ours(record: Record | None, target: Path) -> bool:
    """Whether a result is what was once written, untouched."""
    try:
        return record is not None and digest(target) == record.output_sha256
    except OSError:
        return False


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _failed(facts: Mapping[str, Any], error: ResShiftError) -> Record:
    why: dict[str, Any] = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    return Record(status="failed", time=_now(), **facts, **why)


def _expected(error: Exception) -> ResShiftError:
    """An error as one that a record can hold; a bug must not end a night's work either.

    Its traceback is let go of, and so what the frames in it hold: whole images.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__, cause = None, cause.__cause__ or cause.__context__
    if isinstance(error, ResShiftError):
        return error
    if isinstance(error, OSError):
        return ResShiftError(f"{printable(error)}.", hint="Run the same command again.")
    bug = ResShiftError(
        f"This is a bug in resshift: {type(error).__name__}: {error}.",
        hint="`resshift --debug upscale` of this image shows the traceback.",
    )
    bug.exit_code = BUG
    return bug


def _disk_full(target: Path) -> DiskFullError:
    return DiskFullError(
        f"There is no room for {printable(target)}: the disk is full, or nearly so.",
        hint="Make room, then run the same command again: it goes on from here.",
    )
