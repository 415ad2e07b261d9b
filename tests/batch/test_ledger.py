"""What became of every image is known after any end of a batch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from resshift_cli.batch import ledger
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.record import Record
from resshift_cli.batch.shards import Shard
from resshift_cli.errors import OutputError
from resshift_cli.imaging.formats import SaveOptions

RECORD = Record(
    status="done",
    input="a.png",
    output="a.png",
    folder="/photos",
    model="tiny",
    weights="00",
    scale=4.0,
    steps=2,
    seed=2**64 - 1,
    tile=64,
    overlap=16,
    temperature=0.1 + 0.2,
    precision="fp32",
    device="cpu",
    version="1",
    time="2025-01-01T00:00:00+00:00",
)


def test_what_was_entered_is_there_when_the_ledger_is_read_again(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    book.append(RECORD)
    book.append(replace(RECORD, input="b.png", status="failed", error="why", exit_code=4))
    again = Ledger(tmp_path)
    assert again.results == book.results == {"a.png": RECORD}
    assert again.begun == {}


def test_a_line_has_no_more_than_is_known(tmp_path: Path) -> None:
    Ledger(tmp_path).append(RECORD)
    (line,) = (tmp_path / ledger.NAME).read_text().splitlines()
    assert json.loads(line) == RECORD.facts()
    assert "error" not in json.loads(line)


@pytest.mark.parametrize("name", ["new\nline", "\U0001f408", "caf\udce9", "\u2028", '"\\'])
def test_any_name_takes_one_line_of_ascii_and_comes_back(tmp_path: Path, name: str) -> None:
    record = replace(RECORD, input=name, output=name)
    Ledger(tmp_path).append(record)
    content = (tmp_path / ledger.NAME).read_bytes()
    assert content.isascii() and content.count(b"\n") == 1
    assert Ledger(tmp_path).results == {name: record}


def test_wherever_the_last_line_is_torn_the_others_hold_and_the_next_one_is_whole(
    tmp_path: Path,
) -> None:
    Ledger(tmp_path).append(RECORD)
    Ledger(tmp_path).append(replace(RECORD, input="b.png"))
    path = tmp_path / ledger.NAME
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content) - 1, 20):
        path.write_bytes(content[:end])
        book = Ledger(tmp_path)
        assert set(book.results) == {"a.png"}
        book.append(replace(RECORD, input="c.png"))
        book.append(replace(RECORD, input="d.png"))
        assert set(Ledger(tmp_path).results) == {"a.png", "c.png", "d.png"}


@pytest.mark.parametrize(
    "line",
    [b"\0" * 4096, b"{}", b"[]", b"1", b"\xff\xfe", b'{"status": "done"}', b"[" * 100_000],
    ids=["zeros", "empty", "list", "number", "no text", "little", "deep"],
)
def test_what_is_no_record_is_passed_over(tmp_path: Path, line: bytes) -> None:
    Ledger(tmp_path).append(RECORD)
    with (tmp_path / ledger.NAME).open("ab") as file:
        file.write(line + b"\n")
    Ledger(tmp_path).append(replace(RECORD, input="b.png"))
    assert set(Ledger(tmp_path).results) == {"a.png", "b.png"}


def test_what_a_later_version_adds_is_known_to_be_unknown(tmp_path: Path) -> None:
    line = json.dumps(RECORD.facts() | {"colour": "red"})
    (tmp_path / ledger.NAME).write_text(f"{line}\n")
    (record,) = Ledger(tmp_path).results.values()
    assert record == replace(RECORD, unknown=("colour",))
    assert record.facts() == RECORD.facts()


def test_what_is_packed_is_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Ledger(tmp_path)
    for record in (RECORD, replace(RECORD, input="b.png", warnings=["old"])):
        book.append(record)
    book.append(replace(RECORD, input="c.png", status="failed", error="why", exit_code=4))
    book.append(replace(RECORD, input="d.png", status="writing"))
    book.enter_others({".mp4": 1}, {})
    later = RECORD.facts() | {"input": "e.png", "colour": ["red"]}
    with (tmp_path / ledger.NAME).open("a") as file:
        file.write(f"{json.dumps(later)}\n")
    before = Ledger(tmp_path)
    monkeypatch.setattr(ledger, "LARGE", 1)
    before.pack()
    (packed,) = ledger.files(tmp_path)
    after = Ledger(tmp_path)
    assert (packed, (tmp_path / packed).read_bytes()[:2]) == (ledger.ALL, b"\x1f\x8b")
    assert list(after.texts()) == list(before.texts()) and len(list(after.texts())) == 6
    assert after.results["e.png"].unknown == ("colour",) and '"red"' in str([*after.texts()])
    after.append(replace(RECORD, input="c.png", time="2026-01-01T00:00:00+00:00"))
    assert set(Ledger(tmp_path).results) == {"a.png", "b.png", "c.png", "e.png"}
    assert not Ledger(tmp_path).failures


def test_what_earlier_runs_left_is_packed_before_anything_is_added(tmp_path: Path) -> None:
    for number in (1, 2):
        ledger.Part(tmp_path, Shard(number, 2)).append(replace(RECORD, input=f"{number}.png"))
    with ledger.opened(tmp_path) as book:
        assert ledger.files(tmp_path) == [ledger.ALL]
        book.append(replace(RECORD, input="3.png"))
        other = ledger.Part(tmp_path, Shard(1, 2))  # of another process of this batch
        other.append(replace(RECORD, input="4.png"))
    assert ledger.files(tmp_path) == [ledger.ALL]
    assert set(Ledger(tmp_path).results) == {f"{number}.png" for number in (1, 2, 3, 4)}


def test_a_packed_ledger_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / ledger.ALL).write_bytes(b"\x1f\x8b\x08 no more")
    with pytest.raises(OutputError, match=r"resshift-batch\.jsonl\.gz can't be read: .* damaged"):
        Ledger(tmp_path)


def test_of_two_files_the_later_line_holds(tmp_path: Path) -> None:
    early, late = "2025-01-01T00:00:00+00:00", "2025-01-02T00:00:00+00:00"
    for number, time in ((1, late), (2, early)):
        part = ledger.Part(tmp_path, Shard(number, 2))
        part.append(replace(RECORD, seed=number, time=time))
    assert Ledger(tmp_path).results["a.png"].seed == 1


def test_files_that_were_left_alone_are_entered_when_they_change(tmp_path: Path) -> None:
    for counts in ({".mp4": 1}, {".mp4": 1}, {".mp4": 2}):
        Ledger(tmp_path).enter_others(counts, {"folder": "/photos"})
    assert Ledger(tmp_path).others == {".mp4": 2}
    assert len((tmp_path / ledger.NAME).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "name", ["input", "output", "folder", "weights", "input_sha256", "warnings"]
)
def test_a_line_of_other_kinds_of_values_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / ledger.NAME).write_text(json.dumps(RECORD.facts() | {name: {"a": 1}}) + "\n")
    assert Ledger(tmp_path).results == {}


def test_a_line_of_before_there_were_options_means_their_defaults(tmp_path: Path) -> None:
    options = {**asdict(SaveOptions()), "first_frame": False}
    line = {name: value for name, value in RECORD.facts().items() if name not in options}
    (tmp_path / ledger.NAME).write_text(f"{json.dumps(line)}\n")
    (record,) = Ledger(tmp_path).results.values()
    assert {name: getattr(record, name) for name in options} == options


def test_a_result_is_begun_until_it_is_done_or_failed(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    for end in ("done", "failed"):
        begun = replace(RECORD, status="writing")
        book.append(begun)
        assert Ledger(tmp_path).begun == {"a.png": begun}
        book.append(replace(RECORD, status=end))
        assert Ledger(tmp_path).begun == {}
    assert book.results == {"a.png": RECORD}  # which is still what was last written


def test_a_ledger_that_can_not_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"resshift-batch\.jsonl can't be written"):
        Ledger(tmp_path / "none").append(RECORD)
    (tmp_path / ledger.NAME).mkdir()
    with pytest.raises(OutputError, match=r"resshift-batch\.jsonl can't be read"):
        Ledger(tmp_path)


def test_only_one_process_has_a_folder(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from resshift_cli.batch import ledger\n"
        "with ledger.locked(pathlib.Path(sys.argv[1])): print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(OutputError, match="Another batch"), ledger.locked(tmp_path):
        pass
    other.kill()  # which frees it, as a crash does
    other.communicate()
    with ledger.locked(tmp_path):
        pass
