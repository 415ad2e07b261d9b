"""Journals in stores: whole with every line, each writer's its own."""

from __future__ import annotations

import json
import threading
from typing import Any

import lossy_proxy
import pytest

from resshift_cli.errors import OutputError
from resshift_cli.system import patience, segments
from resshift_cli.system.segments import StoreJournals
from resshift_cli.system.storage import Remote

JOURNALS = StoreJournals(Remote("s3://photos/out"))
NAME = "book.2-of-3.jsonl"


def lines(name: str = NAME) -> list[Any]:
    texts = (text for piece in JOURNALS.grown(name) for text in JOURNALS.texts(piece))
    return [json.loads(text)["n"] for text in texts]


def test_a_line_is_in_the_store_when_it_was_added(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LINES", 3)
    book = JOURNALS.growing(NAME)
    for number in range(8):
        book.append({"n": number})
        assert lines() == list(range(number + 1))
    pieces = JOURNALS.grown(NAME)
    assert len(pieces) == 3 == len(s3.find("photos"))
    assert all(JOURNALS.bytes(piece) > 20 for piece in pieces) and JOURNALS.bytes("none") == 0


def test_writers_of_one_name_lose_nothing_of_each_other(s3: Any) -> None:
    one, other = JOURNALS.growing(NAME), JOURNALS.growing(NAME)
    for number in range(4):
        one.append({"n": number})
        other.append({"n": -number})
    assert sorted(lines()) == [-3, -2, -1, 0, 0, 1, 2, 3]
    assert lines("book.jsonl") == [] and list(JOURNALS.texts("none.jsonl")) == []


def test_who_reads_while_another_writes_gets_whole_lines(s3: Any) -> None:
    book, ended = JOURNALS.growing(NAME), threading.Event()
    book.append({"n": 0})

    def write() -> None:
        number = 0
        while not ended.is_set():
            book.append({"n": (number := number + 1)})

    writing = threading.Thread(target=write)
    writing.start()
    seen = [lines() for _ in range(10)]
    ended.set()
    writing.join()
    assert all(some == list(range(len(some))) for some in seen)
    assert [len(some) for some in seen] == sorted(len(some) for some in seen)


def test_a_store_that_lies_has_every_line_once(
    s3: Any, lossy: lossy_proxy.Lossy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BACK_OFF", 0.01)
    book = JOURNALS.growing(NAME)
    for number in range(20):
        book.append({"n": number})
    assert lines() == list(range(20)) and len(lossy.faults) == len(lossy_proxy.FAULTS)


def test_what_is_packed_takes_the_place_of_what_was_there(s3: Any) -> None:
    for last in (3, 5):
        JOURNALS.pack("all.jsonl.gz", map(str, range(last)))
    assert list(map(int, JOURNALS.texts("all.jsonl.gz"))) == list(range(5))
    assert JOURNALS.names("all") == ["all.jsonl.gz"]
    JOURNALS.remove("all.jsonl.gz")
    JOURNALS.remove("all.jsonl.gz")
    assert JOURNALS.names("") == []


def test_a_piece_that_is_damaged_is_told(s3: Any) -> None:
    s3.pipe_file("photos/out/all.jsonl.gz", b"\x1f\x8b\x08 no more")
    with pytest.raises(OutputError, match="s3://photos/out/all.jsonl.gz can't be read: it is dam"):
        list(JOURNALS.texts("all.jsonl.gz"))
