"""How much a plan comes to, before it is begun: all of it is gone through, and little is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from resshift_cli.batch.ledger import Ledger, is_own
from resshift_cli.batch.places import Place, is_below
from resshift_cli.batch.plan import Plan, Section, Seen
from resshift_cli.batch.record import Record
from resshift_cli.batch.resume import Failure, Job
from resshift_cli.errors import ResShiftError
from resshift_cli.imaging.folders import Beside
from resshift_cli.system import atomic
from resshift_cli.system.index import Index

KEPT = 10
"""Failures that are kept in any case, for messages."""


@dataclass(slots=True)
class Survey:
    """What there is to do.

    Attributes:
        keeps: whether to keep what grows with the number of images.
        jobs: images to be done.
        tasks: those, with every piece of one that may be cut counted.
        finished: images that are.
        failed: images that can't be done.
        failures: why not, and unreadable folders; the first ones, unless it keeps all.
        refused: why jobs will fail, by what their headers say; likewise.
        to_refuse: how many those are.
        records: of what is finished, if it keeps them.
        names: inputs and outputs of the jobs, likewise.
        beside: what there is beside images.
        work: what the jobs take, as far as that is known; see `Job.work`.
        known: of how many of them it is.
        frames: images and frames of every height and width.
        computations: how many whole images are computed of every height and width.
        disk_bytes: about what results will take: inputs' bytes per pixel, more pixels.
    """

    keeps: bool = False
    jobs: int = 0
    tasks: int = 0
    finished: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    refused: dict[str, ResShiftError] = field(default_factory=dict)
    to_refuse: int = 0
    records: list[Record] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)
    beside: Beside = field(default_factory=Beside)
    work: float = 0.0
    known: int = 0
    frames: Counter[tuple[int, int]] = field(default_factory=Counter)
    computations: dict[tuple[int, int], float] = field(default_factory=dict)
    disk_bytes: float = 0.0

    @property
    def images(self) -> int:
        """How many were found."""
        return self.jobs + self.finished + self.failed

    @property
    def usual(self) -> float:
        """What a job takes whose work is not known."""
        return self.work / self.known if self.known else 1.0


def survey(plan: Plan, leftovers: Leftovers | None = None, *, keeps: bool = False) -> Survey:
    """Go through a plan.

    Args:
        plan: what to go through.
        leftovers: are told of the jobs.
        keeps: see `Survey`.

    Raises:
        OutputError: as `Plan.sections`.
    """
    found = Survey(keeps)
    for section in plan.sections(found.beside):
        _count(found, plan, section)
        for group in section.groups:
            found.tasks += max(len(group.bands), len(group.jobs))
            for job in group.jobs:
                _count_job(found, plan, job, section.seen)
                if leftovers is not None:
                    leftovers.add(job.output)
    return found


def _count(found: Survey, plan: Plan, section: Section) -> None:
    found.finished += len(section.finished)
    found.failed += sum(bool(failure.output) for failure in section.failures)
    room = None if found.keeps else max(KEPT - len(found.failures), 0)
    found.failures += section.failures[:room]
    if found.keeps:
        found.records += [plan.ledger.results[name] for name in section.finished]


def _count_job(
    found: Survey, plan: Plan, job: Job, seen: Mapping[str, Seen | ResShiftError]
) -> None:
    found.jobs += 1
    found.work += job.work
    found.known += bool(job.work)
    if found.keeps:
        found.names.append((job.input, job.output))
    image = seen[job.input]
    if isinstance(image, ResShiftError):
        found.to_refuse += 1
        if found.keeps or len(found.refused) < KEPT:
            found.refused[job.input] = image
        return
    size = image.size
    found.frames[size] += image.header.frames
    found.computations[size] = found.computations.get(size, 0.0) + image.computed
    state = job.source.state()
    if state is not None:
        found.disk_bytes += state.size * plan.recipe.settings_for(*size).scale ** 2


class Leftovers:
    """What a killed batch left half-written, under names that only it gives.

    Args:
        place: of the results.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folders: set[str] = set()
        self._starts = Index()
        self._with_ledger = False

    @classmethod
    def of_another(cls, book: Ledger) -> Leftovers:
        """What an earlier batch left that is not among the jobs, or was of its ledger.

        That is only of interest where nobody is at work beside this one, as on other shards.

        Args:
            book: of this batch, which is locked.
        """
        found = cls(book.place)
        if book.shard.of == 1:
            found._with_ledger = True
            found._folders.add("")
            for begun in book.begun.values():
                found.add(begun.output)
        return found

    def add(self, output: str) -> None:
        """Have what was left of a result count as ours."""
        if is_below(output) and self._place.refusal(output) is None:
            folder, _, name = output.rpartition("/")
            self._folders.add(folder)
            self._starts[f"{folder}/{atomic.start_of(name)}"] = ""

    def remove(self) -> None:
        """Remove it."""
        for folder in self._folders:
            self._place.remove_leftovers(folder, partial(self._is_known, folder))

    def _is_known(self, folder: str, start: str) -> bool:
        is_of_the_ledger = self._with_ledger and not folder and is_own(start)
        return is_of_the_ledger or f"{folder}/{start}" in self._starts
