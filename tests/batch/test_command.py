"""What the command refuses, and what it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from batch_folder import results
from command_line import Ran, Run, make_photo, on_a_terminal, posix
from command_line import files as files_of

from resshift_cli.batch import ledger
from resshift_cli.commands import console, progress


def test_results_within_the_folder_are_not_taken_for_inputs(batch: Run, folder: Path) -> None:
    assert batch(folder, "-o", folder / "large").code == 0
    before = files_of(folder)
    again = batch(folder, "-o", folder / "large")
    assert "3 images" in again.err and "3 finished before" in again.err
    assert files_of(folder) == before


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told at every step, where else it is now and then."""
    monkeypatch.setattr(progress, "PLAIN_SOON", 0)
    monkeypatch.setattr(progress, "PLAIN_LONG", 0)


def test_progress_goes_through_the_images_of_a_group(
    batch: Run, alike: Path, every_line: None
) -> None:
    told = batch(alike, "--steps", 2).err
    seen = re.findall(r"(\d+)/13 images.* (\w+)\.png", told)
    assert list(dict.fromkeys(seen))[:4] == [("3", "2"), ("4", "3"), ("5", "0a"), ("6", "3a")]
    assert seen[-1] == ("13", "9")


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("none", 3, "There is no folder none."),
        ("in/a.png", 2, "in/a.png is not a folder. `resshift upscale in/a.png`"),
        ("in -o in", 2, "would fall among the inputs"),
        ("in/sub -o in", 2, "would fall among the inputs"),
        ("in --include *.pgn --include b*.png", 3, "No file in in is like '*.pgn' or 'b*.png'."),
        ("gopher://me:secret@photos", 2, "There is no way to gopher://photos here."),
        ("in -o https://me:secret@host/large", 2, "Nothing can be written to https://host/large."),
        ("in --report a.txt", 2, "a.txt is neither a .csv nor an .html file"),
        ("in --dry-run --verify", 2, "Leave out --dry-run"),
        ("in --verify", 2, "Beside in there is: none."),
        ("in --verify -o in", 3, "There is no resshift-batch.jsonl in in"),
        ("in -o in/a.png", 6, "in/a.png can't be made"),
        ("in --tile 7", 2, "A tile of 7 px is smaller"),
        ("in --device cuda:99", 8, "'cuda:99' was asked for"),
        ("in --exclude", 2, "--exclude wants a value"),
    ],
)
def test_what_can_not_be_done_is_refused_on_one_line_and_leaves_nothing(
    batch: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "sub" / "sub").mkdir()
    make_photo(folder / "sub" / "sub" / "d.png", 8, 8)
    before = files_of(folder.parent)
    ran = batch(*arguments.split())
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (code, "", 1)
    assert words in ran.err
    assert files_of(folder.parent) == before


def test_a_folder_without_images_is_no_failure(batch: Run, tmp_path: Path) -> None:
    ran = batch(tmp_path)
    assert (ran.code, ran.err) == (0, f"There are no images in {tmp_path}.\n")
    assert not list(tmp_path.parent.glob("*_x4"))


def test_a_second_batch_on_the_same_results_is_refused(batch: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    output.mkdir()
    with ledger.locked(output):
        ran = batch(folder)
    assert ran.code == 6
    assert "Another batch is at work in" in ran.err
    assert results(output) == {}


def test_json_is_one_object_with_counts_and_results(batch: Run, folder: Path) -> None:
    (folder / "bad.png").touch()
    ran = batch(folder, "--json", "--quiet")
    report = json.loads(ran.out)
    assert ran.code == 1
    assert report["counts"] == {"found": 4, "done": 3, "skipped": 0, "failed": 1, "left": 0}
    assert [result["output"] for result in report["results"]] == ["a.png", "b.jpg", "sub/c.png"]
    assert [failure["input"] for failure in report["failures"]] == ["bad.png"]
    assert (report["settings"]["steps"], report["errors"]) == (1, [])


def test_quiet_prints_nothing_when_all_is_well(batch: Run, folder: Path) -> None:
    assert batch(folder, "-q") == Ran(0, "", "")


def test_where_there_is_no_terminal_a_line_now_and_then_tells_how_far_it_is(
    batch: Run, folder: Path, every_line: None
) -> None:
    (folder / "aa.png").touch()
    told = batch(folder).err
    assert re.search(r"^in: \d\d%.* 1/4 images.* \d:\d\d gone.* a\.png 100%$", told, re.MULTILINE)
    assert re.search(r" 3/4 images, 1 failed.* about \d:\d\d left.* b\.jpg 100%", told)


@posix
def test_a_terminal_shows_images_and_the_work_on_one(folder: Path, tiny_weights: Path) -> None:
    make_photo(folder / "big.png", 160, 160)
    shown = on_a_terminal("batch", folder, "--weights", tiny_weights)
    assert re.search(r"in .*━.* \d+%.* \d/4 images.* about 0:\d\d left", shown)
    assert re.search(r"big\.png .*━.* \d+%", shown)
    assert "4 images in" in shown.split("\x1b[2K")[-1]


def test_results_may_go_to_a_folder_above_where_none_falls_among_the_inputs(
    batch: Run, folder: Path
) -> None:
    ran = batch(folder / "sub", "-o", folder)
    assert (ran.code, (folder / "c.png").exists()) == (0, True)
    assert "1 finished before" in batch(folder / "sub", "-o", folder).err


def test_what_was_left_alone_is_told_of_and_entered(batch: Run, folder: Path) -> None:
    for name in ("a.CR2", "b.mp4", "sub/c.mp4", "notes", ".DS_Store"):
        (folder / name).touch()
    ran = batch(folder)
    assert ran.err.splitlines()[-1] == (
        "4 other files were left alone: .mp4 2, .CR2 1, no extension 1"
    )
    others = {".CR2": 1, ".mp4": 2, "": 1}
    assert ledger.Ledger(folder.with_name("in_x4")).others == others
    report = json.loads(batch(folder, "--dry-run", "--json").out)
    assert report["others"] == others


def test_failures_are_told_as_they_happen(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "aa.png").write_bytes(b"no")
    told: list[str] = []
    error, result = console.error, console.result

    def telling(message: str, hint: str) -> None:
        told.append("failure")
        error(message, hint)

    def naming(path: str) -> None:
        told.append(Path(path).name)
        result(path)

    monkeypatch.setattr(console, "error", telling)
    monkeypatch.setattr(console, "result", naming)
    ran = batch(folder)
    assert told == ["a.png", "failure", "b.jpg", "c.png"]
    assert ran.err.count("aa.png is not an image") == 1
