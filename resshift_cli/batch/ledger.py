"""What became of every image of a folder, one JSON line each, so that a batch can go on.

A line is on the disk before the next image's is begun. Just before a result takes its name, a line
says that it is about to: a result without a later line is then known to be a batch's own.

Several may write at once, a file each: the shards of a batch, and the processes of one. Who reads
reads all files. `Ledger.pack` makes one of them, compressed, when nobody else is at work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

from resshift_cli.batch import places
from resshift_cli.batch.lines import Kinds, Line, Records
from resshift_cli.batch.places import Place, Where
from resshift_cli.batch.record import Record
from resshift_cli.batch.shards import WHOLE, Shard
from resshift_cli.errors import printable
from resshift_cli.system.journal import PACKED, parsed
from resshift_cli.system.segments import SEGMENT

NAME = "resshift-batch.jsonl"
LOCK = ".resshift-batch.lock"
ALL = NAME + PACKED
"""What lines of many files are packed in."""

OTHERS = "left alone"  # of a line about files that are no images
LARGE = 16 << 20  # bytes of a file of lines that is worth packing

_JOURNAL = re.compile(rf"resshift-batch(\.\d+-of-\d+)*({SEGMENT})?\.jsonl(\.gz)?")
_LOCK = re.compile(r"\.resshift-batch(\.\d+-of-(\d+))?(\.\d+-of-\d+)*\.lock")
_START = NAME.partition(".")[0]
_OWN = re.compile(rf"\.?{_START}\..*", re.DOTALL)


class Book(Protocol):
    """What results are entered in."""

    @property
    def place(self) -> Place:
        """Where the results are."""

    def append(self, record: Record) -> None:
        """Add a line; when this returns it is on the disk.

        Raises:
            OutputError: it can't be written, or the folder is not there any more.
        """


class Part:
    """One file of a ledger, which one process adds lines to.

    Args:
        place: of the results.
        parts: what the process does of the work; of several, each is a part of the one before.
    """

    def __init__(self, place: Where, *parts: Shard) -> None:
        self.place = places.at(place)
        self._name = _name(*parts)
        self._journal = self.place.journals.growing(self._name)

    def append(self, record: Record) -> None:
        """As `Book` says."""
        self.write(record.facts())

    def write(self, values: Mapping[str, Any]) -> None:
        """Add a line of any kind.

        Raises:
            OutputError: as `append`.
        """
        self.place.check()
        self._journal.append(values)

    def texts(self) -> Iterator[str]:
        """All lines that are there.

        Raises:
            OutputError: it is there but can't be read, or is not ours.
        """
        for name in self.place.journals.grown(self._name):
            yield from self.place.journals.texts(name)


class Ledger:
    """The ledger in a folder of results; an absent one is begun by the first line.

    Args:
        place: of the results, opened where some are written: see `opened`.
        shard: the part of the work that is entered.

    Attributes:
        results: the last finished result of every input.
        failures: why inputs failed that have no result since.
        others: how many files of the folder of inputs were left alone, by extension.
        shard: as it was given.

    Raises:
        OutputError: it is there but can't be read, or is not ours.
    """

    def __init__(self, place: Where, shard: Shard = WHOLE) -> None:
        self.place = places.at(place)
        self.shard = shard
        self._part = Part(self.place, shard)
        self._kinds = Kinds()
        self.failures = Records(self._kinds)
        self.results = Records(self._kinds)
        self._begun: dict[str, Line] = {}  # nearly every line: records only if asked for
        self.others: dict[str, int] = {}
        for number, file in enumerate(files(self.place) or [_name(shard)]):
            for text in self.place.journals.texts(file):
                self._read(text, several=number > 0)

    @property
    def begun(self) -> dict[str, Record]:
        """Inputs whose last line says that their result was about to be written."""
        return {name: line.record for name, line in self._begun.items()}

    def append(self, record: Record) -> None:
        """As `Book` says."""
        self._part.append(record)
        self._take(self._kinds.line(record.facts()), several=False)

    def take_over(self, part: Part, names: Container[str]) -> None:
        """Remember what another process has entered of some inputs since this was read.

        Raises:
            OutputError: as `Part.lines`.
        """
        for text in part.texts():
            if parsed(text).get("input") in names:
                self._read(text, several=True)

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

        Nobody else may have added to them since they were read.

        Raises:
            OutputError: it can't be written; then all stays as it is.
        """
        if loose := _loose(self.place):
            self.place.journals.pack(ALL, self.texts())
            for file in loose:
                self.place.journals.remove(file)

    def texts(self) -> Iterator[str]:
        """What it knows, in as few lines as will do."""
        if self.others:
            yield json.dumps({"status": OTHERS, "others": self.others})
        yield from self.results.texts()
        yield from self.failures.texts()
        yield from (line.text for line in self._begun.values())

    def _read(self, text: str, *, several: bool) -> None:
        """Remember what a line says, if it is one."""
        line = self._kinds.like_another(text)
        if line is not None:
            self._take(line, several=several)
            return
        values = parsed(text)
        if values.get("status") == OTHERS:
            self.others = _counts(values.get("others"))
            return
        with suppress(TypeError, ValueError):  # it is no record
            self._take(self._kinds.line(values), several=several)

    def _take(self, line: Line, *, several: bool) -> None:
        """Remember a record, unless another file has a later one of the same input."""
        status, name = line.own["status"], line.own["input"]
        if several and self.results.time_of(name) > line.own["time"]:
            return
        if status == "writing":
            self._begun[name] = line
            return
        (self.results if status == "done" else self.failures).put(line)
        self._begun.pop(name, None)
        if status == "done":
            self.failures.discard(name)


def files(place: Where) -> list[str]:
    """The files of a folder's ledger, what was packed first."""
    found = filter(_JOURNAL.fullmatch, places.at(place).journals.names(_START))
    return sorted(found, key=lambda name: (name != ALL, name))


def is_own(name: str) -> bool:
    """Whether a name is that of a file of a ledger, or of a lock, or begins like one."""
    return _OWN.fullmatch(name) is not None


def _loose(place: Place) -> list[str]:
    """Files of lines that are worth packing."""
    found = [file for file in files(place) if file != ALL]
    is_worth_it = len(found) > 1 or sum(map(place.journals.bytes, found)) >= LARGE
    return found if is_worth_it else []


@contextmanager
def opened(place: Where, shard: Shard = WHOLE) -> Iterator[Ledger]:
    """Make a folder of results if need be, have it for this process alone, and read its ledger.

    Raises:
        OutputError: another batch is at work in it, it can't be written, or what is called like
            the ledger is none of ours.
    """
    with places.at(place).opened() as open_place, locked(open_place, shard):
        book = Ledger(open_place, shard)
        if shard.of == 1:
            book.pack()
        yield book
        if shard.of == 1 and _loose(open_place):
            Ledger(open_place).pack()  # read again: other processes of this batch have added to it


@contextmanager
def locked(place: Where, shard: Shard = WHOLE) -> Iterator[None]:
    """Have a shard of a folder of results for this process alone; hidden lock files stay there.

    Shards of one cut may be at work beside each other, and nobody else beside them.

    Raises:
        OutputError: another batch is at work in it, or it can't be written.
    """
    whole, own, there = shard.of == 1, lock_name(shard), places.at(place)
    with _held(there, own):
        # Each has its own before it looks for others: of two at once, one sees the other.
        for name in sorted(there.journals.names(f".{_START}")):
            match = _LOCK.fullmatch(name)
            if match and name != own and (whole or match[2] != str(shard.of)):
                with _held(there, name, patience=0 if whole else 2):
                    pass
        yield


def locked_part(place: Where, *parts: Shard) -> AbstractContextManager[object]:
    """Have a part of what `locked` has for a process of its own, which may outlive the first one.

    Raises:
        OutputError: as `locked`.
    """
    return _held(places.at(place), lock_name(*parts))


def release(place: Where, *parts: Shard) -> None:
    """Let go of what a process had by `locked_part` that has ended without doing so."""
    places.at(place).journals.release(lock_name(*parts))


def _held(place: Place, name: str, patience: float = 0) -> AbstractContextManager[object]:
    return place.journals.lock(
        name,
        busy=f"Another batch is at work in {printable(place.said)}.",
        hint="Give another folder with -o.",
        patience=patience,
    )


def _name(*parts: Shard) -> str:
    return NAME.replace(".jsonl", f"{_told_apart(parts)}.jsonl")


def lock_name(*parts: Shard) -> str:
    """Of the file that `locked_part` locks."""
    return LOCK.replace(".lock", f"{_told_apart(parts)}.lock")


def _told_apart(parts: Iterable[Shard]) -> str:
    """What is in the names of a part's files, so that they are its own."""
    return "".join(f".{part.number}-of-{part.of}" for part in parts if part.of > 1)


def _counts(values: object) -> dict[str, int]:
    """Numbers by text, as far as they are that."""
    if not isinstance(values, dict):
        return {}
    return {str(name): count for name, count in values.items() if isinstance(count, int)}
