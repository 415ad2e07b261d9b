"""Jobs: what waits, what is under way and how far, what became of it, and who goes next.

Short jobs, long ones and folders wait in a line each, and of each line some are under way: what
takes a moment need not wait for what takes an hour, nor a photo for a thousand, nor they for it.
Within a line clients take turns, however much one of them asks.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from resshift_cli.errors import ResShiftError, expected
from resshift_cli.serving import problems
from resshift_cli.serving.problems import BusyError, CancelledError

SHORT = 10.0
"""Seconds up to which a job is a short one."""

Line = Literal["short", "long", "folder"]
LINES: Mapping[Line, int] = {"short": 1, "long": 1, "folder": 2}
"""Jobs of each that are under way at most; each of them has an image, and its model, in memory."""

GRACE = 15.0
"""Seconds after which a job ends whose only watcher has gone away."""

REMEMBERED = 1000  # clients whose last turn is known


class Stopped(KeyboardInterrupt):
    """Work is to be left in order, and at once: whatever cleans up after Ctrl-C does so after it.

    Attributes:
        error: what is told of it.
    """

    def __init__(self, error: ResShiftError) -> None:
        super().__init__(str(error))
        self.error = error


State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(eq=False)
class Job:
    """Something that is to be done.

    Attributes:
        work: does it; called with the job, which it tells how far it is.
        facts: what is told of it from the beginning.
        client: who asked for it.
        expected: about the seconds that it takes, if that is known.
        most: seconds after which it is given up.
        folder: which it is of, if it is of many images; one at a time is.
        id: what it is called; nobody guesses it.
        state: what has become of it.
        stage: what is being done, in a word or two.
        share: how far that is, 0 to 1.
        outcome: what `work` gave.
        error: why there is none.
        touched: when somebody last asked for it, in seconds of `time.monotonic`.
    """

    work: Callable[[Job], Any]
    facts: dict[str, Any]
    client: str
    expected: float | None
    most: float
    folder: str | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "queued"
    stage: str = ""
    share: float = 0.0
    outcome: Any = None
    error: ResShiftError | None = None
    touched: float = field(default_factory=time.monotonic)
    _cancelled: bool = False
    _started: float = 0.0
    _stage_began: float = 0.0
    _watchers: list[Callable[[], object]] = field(default_factory=list)
    _was_watched: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing will become of it any more."""
        return self.state in ENDED

    @property
    def is_short(self) -> bool:
        """Whether it is known to take a moment."""
        return self.expected is not None and self.expected <= SHORT

    @property
    def line(self) -> Line:
        """The one that it waits in."""
        if self.folder is not None:
            return "folder"
        return "short" if self.is_short else "long"

    @property
    def is_abandoned(self) -> bool:
        """Whether whoever watched it is gone for good."""
        alone = self._was_watched and not self._watchers
        return alone and not self.ended and time.monotonic() - self.touched > GRACE

    def seconds_left(self) -> float | None:
        """About how long it will take yet, as far as that can be told."""
        if self.state == "queued":
            return self.expected
        if self.state != "running":
            return 0.0
        if self.share <= 0:
            return self.expected
        gone = time.monotonic() - self._stage_began
        return gone * (1 - self.share) / self.share

    def begin_stage(self, stage: str) -> None:
        """From now on, something else is done.

        Raises:
            Stopped: as `check`.
        """
        self.stage, self.share, self._stage_began = stage, 0.0, time.monotonic()
        self.check()
        self.tell()

    def advance(self, done: float, total: float) -> None:
        """So much of it is done.

        Raises:
            Stopped: as `check`.
        """
        self.share = min(1.0, done / total) if total else 0.0
        self.check()
        self.tell()

    def check(self) -> None:
        """Make sure that it is to go on.

        Raises:
            Stopped: somebody has ended it, or it has taken too long.
        """
        if self._cancelled:
            raise Stopped(CancelledError("The job was cancelled.", hint="Ask for it again."))
        if time.monotonic() - self._started > self.most:
            raise Stopped(
                ResShiftError(
                    f"The job took more than {self.most:.0f} seconds and was ended.",
                    hint="Use a faster model or fewer steps, or have the service allow more "
                    "(--max-time).",
                )
            )

    def cancel(self) -> None:
        """End it as soon as may be; what has ended stays as it is."""
        self._cancelled = True

    @contextmanager
    def watched(self, changed: Callable[[], object]) -> Iterator[None]:
        """Have something called, from any thread, whenever there is news; it is kept going."""
        self._watchers.append(changed)
        self._was_watched = True
        try:
            yield
        finally:
            self._watchers.remove(changed)
            self.touched = time.monotonic()

    def tell(self) -> None:
        """Call whoever watches."""
        for changed in list(self._watchers):
            changed()

    def run(self) -> None:
        """Do it, whatever becomes of it."""
        self._started = self._stage_began = time.monotonic()
        self.state = "running"
        try:
            self.check()
            self.tell()
            self.outcome = self.work(self)
            self.state = "done"
        except Stopped as stopped:
            self.error = stopped.error
            self.state = "cancelled" if isinstance(stopped.error, CancelledError) else "failed"
        except Exception as error:
            self.error, self.state = expected(error), "failed"
        self.touched = time.monotonic()
        self.tell()

    def document(self) -> dict[str, Any]:
        """What clients are told of it."""
        left = self.seconds_left()
        told: dict[str, Any] = {
            "id": self.id,
            **self.facts,
            "state": self.state,
            "stage": self.stage,
            "progress": round(self.share if self.state != "done" else 1.0, 4),
            "seconds_left": None if left is None else round(left, 1),
        }
        if self.outcome is not None:
            told["result"] = self.outcome.facts()
        if self.error is not None:
            told["error"] = problems.document(self.error)
        return told


class Jobs:
    """All jobs of a service.

    Args:
        most: how many may wait.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: dict[str, Job] = {}
        self.counts = dict.fromkeys(ENDED, 0)
        self._waiting: list[Job] = []
        self._running: set[Job] = set()
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._closed = False
        self._until = 0.0
        self._changed = threading.Condition()
        self._lines = [
            threading.Thread(target=self._work, args=(line,), daemon=True)
            for line, count in LINES.items()
            for _ in range(count)
        ]
        for thread in self._lines:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many are under way."""
        return len(self._running)

    def add(self, job: Job) -> Job:
        """Have a job done.

        Raises:
            BusyError: too many wait, or the service is about to end.
        """
        with self._changed:
            if self._closed:
                raise BusyError.ending()
            if len(self._waiting) >= self.most:
                raise BusyError(
                    f"{len(self._waiting)} jobs wait already.",
                    hint="Ask again when some are done, or have the service take more "
                    "(--max-queue).",
                )
            self._waiting.append(job)
            self.known[job.id] = job
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """End a job; one that waits never begins."""
        with self._changed:
            job.cancel()
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        self._do(job)

    def idle(self) -> bool:
        """Whether nothing waits, and nothing is under way."""
        return not (self._waiting or self._running)

    def wait(self) -> None:
        """Until all is done."""
        with self._changed:
            self._changed.wait_for(self.idle)

    def close(self, within: float) -> bool:
        """End all jobs, and take no more.

        Args:
            within: seconds that they have for it, counted from the first time.

        Returns:
            Whether they have ended.
        """
        with self._changed:
            if not self._closed:
                self._until = time.monotonic() + within
            self._closed = True
            waiting, running = list(self._waiting), list(self._running)
            self._changed.notify_all()
        for job in [*waiting, *running]:
            self.cancel(job)
        with self._changed:
            left = max(0.0, self._until - time.monotonic())
            return self._changed.wait_for(self.idle, left)

    def _work(self, line: Line) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next(line) is not None)
                job = self._next(line)
                if job is None:
                    return
                self._waiting.remove(job)
                self._running.add(job)
                self._turn += 1
                self._turns.pop(job.client, None)
                self._turns[job.client] = self._turn
                while len(self._turns) > REMEMBERED:
                    del self._turns[next(iter(self._turns))]
            self._do(job)

    def _do(self, job: Job) -> None:
        job.run()
        with self._changed:
            self.counts[job.state] += 1
            self._running.discard(job)
            self._changed.notify_all()

    def _next(self, line: Line) -> Job | None:
        """Of those who wait, the first of the client whose last turn is the longest ago."""
        busy = {job.folder for job in self._running if job.folder is not None}
        able = [job for job in self._waiting if job.line == line and job.folder not in busy]
        return min(able, key=lambda job: self._turns.get(job.client, 0), default=None)
