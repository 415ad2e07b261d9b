"""Who goes next, who computes, and what ends a job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from resshift_cli.errors import UsageError
from resshift_cli.serving import jobs, turns
from resshift_cli.serving.jobs import Job, Jobs
from resshift_cli.serving.problems import BusyError
from resshift_cli.serving.turns import Turns


@pytest.fixture
def queue() -> Iterator[Jobs]:
    made = Jobs(most=20)
    yield made
    assert made.close(30)


def job(
    work: Callable[[Job], object],
    client: str = "",
    expected: float | None = None,
    folder: str | None = None,
) -> Job:
    return Job(work, {}, client, expected, most=60, folder=folder)


def test_clients_take_turns_however_much_one_asks(queue: Jobs) -> None:
    gate, order = threading.Event(), list[str]()
    queue.add(job(lambda job: gate.wait(30), "first"))
    for client in ["greedy"] * 4 + ["modest"] * 2:
        queue.add(job(lambda job: order.append(job.client), client))
    gate.set()
    queue.wait()
    assert order == ["greedy", "modest", "greedy", "modest", "greedy", "greedy"]


def test_short_jobs_pass_long_ones(queue: Jobs) -> None:
    gate, done = threading.Event(), threading.Event()
    queue.add(job(lambda job: gate.wait(30), expected=999.0))
    queue.add(job(lambda job: done.set(), expected=1.0))
    assert done.wait(30) and not gate.is_set()
    gate.set()


def test_a_folder_and_a_photo_do_not_wait_for_each_other(queue: Jobs) -> None:
    gate = threading.Event()
    for first, then in ((None, "in"), ("in", None)):
        done = threading.Event()
        queue.add(job(lambda job: gate.wait(30), folder=first))
        queue.add(job(lambda job: done.set(), folder=then))  # noqa: B023
        assert done.wait(30) and not gate.is_set()
        gate.set()
        queue.wait()
        gate.clear()


def test_two_folders_are_under_way_but_one_not_twice(queue: Jobs) -> None:
    gate, begun = threading.Event(), list[str | None]()

    def work(job: Job) -> None:
        begun.append(job.folder)
        gate.wait(30)

    for name in ("in", "in", "out", "other"):
        queue.add(job(work, folder=name))
    while len(begun) < 2:
        time.sleep(0.01)
    assert begun == ["in", "out"] and queue.waiting == 2
    gate.set()
    queue.wait()
    assert sorted(map(str, begun)) == ["in", "in", "other", "out"]


def test_a_job_that_waits_is_ended_before_it_begins(queue: Jobs) -> None:
    gate = threading.Event()
    queue.add(job(lambda job: gate.wait(30)))
    waiting = queue.add(job(lambda job: pytest.fail("it began")))
    queue.cancel(waiting)
    assert waiting.state == "cancelled"
    gate.set()


def test_one_under_way_is_ended_at_its_next_step(queue: Jobs) -> None:
    begun = threading.Event()

    def work(job: Job) -> None:
        while True:
            job.advance(1, 4)
            begun.set()

    running = queue.add(job(work))
    assert begun.wait(30) and running.document()["progress"] == 0.25
    queue.cancel(running)
    queue.wait()
    assert running.state == "cancelled" and queue.counts["cancelled"] == 1


def test_what_goes_wrong_is_told_and_a_bug_is_no_end(queue: Jobs) -> None:
    def work(job: Job) -> None:
        raise ValueError("oops") if job.client else UsageError("No.", hint="Yes.")

    told = [queue.add(job(work, client)) for client in ("", "other")]
    queue.wait()
    errors = [each.document()["error"] for each in told]
    assert [(error["status"], error["exit_code"]) for error in errors] == [(400, 2), (500, 70)]
    assert (errors[0]["detail"], errors[0]["hint"]) == ("No.", "Yes.")


def test_whoever_watched_and_went_away_is_waited_for_a_while(
    queue: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    running = queue.add(job(lambda job: gate.wait(30)))
    with running.watched(lambda: None):
        pass
    assert not running.is_abandoned
    monkeypatch.setattr(jobs, "GRACE", -1)
    assert running.is_abandoned
    with running.watched(lambda: None):
        assert not running.is_abandoned
    gate.set()


def test_a_queue_that_is_closed_takes_nothing() -> None:
    queue = Jobs(most=1)
    waiting = [queue.add(job(lambda job: _on(job)))]
    assert queue.close(30)
    assert [each.state for each in waiting] == ["cancelled"]
    with pytest.raises(BusyError):
        queue.add(job(lambda job: None))


def _on(job: Job) -> None:
    while True:
        job.check()
        time.sleep(0.01)


def test_who_computes_steps_aside_for_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WHILE", 0.0)
    shared, order = Turns(), list[str]()

    def other() -> None:
        with shared:
            order.append("other")

    waiting = threading.Thread(target=other)
    with shared:
        waiting.start()
        while not order:
            shared.step_aside()
        order.append("first again")
    waiting.join()
    assert order == ["other", "first again"]


def test_ending_a_job_is_nothing_that_code_could_take_for_an_error(queue: Jobs) -> None:
    begun = threading.Event()

    def work(job: Job) -> None:
        while True:
            try:
                job.check()
            except Exception:
                pytest.fail("it was swallowed")
            begun.set()

    running = queue.add(job(work))
    assert begun.wait(30)
    queue.cancel(running)
    queue.wait()
    assert running.state == "cancelled"


def test_of_what_takes_too_long_the_error_is_told(queue: Jobs) -> None:
    long = queue.add(Job(_on, {}, "", None, most=0.05))
    queue.wait()
    assert long.state == "failed" and "--max-time" in long.document()["error"]["hint"]
