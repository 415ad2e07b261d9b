"""Whether an image is finished, is to be done, or can't be done, from ledger and folders alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.lines import Kind, Line
from resshift_cli.batch.places import MISSING, is_below
from resshift_cli.batch.record import Record
from resshift_cli.errors import OutputError, ResShiftError, printable
from resshift_cli.imaging.folders import Inputs
from resshift_cli.imaging.sources import Source
from resshift_cli.restoration.crafts import Craft

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
        craft: what is done with them.
        overwrite: whether to replace files that are there.
    """

    def __init__(
        self,
        inputs: Inputs,
        ledger: Ledger,
        identity: Mapping[str, Any],
        craft: Craft[Any],
        *,
        overwrite: bool,
    ) -> None:
        self.inputs, self.output, self.ledger = inputs, ledger.place, ledger
        self.identity, self.craft, self.overwrite = identity, craft, overwrite
        self.root = inputs.root
        self._differences: dict[Kind, str] = {}

    def is_finished(self, source: str) -> bool:
        """Whether an input's result is finished; neither of them is opened for it."""
        line = self.ledger.results.line(source)
        if line is None:
            return False
        output = line.own["output"]
        if not is_below(output) or self.output.refusal(output) is not None:
            return False
        return (
            _is_as_large(self.output.size(output), line.own.get("output_bytes"))
            and self._is_made_alike(line)
            and self._is_unchanged(line)
            and self._is_beside(line)
        )

    def _is_made_alike(self, line: Line) -> bool:
        """Whether a result was made as one would be now, which is looked up once for a kind."""
        scales = line.own.get("scale"), self.identity["scale"]
        if self.identity["size"] is None and scales[0] != scales[1]:
            return False
        if line.kind not in self._differences:
            self._differences[line.kind] = _difference(line.record, self.identity)
        return not self._differences[line.kind]

    def _is_unchanged(self, line: Line) -> bool:
        """Whether an input is what it was; it is read only where its state can't tell."""
        own, name = line.own, line.own["input"]
        try:
            state = self.inputs.state(name)
            if state is None or state.size != own.get("input_bytes"):
                return False
            # Times are others in another folder.
            if line.kind.known["folder"] == self.root and (
                state.version == own.get("input_version")
                if state.version
                else state.mtime_ns == own.get("input_mtime_ns")
            ):
                return True
            return self.inputs.source(name).digest() == own.get("input_sha256")
        except (OSError, ResShiftError):
            return False

    def _is_beside(self, line: Line) -> bool:
        """Whether what was read beside an input is what it was; likewise."""
        own, name = line.own, line.own["input"]
        try:
            state = self.craft.state_beside(name)
            if state is not None and state == own.get("mask_state"):
                return True
            return self.craft.sha256_beside(name) == own.get("mask_sha256")
        except (ResShiftError, OSError):  # doing it again will tell
            return False

    def look(self, source: str, name: str) -> Job | Failure:
        """What is to be done of an image that is not finished, or why nothing can be.

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
        if record is not None and _is_as_large(size, record.output_bytes):
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


def _is_as_large(size: int | None, recorded: int | None) -> bool:
    """Whether a result is there, as far as its size tells."""
    return size not in (None, MISSING) and size == recorded
