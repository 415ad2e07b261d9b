"""The work stops before a disk is full, and only whole results are found."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_folder import lines, results
from command_line import Run, make_photo
from PIL import Image

from resshift_cli.batch import ledger, worker
from resshift_cli.errors import OutputError
from resshift_cli.imaging import targets


def test_the_work_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = iter([10**9, 10**9, *[10**6] * 9])  # before the work, the first image, the others
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, next(free)))
        ran = batch(folder)
    output = folder.with_name("in_x4")
    assert ran.code == 6
    assert "There is no room for" in ran.err and "it goes on from here" in ran.err
    assert set(results(output)) == {"a.png"}
    assert [line["status"] for line in lines(output)] == ["done"]
    assert "2 done, 1 finished before" in batch(folder).err


def test_a_disk_that_fills_up_ends_the_batch_and_is_no_image_s_fault(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OutputError("It can't be written.", hint="Make room.") from error

    monkeypatch.setattr(targets, "save_below", full)
    ran = batch(folder)
    assert ran.code == 6
    assert ran.err.count("There is no room for") == 1
    assert lines(folder.with_name("in_x4")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems may not be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("spare", [worker.SPARE, -(10**9)], ids=["foreseen", "met"])
def test_on_a_small_disk_only_whole_results_are_found(
    batch: Run, folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    for number in range(9):
        make_photo(folder / f"a{number}.png", 30, 30)
    monkeypatch.setattr(worker, "SPARE", spare)
    ran = batch(folder, "-o", small_disk / "out")
    assert ran.code == 6
    assert "Make room, then run the same command again" in ran.err
    made = results(small_disk / "out")
    done = ledger.Ledger(small_disk / "out").results
    assert len(made) - len(done) in (0, 1)  # where not even a line about it found room
    assert bool(made) == (spare < 0)
    for name in made:
        with Image.open(small_disk / "out" / name) as image:
            image.load()
