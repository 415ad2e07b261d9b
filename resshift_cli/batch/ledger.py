"""What became of every image of a folder, one JSON line each, so that a batch can go on.

A line is on the disk before the next image's is begun. Just before a result takes its name, a line
says that it is about to: a result without a later line is then known to be a batch's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from resshift_cli.errors import OutputError, printable
from resshift_cli.system import atomic, held, locks
from resshift_cli.system.held import HeldFolder
from resshift_cli.system.journal import Journal

NAME = "resshift-batch.jsonl"
LOCK = ".resshift-batch.lock"

STATUSES = ("writing", "done", "failed")
OTHERS = "left alone"  # of a line about files that are no images


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    r"""One line. What earlier versions did not enter has a default that is true of them.

    Attributes:
        status: about to be written, finished, or failed.
        input: path within `folder`, with slashes. Bytes of a name that are not UTF-8 are single
            surrogates, as Python has them (`\udcff`).
        output: path within the folder of the ledger, likewise.
        folder: the folder of the inputs, absolute.
        model, weights: its name, and the SHA-256 of its files.
        size: the box that results fill, where that says how large they are.
        scale: of this image; None of one that failed before its size was known.
        steps, seed, tile, overlap, temperature, detail, color_fix, consistency, keep_hidden,
            wrap: as `settings.Settings`.
        precision: what was computed in.
        format, quality, lossless, compression, depth, strip_metadata, palette: as
            `formats.SaveOptions`.
        first_frame: whether only the first frame or page was taken.
        assume_profile: what colours were taken for that a file said nothing of; None if nobody
            chose.
        device: where.
        threads: how many of a CPU computed it, on which its last bits depend.
        version: of resshift.
        time: when the line was written, UTC, ISO 8601.
        input_bytes, input_mtime_ns, input_sha256: of the file that was read, where it could be.
        output_bytes, output_sha256: of the file that was written.
        width, height: of the result.
        seconds: of computing.
        peak_bytes: most memory that was taken so far: of a GPU's own by this image, else of the
            process by all images.
        warnings: what was wrong with the input, if it was read nonetheless.
        error, hint, exit_code: why it failed.
        unknown: names of what a later version entered besides; not entered itself.
    """

    status: Literal["writing", "done", "failed"]
    input: str
    output: str
    folder: str
    model: str
    weights: str
    steps: int
    seed: int
    tile: int
    overlap: int
    temperature: float
    precision: str
    device: str
    version: str
    time: str
    size: str | None = None
    scale: float | None = None
    detail: float = 1.0
    color_fix: str = "none"
    consistency: float = 0.0
    keep_hidden: bool = False
    wrap: str = "none"
    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    compression: int | None = None
    depth: int | None = None
    strip_metadata: bool = False
    palette: bool = False
    first_frame: bool = False
    assume_profile: str | None = None
    input_bytes: int | None = None
    input_mtime_ns: int | None = None
    input_sha256: str | None = None
    output_bytes: int | None = None
    output_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    threads: int | None = None
    warnings: list[str] | None = None
    error: str | None = None
    hint: str | None = None
    exit_code: int | None = None
    unknown: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Names and values, without those that are not known."""
        values = asdict(self)
        del values["unknown"]
        return {name: value for name, value in values.items() if value is not None}


class Ledger:
    """The ledger in a folder of results; an absent one is begun by the first line.

    Args:
        folder: of the results.
        place: the same, held open, where results are written to it: see `opened`.

    Attributes:
        results: the last finished result of every input.
        failures: why inputs failed that have no result since.
        begun: inputs whose last line says that their result was about to be written.
        others: how many files of the folder of inputs were left alone, by extension.

    Raises:
        OutputError: it is there but can't be read, or is not ours.
    """

    def __init__(self, folder: Path, place: HeldFolder | None = None) -> None:
        self.path = folder / NAME
        self.place = place
        self.failures: dict[str, Record] = {}
        self.others: dict[str, int] = {}
        self.results: dict[str, Record] = {}
        self.begun: dict[str, Record] = {}
        self._journal = Journal(
            self.path, hint="Make room, then run the same command again: it goes on from here."
        )
        for values in self._journal.lines():
            record = _parse(values)
            if record is not None:
                self._remember(record)
            elif values.get("status") == OTHERS:
                self.others = _counts(values.get("others"))

    def append(self, record: Record) -> None:
        """Add a line; when this returns it is on the disk.

        Raises:
            OutputError: it can't be written, or the folder is not there any more.
        """
        self._append(record.facts())
        self._remember(record)

    def enter_others(self, counts: Mapping[str, int], facts: Mapping[str, Any]) -> None:
        """Add a line about files that were left alone, unless the last one says the same.

        Raises:
            OutputError: as `append`.
        """
        if dict(counts) != self.others:
            self._append({"status": OTHERS, **facts, "others": dict(counts)})
            self.others = dict(counts)

    def _append(self, values: Mapping[str, Any]) -> None:
        if self.place is not None and not self.place.is_still_there():
            raise OutputError(
                f"{printable(self.path.parent)} was moved or removed while results were written "
                "to it.",
                hint="Where it is now, the same command goes on: name it with -o.",
            )
        self._journal.append(values)

    def _remember(self, record: Record) -> None:
        if record.status == "writing":
            self.begun[record.input] = record
            return
        self.begun.pop(record.input, None)
        if record.status == "done":
            self.results[record.input] = record
            self.failures.pop(record.input, None)
        else:
            self.failures[record.input] = record


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """Make a folder of results if need be, have it for this process alone, and read its ledger.

    Raises:
        OutputError: another batch is at work in it, it can't be written, or what is called like
            the ledger is none of ours.
    """
    atomic.make_folder(folder)
    with ExitStack() as stack:
        try:
            place = stack.enter_context(held.opened(folder))
        except OSError as error:
            raise OutputError(
                f"{printable(folder)} can't be opened: {atomic.reason(error)}.",
                hint="Give another folder with -o.",
            ) from error
        stack.enter_context(locked(folder))
        yield Ledger(folder, place)


def locked(folder: Path) -> AbstractContextManager[object]:
    """Have a folder of results for this process alone; the hidden lock file stays there.

    Raises:
        OutputError: another batch is at work in it, or it can't be written.
    """
    return locks.at_once(
        folder / LOCK,
        busy=f"Another batch is at work in {printable(folder)}.",
        hint="Give another folder with -o.",
    )


def _counts(values: object) -> dict[str, int]:
    """Numbers by text, as far as they are that."""
    if not isinstance(values, dict):
        return {}
    return {str(name): count for name, count in values.items() if isinstance(count, int)}


def _parse(values: Mapping[str, Any]) -> Record | None:
    """A line as a record, or None for one of another kind."""
    known = {field.name: values[field.name] for field in fields(Record) if field.name in values}
    known["unknown"] = tuple(str(name) for name in values if name not in known)
    try:
        record = Record(**known)
    except TypeError:
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    """Whether what a file said is of the kinds that it should be of, as far as that matters."""
    texts = (record.input, record.output, record.folder, record.model, record.weights)
    return (
        record.status in STATUSES
        and all(isinstance(text, str) for text in texts)
        and all(
            isinstance(digest, str | None) for digest in (record.input_sha256, record.output_sha256)
        )
        and isinstance(record.warnings, list | None)
    )
