"""Texts in order, however many there are: what memory is not to hold lies in temporary files."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

AT_ONCE = 1 << 16  # texts that are sorted in memory


def in_order(texts: Iterable[str], at_once: int = AT_ONCE) -> Iterator[str]:
    """Sort texts; all of them are taken before this returns.

    Args:
        texts: what a name can hold, surrogates included.
        at_once: how many are in memory at most; they are sorted there, and then merged.

    Raises:
        OSError: there is no room for temporary files.
    """
    left = iter(texts)
    block = sorted(islice(left, at_once))
    if len(block) < at_once:
        return iter(block)
    runs = []
    while block:
        runs.append(_read_again(_spooled(block)))
        block = sorted(islice(left, at_once))
    return heapq.merge(*runs)


def _spooled(texts: Sequence[str]) -> BinaryIO:
    file = tempfile.TemporaryFile(prefix="resshift-")  # noqa: SIM115  # `_read_again` closes it
    file.writelines(json.dumps(text).encode("ascii") + b"\n" for text in texts)
    file.seek(0)
    return file


def _read_again(file: BinaryIO) -> Iterator[str]:
    with file:
        for line in file:
            yield json.loads(line)
