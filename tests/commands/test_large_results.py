"""Results that are written as their rows come are whole or not there."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Ran
from faults import (
    COUNTS,
    FAULTS,
    begin,
    errors_only,
    found_in,
    make,
    no_file_beyond,
    on_unix,
    options,
    run,
)

pytestmark = on_unix

ROW_BY_ROW = """
from resshift_cli import __main__
from resshift_cli.batch import worker
from resshift_cli.imaging import files
files.LARGE, worker.SPARE = 0, -(10**9)
__main__.main()
"""
"""The command with every result taken for a large one, and every disk for one that has room."""


def is_writing(process: subprocess.Popen[str], folder: Path) -> bool:
    """Whether the command has a file of this folder open that has no name yet, or a hidden one."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):
            target = os.readlink(descriptor)
            if target.startswith(f"{folder}/") and target.endswith((" (deleted)", ".tmp")):
                return True
    return False


def stop_writing(number: int, seconds: float, output: Path, *arguments: object) -> Ran:
    """Send a command a signal some time after it has begun to write a result row by row."""
    process = begin(*arguments, "-o", f"{output}/", program=ROW_BY_ROW)
    seen = 0  # one that is seen once may be there to find out whether the folder can be written to
    while process.poll() is None and seen < 3:
        seen = seen + 1 if is_writing(process, output) else 0
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


needs_descriptors = pytest.mark.skipif(
    sys.platform != "linux", reason="needs /proc to tell when a result is being written"
)
SIGNALS = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Larger:
    """A folder of photos, and their results written row by row."""

    photos: Path
    results: dict[str, bytes]


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Larger:
    """Three photos in formats that are written so."""
    folder = tmp_path_factory.mktemp("larger")
    (folder / "in").mkdir()
    for seed, suffix in enumerate((".png", ".jpg", ".tif")):
        make(folder / "in" / f"a{suffix}", 100, 140, seed=seed)
    words = ("batch", folder / "in", "-o", folder / "out", *options(tiny_weights))
    assert run(*words, program=ROW_BY_ROW) == Ran(0, "", "")
    return Larger(folder / "in", found_in(folder / "out"))


@needs_descriptors
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_large_result_is_written_leaves_nothing(
    larger: Larger, tmp_path: Path, quick: tuple[object, ...], number: int
) -> None:
    chance = random.Random(number)
    output = tmp_path / "out"
    for source in (
        sorted(larger.photos.iterdir()) * FAULTS if FAULTS > 1 else [larger.photos / "a.png"]
    ):
        ran = stop_writing(number, chance.uniform(0, 0.1), output, "upscale", source, *quick)
        assert (ran.code, ran.out) == (SIGNALS[signal.Signals(number)], ""), ran
        if number == signal.SIGKILL:
            assert list(output.iterdir()) == []
            output.rmdir()
        else:
            assert re.fullmatch(r"(Interrupted|Terminated); nothing was written\.\n", ran.err)
        assert not output.exists()
        COUNTS["large results stopped, upscale"] += 1


@needs_descriptors
def test_a_batch_stopped_while_it_writes_large_results_gets_to_the_same_ones(
    larger: Larger, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    output = tmp_path / "out"
    chance = random.Random(FAULTS)
    for _ in range(FAULTS):
        for number, code in SIGNALS.items():
            span = chance.uniform(0, 0.1)
            ran = stop_writing(number, span, output, "batch", larger.photos, *quick)
            assert ran.code == code, ran
            assert len(ran.err.splitlines()) == (number != signal.SIGKILL), ran
            assert found_in(output).items() <= larger.results.items()
            COUNTS["large results stopped, batch"] += 1
        ran = run("batch", larger.photos, "-o", output, *quick, program=ROW_BY_ROW)
        assert (ran, found_in(output)) == (Ran(0, "", ""), larger.results)
        shutil.rmtree(output)


@needs_descriptors
def test_ctrl_c_does_not_wait_for_a_large_result_of_a_batch(
    tmp_path: Path, quick: tuple[object, ...]
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "a.png", 300, 300)
    output = tmp_path / "out"
    ran = stop_writing(signal.SIGINT, 0, output, "batch", tmp_path / "in", *quick)
    assert (ran.code, found_in(output)) == (130, {})
    assert "0 of 1 images are finished" in ran.err


def test_large_results_that_may_not_be_so_large_leave_the_old_files_as_they_were(
    larger: Larger, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    photos = sorted(larger.photos.iterdir())
    for photo in photos:
        make(tmp_path / "old.png", 4, 4).rename(tmp_path / f"{photo.stem}_x4{photo.suffix}")
    before = found_in(tmp_path)
    words = ("upscale", *photos, "-o", f"{tmp_path}/", "--overwrite", *quick)
    ran = run(*words, program=no_file_beyond(30_000, ROW_BY_ROW))
    assert (ran.code, ran.out, len(errors_only(ran.err))) == (6, "", 3)
    assert ran.err.count("can't be written: File too large") == 3
    assert found_in(tmp_path) == before
    COUNTS["large results without room"] += 3


def test_a_disk_that_fills_up_under_a_large_result_ends_a_batch_that_can_be_gone_on_with(
    larger: Larger, quick: tuple[object, ...], disk: Callable[[str], Path]
) -> None:
    output = disk("size=1m") / "out"
    words = ("batch", larger.photos, "-o", output, *quick)
    ran = run(*words, program=ROW_BY_ROW)
    assert (ran.code, len(errors_only(ran.err))) == (6, 1), ran
    assert "Make room, then run the same command again" in ran.err
    assert 0 < len(found_in(output)) < 3
    disk("size=20m")
    assert run(*words, program=ROW_BY_ROW) == Ran(0, "", "")
    assert found_in(output) == larger.results
    COUNTS["large results without room"] += 1
