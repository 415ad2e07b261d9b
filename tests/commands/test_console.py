"""What is printed, and what is left out."""

from __future__ import annotations

import pytest

from resshift_cli.commands import console
from resshift_cli.errors import printable


class Clock:
    """Stands in for the module `time`: every call of `advance` takes so many seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def plain_lines(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, total: int, start: int = 0
) -> list[str]:
    """What a job prints that takes so long per unit, and had done `start` units before."""
    with console.progress("photo.jpg", "tile steps") as advance:
        for done in range(start + 1, total + 1):
            clock.now += seconds
            advance(done, total)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Schönes Foto (1).jpg", "Schönes Foto (1).jpg"),
        ("a\nerror: b", r"a\nerror: b"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_what_could_play_tricks_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(f"There is no file {'x' * 300}\n[bold]y[/].", "Check its name :smile:.")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: There is no file {'x' * 300}\\n[bold]y[/]. Check its name :smile:.\n"


def test_a_quick_job_prints_one_plain_line(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=0.001, total=1000)
    assert lines == ["photo.jpg: 0%, 1/1000 tile steps, 0:00 gone"]


def test_a_job_of_minutes_prints_a_plain_line_every_tenth_of_the_way(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=1, total=100)
    assert len(lines) == 10
    assert lines[5] == "photo.jpg: 50%, 50/100 tile steps, 0:50 gone, about 0:50 left"


def test_a_job_of_hours_is_not_silent_for_long(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=40, total=1000)
    assert len(lines) == 999
    assert lines[499] == "photo.jpg: 50%, 500/1000 tile steps, 5:33:20 gone, about 5:33:20 left"


def test_a_resumed_job_is_not_thought_to_be_faster_than_it_is(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=10, total=1000, start=900)
    assert lines[1] == "photo.jpg: 90%, 904/1000 tile steps, 0:40 gone, about 16:00 left"


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.waiting("Loading", quiet=True), console.progress("x", "y", quiet=True) as advance:
        advance(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_table_in_a_pipe_has_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("NAME", "TEXT"), [("tiny-x4", "word " * 40), ("b", "x")])
    out = capsys.readouterr().out.splitlines()
    assert out == ["NAME     TEXT", f"tiny-x4  {('word ' * 40).strip()}", "b        x"]


@pytest.mark.parametrize("seconds, shown", [(0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_durations_read_like_a_clock(seconds: float, shown: str) -> None:
    assert console.clock(seconds) == shown
