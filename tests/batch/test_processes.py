"""Several processes share a folder, and make what one makes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_folder import hook, results
from command_line import Run, make_photo, posix, start

from resshift_cli.batch import crew, ledger, processes
from resshift_cli.batch.ledger import Ledger

pytestmark = pytest.mark.usefixtures("one_thread")

# What a process of the batch runs when it starts: it is killed where it opens that file.
POISON = """
import os, sys
sys.addaudithook(
    lambda event, what: event == "open" and "poison.png" in str(what[0]) and os.kill(os.getpid(), 9)
)
"""

# It is killed once, when the result of 7.png has its name and the ledger does not say so yet.
BETWEEN = """
import os, pathlib, sys
seen = []
def hook(event, what):
    if event in ("os.link", "os.rename") and "7.png" in str(what[1]):
        seen.append(what)
    if seen and event == "open" and str(what[0]).endswith(".jsonl"):
        pathlib.Path(__file__).unlink()
        os.kill(os.getpid(), 9)
sys.addaudithook(hook)
"""


def pictures(folder: Path) -> dict[str, bytes | None]:
    return {name: data for name, data in results(folder).items() if "resshift-batch" not in name}


def counted(
    patch: pytest.MonkeyPatch, count: Callable[[processes._Child, list[Any]], int]
) -> list[int]:
    """What is counted whenever a process that has begun is about to be given a parcel of groups."""
    say, found = processes._Child.say, []

    def say_and_count(self: processes._Child, message: object) -> None:
        if isinstance(message, list) and self.has_begun:
            found.append(count(self, message))
        say(self, message)

    patch.setattr(processes._Child, "say", say_and_count)
    return found


@posix
def test_what_kills_its_process_fails_and_the_rest_is_as_one_process_makes_it(
    batch: Run, alike: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch(alike, "-o", alike.with_name("whole")).code == 0
    make_photo(alike / "poison.png", 9, 9)
    hook(monkeypatch, alike, POISON)
    ran = batch(alike, "-o", alike.with_name("out"), "--devices", "cpu,cpu")
    assert ran.code == 1
    assert "14 images" in ran.err and "13 done, 0 finished before, 1 failed" in ran.err
    assert "poison.png was killed, and so were the next two" in ran.err
    assert pictures(alike.with_name("out")) == pictures(alike.with_name("whole"))
    assert ledger.files(alike.with_name("out")) == [ledger.ALL]
    assert list(Ledger(alike.with_name("out")).failures) == ["poison.png"]


@posix
def test_what_was_made_just_before_its_process_was_killed_is_no_failure(
    batch: Run, alike: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(monkeypatch, alike, BETWEEN)
    ran = batch(alike, "-o", alike.with_name("out"), "--devices", "cpu")
    assert (ran.code, "13 done, 0 finished before, 0 failed" in ran.err) == (0, True)
    assert not (alike.with_name("hook") / "sitecustomize.py").exists()
    assert "13 proven, 0 problems" in batch(alike, "-o", alike.with_name("out"), "--verify").err


@posix
def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on(
    batch: Run, dozen: Path, tiny_weights: Path
) -> None:
    output = dozen.with_name("out")
    process = start(
        *("batch", dozen, "-o", output, "--weights", tiny_weights, "--steps", 1),
        *("--devices", "cpu,cpu"),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    done = len(Ledger(output).results)
    assert err.splitlines()[-1].startswith(f"Interrupted; {done} of 12 images are finished")
    assert f"{done} finished before" in batch(dozen, "-o", output).err


def test_small_images_are_given_to_a_process_several_at_a_time(
    batch: Run, dozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch, lambda _, parcel: sum(len(group.jobs) for group in parcel))
    batch(dozen, "-o", dozen.with_name("out"), "--devices", "cpu")
    batch(dozen, "-o", dozen.with_name("whole"))
    assert (sum(sizes), sizes[0] > 2, len(sizes) < 9) == (12, True, True), sizes
    assert pictures(dozen.with_name("out")) == pictures(dozen.with_name("whole"))


def test_a_process_has_no_more_than_what_it_writes_computes_and_reads_ahead(
    batch: Run, alike: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = counted(monkeypatch, lambda child, _: len([*child.groups()]))
    monkeypatch.setattr(crew, "_tile", lambda recipe: 0.0)  # each group is a parcel
    assert batch(alike, "-o", alike.with_name("out"), "--devices", "cpu,cpu").code == 0
    assert len(held) > 4 and max(held) <= 3, held


@pytest.mark.parametrize(
    "options, code, words",
    [
        (["--devices", "cpu,cuda:0"], 2, "no list of one kind"),
        (["--devices", "gpu"], 2, "'gpu' is none of"),
        (["--devices", "cpu,cpu", "--device", "cpu"], 2, "both say where"),
        (["--devices", "all"], 8, "finds no GPUs here"),
        (["--devices", "cuda:97,cuda:98"], 8, "'cuda:97' was asked for"),
    ],
)
def test_what_is_no_list_of_devices_is_refused(
    batch: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = batch(folder, *options)
    assert (ran.code, words in ran.err) == (code, True)
    assert not folder.with_name("in_x4").exists()
