"""Names in pages, and pages in shards: how a folder is cut, by its names alone.

A page is some names that follow each other. What is computed together comes from one page, so that
any part of a folder can be done without looking at the rest, and the results are the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

LEAST, USUAL, MOST = 64, 64, 512
"""Names of a page: the fewest, how many more come on average, and the most."""

TEAM = 16
"""Shards that deal out a page among each other, at most: each reads the page's headers."""


def pages(names: Iterable[str]) -> Iterator[list[str]]:
    """Cut names into pages.

    A page ends behind a name whose hash says so, wherever that stands: a name that is added or
    taken away changes the page that it is in, and few others.
    """
    page: list[str] = []
    for name in names:
        page.append(name)
        ends = len(page) >= LEAST and _number(name) % USUAL == 0
        if ends or len(page) == MOST:
            yield page
            page = []
    if page:
        yield page


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of the work, each done by a process of its own.

    A page is dealt out among the shards of a team, so that a small folder is shared by all, and of
    a large one nobody has to look at everything.

    Attributes:
        number: which one, from 1.
        of: how many there are.
    """

    number: int = 1
    of: int = 1

    def share(self, page: Sequence[str]) -> range | None:
        """Which units of a page are this shard's, as an endless range; None if none ever is.

        Args:
            page: its names.
        """
        number = _number(page[0])
        team, whose = self._team(self.number - 1), self._team(number % self.of)
        if team != whose:
            return None
        members = [each for each in range(self.of) if self._team(each) == team]
        first = (members.index(self.number - 1) + number // self.of) % len(members)
        return range(first, 1 << 62, len(members))

    def _team(self, member: int) -> int:
        return member * -(-self.of // TEAM) // self.of


WHOLE = Shard()
"""All of the work."""


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")
