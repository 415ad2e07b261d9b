"""Does the groups of a plan in this process, and enters in the ledger what became of them.

Reading the next images and writing the last ones go on in threads of their own while the networks
work on those between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.groups import Group, Piece
from resshift_cli.batch.ledger import Book, Ledger
from resshift_cli.batch.plan import Plan
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.record import Record
from resshift_cli.batch.resume import Failure, Job
from resshift_cli.batch.worker import Computed, DiskFullError, Read, Worker
from resshift_cli.errors import ResShiftError

if TYPE_CHECKING:
    from resshift_cli.restoration.model import Model


@dataclass(frozen=True, slots=True)
class Watch:
    """What is told as a batch goes on.

    Attributes:
        record: called with what became of every image, once it is on the disk; from a thread.
        gauge: how far it is.
        is_enough: asked whether too many images have failed for the others to be worth while.
        piece: called with what became of every piece of an image that is cut.
    """

    record: Callable[[Record], None] = lambda record: None
    gauge: Gauge = field(default_factory=Gauge)
    is_enough: Callable[[], bool] = lambda: False
    piece: Callable[[Piece], None] = lambda piece: None


class Engine(Protocol):
    """What does groups: this process, processes of its own, or machines."""

    def run(self, groups: Iterable[Group]) -> None:
        """Do all jobs, whatever becomes of single ones, until there are none or it is enough.

        Groups are asked for as they are needed. Whatever ends it, Ctrl-C included, results that are
        computed are written first; one that is computed while it is written is given up.

        Raises:
            DiskFullError: there is no room for the next result.
            OutputError: the ledger can't be written.
        """


def groups(plan: Plan, ledger: Ledger, record: Callable[[Record], None]) -> Iterator[Group]:
    """What is to be done of a plan; what can't be is entered in the ledger on the way.

    Raises:
        OutputError: the ledger can't be written, or as `Plan.sections`.
    """
    for section in plan.sections():
        enter(plan, section.failures, ledger, record)
        yield from section.groups


def enter(
    plan: Plan, failures: Iterable[Failure], ledger: Ledger, record: Callable[[Record], None]
) -> None:
    """Enter in the ledger what can't be done.

    Args:
        plan: of the batch.
        failures: of the plan.
        ledger: where.
        record: is told of each.

    Raises:
        OutputError: the ledger can't be written.
    """
    for failure in failures:
        names = {"input": failure.input, "output": failure.output}
        entered = failed_record({**plan.facts(), **names}, failure.error)
        ledger.append(entered)
        record(entered)


def enter_others(plan: Plan, others: Mapping[str, int], ledger: Ledger) -> None:
    """Enter in the ledger what was left alone.

    Args:
        plan: of the batch.
        others: how many files, by extension.
        ledger: where.

    Raises:
        OutputError: the ledger can't be written.
    """
    facts = plan.facts()
    about = {name: facts[name] for name in ("folder", "version")}
    ledger.enter_others(others, {**about, "time": _now()})


class Runner:
    """Does groups one after the other: an `Engine`.

    Args:
        model: it, as the recipe's craft loads it.
        recipe: how the results are made.
        facts: what the ledger is told with every image, of `Plan.facts`.
        book: where it is entered: of `ledger.opened`, or a part.
        watch: what is told meanwhile.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        facts: Mapping[str, Any],
        book: Book,
        watch: Watch | None = None,
    ) -> None:
        if not book.place.is_open:
            raise ValueError("the ledger is for reading: `ledger.opened` gives one that is not")
        self.worker = Worker(model, recipe, book.place)
        self.book = book
        self.facts = facts
        self.watch = watch or Watch()
        self.gauge = self.watch.gauge

    def run(self, groups: Iterable[Group]) -> None:
        """As `Engine` says."""
        ahead = iter(groups)
        with (
            closing(self.gauge),
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
        ):

            def begun() -> tuple[Group | None, list[Future[Read | ResShiftError]]]:
                group = next(ahead, None)
                jobs = () if group is None or group.piece else group.jobs
                return group, [reader.submit(self.worker.read, job) for job in jobs]

            group, reading = begun()
            writing: list[Future[Record]] = []
            while group is not None and not self.watch.is_enough():
                reads = [read.result() for read in reading]
                following, reading = begun()
                self.gauge.begin(group.jobs)
                if group.piece:
                    self._make_piece(group.jobs[0], group.piece)
                    group = following
                    continue
                computed = self.worker.compute(group, reads, self.gauge.advance)
                _await(writing)
                writing = []
                for job, read, made in zip(group.jobs, reads, computed, strict=True):
                    if self.watch.is_enough():
                        return _await(writing)
                    if made.is_stream:  # here, where Ctrl-C is seen
                        wait(writing)
                        self._finish(job, read, made)
                    else:
                        writing.append(writer.submit(self._finish, job, read, made))
                        if isinstance(made.result, ResShiftError):  # is it enough now?
                            wait(writing)
                group = following
            _await(writing)

    def _make_piece(self, job: Job, rows: range) -> None:
        """Make a piece of an image, of which the ledger is told when all of it is there."""
        self.watch.piece(self.worker.make_piece(job, rows, partial(self.gauge.advance, 0)))

    def _finish(self, job: Job, read: Read | ResShiftError, computed: Computed) -> Record:
        """Write a result, or why there is none, and enter it in the ledger."""
        facts: dict[str, Any] = {**self.facts, "input": job.input, "output": job.output}
        if isinstance(read, Read):
            facts |= {**read.facts, "seconds": round(computed.seconds, 3)}
            facts["peak_bytes"] = computed.peak_bytes

        def begin(known: Mapping[str, Any]) -> None:
            self.book.append(Record(status="writing", time=_now(), **facts, **known))

        try:
            written = self.worker.write(job, computed, begin)
            record = Record(status="done", time=_now(), **facts | written)
        except DiskFullError:
            raise
        except ResShiftError as error:
            record = failed_record(facts, error)
            self.gauge.fail()
        self.book.append(record)
        self.watch.record(record)
        return record


def _await(writing: Sequence[Future[Record]]) -> None:
    for written in writing:
        written.result()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def failed_record(facts: Mapping[str, Any], error: ResShiftError) -> Record:
    """What the ledger is told of an image that could not be done."""
    why: dict[str, Any] = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    return Record(status="failed", time=_now(), **facts, **why)
