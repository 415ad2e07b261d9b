"""What fails costs no other image, and is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batch_folder import lines, results
from command_line import Run, make_photo, may_be_denied

from resshift_cli.batch import ledger
from resshift_cli.restoration.upscaler import Upscaler


def test_images_that_fail_do_not_keep_the_others_from_being_done(batch: Run, folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    (folder / "aa.png").write_bytes(data[: len(data) // 2])
    for number in range(11):
        (folder / f"bad{number}.png").touch()
    ran = batch(folder)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    told = ran.err.splitlines()[-2:]
    assert ran.code == 1
    assert "15 images" in told[0] and "3 done, 0 finished before, 12 failed" in told[0]
    assert "aa.png is cut short or damaged" in errors[0] and len(errors) == 10
    assert told[1] == f"and 2 more, see {folder.with_name('in_x4') / ledger.NAME}"
    failed = [line for line in lines(folder.with_name("in_x4")) if line["status"] == "failed"]
    assert [line["exit_code"] for line in failed] == [4] * 12


def test_damaged_images_are_done_as_far_as_they_go_if_that_is_allowed(
    batch: Run, folder: Path
) -> None:
    data = (folder / "a.png").read_bytes()
    (folder / "aa.png").write_bytes(data[: len(data) // 2])
    (folder / "ab.webp").write_bytes(b"RIFF\x40\0\0\0WEBPVP8 ")
    ran = batch(folder, "--allow-truncated")
    assert ran.code == 1
    assert "4 done, 0 finished before, 1 failed" in ran.err
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "aa.png is cut short or damaged" in warnings[0]
    (line,) = (line for line in lines(folder.with_name("in_x4")) if "warnings" in line)
    assert line["input"] == "aa.png"
    assert [f"warning: {warning}" for warning in line["warnings"]] == warnings
    report = json.loads(batch(folder, "--allow-truncated", "--overwrite", "--json", "-q").out)
    assert report["counts"]["skipped"] == 4


def test_what_lies_behind_an_image_is_not_read_to_know_it_again(batch: Run, folder: Path) -> None:
    with (folder / "a.png").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no room, and hours to go through
    ran = batch(folder)
    assert ran.code == 1 and "2 done, 0 finished before, 1 failed" in ran.err
    assert "a.png has 1048576 MB, and an image of its size takes 1024 MB at most" in ran.err
    with (folder / "b.jpg").open("r+b") as file:
        file.truncate(1 << 40)
    assert "b.jpg was changed since its result was made" in batch(folder, "--verify").err


def test_what_failed_is_tried_again(batch: Run, folder: Path) -> None:
    (folder / "aa.png").write_bytes(b"not yet copied")
    assert batch(folder).code == 1
    make_photo(folder / "aa.png", 9, 9)
    ran = batch(folder)
    assert (ran.code, "1 done, 3 finished before, 0 failed" in ran.err) == (0, True)


def test_fail_fast_stops_at_the_first_failure(batch: Run, folder: Path) -> None:
    (folder / "aa.png").touch()
    ran = batch(folder, "--fail-fast")
    assert ran.code == 1
    assert set(results(folder.with_name("in_x4"))) == {"a.png"}


@pytest.mark.parametrize("devices", [[], ["--devices", "cpu"]])
def test_so_many_failures_may_be_enough(batch: Run, folder: Path, devices: list[str]) -> None:
    for number in range(12):
        (folder / f"aa{number}.png").touch()
    ran = batch(folder, "--max-failures", "2", *devices)
    assert ran.code == 1
    assert list(ledger.Ledger(folder.with_name("in_x4")).results) == ["a.png"]
    ran = batch(folder, "--max-failures", "13", *devices)
    assert "2 done, 1 finished before, 12 failed" in ran.err


def test_a_bug_fails_an_image_and_not_the_night(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Upscaler.stream

    def sometimes(self: Upscaler, rows: Any, shape: Any, *rest: Any) -> Any:
        if shape[0] == 12:
            raise ZeroDivisionError("division by zero")
        return stream(self, rows, shape, *rest)

    monkeypatch.setattr(Upscaler, "stream", sometimes)
    ran = batch(folder)
    assert ran.code == 1
    assert "2 done, 0 finished before, 1 failed" in ran.err
    assert "a bug in resshift: ZeroDivisionError" in ran.err
    assert lines(folder.with_name("in_x4"))[1]["exit_code"] == 70


@may_be_denied
def test_a_folder_that_can_not_be_read_is_a_failure(batch: Run, folder: Path) -> None:
    (folder / "sub").chmod(0)
    try:
        ran = batch(folder)
    finally:
        (folder / "sub").chmod(0o700)
    assert ran.code == 1
    assert "sub can't be read: Permission denied" in ran.err
    assert "2 done, 0 finished before, 1 failed" in ran.err
