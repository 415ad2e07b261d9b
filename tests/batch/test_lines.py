"""Lines that end alike are parsed once, and others are read as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_ledger import RECORD

from resshift_cli.batch import ledger
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.lines import Kinds

FACTS = RECORD.facts()
LINE = json.dumps(FACTS)


def kinds() -> Kinds:
    """They know the ending of a line."""
    found = Kinds()
    found.line(FACTS)
    return found


def test_lines_of_a_batch_end_alike() -> None:
    other = replace(RECORD, input="b.png", time="2026", scale=2.0, warnings=["old"])
    line = kinds().like_another(json.dumps(other.facts()))
    assert line is not None and line.record == other
    assert line.text == json.dumps(other.facts())
    assert kinds().like_another(json.dumps(replace(RECORD, seed=1).facts())) is None


def test_names_in_any_order_say_the_same(tmp_path: Path) -> None:
    lines = [FACTS, dict(reversed(FACTS.items())), dict(sorted(FACTS.items()))]
    for name, values in zip("abc", lines, strict=True):
        with (tmp_path / ledger.NAME).open("a") as file:
            file.write(json.dumps(values | {"input": name}) + "\n")
    assert Ledger(tmp_path).results == {name: replace(RECORD, input=name) for name in "abc"}


@pytest.mark.parametrize("name", [', "folder": ', '"}, "folder": "/', "}", "{"])
def test_no_name_is_taken_for_the_end_of_a_line(name: str) -> None:
    record = replace(RECORD, input=name, output=name, warnings=[name])
    line = kinds().like_another(json.dumps(record.facts()))
    assert line is not None and line.record == record


@pytest.mark.parametrize(
    "own",
    [{"input": 1}, {"time": None}, {"status": "gone"}, {"warnings": "old"}, {"input_sha256": 1}],
)
def test_an_ending_that_is_known_makes_no_record_of_what_is_none(own: dict[str, Any]) -> None:
    text = json.dumps(FACTS | own)
    assert kinds().like_another(text) is None
    with pytest.raises(ValueError, match="no record"):
        kinds().line(json.loads(text))
    assert kinds().like_another(LINE[5:]) is kinds().like_another("}" + LINE) is None


def test_what_a_later_version_says_at_the_beginning_is_seen(tmp_path: Path) -> None:
    later = json.dumps({"glow": 1} | FACTS | {"input": "b.png"})
    (tmp_path / ledger.NAME).write_text(f"{LINE}\n{later}\n")
    results = Ledger(tmp_path).results
    assert (results["a.png"].unknown, results["b.png"].unknown) == ((), ("glow",))
