"""Lines of a ledger, and the last ones of all inputs.

What lines have in common stands at their ends, and is parsed, checked and kept once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from resshift_cli.batch.record import OWN, Record, is_sound, record_of
from resshift_cli.system.index import Index

_OWN = frozenset(OWN)
_ENDING = ', "folder": '  # what endings begin with; a quote within a text has a backslash before it


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What some lines have in common.

    Attributes:
        number: of the kind.
        ending: of such a line.
        known: the same, as `Record` takes it.
    """

    number: int
    ending: str
    known: Mapping[str, Any]


class Line(NamedTuple):
    """A line that is a record.

    Attributes:
        kind: what others have, too.
        own: what it has for its own, by name.
        beginning: the same, as text.
    """

    kind: Kind
    own: Mapping[str, Any]
    beginning: str

    @property
    def record(self) -> Record:
        """All that it says."""
        return Record(**self.own, **self.kind.known)

    @property
    def text(self) -> str:
        """As it is written, with what a later version may have entered besides."""
        return self.beginning + self.kind.ending


class Kinds:
    """The kinds of lines of a ledger."""

    def __init__(self) -> None:
        self._kinds: list[Kind] = []
        self._by_ending: dict[str, Kind] = {}

    def of(self, number: int) -> Kind:
        """The kind of a number."""
        return self._kinds[number]

    def like_another(self, text: str) -> Line | None:
        """A line that ends as one before did; None if it does not, or is no record."""
        end = text.find(_ENDING)
        kind = self._by_ending.get(text[end:])
        if kind is None:
            return None
        try:
            own = _parsed(text[:end])
        except (ValueError, RecursionError):
            return None
        is_one = own.keys() <= _OWN and is_sound(own)
        return Line(kind, own, text[:end]) if is_one else None

    def line(self, values: Mapping[str, Any]) -> Line:
        """Any line.

        Raises:
            ValueError, TypeError: it is no record.
        """
        own = {name: values[name] for name in OWN if name in values}
        common = {name: value for name, value in values.items() if name not in own}
        beginning, ending = json.dumps(own)[:-1], f", {json.dumps(common)[1:]}"
        kind = self._by_ending.get(ending)
        if kind is None:
            record = record_of(values)
            known = {name: getattr(record, name) for name in common if name not in record.unknown}
            kind = Kind(len(self._kinds), ending, {**known, "unknown": record.unknown})
            self._by_ending[ending] = kind
            self._kinds.append(kind)
        elif not is_sound(own):
            raise ValueError("no record")
        return Line(kind, own, beginning)


class Records(Mapping[str, Record]):
    """The last record of every input, in a temporary file where memory would not do.

    Args:
        kinds: of their lines.
    """

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._index = Index()
        self._has_had = False

    def __getitem__(self, name: str) -> Record:
        """The record of an input; KeyError if there is none."""
        line = self.line(name)
        if line is None:
            raise KeyError(name)
        return line.record

    def line(self, name: str) -> Line | None:
        """The same as a line, which takes less; None if there is none."""
        text = self._index.get(name)
        if text is None:
            return None
        number, _, beginning = text.partition(" ")
        return Line(self._kinds.of(int(number)), _parsed(beginning), beginning)

    def texts(self) -> Iterator[str]:
        """All lines, as they are written."""
        for text in self._index.texts():
            number, _, beginning = text.partition(" ")
            yield beginning + self._kinds.of(int(number)).ending

    def __contains__(self, name: object) -> bool:
        """Whether there is one."""
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        """All inputs, sorted."""
        return iter(self._index)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._index)

    def put(self, line: Line) -> None:
        """Have a line in place of what there is of the same input."""
        self._has_had = True
        self._index[line.own["input"]] = f"{line.kind.number} {line.beginning}"

    def time_of(self, name: str) -> str:
        """When the record of an input was written; "" if there is none."""
        line = self.line(name)
        return "" if line is None else str(line.own["time"])

    def discard(self, name: str) -> None:
        """Have none of an input."""
        if self._has_had:
            self._index.pop(name, None)


def _parsed(beginning: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(beginning + "}")
    return values
