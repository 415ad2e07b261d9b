"""Does the jobs of a plan in this process, and enters in the ledger what became of them.

Reading the next images and writing the last ones go on in threads of their own while the networks
work on those between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.groups import Group
from resshift_cli.batch.ledger import Ledger, Record
from resshift_cli.batch.plan import Plan
from resshift_cli.batch.resume import Failure, Job
from resshift_cli.batch.worker import Computed, DiskFullError, Read, Worker
from resshift_cli.errors import ResShiftError
from resshift_cli.system.progress import Bars, silent

if TYPE_CHECKING:
    from resshift_cli.restoration.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Watch:
    """What is told as a batch goes on.

    Attributes:
        record: called with what became of every image, once it is on the disk; from a thread.
        bars: makes the bars for all of the work and for the image under way.
    """

    record: Callable[[Record], None] = lambda record: None
    bars: Bars = silent


UNWATCHED = Watch()


def enter(
    plan: Plan, failures: Sequence[Failure], ledger: Ledger, watch: Watch = UNWATCHED
) -> None:
    """Enter in the ledger what can't be done, and what was left alone.

    Args:
        plan: of the batch.
        failures: those of its failures that are to be entered.
        ledger: where.
        watch: what is told of it.

    Raises:
        OutputError: the ledger can't be written.
    """
    facts = plan.facts()
    about = {name: facts[name] for name in ("folder", "version")}
    ledger.enter_others(plan.others, {**about, "time": _now()})
    for failure in failures:
        names = {"input": failure.input, "output": failure.output}
        record = _failed({**facts, **names}, failure.error)
        ledger.append(record)
        watch.record(record)


class Runner:
    """Does jobs, group after group.

    Args:
        upscaler: the model of `plan`, loaded.
        plan: what the groups are of.
        ledger: where it is entered, of `ledger.opened`.
        watch: what is called meanwhile.
    """

    def __init__(
        self, upscaler: Upscaler, plan: Plan, ledger: Ledger, watch: Watch = UNWATCHED
    ) -> None:
        if ledger.place is None:
            raise ValueError("the ledger is for reading: `ledger.opened` gives one that is not")
        self.worker = Worker(upscaler, plan.recipe, ledger.place)
        self.ledger = ledger
        self.plan = plan
        self.facts = plan.facts()
        self.watch = watch
        self.gauge = Gauge(silent, "", ())

    def run(self, groups: Sequence[Group], *, fail_fast: bool = False) -> None:
        """Do all jobs, whatever becomes of single ones; with `fail_fast`, up to a failure.

        Whatever ends it, Ctrl-C included, results that are computed are written first; one that is
        computed while it is written is given up.

        Raises:
            DiskFullError: there is no room for the next result.
            OutputError: the ledger can't be written.
        """
        order = [job for group in groups for job in group.jobs]
        title = self.plan.folder.absolute().name
        self.gauge = Gauge(self.watch.bars, title, order, len(self.plan.failures))
        with (
            closing(self.gauge),
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
        ):

            def begin(group: Group) -> list[Future[Read | ResShiftError]]:
                return [reader.submit(self.worker.read, job) for job in group.jobs]

            reading = begin(groups[0]) if groups else []
            writing: list[Future[Record]] = []
            number = 0
            for place, group in enumerate(groups):
                reads = [read.result() for read in reading]
                reading = begin(groups[place + 1]) if place + 1 < len(groups) else []
                computed = self._compute(number, group, reads)
                number += len(group.jobs)
                failed = [written.result().status == "failed" for written in writing]
                if fail_fast and any(failed):
                    return
                writing = []
                for job, read, made in zip(group.jobs, reads, computed, strict=True):
                    if made.is_stream:  # here, where Ctrl-C is seen
                        wait(writing)
                        ended = self._finish(job, read, made).status == "failed"
                    else:
                        writing.append(writer.submit(self._finish, job, read, made))
                        ended = isinstance(made.result, ResShiftError)
                    if fail_fast and ended:
                        return _await(writing)
            _await(writing)

    def _compute(
        self, number: int, group: Group, reads: Sequence[Read | ResShiftError]
    ) -> list[Computed]:
        return self.worker.compute(
            group, reads, lambda place, share: self.gauge.advance(number + place, share)
        )

    def _finish(self, job: Job, read: Read | ResShiftError, computed: Computed) -> Record:
        """Write a result, or why there is none, and enter it in the ledger."""
        facts: dict[str, Any] = {**self.facts, "input": job.input, "output": job.output}
        if isinstance(read, Read):
            facts |= {**read.facts, "seconds": round(computed.seconds, 3)}
            facts["peak_bytes"] = computed.peak_bytes

        def begin(known: Mapping[str, Any]) -> None:
            self.ledger.append(Record(status="writing", time=_now(), **facts, **known))

        try:
            written = self.worker.write(job, computed, begin)
            record = Record(status="done", time=_now(), **facts | written)
        except DiskFullError:
            raise
        except ResShiftError as error:
            record = _failed(facts, error)
            self.gauge.fail()
        self.ledger.append(record)
        self.watch.record(record)
        return record


def _await(writing: Sequence[Future[Record]]) -> None:
    for written in writing:
        written.result()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _failed(facts: Mapping[str, Any], error: ResShiftError) -> Record:
    why: dict[str, Any] = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    return Record(status="failed", time=_now(), **facts, **why)
