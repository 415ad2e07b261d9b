"""Small images are given out by the parcel, large ones alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.groups import Group
from resshift_cli.batch.parcels import Parcels
from resshift_cli.batch.resume import Job
from resshift_cli.imaging.sources import Source


def groups(*work: float) -> list[Group]:
    source = Source(Path())
    jobs = [Job(f"{n}.png", "", source, False, amount) for n, amount in enumerate(work)]
    return [Group([job]) for job in jobs]


def given(every: list[Group], *, most: float, hands: int = 1) -> list[list[float]]:
    """The work of what goes out at a time."""
    work = [sum(job.work for job in group.jobs) for group in every]
    parcels = Parcels(every, Gauge(work=sum(work), usual=2.0), most)
    out = []
    while parcel := parcels.take(hands):
        out.append(parcel)
    assert [group for parcel in out for group in parcel] == every
    assert parcels.are_over()
    return [[group.jobs[0].work for group in parcel] for parcel in out]


def test_small_groups_go_together_until_they_take_as_much_as_a_tile_and_large_ones_alone() -> None:
    every = groups(3, 3, 3, 40, 1, 9, *[9] * 20)
    assert given(every, most=9)[:5] == [[3, 3, 3], [40], [1], [9], [9]]


@pytest.mark.parametrize("hands", [1, 2, 5])
def test_the_less_is_left_the_less_goes_out_so_that_all_end_at_a_time(hands: int) -> None:
    sizes = [len(parcel) for parcel in given(groups(*[1] * 40), most=100, hands=hands)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (40 // (2 * hands), 1)


def test_a_group_of_unknown_work_counts_as_a_usual_one() -> None:
    assert given(groups(2, 0, 2, 0, *[2] * 20), most=4)[:2] == [[2, 0], [2, 0]]


def test_where_nobody_knows_how_much_there_is_groups_go_one_by_one() -> None:
    parcels = Parcels(groups(1, 1), Gauge(), 100)
    assert [len(parcels.take(1)) for _ in range(3)] == [1, 1, 0]
