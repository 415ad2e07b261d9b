"""Ctrl-C and SIGTERM while a command works."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import Ran, files, make_photo, posix, start

STOPS = [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]


def stop_at(line: str, signal_number: int, arguments: Sequence[object]) -> Ran:
    """Start a command, and send it a signal when stderr has a line that starts so."""
    process = start(*arguments)
    assert process.stderr is not None
    seen = ""
    for seen in process.stderr:
        if seen.startswith(line):
            process.send_signal(signal_number)
            break
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, seen + err)


@posix
@pytest.mark.parametrize("signal_number, code, word", STOPS, ids=["Ctrl-C", "SIGTERM"])
def test_stopped_halfway_nothing_is_left(
    tmp_path: Path, tiny_weights: Path, signal_number: int, code: int, word: str
) -> None:
    large = make_photo(tmp_path / "large.png", 480, 320)
    arguments = ("upscale", large, "--weights", tiny_weights, "-o", f"{tmp_path}/new/")
    ran = stop_at("large.png: ", signal_number, arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.splitlines()[-1] == f"{word}; nothing was written."
    assert "Traceback" not in ran.err
    assert list(files(tmp_path)) == ["large.png"]


@posix
def test_stopped_after_the_first_image_what_is_finished_stays_and_is_told(
    photo: Path, tiny_weights: Path
) -> None:
    large = make_photo(photo.with_name("large.png"), 480, 320)
    arguments = ("upscale", photo, large, "--weights", tiny_weights, "--json")
    ran = stop_at("[2/2] large.png: ", signal.SIGINT, arguments)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "Interrupted; 1 of 2 images were finished."
    assert [result["input"] for result in json.loads(ran.out)["results"]] == [str(photo)]
    assert sorted(files(photo.parent)) == ["large.png", "photo.png", "photo_x4.png"]


NAMING = """
import signal, sys, time
from resshift_cli.commands import signals

class Member:
    def __set_name__(self, owner, name):
        if name == "first":
            signal.raise_signal(int(sys.argv[1]))
        print(name)

signals.heed()
try:
    class Made:
        first, second = Member(), Member()

    time.sleep(60)
except KeyboardInterrupt as stopped:
    print(type(stopped).__name__)
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_class_is_made_is_heeded_when_that_has_its_members(
    number: signal.Signals,
) -> None:
    """Python up to 3.11 takes it for a RuntimeError of the class; modules are imported late."""
    out, err = start(int(number), program=NAMING).communicate(timeout=50)
    kind = {signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "Terminated"}[number]
    assert (out.split(), err) == (["first", "second", kind], "")
