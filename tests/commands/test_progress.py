"""How far a job is, as people see it."""

from __future__ import annotations

import io

import pytest

from resshift_cli.commands import console, progress
from resshift_cli.commands.progress import Count


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def plain_lines(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, total: int, start: int = 0
) -> list[str]:
    """What a job prints that takes so long per unit, and had done `start` units before."""
    with progress.bars() as bars:
        advance = progress.shares(bars(total=1, desc="photo.jpg", unit=""))
        for done in range(start + 1, total + 1):
            clock.now += seconds
            advance(done, total)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def counted(clock: Clock, done: int, total: int, seconds: float, **words: str) -> Count:
    """A count that has come so far in so long."""
    count = Count("", total, words.get("unit", ""), False, 0, clock.now, console.separator())
    count.remark = words.get("remark", "")
    clock.now += seconds / done
    count.add(1)
    clock.now += seconds - seconds / done
    count.add(done - 1)
    return count


def test_a_quick_job_prints_one_plain_line(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plain_lines(clock, capsys, seconds=0.001, total=1000) == ["photo.jpg: 0% · 0:00 gone"]


def test_a_job_of_minutes_prints_a_plain_line_every_tenth_of_the_way(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=1.01, total=100)
    assert len(lines) in (10, 11)  # a tenth may be missed by a rounding
    assert "photo.jpg: 50% · 0:50 gone · about 0:50 left" in lines


def test_a_job_of_hours_is_not_silent_for_long(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=40, total=1000)
    assert len(lines) == 999
    assert lines[499] == "photo.jpg: 50% · 5:33:20 gone · about 5:33:20 left"


def test_a_resumed_job_is_not_thought_to_be_faster_than_it_is(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plain_lines(clock, capsys, seconds=10, total=1000, start=900)
    assert lines[1] == "photo.jpg: 90% · 0:40 gone · about 16:00 left"


def test_plain_lines_of_the_whole_name_the_part_that_is_under_way(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bars() as bars:
        whole = bars(total=4, desc="trip", unit="image")
        inner = bars(total=2, desc="a.jpg", unit="")
        whole.update()
        inner.update()
        clock.now += 40
        whole.update()
        inner.close()
        clock.now += 40
        whole.update()
    assert capsys.readouterr().err.splitlines() == [
        "trip: 25% · 1/4 images · 0:00 gone · a.jpg 0%",
        "trip: 50% · 2/4 images · 0:40 gone · about 1:20 left · a.jpg 50%",
        "trip: 75% · 3/4 images · 1:20 gone · about 0:40 left",
    ]


def test_a_download_of_unknown_size_tells_how_much_is_here(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bars() as bars:
        bar = bars(desc="model.pth", unit="B", unit_scale=True)
        clock.now += 30
        bar.update(12_000_000)
    assert capsys.readouterr().err == "model.pth: 12 MB · 0:30 gone\n"


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bars(quiet=True) as bars:
        bars(total=2).update()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "room, shown",
    [
        (None, "1% · 1/100 steps · loss 0.5 · 0:05 gone"),
        (38, "1% · 1/100 steps · loss 0.5"),
        (26, "1% · loss 0.5"),
        (8, "1%"),
    ],
)
def test_narrow_terminals_get_what_is_worth_most(
    clock: Clock, room: int | None, shown: str
) -> None:
    count = Count("", 100, "step", False, 0, clock.now, " · ", remark="loss 0.5")
    clock.now += 5
    count.add(1)
    assert count.words(room) == shown


def test_the_time_left_runs_down_between_updates(clock: Clock) -> None:
    count = counted(clock, done=10, total=100, seconds=10)
    assert count.words() == "10% · 0:10 gone · about 1:30 left"
    clock.now += 30
    assert count.words() == "10% · 0:40 gone · about 1:00 left"


def test_where_stderr_has_no_dots_there_are_commas(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert counted(clock, done=2, total=4, seconds=2).words() == "50%, 0:02 gone, about 0:02 left"
