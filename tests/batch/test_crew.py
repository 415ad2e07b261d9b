"""How hands of a batch begin and end: nobody is killed who has something that others wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Run

from resshift_cli.batch import crew
from resshift_cli.batch.crew import ENDED, NEXT, Crew, Hand, Task
from resshift_cli.batch.groups import Group
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.processes import Processes
from resshift_cli.batch.runner import Watch
from resshift_cli.batch.shards import Shard

OUT = "s3://photos/out"


@pytest.fixture
def task(batch: Run, folder: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Task:
    """What a batch whose results go to a store tells the second of two hands."""
    told: list[Task] = []
    with monkeypatch.context() as patch:
        patch.setattr(Processes, "run", lambda self, groups: told.append(self.task))
        batch(folder, "-o", OUT, "--devices", "cpu,cpu")
    return replace(told[0], parts=(*told[0].parts, Shard(2, 2)))


def locks(s3: Any) -> list[str]:
    return [path.rpartition("/")[2] for path in s3.glob("photos/out/.*")]


def test_a_hand_has_its_lock_once_it_was_told_to_go_on_and_until_it_ends(
    task: Task, s3: Any
) -> None:
    seen = []

    def groups() -> Iterator[Group]:
        seen.append(locks(s3))
        yield Group([])
        seen.append(locks(s3))

    crew.work(task, "cpu", groups(), Watch(), print)
    assert seen == [[], [".resshift-batch.2-of-2.lock"]]
    assert locks(s3) == []


def test_a_hand_that_comes_too_late_takes_no_lock(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "locked_part", lambda *parts: pytest.fail("it takes it"))
    crew.work(task, "cpu", iter(()), Watch(), print)


class Puppet(Hand):
    """A hand that does as the test says, and is dead when it is killed."""

    def __init__(self) -> None:
        super().__init__("here", Shard(1, 2))
        self.heard: list[object] = []

    def say(self, parcel: Sequence[Group] | None) -> None:
        self.heard.append("no more" if parcel is None else [*parcel])

    def kill(self) -> None:
        self.heard.append("killed")

    interrupt = kill

    def last_words(self) -> str:
        return "ended"


class Puppets(Crew):
    """A crew of them, that are asked about one after another."""

    def hire(self) -> Iterable[Hand]:
        return ()

    def end(self, *asked: Hand) -> None:
        """Hear of hands that ask for work, then have all end, of which there is none."""
        for hand in asked:
            self.inbox.put((hand, NEXT))
        while not self.inbox.empty():
            self._asked(self.inbox.get()[0])
        for hand in dict.fromkeys(asked):
            self.inbox.put((hand, ENDED))
        self._dismiss()


def test_when_all_is_done_only_those_are_killed_that_still_load(task: Task) -> None:
    idle, beginning, loading = hands = [Puppet(), Puppet(), Puppet()]
    puppets = Puppets(task, Ledger(OUT), Watch())
    puppets.hands = [*hands]
    puppets.end(idle, beginning, idle)
    go = [Group([])]
    assert (idle.has_begun, beginning.has_begun) == (True, False)
    assert idle.heard == beginning.heard == [go, "no more", "killed"]  # after it has ended
    assert loading.heard == ["killed"]
    assert puppets.hands == []
