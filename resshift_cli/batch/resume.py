"""What is finished, what is to be done, and what can't be done, from ledger and folders alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resshift_cli.batch.ledger import Ledger, Record
from resshift_cli.errors import OutputError, ResShiftError, printable
from resshift_cli.system.digests import digest

SAME = (
    *("model", "scale", "steps", "seed", "tile", "overlap", "temperature", "precision"),
    *("color_fix", "consistency"),
    *("format", "quality", "lossless", "compression", "depth", "strip_metadata", "first_frame"),
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


@dataclass(slots=True)
class Sorted:
    """What is to be done of what was found, what is finished, and what can't be done."""

    jobs: list[Job] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def sort_out(
    folder: Path,
    output: Path,
    names: Mapping[str, str],
    ledger: Ledger,
    identity: Mapping[str, Any],
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
        names: inputs and outputs, as of `names.name_outputs`.
        ledger: of `output`.
        identity: what `SAME` names, and `weights`, "" if its digest is not known.
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
            change = _difference(record, identity)
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


def _difference(record: Record, identity: Mapping[str, Any]) -> str:
    """What a result was made with that is other now, or ""."""
    for name in SAME:
        before, now = getattr(record, name), identity[name]
        if before != now:
            shown = [printable("by default" if value is None else value) for value in (before, now)]
            return f"{name.replace('_', ' ')} {shown[0]}, not {shown[1]}"
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
