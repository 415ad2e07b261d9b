"""Whether an image is finished, is to be done, or can't be done, from ledger and folders alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.places import MISSING, is_below
from resshift_cli.batch.record import Record
from resshift_cli.errors import OutputError, ResShiftError, printable
from resshift_cli.imaging.folders import Inputs
from resshift_cli.imaging.sources import Source

SAME = (
    *("task", "model", "size", "scale", "steps", "seed", "tile", "overlap"),
    *("temperature", "detail"),
    *("precision", "color_fix", "consistency", "keep_hidden", "wrap", "tta"),
    *("format", "quality", "lossless", "compression", "depth", "strip_metadata", "first_frame"),
    *("palette", "assume_profile"),
)
"""What of a record has to be equal for its result to count as finished; `asked` and weights too."""


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be done.

    Attributes:
        input: path within the folder of inputs.
        output: path within the folder of results.
        source: what it is read from.
        replaces: whether what has the name of its result may be replaced.
        work: what it takes, beside others of its batch; 0 if that is not known.
    """

    input: str
    output: str
    source: Source
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
        inputs: the images.
        ledger: of the folder of results.
        identity: what `SAME` names, `asked`, and `weights`, "" if its digest is not known.
        beside: gives the SHA-256 of what is read beside an input, or raises what it can't for.
        overwrite: whether to replace files that are there.
    """

    def __init__(
        self,
        inputs: Inputs,
        ledger: Ledger,
        identity: Mapping[str, Any],
        beside: Callable[[str], str | None],
        *,
        overwrite: bool,
    ) -> None:
        self.inputs, self.output, self.ledger = inputs, ledger.place, ledger
        self.identity, self.beside, self.overwrite = identity, beside, overwrite
        self.root = inputs.root

    def finished(self, source: str) -> Record | None:
        """The record of an input's result, if that is finished; the input is not opened for it."""
        record = self.ledger.results.get(source)
        if record is None or not is_below(record.output):
            return None
        if self.output.refusal(record.output) is not None:
            return None
        size = self.output.size(record.output)
        if not _is_as_large(size, record) or _difference(record, self.identity):
            return None
        is_here = record.folder == self.root
        if not _unchanged(record, self.inputs.source(source), is_here=is_here):
            return None
        return record if self._is_beside(record) else None

    def _is_beside(self, record: Record) -> bool:
        """Whether what was read beside an input is what it was."""
        try:
            return self.beside(record.input) == record.mask_sha256
        except (ResShiftError, OSError):  # doing it again will tell
            return False

    def look(self, source: str, name: str) -> Job | Failure:
        """What is to be done of an image that is not `finished`, or why nothing can be.

        Args:
            source: the input.
            name: of its result.

        Raises:
            OutputError: its result is there, made with other settings, and `overwrite` is false.
        """
        refusal = self.output.refusal(name)
        if refusal is not None:
            return Failure(source, name, refusal)
        record = self._last(self.ledger.results, source, name)
        job = Job(source, name, self.inputs.source(source), replaces=self.overwrite)
        size = self.output.size(name)
        is_here = record is not None and record.folder == self.root
        if record is not None and _is_as_large(size, record):
            change = _difference(record, self.identity)
            if change and not self.overwrite:
                raise OutputError(
                    f"{printable(self.output.said)} holds results that were made otherwise: "
                    f"{change}.",
                    hint="Give another folder with -o, or use --overwrite to replace them.",
                )
        if size is None or self.overwrite:
            return job
        begun = self._last(self.ledger.begun, source, name)
        if size != MISSING and any(
            made is not None and made.folder == self.root and self._is_made_by(made, name)
            for made in (begun, record)
        ):
            return replace(job, replaces=True)
        what = (
            "exists already" if record is None or not is_here else "was changed since it was made"
        )
        error = OutputError(
            f"{self.output.shown(name)} {what}.",
            hint="Use --overwrite to replace it, or give another folder with -o.",
        )
        return Failure(source, name, error)

    def _last(self, records: Mapping[str, Record], source: str, name: str) -> Record | None:
        record = records.get(source)
        return record if record is not None and record.output == name else None

    def _is_made_by(self, record: Record, name: str) -> bool:
        """Whether a file is what a line says was made, or was about to be, untouched.

        A line without a digest, as earlier versions wrote before they wrote a result, is not
        enough: whoever can write to the ledger could have anything replaced.
        """
        try:
            return self.output.digest(name) == record.output_sha256
        except (OSError, ResShiftError):
            return False


def _difference(record: Record, identity: Mapping[str, Any]) -> str:
    """What a result was made with that is other now, or ""."""
    made, asked = record.asked or {}, identity["asked"] or {}
    pairs = [(name, getattr(record, name), identity[name]) for name in SAME]
    pairs += [(name, made.get(name), asked.get(name)) for name in {**made, **asked}]
    for name, before, now in pairs:
        if name == "scale" and identity["size"] is not None:
            continue  # every image has one of its own, which its size and the box say
        if before != now:
            shown = [printable("by default" if value is None else value) for value in (before, now)]
            return f"{name.replace('_', ' ')} {shown[0]}, not {shown[1]}"
    if record.unknown:
        names = printable(", ".join(record.unknown))
        return f"by a later version of resshift ({printable(record.version)}), which says {names}"
    return "by other weights" if identity["weights"] not in ("", record.weights) else ""


def _unchanged(record: Record, source: Source, *, is_here: bool) -> bool:
    """Whether an input is what it was; it is read only where its state can't tell.

    Args:
        record: of its result.
        source: the input.
        is_here: whether it is in the folder that the record speaks of: times are others elsewhere.
    """
    try:
        state = source.state()
        if state is None or state.size != record.input_bytes:
            return False
        told = state.version or state.mtime_ns
        if is_here and told == (record.input_version if state.version else record.input_mtime_ns):
            return True
        return source.digest() == record.input_sha256
    except (OSError, ResShiftError):
        return False


def _is_as_large(size: int | None, record: Record) -> bool:
    """Whether a result is there, as far as its size tells."""
    return size not in (None, MISSING) and size == record.output_bytes
