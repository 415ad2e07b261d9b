"""A folder below the root, done as `resshift batch` does it: with a ledger, to be resumed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from resshift_cli.batch import ledger, names, places, runner, survey
from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.masks import FILES, InpaintEach
from resshift_cli.batch.plan import Plan
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.record import Record
from resshift_cli.batch.resume import Job as BatchJob
from resshift_cli.batch.runner import Runner, Watch
from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.imaging.folders import Selection, Tree
from resshift_cli.imaging.masks import ALPHA, Mask
from resshift_cli.restoration import fitting
from resshift_cli.restoration.crafts import Craft, Inpaint
from resshift_cli.restoration.model import Model
from resshift_cli.serving.asking import TASKS, Asked, Beside, Told
from resshift_cli.serving.jobs import Job
from resshift_cli.serving.photos import Root
from resshift_cli.serving.turns import Turns
from resshift_cli.serving.work import STAGES, Workshop
from resshift_cli.system import held
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
        aside: another one that is left out where it lies in that.
    """

    folder: Path = Path()
    aside: Path | None = None

    def leaves_out(self, place: str) -> bool:
        """As `Selection` says; and all links."""
        path = self.folder / place
        return Selection.leaves_out(self, place) or path == self.aside or os.path.islink(path)


@dataclass(frozen=True)
class UnlinkedMasks(InpaintEach):
    """Masks that lie in their folder themselves, likewise."""

    def of(self, place: str) -> Inpaint:
        """As `InpaintEach` says; a link is none.

        Raises:
            InputMissingError: likewise.
            UsageError: likewise.
        """
        found, folder = super().of(place), self.folder
        for path in found.beside:
            if folder is not None and path.resolve() != folder.resolve() / path.relative_to(folder):
                raise InputMissingError(
                    f"The mask of {printable(place)} is behind a link.",
                    hint="Put it into the folder of masks itself.",
                )
        return found


@dataclass(slots=True)
class Finished:
    """What has become of a folder.

    Attributes:
        output: folder of the results, as seen from the root.
        found: images in it.
        before: those of them that were finished before.
        done: that were done.
        failures: what could not be done, and why; the first ones.
        failed: how many those are.
        faces: how many were restored; None where none are looked for.
    """

    output: str
    found: int = 0
    before: int = 0
    done: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0
    faces: int | None = None

    def add(self, record: Record) -> None:
        """Take over what became of an image."""
        if record.status != "failed":
            self.done += 1
            faces = (record.found or {}).get("faces")
            if faces is not None:
                self.faces = (self.faces or 0) + faces
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
            "faces": self.faces,
            "failures": self.failures,
        }

    def discard(self) -> None:
        """Results belong to whose folder it is."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Does folders.

    Attributes:
        workshop: what it works with.
        root: what folders lie below.
        turns: which folder has an image computed: several under way take turns by image.
    """

    workshop: Workshop
    root: Root
    turns: Turns = field(default_factory=Turns)

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

    def making(
        self, name: str, entry: ModelEntry, asked: Asked, masks: str | None
    ) -> Callable[[Job], Finished]:
        """What does a folder.

        Args:
            name: of it, as seen from the root.
            entry: the model.
            asked: how.
            masks: a folder of masks, as seen from there, or `alpha` or a colour.

        Raises:
            UsageError: there is no root, or the name leads out of it.
            InputMissingError: there is no such folder, or it is behind a link.
        """
        folder = self._folder(name)
        craft = self._craft(folder, asked, masks)
        return lambda job: self._make(folder, entry, asked, craft, job)

    def _craft(self, folder: Path, asked: Asked, masks: str | None) -> Craft[Any]:
        if masks is not None and not TASKS[asked.task].is_masked:
            raise UsageError("There is no option 'masks'.", hint='It goes with "task": "inpaint".')
        if masks is None or masks == ALPHA or masks.startswith("#"):
            beside = Beside(self.workshop.models.find, None if masks is None else Told(masks))
            craft = asked.craft(beside)
            return InpaintEach(craft.mask) if isinstance(craft, Inpaint) else craft
        there = self._folder(masks)
        if there == folder:
            raise UsageError(
                "The folder of masks is that of the photos themselves.", hint="Name another one."
            )
        return UnlinkedMasks(Mask(FILES, **asked.own), there)

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

    def _make(
        self, folder: Path, entry: ModelEntry, asked: Asked, craft: Craft[Any], job: Job
    ) -> Finished:
        entry = craft.needed(entry)
        model = self.workshop.model(entry, craft, job)
        recipe = _recipe(model, entry, asked, craft)
        output = names.results_folder(folder, recipe.mark)
        found = held.state(output)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise UsageError(
                f"{printable(output.name)} is no folder, and results would go there.",
                hint="Move it away.",
            )
        aside = craft.folder if isinstance(craft, InpaintEach) else None
        tree = Tree(folder, output, Unlinked(folder=folder, aside=aside))
        names.check_apart(tree, places.at(output))
        assert self.root.path is not None  # or there were no folder
        made = Finished(output.relative_to(self.root.path).as_posix())
        job.begin_stage("looking for what is to be done")
        if next(tree.images(), None) is None:
            return made
        with ledger.opened(output) as book, self.turns, self.workshop.turns:
            job.check()
            self._do(Plan(tree, book, recipe, _at_once(model)), book, model, made, job)
        return made

    def _do(self, plan: Plan, book: Ledger, model: Model, made: Finished, job: Job) -> None:
        leftovers = survey.Leftovers.of_another(book)
        found = survey.survey(plan, leftovers)
        leftovers.remove()
        made.found, made.before = found.images, found.finished
        runner.enter_others(plan, found.beside.others, book)
        stage = STAGES[plan.recipe.craft.task]
        job.begin_stage(stage)
        work = found.work + (found.jobs - found.known) * found.usual
        gauge = _Gauge(
            _Bars(job, stage, self.workshop.turns.step_aside),
            jobs=found.jobs,
            work=work,
            usual=found.usual,
            failed=found.failed,
        )
        gauge.between = self._between
        watch = Watch(made.add, gauge)
        Runner(model, plan.recipe, plan.facts(), book, watch).run(
            runner.groups(plan, book, made.add)
        )

    def _between(self) -> None:
        """Before an image: another folder may have one of its own done first."""
        with self.workshop.turns.lent():
            self.turns.step_aside()


class _Gauge(Gauge):
    """Tells when one image is done with, and the next one, or some, not begun."""

    between: Callable[[], object]

    def begin(self, jobs: Sequence[BatchJob]) -> None:
        """As `Gauge` says."""
        self.between()
        super().begin(jobs)


class _Bars:
    """`Bars` by which a job hears how far its batch is, and a batch that it is to end."""

    def __init__(self, job: Job, stage: str, meanwhile: Callable[[], object]) -> None:
        self.job, self.stage, self.meanwhile = job, stage, meanwhile
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
        self.bars.job.stage = f"{self.bars.stage} {s}"

    def close(self) -> None:
        pass


def _recipe(model: Model, entry: ModelEntry, asked: Asked, craft: Craft[Any]) -> Recipe:
    """As the command has it, so that either goes on where the other was."""
    files = [store.located(each) for each in (entry, *craft.others)]
    return Recipe(
        entry,
        model.spec,
        craft.settings(model.spec, entry.name, asked.options),
        asked.handling,
        model.device,
        model.dtype,
        "+".join(each.digest() for each in files if each is not None),
        asked.box,
        craft,
    )


def _at_once(model: Model) -> Callable[[tuple[int, int]], int]:
    return partial(
        fitting.images_at_once,
        *(model.spec, model.dtype, model.device, model.max_memory),
    )
