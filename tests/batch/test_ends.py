"""Nothing is lost, whatever ends a batch, and any end can be gone on from."""

from __future__ import annotations

import random
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from batch_folder import lines, results
from command_line import Run, make_photo, posix, start

from resshift_cli.batch import ledger
from resshift_cli.imaging import read
from resshift_cli.imaging.opening import Opened
from resshift_cli.system import atomic, digests


@pytest.fixture
def dozen(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        make_photo(folder / f"{number:02}.png", 20 + number, 30)
    return folder


def started(folder: Path, weights: Path) -> subprocess.Popen[str]:
    output = folder.with_name("out")
    return start("batch", folder, "-o", output, "--weights", weights, "--steps", 1)


@posix
def test_killed_again_and_again_it_gets_to_the_same_results(
    batch: Run, dozen: Path, tiny_weights: Path
) -> None:
    chance = random.Random(5)
    output = dozen.with_name("out")
    for _ in range(3):
        process = started(dozen, tiny_weights)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 3)):
            process.stdout.readline()
        try:
            process.wait(chance.uniform(0, 0.15))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        for record in ledger.Ledger(output).results.values():
            assert digests.digest(output / record.output) == record.output_sha256
    ran = batch(dozen, "-o", output)
    assert ran.code == 0
    assert int(re.findall(r"(\d+) finished before", ran.err)[0]) >= 3
    batch(dozen, "-o", dozen.with_name("whole"))
    assert results(output) == results(dozen.with_name("whole"))


@posix
def test_ctrl_c_finishes_what_is_being_written_and_says_how_to_go_on(
    batch: Run, dozen: Path, tiny_weights: Path
) -> None:
    process = started(dozen, tiny_weights)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    done = len(lines(dozen.with_name("out")))
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        f"Interrupted; {done} of 12 images are finished, and the same command goes on from there."
    )
    assert len(results(dozen.with_name("out"))) == done
    assert f"{12 - done} done, {done} finished before" in batch(dozen, "-o", dozen / "../out").err


def test_a_result_that_no_line_speaks_of_because_the_power_went_is_made_again(
    batch: Run, folder: Path
) -> None:
    batch(folder)
    output = folder.with_name("in_x4")
    before = results(output)
    book = output / ledger.NAME
    book.write_bytes(b"".join(book.read_bytes().splitlines(keepends=True)[:-1]))
    ran = batch(folder)
    assert (ran.code, "1 done, 2 finished before" in ran.err) == (0, True)
    assert results(output) == before


def test_what_was_left_half_written_is_removed_and_nothing_else(batch: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    (output / "sub").mkdir(parents=True)
    stale = [output / ".a.png.0123abcd.tmp", output / "sub" / ".c.png.ffffffff.tmp"]
    stale += [output / ".resshift-batch.jsonl.gz.01234567.tmp"]
    kept = [
        output / name
        for name in (".a.png.tmp", ".a.png.0123abcX.tmp", ".other.0123abcd.tmp", "a.tmp")
    ]
    for path in (*stale, *kept):
        path.write_bytes(b"half")
    assert batch(folder).code == 0
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


def test_a_shard_removes_what_was_left_of_its_own_results_alone(batch: Run, tmp_path: Path) -> None:
    output, names = tmp_path / "out", [f"{'a name that is long ' * 3}{n}.png" for n in range(6)]
    (tmp_path / "in").mkdir()
    for name in names:
        make_photo(tmp_path / "in" / name, 8, 8)
    share = (tmp_path / "in", "-o", output, "--shard")
    batch(*share, "2/2")
    others = {name for name in names if (output / name).exists()}  # about to be written anew
    book = output / "resshift-batch.2-of-2.jsonl"
    book.write_text("".join(book.read_text().splitlines(keepends=True)[::2]))
    left = {name: atomic.temporary(output / name) for name in names}
    for path in left.values():
        path.touch()
    assert batch(*share, "1/2").code == 0
    assert {name for name in names if left[name].exists()} == others and 0 < len(others) < 6


def test_an_input_that_changes_while_it_is_read_is_a_failure(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = read.load

    def slowly(file: Opened, **options: Any) -> Any:
        loaded = load(file, **options)
        if file.source.path.name == "a.png":
            make_photo(file.source.path, 5, 5)
        return loaded

    monkeypatch.setattr(read, "load", slowly)
    ran = batch(folder)
    assert ran.code == 1
    assert "a.png changed while it was read" in ran.err
