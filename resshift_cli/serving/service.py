"""A service: its models, what it was given, what it is to do, and what it keeps for how long.

It knows nothing of HTTP: `api` and `stdio` are two ways to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from resshift_cli import __version__
from resshift_cli.errors import UsageError
from resshift_cli.restoration.size import target_size
from resshift_cli.serving import asking, work
from resshift_cli.serving.batches import Batches
from resshift_cli.serving.jobs import Job, Jobs
from resshift_cli.serving.photos import Photo, Root
from resshift_cli.serving.problems import Refusal
from resshift_cli.serving.shelf import Limits, Shelf
from resshift_cli.serving.turns import Turns
from resshift_cli.serving.views import View, Views
from resshift_cli.serving.warm import Models
from resshift_cli.serving.work import Made, Order, Shown, Workshop

SWEEP = 1.0  # seconds between looks for what has had its time


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants of a photo.

    Attributes:
        photo: it.
        values: how, see `asking`.
        task: what.
        mask: where it is unknown: an image, `alpha` or a colour.
    """

    photo: Photo
    values: Mapping[str, object]
    task: str = "upscale"
    mask: Photo | str | None = None


class Service:
    """All of it; close it in the end.

    Args:
        models: what it works with.
        root: files that clients may name.
        limits: what it takes on.

    Raises:
        OutputError: there is no folder for what it keeps.
    """

    def __init__(self, models: Models, root: Root, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.started = time.time()
        self.shelf = Shelf(root, limits)
        self.jobs = Jobs(limits.queue)
        self.views = Views(self.shelf.folder)
        self.workshop = Workshop(models, Turns(), self.shelf.folder)
        self.batches = Batches(self.workshop, root)
        self._ended = threading.Event()
        threading.Thread(target=self._sweep_on, daemon=True).start()

    def job(self, name: str) -> Job:
        """One that is known.

        Raises:
            Refusal: there is none of that name any more.
        """
        if name not in self.jobs.known:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "There is no such job, or not any more.",
                hint="Ask for it again: results are deleted after a while (--keep).",
            )
        job = self.jobs.known[name]
        job.touched = time.monotonic()
        return job

    def outcome(self, name: str) -> Any:
        """What a job that is done has given.

        Raises:
            Refusal: there is no such job, or it is not done.
            ResShiftError: the one that it ended with.
        """
        job = self.job(name)
        if job.error is not None:
            raise job.error
        if job.outcome is None:
            raise Refusal(
                HTTPStatus.CONFLICT,
                "The job is not done yet.",
                hint=f"Watch /api/jobs/{name}/events, or ask again in a while.",
            )
        return job.outcome

    def result(self, name: str) -> Made:
        """The result of a job that is done.

        Raises:
            Refusal: as `outcome`, or it was a preview.
        """
        outcome = self.outcome(name)
        if not isinstance(outcome, Made):
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "The job has no file.",
                hint=f"Look at /api/jobs/{name}: a preview has a view, a folder its results.",
            )
        return outcome

    def view(self, name: str) -> View:
        """What shows the outcome of a job.

        Raises:
            ResShiftError: as `outcome`, or a picture can't be read.
        """
        outcome = self.outcome(name)
        if not isinstance(outcome, Made | Shown):
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "The job has nothing to look at.",
                hint="Its results are in the folder.",
            )
        return self.views.of(name, outcome)

    def estimate(self, wish: Wish) -> dict[str, Any]:
        """About what something takes.

        Raises:
            ResShiftError: what is asked for can't be.
        """
        order = self._order(wish)
        photo = order.photo
        craft, scale = order.craft(), order.scale
        seconds = work.seconds(self.models, order, craft)
        spec = self.models.spec(order.entry)
        if scale is None and spec is not None:
            scale = float(spec.scale)
        size = None if scale is None else target_size(*photo.size, scale)
        return {
            "model": order.entry.name,
            "seconds": None if seconds is None else round(seconds, 6),
            "at_least": not craft.foreseen,
            "width": None if size is None else size[1],
            "height": None if size is None else size[0],
        }

    def make(self, wish: Wish, client: str) -> Job:
        """Have something made of a photo.

        Args:
            wish: what.
            client: who asks: clients take turns.

        Raises:
            BusyError: there is too much to do.
            ResShiftError: what is asked for can't be.
        """
        order = self._order(wish)
        expected = self._expected(order)
        return self._add(wish.task, order, self.workshop.making(order), expected, client)

    def preview(
        self, wish: Wish, client: str, *, at: tuple[int, int] | None = None, side: int = 128
    ) -> Job:
        """Have it made of one crop, beside what that is without.

        Raises:
            As `make`.
        """
        order = self._order(wish)
        work = self.workshop.previewing(order, at, side)
        expected = self._expected(order, side)
        return self._add("preview", order, work, expected, client)

    def batch(
        self, folder: str, wish: Mapping[str, object], client: str, task: str, masks: str | None
    ) -> Job:
        """Have a folder below the root done, as `resshift batch` does.

        Args:
            folder: it, as seen from the root.
            wish: how, see `asking`.
            client: as `make`.
            task: what is to be done.
            masks: a folder of masks, likewise, or `alpha` or a colour.

        Raises:
            As `make`.
        """
        asked = asking.read(wish, self.shelf.handling, task)
        entry = self.models.find(asked.model, task)
        work = self.batches.making(folder, entry, asked, masks)
        facts = {"kind": "batch", "folder": folder, "input": folder, "model": entry.name}
        alone = "/".join(self.shelf.root.parts(folder))
        return self.jobs.add(Job(work, facts, client, None, self.limits.seconds, alone))

    def _add(self, kind: str, order: Order, work: Any, expected: float | None, client: str) -> Job:
        facts = {"kind": kind, "photo": order.photo.id, "input": order.photo.name}
        facts |= {"task": order.asked.task, "model": order.entry.name}
        if isinstance(order.mask, Photo):
            facts["mask"] = order.mask.id
        return self.jobs.add(Job(work, facts, client, expected, self.limits.seconds))

    def _order(self, wish: Wish) -> Order:
        photo, mask = wish.photo, wish.mask
        asked = asking.read(wish.values, self.shelf.handling, wish.task)
        if isinstance(mask, Photo) and mask.size != photo.size:
            (tall, wide), (height, width) = mask.size, photo.size
            raise UsageError(
                f"The mask {mask.name} is {wide}x{tall}, and {photo.name} is {width}x{height}.",
                hint="A mask has a pixel for every pixel of the photo, seen upright.",
            )
        entry = self.models.find(asked.model, wish.task)
        return Order(photo, entry, asked, self.models.find, mask)

    def _expected(self, order: Order, side: int | None = None) -> float | None:
        craft = order.craft()
        seconds = work.seconds(self.models, order, craft, side)
        needed = (craft.needed(order.entry), *craft.others)
        known = craft.foreseen and all(map(self.models.is_here, needed))
        return seconds if known else None

    def drop(self, job: Job) -> None:
        """End a job if it is not done, and delete what it gave."""
        self.jobs.cancel(job)
        if job.ended:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        self.jobs.known.pop(job.id, None)
        self.views.forget(job.id)
        if job.outcome is not None:
            job.outcome.discard()

    def sweep(self) -> None:
        """End what was abandoned, and delete what nobody has asked for in a while."""
        due = time.monotonic() - self.limits.keep
        for job in list(self.jobs.known.values()):
            if job.is_abandoned:
                self.jobs.cancel(job)
            if job.ended and job.touched < due:
                self._forget(job)
        known = list(self.jobs.known.values())
        wanted = {job.facts.get(name, "") for job in known for name in ("photo", "mask")}
        self.shelf.forget(due, wanted)

    def _sweep_on(self) -> None:
        while not self._ended.wait(SWEEP):
            self.sweep()

    def version(self) -> dict[str, Any]:
        """What it is."""
        return {"name": "resshift", "version": __version__, "model": self.models.default.name}

    def metrics(self) -> dict[str, float]:
        """Figures by name, as Prometheus calls such."""
        return {
            "resshift_up_seconds": time.time() - self.started,
            "resshift_jobs_waiting": self.jobs.waiting,
            "resshift_jobs_running": self.jobs.running,
            **{
                f'resshift_jobs_total{{state="{state}"}}': count
                for state, count in self.jobs.counts.items()
            },
            "resshift_models_loaded": len(self.models.loaded),
            "resshift_stored_bytes": self.shelf.stored(),
        }

    def close(self, within: float) -> bool:
        """End all jobs, and delete all that is kept.

        Args:
            within: seconds that jobs have to end.

        Returns:
            Whether they have.
        """
        self._ended.set()
        try:
            return self.jobs.close(within)
        finally:
            self.shelf.close()
