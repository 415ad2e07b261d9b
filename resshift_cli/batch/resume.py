"""Whether an image is finished, is to be done, or can't be done, from ledger and folders alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.record import Record
from resshift_cli.errors import OutputError, ResShiftError, printable
from resshift_cli.system import held
from resshift_cli.system.digests import digest

SAME = (
    *("model", "size", "scale", "steps", "seed", "tile", "overlap", "temperature", "detail"),
    *("precision", "color_fix", "consistency", "keep_hidden", "wrap"),
    *("format", "quality", "lossless", "compression", "depth", "strip_metadata", "first_frame"),
    *("palette", "assume_profile"),
)
"""What of a record has to be equal for its result to count as finished; its weights too."""


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be done.

    Attributes:
        input: path within the folder of inputs.
        output: path within the folder of results.
        source: where it is.
        target: where its result goes.
        replaces: whether what is at `target` may be replaced.
        work: what it takes, beside others of its batch; 0 if that is not known.
    """

    input: str
    output: str
    source: Path
    target: Path
    replaces: bool
    work: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What can't be done, and why: an image, or a folder, whose `output` is ""."""

    input: str
    output: str
    error: ResShiftError


class Judge:
    """Tells one image after the other what is to become of it.

    A result counts as finished if it was made with the same settings, from an input that has not
    changed since, and is there with its recorded size; the folder of inputs may have been moved. A
    result of this very folder that nobody has touched is made anew where its input has changed. Any
    other file is only replaced if `overwrite` says so. What a link leads to counts as nothing.

    Args:
        folder: of the inputs.
        ledger: of the folder of results.
        identity: what `SAME` names, and `weights`, "" if its digest is not known.
        overwrite: whether to replace files that are there.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, identity: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        self.folder, self.output, self.ledger = folder, ledger.path.parent, ledger
        self.identity, self.overwrite = identity, overwrite
        self.root = os.path.realpath(folder)
        self.links = Links(self.output)

    def finished(self, source: str) -> Record | None:
        """The record of an input's result, if that is finished; the input is not opened for it."""
        record = self.ledger.results.get(source)
        if record is None or not is_below(record.output):
            return None
        if self.links.on_the_way_to(record.output) is not None:
            return None
        found = held.state(self.output / record.output)
        if not _is_as_large(found, record) or _difference(record, self.identity):
            return None
        is_here = record.folder == self.root
        return record if _unchanged(record, self.folder / source, trust_times=is_here) else None

    def look(self, source: str, name: str) -> Job | Failure:
        """What is to be done of an image that is not `finished`, or why nothing can be.

        Args:
            source: the input.
            name: of its result.

        Raises:
            OutputError: its result is there, made with other settings, and `overwrite` is false.
        """
        link = self.links.on_the_way_to(name)
        if link is not None:
            error = OutputError(
                f"{printable(link)} is a link, and no results are written through links.",
                hint="Remove it, or give another folder with -o.",
            )
            return Failure(source, name, error)
        record = self._last(self.ledger.results, source, name)
        job = Job(source, name, self.folder / source, self.output / name, replaces=self.overwrite)
        found = held.state(job.target)
        is_here = record is not None and record.folder == self.root
        if record is not None and _is_as_large(found, record):
            change = _difference(record, self.identity)
            if change and not self.overwrite:
                raise OutputError(
                    f"{printable(self.output)} holds results that were made otherwise: {change}.",
                    hint="Give another folder with -o, or use --overwrite to replace them.",
                )
        if found is None or self.overwrite:
            return job
        begun = self._last(self.ledger.begun, source, name)
        if any(
            made is not None and made.folder == self.root and _is_made_by(made, job.target, found)
            for made in (begun, record)
        ):
            return replace(job, replaces=True)
        what = (
            "exists already" if record is None or not is_here else "was changed since it was made"
        )
        error = OutputError(
            f"{printable(job.target)} {what}.",
            hint="Use --overwrite to replace it, or give another folder with -o.",
        )
        return Failure(source, name, error)

    def _last(self, records: Mapping[str, Record], source: str, name: str) -> Record | None:
        record = records.get(source)
        return record if record is not None and record.output == name else None


def is_below(name: str) -> bool:
    """Whether a path that a file says is one within a folder."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


class Links:
    """Knows which folders below another one are links.

    Args:
        root: the folder, which may be one itself: a person has named it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, Path | None] = {"": None}

    def on_the_way_to(self, place: str) -> Path | None:
        """The first link among the folders that a path (with slashes) leads through."""
        folder = place.rpartition("/")[0]
        if folder not in self.known:
            above, path = self.on_the_way_to(folder), self.root / folder
            self.known[folder] = path if above is None and path.is_symlink() else above
        return self.known[folder]


def _difference(record: Record, identity: Mapping[str, Any]) -> str:
    """What a result was made with that is other now, or ""."""
    for name in SAME:
        before, now = getattr(record, name), identity[name]
        if name == "scale" and identity["size"] is not None:
            continue  # every image has one of its own, which its size and the box say
        if before != now:
            shown = [printable("by default" if value is None else value) for value in (before, now)]
            return f"{name.replace('_', ' ')} {shown[0]}, not {shown[1]}"
    if record.unknown:
        names = printable(", ".join(record.unknown))
        return f"by a later version of resshift ({printable(record.version)}), which says {names}"
    return "by other weights" if identity["weights"] not in ("", record.weights) else ""


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


def _is_as_large(found: os.stat_result | None, record: Record) -> bool:
    """Whether a result is there, as far as its size tells."""
    return (
        found is not None and stat.S_ISREG(found.st_mode) and found.st_size == record.output_bytes
    )


def _is_made_by(record: Record, target: Path, found: os.stat_result) -> bool:
    """Whether a file is what a line says was made, or was about to be, untouched.

    A line without a digest, as earlier versions wrote before they wrote a result, is not enough:
    whoever can write to the ledger could have anything replaced.
    """
    try:
        return stat.S_ISREG(found.st_mode) and digest(target) == record.output_sha256
    except OSError:
        return False
