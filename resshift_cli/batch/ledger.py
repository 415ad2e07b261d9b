"""What became of every image of a folder, one JSON line each, so that a batch can go on.

A line is on the disk before the next image's is begun. Just before a result takes its name, a line
says that it is about to: a result without a later line is then known to be a batch's own.

Several may write at once, a file each: the shards of a batch, and the processes of one. Who reads
reads all files. `Ledger.pack` makes one of them, compressed, when nobody else is at work.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from resshift_cli.batch.record import STATUSES, Record, Records, record_of
from resshift_cli.batch.shards import WHOLE, Shard
from resshift_cli.errors import OutputError, printable
from resshift_cli.system import atomic, held, locks
from resshift_cli.system.held import HeldFolder
from resshift_cli.system.journal import PACKED, Journal

NAME = "resshift-batch.jsonl"
LOCK = ".resshift-batch.lock"
ALL = NAME + PACKED
"""What lines of many files are packed in."""

OTHERS = "left alone"  # of a line about files that are no images
LARGE = 16 << 20  # bytes of a file of lines that is worth packing

_JOURNAL = re.compile(r"resshift-batch(\.\d+-of-\d+)*\.jsonl(\.gz)?")
_LOCK = re.compile(r"\.resshift-batch(\.\d+-of-(\d+))?(\.\d+-of-\d+)*\.lock")
_HINT = "Make room, then run the same command again: it goes on from here."


class Book(Protocol):
    """What results are entered in."""

    @property
    def place(self) -> HeldFolder | None:
        """The folder of results, held open; None if nothing can be entered."""

    def append(self, record: Record) -> None:
        """Add a line; when this returns it is on the disk.

        Raises:
            OutputError: it can't be written, or the folder is not there any more.
        """


class Part:
    """One file of a ledger, which one process adds lines to.

    Args:
        folder: of the results.
        place: the same, held open.
        parts: what the process does of the work; of several, each is a part of the one before.
    """

    def __init__(self, folder: Path, place: HeldFolder | None, *parts: Shard) -> None:
        self.path = folder / NAME.replace(".jsonl", f"{_told_apart(parts)}.jsonl")
        self.place = place
        self._journal = Journal(self.path, hint=_HINT)

    def append(self, record: Record) -> None:
        """As `Book` says."""
        self.write(record.facts())

    def write(self, values: Mapping[str, Any]) -> None:
        """Add a line of any kind.

        Raises:
            OutputError: as `append`.
        """
        if self.place is not None and not self.place.is_still_there():
            raise OutputError(
                f"{printable(self.path.parent)} was moved or removed while results were written "
                "to it.",
                hint="Where it is now, the same command goes on: name it with -o.",
            )
        self._journal.append(values)

    def lines(self) -> Iterator[dict[str, Any]]:
        """All lines that are there.

        Raises:
            OutputError: it is there but can't be read, or is not ours.
        """
        return self._journal.lines()


class Ledger:
    """The ledger in a folder of results; an absent one is begun by the first line.

    Args:
        folder: of the results.
        place: the same, held open, where results are written to it: see `opened`.
        shard: the part of the work that is entered.

    Attributes:
        results: the last finished result of every input.
        failures: why inputs failed that have no result since.
        others: how many files of the folder of inputs were left alone, by extension.

    Raises:
        OutputError: it is there but can't be read, or is not ours.
    """

    def __init__(self, folder: Path, place: HeldFolder | None = None, shard: Shard = WHOLE) -> None:
        self._part = Part(folder, place, shard)
        self.path = self._part.path
        self.place = place
        self.failures = Records()
        self.results = Records()
        self._begun: dict[
            str, Mapping[str, Any]
        ] = {}  # nearly every line: records only if asked for
        self.others: dict[str, int] = {}
        for file in files(folder) or [self.path]:
            several = bool(self.results)
            for values in Journal(file, hint=_HINT).lines():
                self._take(values, several)

    @property
    def begun(self) -> dict[str, Record]:
        """Inputs whose last line says that their result was about to be written."""
        found = {}
        for name, values in self._begun.items():
            with suppress(TypeError, ValueError):  # a line that is no record
                found[name] = record_of(values)
        return found

    def append(self, record: Record) -> None:
        """As `Book` says."""
        self._part.append(record)
        self._take(record.facts(), False)

    def take_over(self, part: Part, names: Container[str]) -> None:
        """Remember what another process has entered of some inputs since this was read.

        Raises:
            OutputError: as `Part.lines`.
        """
        for values in part.lines():
            if values.get("input") in names:
                self._take(values, True)

    def enter_others(self, counts: Mapping[str, int], facts: Mapping[str, Any]) -> None:
        """Add a line about files that were left alone, unless the last one says the same.

        Raises:
            OutputError: as `append`.
        """
        if dict(counts) != self.others:
            self._part.write({"status": OTHERS, **facts, "others": dict(counts)})
            self.others = dict(counts)

    def pack(self) -> None:
        """Make one compressed file of all, if there are several, or a large one.

        What it is made of is read again: other processes of this batch have added to it.

        Raises:
            OutputError: it can't be written; then all stays as it is.
        """
        there = files(self.path.parent)
        lines = [file for file in there if file.name != ALL]
        if len(lines) < 2 and sum(file.stat().st_size for file in lines) < LARGE:
            return
        whole = Ledger(self.path.parent)
        Journal(self.path.parent / ALL, hint=_HINT).pack(whole.lines())
        for file in lines:
            atomic.remove(file)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it knows, in as few lines as will do."""
        if self.others:
            yield {"status": OTHERS, "others": self.others}
        yield from self.results.lines()
        yield from self.failures.lines()
        yield from (dict(values) for values in self._begun.values())

    def _take(self, values: Mapping[str, Any], several: bool) -> None:
        """Remember a line, unless another file has a later one of the same input."""
        status, name = values.get("status"), str(values.get("input"))
        if status == OTHERS:
            self.others = _counts(values.get("others"))
        if status not in STATUSES or (
            several and self.results.time_of(name) > str(values.get("time"))
        ):
            return
        try:
            if status == "writing":
                self._begun[name] = values
                return
            (self.results if status == "done" else self.failures).put(values)
        except (TypeError, ValueError):
            return
        self._begun.pop(name, None)
        if status == "done":
            self.failures.discard(name)


def files(folder: Path) -> list[Path]:
    """The files of a folder's ledger, what was packed first."""
    try:
        found = [path for path in folder.iterdir() if _JOURNAL.fullmatch(path.name)]
    except OSError:  # whoever opens one will tell
        return []
    return sorted(found, key=lambda path: (path.name != ALL, path.name))


@contextmanager
def opened(folder: Path, shard: Shard = WHOLE) -> Iterator[Ledger]:
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
        stack.enter_context(locked(folder, shard))
        book = Ledger(folder, place, shard)
        yield book
        if shard.of == 1:
            book.pack()


@contextmanager
def locked(folder: Path, shard: Shard = WHOLE) -> Iterator[None]:
    """Have a shard of a folder of results for this process alone; hidden lock files stay there.

    Shards of one cut may be at work beside each other, and nobody else beside them.

    Raises:
        OutputError: another batch is at work in it, or it can't be written.
    """
    whole = shard.of == 1
    own = folder / _lock_name(shard)
    with _held(own):
        # Each has its own before it looks for others: of two at once, one sees the other.
        for path in sorted(folder.iterdir()):
            match = _LOCK.fullmatch(path.name)
            if match and path != own and (whole or match[2] != str(shard.of)):
                with _held(path, patience=0 if whole else 2):
                    pass
        yield


def locked_part(folder: Path, *parts: Shard) -> AbstractContextManager[object]:
    """Have a part of what `locked` has for a process of its own, which may outlive the first one.

    Raises:
        OutputError: as `locked`.
    """
    return _held(folder / _lock_name(*parts))


def _held(path: Path, patience: float = 0) -> AbstractContextManager[object]:
    return locks.at_once(
        path,
        busy=f"Another batch is at work in {printable(path.parent)}.",
        hint="Give another folder with -o.",
        patience=patience,
    )


def _lock_name(*parts: Shard) -> str:
    return LOCK.replace(".lock", f"{_told_apart(parts)}.lock")


def _told_apart(parts: Iterable[Shard]) -> str:
    """What is in the names of a part's files, so that they are its own."""
    return "".join(f".{part.number}-of-{part.of}" for part in parts if part.of > 1)


def _counts(values: object) -> dict[str, int]:
    """Numbers by text, as far as they are that."""
    if not isinstance(values, dict):
        return {}
    return {str(name): count for name, count in values.items() if isinstance(count, int)}
