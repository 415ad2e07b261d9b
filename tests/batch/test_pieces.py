"""A large image is made in pieces by several processes, and is what one makes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from batch_folder import CUTTING, hook, results
from command_line import Run, make_photo, posix, start

from resshift_cli.batch import pieces, plan
from resshift_cli.batch.groups import Piece
from resshift_cli.batch.ledger import Ledger
from resshift_cli.system import leases

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICES = ("--devices", "cpu,cpu")

# A process is killed once, when a piece is about to get its name.
ONCE = """
import os, pathlib, sys
def hook(event, what):
    if event == "os.rename" and str(what[1]).endswith(".tmp") and pathlib.Path(__file__).exists():
        pathlib.Path(__file__).unlink()
        os.kill(os.getpid(), 9)
sys.addaudithook(hook)
"""
POISON = """
import os, sys
sys.addaudithook(
    lambda event, what: event == "open" and "tall.png" in str(what[0]) and os.kill(os.getpid(), 9)
)
"""


@pytest.fixture
def tall(tmp_path: Path) -> Path:
    """A folder of a photo that counts as large, and a small one."""
    folder = tmp_path / "in"
    folder.mkdir()
    make_photo(folder / "tall.png", 13, 300)
    make_photo(folder / "small.png", 9, 9)
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of pieces, as they are told of; every image of more than 9x9 pixels counts as large."""
    names: list[str] = []
    hear = pieces.Pieces.made

    def heard(self: pieces.Pieces, piece: Piece) -> object:
        names.append(piece.name)
        return hear(self, piece)

    monkeypatch.setattr(pieces.Pieces, "made", heard)
    monkeypatch.setattr(plan, "LARGE", 36 * 36)
    return names


def check(batch: Run, folder: Path, *options: object) -> None:
    """The results are those of one process, nothing else is there, and the ledger proves it."""
    output, whole = folder.with_name("out"), folder.with_name("whole")
    batch(folder, "-o", whole, *options)
    names = {"small.png", "tall.png"}
    assert {name for name in results(output) if "resshift-batch" not in name} == names
    assert all(results(output)[name] == results(whole)[name] for name in names)
    assert "2 proven, 0 problems" in batch(folder, "-o", output, "--verify").err


def test_pieces_make_up_the_bits_of_one_process(batch: Run, tall: Path, made: list[str]) -> None:
    options = ("--tile", 16, "--steps", 4)
    ran = batch(tall, "-o", tall.with_name("out"), *options, *DEVICES)
    assert (ran.code, "2 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    assert len(made) == len(set(made)) == 2
    check(batch, tall, *options)


def test_pieces_lie_in_the_store_and_none_is_left_there(
    batch: Run, tall: Path, made: list[str], s3: Any
) -> None:
    ran = batch(tall, "-o", "s3://photos/out", "--tile", 16, *DEVICES)
    assert (ran.code, len(made)) == (0, 3), ran.err
    batch(tall, "-o", tall.with_name("whole"), "--tile", 16)
    assert s3.cat("photos/out/tall.png") == (tall.with_name("whole") / "tall.png").read_bytes()
    assert not [name for name in s3.ls("photos/out") if name.endswith(".tmp")]


@posix
def test_pieces_that_a_killed_command_left_in_a_store_are_removed_by_the_next(
    batch: Run,
    tall: Path,
    made: list[str],
    s3: Any,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "DEAD", 5.0)

    def left() -> list[str]:
        return [name for name in s3.find("photos/out") if name.endswith(".tmp")]

    options = (tall, "-o", "s3://photos/out", "--tile", 16, *DEVICES)
    process = start("batch", *options, "--weights", tiny_weights, "--steps", 1, program=CUTTING)
    while not left() and process.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    psutil.wait_procs(children, timeout=60)
    assert left()
    ran = batch(*options)
    assert (ran.code, len(made), left()) == (0, 3, []), ran.err
    assert s3.glob("photos/out/.*") == []


@posix
def test_of_an_image_whose_process_is_killed_only_that_piece_is_made_again(
    batch: Run, tall: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(monkeypatch, tall, ONCE)
    ran = batch(tall, "-o", tall.with_name("out"), "--tile", 16, *DEVICES)
    assert (ran.code, "2 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    assert not (tall.with_name("hook") / "sitecustomize.py").exists()
    assert len(made) == len(set(made)) == 3
    check(batch, tall, "--tile", 16)


@posix
def test_an_image_whose_pieces_kill_their_processes_is_given_up_and_leaves_nothing(
    batch: Run, tall: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(monkeypatch, tall, POISON)
    ran = batch(tall, "-o", tall.with_name("out"), "--tile", 16, *DEVICES)
    assert (ran.code, "1 done, 0 finished before, 1 failed" in ran.err) == (1, True), ran.err
    assert list(Ledger(tall.with_name("out")).failures) == ["tall.png"]
    assert "small.png" in results(tall.with_name("out"))
    assert not [*tall.with_name("out").glob(".*.tmp")] and not made


def test_an_image_of_which_a_piece_can_not_be_made_is_done_whole(
    batch: Run, tall: Path, made: list[str]
) -> None:
    data = (tall / "tall.png").read_bytes()
    (tall / "tall.png").write_bytes(data[: len(data) // 2])
    ran = batch(tall, "-o", tall.with_name("out"), "--tile", 16, "--devices", "cpu")
    assert (ran.code, "1 done, 0 finished before, 1 failed" in ran.err) == (1, True), ran.err
    assert "tall.png is cut short" in ran.err
    assert not [*tall.with_name("out").glob(".*.tmp")]
