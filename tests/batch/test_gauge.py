"""The bars of a batch: one for all of its work, one for the image under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.resume import Job
from resshift_cli.imaging.sources import Source


class Bar:
    """What a bar was told."""

    def __init__(self, total: float | None = None, desc: str | None = None, **_: Any) -> None:
        self.total, self.desc, self.done, self.remark, self.is_open = total, desc, 0.0, "", True

    def update(self, n: float = 1) -> None:
        self.done += n

    def set_postfix_str(self, s: str = "") -> None:
        self.remark = s

    def close(self) -> None:
        self.is_open = False


def begin(*work: float) -> tuple[Gauge, list[Bar]]:
    made: list[Bar] = []

    def bars(**arguments: Any) -> Bar:
        made.append(Bar(**arguments))
        return made[-1]

    source = Source(Path())
    jobs = [Job(f"{n}.png", "", source, False, amount) for n, amount in enumerate(work)]
    known = [amount for amount in work if amount]
    usual = sum(known) / len(known)
    total = sum(amount or usual for amount in work)
    gauge = Gauge(bars, "in", len(jobs), work=total, usual=usual)
    gauge.begin(jobs)
    return gauge, made


def test_images_count_by_their_work_and_one_of_unknown_size_as_a_usual_one() -> None:
    gauge, made = begin(1, 0, 3)
    gauge.advance(0, 1)
    gauge.advance(1, 0.5)
    whole, first, second = made
    assert (whole.total, whole.done, whole.remark) == (6, 2, "2/3 images")
    assert (first.done, first.is_open, second.desc, second.done) == (1, False, "1.png", 0.5)


def test_a_group_that_is_begun_anew_one_by_one_goes_back() -> None:
    gauge, made = begin(1, 1)
    gauge.advance(1, 0.5)
    gauge.advance(0, 0.5)
    assert (made[0].done, made[-1].desc, made[-1].done) == (0.5, "0.png", 0.5)


def test_images_that_failed_are_counted_and_in_the_end_nothing_is_left() -> None:
    gauge, made = begin(1, 1)
    gauge.advance(0, 1)
    gauge.fail()
    assert made[0].remark == "1/2 images, 1 failed"
    gauge.advance(1, 1)
    gauge.close()
    assert made[0].done == pytest.approx(made[0].total)
    assert not any(bar.is_open for bar in made)
