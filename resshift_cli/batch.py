"""A folder of images: find them, skip what is finished, outlive failures.

    find -> name_outputs -> sort_out -> measure (sizes, from headers) -> run

Reading the next image and writing the last one go on in threads of their own while the networks
work on the one between.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import shutil
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resshift_cli import images, plan
from resshift_cli.download import digest
from resshift_cli.errors import (
    BUG,
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    ResShiftError,
    printable,
)
from resshift_cli.formats import FORMATS
from resshift_cli.jobs import memory_limit
from resshift_cli.ledger import Ledger, Record

if TYPE_CHECKING:
    from resshift_cli.images import Picture
    from resshift_cli.plan import Settings
    from resshift_cli.specs import ModelSpec
    from resshift_cli.upscaler import Upscaler

EXTENSIONS = frozenset(FORMATS)
"""What is taken for an image unless --include says otherwise."""

SAME = ("model", "scale", "steps", "seed", "tile", "overlap", "temperature", "precision")
"""What of a record has to be equal for its result to count as finished; its weights too."""

LEAST_ROOM = 64 << 20  # bytes that have to be free on the disk beside the next result
NAME_MAX = 255  # bytes of a file's name

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


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


@dataclass(slots=True)
class Sorted:
    """What is to be done of what was found, what is finished, and what can't be done."""

    jobs: list[Job] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image: pixels, and whether it has transparency."""

    height: int
    width: int
    alpha: bool


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An image that was read, and the file that it was read from."""

    picture: Picture
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


def name_outputs(inputs: Sequence[str], *, scale: float) -> dict[str, str]:
    """What the result of every input is called: as the input, if results can be written so.

    Where another format is due, its extension comes after the name: `a.gif` becomes `a.gif.png`
    beside the `a.png` of `a.png`, whether or not there is one.
    """
    outputs: dict[str, str] = {}
    others = []
    for source in inputs:
        suffix = images.output_path(Path(source), scale=scale).suffix
        if suffix == Path(source).suffix:
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


def remove_temporaries(output: Path, names: Iterable[str]) -> None:
    """Remove what a killed batch left half-written, and nothing that has another name.

    Args:
        output: folder of results, locked.
        names: results that may have been under way.
    """
    starts: dict[Path, set[str]] = {}
    for name in names:
        target = output / name
        starts.setdefault(target.parent, set()).add(target.name[:32])
    for folder, known in starts.items():
        with suppress(OSError):
            for entry in os.scandir(folder):
                match = _TEMPORARY.fullmatch(entry.name)
                if match and match[1] in known and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)


def read_header(path: Path) -> Header | None:
    """What a file's header says, or None if that can't be told; the pixels are not read."""
    from PIL import Image

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                return Header(height, width, image.has_transparency_data)
    except Exception:  # decoders raise nearly anything on a damaged file
        return None


def work_of(spec: ModelSpec, header: Header, settings: Settings) -> float:
    """What an image takes, beside others of the same settings: latent positions of its tiles."""
    grids = [
        plan.grid(spec, *size, settings)
        for size in plan.pass_sizes(spec, header.height, header.width, settings.scale)
    ]
    area = sum(len(grid.boxes) * grid.rows.size * grid.columns.size for grid in grids)
    return float(area * (2 if header.alpha else 1))


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
    """Does jobs, one after another.

    Args:
        upscaler: the model.
        settings: how images are enlarged.
        ledger: where it is entered.
        facts: what every record has: `folder`, `model`, `weights` and the like.
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
        note: str,
        tell: Callable[[Record], None],
        advance: Callable[[int, float], None],
    ) -> None:
        self.upscaler = upscaler
        self.settings = settings
        self.ledger = ledger
        self.facts = facts
        self.note = note
        self.tell = tell
        self.advance = advance

    def run(self, jobs: Sequence[Job], *, fail_fast: bool = False) -> None:
        """Do all jobs, whatever becomes of single ones; with `fail_fast`, up to a failure.

        Whatever ends it, Ctrl-C included, a result that is being written is finished first.

        Raises:
            DiskFullError: there is no room for the next result.
            OutputError: the ledger can't be written.
        """
        if not jobs:
            return
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            reading: Future[_Loaded | ResShiftError] = reader.submit(self._read, jobs[0])
            writing: Future[Record] | None = None
            for number, job in enumerate(jobs):
                loaded = reading.result()
                if number + 1 < len(jobs):
                    reading = reader.submit(self._read, jobs[number + 1])
                started = time.monotonic()
                result = self._enlarge(number, job, loaded)
                seconds = time.monotonic() - started
                if writing is not None and writing.result().status == "failed" and fail_fast:
                    return
                writing = writer.submit(self._finish, job, loaded, result, seconds)
                if fail_fast and isinstance(result, ResShiftError):
                    break
            if writing is not None:
                writing.result()

    def _read(self, job: Job) -> _Loaded | ResShiftError:
        """Read an image, and make sure that its result could be written."""
        try:
            with memory_limit(f"Reduce {printable(job.source)} first."):
                before = _state(job.source)
                picture = images.read(job.source)
                sha256 = digest(job.source)
                if _state(job.source) != before:
                    raise ImageUnreadableError(
                        f"{printable(job.source)} changed while it was read.",
                        hint="Run the same command again when it is complete.",
                    )
                height, width = picture.pixels.shape[:2]
                size = plan.target_size(height, width, self.settings.scale)
                images.check_encodable(picture, job.target, size=size)
        except Exception as error:
            return _expected(error)
        facts = {
            "input_bytes": before[0],
            "input_mtime_ns": before[1],
            "input_sha256": sha256,
        }
        return _Loaded(picture, facts)

    def _enlarge(
        self, number: int, job: Job, loaded: _Loaded | ResShiftError
    ) -> Picture | ResShiftError:
        if isinstance(loaded, ResShiftError):
            return loaded
        _begin_peak(self.upscaler)
        try:
            smaller = f"Use a --tile smaller than {self.settings.tile} for {printable(job.source)}."
            with memory_limit(smaller):
                pixels = self.upscaler.enlarge(
                    loaded.picture.pixels,
                    self.settings,
                    lambda done, total: self.advance(number, done / total),
                )
            return replace(loaded.picture, pixels=pixels, note=self.note)
        except Exception as error:
            return _expected(error)

    def _finish(
        self,
        job: Job,
        loaded: _Loaded | ResShiftError,
        result: Picture | ResShiftError,
        seconds: float,
    ) -> Record:
        """Write a result, or why there is none, and enter it in the ledger."""
        facts: dict[str, Any] = {**self.facts, "input": job.input, "output": job.output}
        if isinstance(loaded, _Loaded):
            facts |= loaded.facts
            facts |= {"seconds": round(seconds, 3), "peak_bytes": _peak(self.upscaler)}
        if not isinstance(result, ResShiftError):
            try:
                facts |= self._write(job, result, facts)
                record = Record(status="done", time=_now(), **facts)
            except DiskFullError:
                raise
            except Exception as error:
                if _is_full(error):
                    raise _disk_full(job.target) from error
                result = _expected(error)
        if isinstance(result, ResShiftError):
            record = _failed(facts, result)
        self.ledger.append(record)
        self.tell(record)
        return record

    def _write(self, job: Job, result: Picture, facts: Mapping[str, Any]) -> dict[str, Any]:
        height, width, channels = result.pixels.shape
        images.create_folder(job.target.parent)
        if shutil.disk_usage(job.target.parent).free < LEAST_ROOM + height * width * channels:
            raise _disk_full(job.target)
        if job.replaces and job.target.exists() and os.path.samefile(job.source, job.target):
            raise OutputError(
                f"The result of {printable(job.source)} would replace it.",
                hint="Give another folder with -o; inputs are never overwritten.",
            )
        self.ledger.append(Record(status="writing", time=_now(), **facts))
        images.write(result, job.target, overwrite=job.replaces)
        return {
            "output_bytes": job.target.stat().st_size,
            "output_sha256": digest(job.target),
            "width": width,
            "height": height,
        }


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
        if getattr(record, name) != settings[name]:
            return f"{name} {printable(getattr(record, name))}, not {printable(settings[name])}"
    return "by other weights" if settings["weights"] not in ("", record.weights) else ""


def _unchanged(record: Record, source: Path, *, trust_times: bool) -> bool:
    """Whether an input is what it was; it is read only where size and time can't tell."""
    try:
        size, mtime = _state(source)
        if size != record.input_bytes:
            return False
        same_time = trust_times and mtime == record.input_mtime_ns
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


def _state(path: Path) -> tuple[int, int]:
    """Bytes and time of modification; nothing of a path that is no file, which `read` refuses."""
    try:
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    except OSError:
        return 0, 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _failed(facts: Mapping[str, Any], error: ResShiftError) -> Record:
    why: dict[str, Any] = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    return Record(status="failed", time=_now(), **facts, **why)


def _expected(error: Exception) -> ResShiftError:
    """An error as one that a record can hold; a bug must not end a night's work either."""
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


def _is_full(error: BaseException) -> bool:
    causes = (error, error.__cause__)
    return any(isinstance(cause, OSError) and cause.errno in _FULL for cause in causes)


def _disk_full(target: Path) -> DiskFullError:
    return DiskFullError(
        f"There is no room for {printable(target)}: the disk is full, or nearly so.",
        hint="Make room, then run the same command again: it goes on from here.",
    )


def _begin_peak(upscaler: Upscaler) -> None:
    if upscaler.device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(upscaler.device)


def _peak(upscaler: Upscaler) -> int | None:
    """Bytes, or None where that can't be told."""
    if upscaler.device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(upscaler.device)
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
