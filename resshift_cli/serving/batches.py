"""A folder below the root, enlarged as `resshift batch` does it: with a ledger, to be resumed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from resshift_cli.batch import ledger, names, places, runner, survey
from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.plan import Plan
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.record import Record
from resshift_cli.batch.runner import Runner, Watch
from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.imaging.folders import Selection, Tree
from resshift_cli.restoration import fitting
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.serving.asking import Asked
from resshift_cli.serving.jobs import Job
from resshift_cli.serving.photos import Root
from resshift_cli.serving.work import Workshop
from resshift_cli.system import held
from resshift_cli.system.digests import digest
from resshift_cli.system.progress import Bar
from resshift_cli.weights import store
from resshift_cli.weights.registry import ModelEntry

TOLD = 10  # failures
LISTED, DEEPEST = 500, 4  # folders that are offered, and how far below the root


@dataclass(frozen=True, slots=True)
class Unlinked(Selection):
    """Images that lie in a folder themselves: a link may lead out of the root.

    Attributes:
        folder: it.
    """

    folder: Path = Path()

    def leaves_out(self, place: str) -> bool:
        """As `Selection` says; and all links."""
        return Selection.leaves_out(self, place) or os.path.islink(self.folder / place)


@dataclass(slots=True)
class Enlarged:
    """What has become of a folder.

    Attributes:
        output: folder of the results, as seen from the root.
        found: images in it.
        before: those of them that were finished before.
        done: that were done.
        failures: what could not be done, and why; the first ones.
        failed: how many those are.
    """

    output: str
    found: int = 0
    before: int = 0
    done: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def add(self, record: Record) -> None:
        """Take over what became of an image."""
        if record.status != "failed":
            self.done += 1
            return
        self.failed += 1
        if len(self.failures) < TOLD:
            told = {"input": record.input, "message": record.error, "hint": record.hint}
            self.failures.append(told)

    def facts(self) -> dict[str, Any]:
        """What clients are told."""
        return {
            "output": self.output,
            "found": self.found,
            "skipped": self.before,
            "done": self.done,
            "failed": self.failed,
            "failures": self.failures,
        }

    def discard(self) -> None:
        """Results belong to whose folder it is."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Enlarges folders.

    Attributes:
        workshop: what it works with.
        root: what folders lie below.
    """

    workshop: Workshop
    root: Root

    def offered(self) -> list[str]:
        """Folders below the root, through no link, as seen from there."""
        if self.root.path is None:
            return []
        found: list[str] = []
        for place, inner, _ in os.walk(self.root.path):
            within = Path(place).relative_to(self.root.path)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            found += [
                (within / name).as_posix()
                for name in inner
                if not os.path.islink(f"{place}/{name}")
            ]
            if len(within.parts) + 1 >= DEEPEST:
                inner.clear()
            if len(found) >= LISTED:
                break
        return found[:LISTED]

    def enlarging(self, name: str, entry: ModelEntry, asked: Asked) -> Callable[[Job], Enlarged]:
        """What enlarges a folder.

        Args:
            name: of it, as seen from the root.
            entry: the model.
            asked: how.

        Raises:
            UsageError: there is no root, or the name leads out of it.
            InputMissingError: there is no such folder, or it is behind a link.
        """
        folder = self._folder(name)
        return lambda job: self._enlarge(folder, entry, asked, job)

    def _folder(self, name: str) -> Path:
        parts = self.root.parts(name)
        assert self.root.path is not None  # or there were no parts
        try:
            with held.opened(self.root.path) as root, held.below(root, parts):
                return self.root.path.joinpath(*parts)
        except Exception as error:
            raise InputMissingError(
                f"There is no folder '{printable(name)}' that may be opened.",
                hint="Check its name; links are not followed.",
            ) from error

    def _enlarge(self, folder: Path, entry: ModelEntry, asked: Asked, job: Job) -> Enlarged:
        upscaler = self.workshop.upscaler(entry, job)
        recipe = _recipe(upscaler, entry, asked)
        output = names.results_folder(folder, recipe.mark)
        found = held.state(output)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise UsageError(
                f"{printable(output.name)} is no folder, and results would go there.",
                hint="Move it away.",
            )
        tree = Tree(folder, output, Unlinked(folder=folder))
        names.check_apart(tree, places.at(output))
        assert self.root.path is not None  # or there were no folder
        made = Enlarged(output.relative_to(self.root.path).as_posix())
        job.begin_stage("looking for what is to be done")
        if next(tree.images(), None) is None:
            return made
        with ledger.opened(output) as book, self.workshop.turns:
            self._do(Plan(tree, book, recipe, _at_once(upscaler)), book, upscaler, made, job)
        return made

    def _do(self, plan: Plan, book: Ledger, upscaler: Upscaler, made: Enlarged, job: Job) -> None:
        leftovers = survey.Leftovers(plan.output)
        for begun in book.begun.values():
            leftovers.add(begun.output)
        found = survey.survey(plan, leftovers)
        leftovers.remove()
        made.found, made.before = found.images, found.finished
        runner.enter_others(plan, found.beside.others, book)
        job.begin_stage("enlarging")
        work = found.work + (found.jobs - found.known) * found.usual
        gauge = Gauge(
            _Bars(job, self.workshop.turns.step_aside),
            jobs=found.jobs,
            work=work,
            usual=found.usual,
            failed=found.failed,
        )
        watch = Watch(made.add, gauge)
        Runner(upscaler, plan.recipe, plan.facts(), book, watch).run(
            runner.groups(plan, book, made.add)
        )


class _Bars:
    """`Bars` by which a job hears how far its batch is, and a batch that it is to end."""

    def __init__(self, job: Job, meanwhile: Callable[[], object]) -> None:
        self.job, self.meanwhile = job, meanwhile
        self.thread = threading.get_ident()

    def __call__(
        self,
        *,
        total: float | None = None,
        desc: str | None = None,
        unit: str = "it",
        unit_scale: bool = False,
        initial: float = 0,
    ) -> Bar:
        """A bar; that of a single image only keeps it from going on for nobody."""
        return _Bar(self, None if desc else total)


class _Bar:
    def __init__(self, bars: _Bars, total: float | None) -> None:
        self.bars, self.total, self.done = bars, total, 0.0

    def update(self, n: float = 1) -> None:
        self.done += n
        if threading.get_ident() != self.bars.thread:  # of a writer, which has to finish
            return
        if self.total:
            self.bars.job.advance(self.done, self.total)
        else:
            self.bars.job.check()
        self.bars.meanwhile()

    def set_postfix_str(self, s: str = "") -> None:
        self.bars.job.stage = f"enlarging {s}"

    def close(self) -> None:
        pass


def _recipe(upscaler: Upscaler, entry: ModelEntry, asked: Asked) -> Recipe:
    """As the command has it, so that either goes on where the other was."""
    files = store.located(entry)
    paths = () if files is None else (files.weights, files.autoencoder)
    return Recipe(
        entry,
        upscaler.spec,
        upscaler.settings(**asked.options),
        asked.handling,
        upscaler.device,
        upscaler.dtype,
        "+".join(digest(path) for path in paths if path is not None),
        asked.box,
    )


def _at_once(upscaler: Upscaler) -> Callable[[tuple[int, int]], int]:
    return partial(
        fitting.images_at_once,
        *(upscaler.spec, upscaler.dtype, upscaler.device, upscaler.max_memory),
    )
