"""Does the groups of a plan in processes, one for each device of this machine.

A process is a `Runner` like any other: it asks for one group after the other, and enters in a file
of its own what became of them. This one hands out groups, and tells of what is done.
"""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resshift_cli.batch.groups import Group
from resshift_cli.batch.ledger import Book, Part, locked_part
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.record import Record
from resshift_cli.batch.resume import Job
from resshift_cli.batch.runner import Runner, Watch, failed_record
from resshift_cli.batch.shards import Shard
from resshift_cli.errors import ResShiftError, expected, printable
from resshift_cli.system import held
from resshift_cli.weights.store import Files

# What a process runs. It imports from where this one does.
_PROGRAM = """
import sys
sys.path[:] = sys.argv[1:]
from resshift_cli.batch import processes
processes.serve()
"""
_MOST_DEATHS = 3  # of processes one after another, before the batch is given up
_NEXT = "next"
_STOP = signal.SIGINT if os.name == "posix" else signal.SIGTERM  # Windows has no other


@dataclass(frozen=True, slots=True)
class Task:
    """What a process has to know before it asks for work.

    Attributes:
        recipe: how results are made; the device is the process' own.
        files: of the model.
        resources: what `Upscaler.load` is told but the device.
        folder: of the inputs, as the ledger has it.
        output: folder of the results.
        parts: the shard, and the process among its like.
    """

    recipe: Recipe
    files: Files
    resources: Mapping[str, Any]
    folder: str
    output: Path
    parts: tuple[Shard, ...]


@dataclass
class _Child:
    """A process, and what it was given.

    Attributes:
        device: where it computes.
        part: which of them it is.
        process: it.
        held: groups of the images that it has not told of yet, by their names.
        is_done: whether it was told that there is no more.
        has_asked: whether it has asked for more while it had some, and got nothing.
        waits: whether it waits for an answer until what it has is done.
    """

    device: str
    part: Shard
    process: subprocess.Popen[bytes]
    held: dict[str, Group] = field(default_factory=dict)
    is_done: bool = False
    has_asked: bool = False
    waits: bool = False

    def lost(self) -> Iterator[Group]:
        """What it has not told of, each image by itself, with the bits that it has among others."""
        for name, group in self.held.items():
            yield replace(group, jobs=[job for job in group.jobs if job.input == name])

    def say(self, message: object) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended, which its stdout tells
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()


class Processes:
    """An `Engine` of a process for each device.

    Args:
        task: what they have to know, for a shard of which each is a part.
        devices: theirs, as torch names them.
        book: where it is entered what no process could be.
        watch: what is told meanwhile.
        tell: is told what a model has to say of memory.
    """

    def __init__(
        self,
        task: Task,
        devices: Sequence[str],
        book: Book,
        watch: Watch,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.task, self.devices, self.book, self.watch = task, devices, book, watch
        self.tell = tell
        self._inbox: queue.Queue[tuple[_Child, Any]] = queue.Queue()
        self._children: list[_Child] = []
        self._stops = False
        self._deaths = 0  # of processes, since the last result

    def run(self, groups: Iterable[Group], *, fail_fast: bool = False) -> None:
        """As `runner.Engine` says; what was lost with a process is tried again, each alone."""
        with closing(self.watch.gauge):
            try:
                lost = self._do(iter(groups), self.devices, fail_fast, alone=False)
                for group in self._do(iter(lost), self.devices[:1], fail_fast, alone=True):
                    self._give_up(group.jobs[0])
            except BaseException:
                self._stop()
                raise

    def _do(
        self, groups: Iterator[Group], devices: Sequence[str], fail_fast: bool, *, alone: bool
    ) -> list[Group]:
        """Hand out groups, one at a time if need be; gives back what was lost with a process."""
        lost: list[Group] = []
        following = next(groups, None)
        if following is None:
            return lost
        groups = itertools.chain([following], groups)
        for number, device in enumerate(devices, 1):
            self._start(device, Shard(number, len(self.devices)))
        while self._children:
            child, message = self._inbox.get()
            if message == _NEXT:
                self._hand_out(child, groups, alone=alone)
                continue
            if message is not None:
                self._hear(child, message, fail_fast)
                continue
            self._end(child)
            if child.is_done or self._stops:
                lost += child.lost()  # none, but where it died as it was writing the last one
                continue
            self._deaths += not alone  # else each has an image to answer for
            if not child.held or self._deaths >= _MOST_DEATHS:
                raise _died(child)
            lost += child.lost()
            if (following := next(groups, None)) is not None:
                groups = itertools.chain([following], groups)
                self._start(child.device, child.part)
        return lost

    def _hand_out(self, child: _Child, groups: Iterator[Group], *, alone: bool) -> None:
        """Answer a process that wants more."""
        if alone and child.held:
            # It asks before it begins, to read ahead, and is to have nothing else when it dies.
            child.waits = child.has_asked
            child.has_asked = True
            if not child.waits:
                child.say(Group([]))
            return
        group = None if self._stops else next(groups, None)
        child.held |= {} if group is None else {job.input: group for job in group.jobs}
        child.is_done, child.has_asked = group is None, False
        child.say(group)

    def _start(self, device: str, part: Shard) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone
        )
        child = _Child(device, part, process)
        self._children.append(child)
        child.say((replace(self.task, parts=(*self.task.parts, part)), device))
        threading.Thread(target=self._listen, args=(child,), daemon=True).start()

    def _listen(self, child: _Child) -> None:
        """Put what a process says into the inbox, and in the end None."""
        assert child.process.stdout is not None
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                self._inbox.put((child, pickle.load(child.process.stdout)))
        child.process.wait()
        self._inbox.put((child, None))

    def _hear(self, child: _Child, message: object, fail_fast: bool) -> None:
        """Take note of what a process says but that it wants more."""
        if isinstance(message, ResShiftError):
            raise message
        if isinstance(message, Record):
            group = child.held.pop(message.input)
            job = next(job for job in group.jobs if job.input == message.input)
            self._told(job, message)
            self._deaths = 0
            if child.waits and not child.held:
                child.waits = False
                self._inbox.put((child, _NEXT))
            self._stops |= fail_fast and message.status == "failed"
        else:
            self.tell(str(message))

    def _told(self, job: Job, record: Record) -> None:
        self.watch.record(record)
        if record.status == "failed":
            self.watch.gauge.fail()
        self.watch.gauge.finish(job)

    def _give_up(self, job: Job) -> None:
        """Enter an image that its process died of every time."""
        error = ResShiftError(
            f"The process that enlarged {printable(job.source)} was killed, and so was the next "
            "one.",
            hint="Memory may have run out: use a smaller --tile, or `resshift upscale` to see.",
        )
        names = {"input": job.input, "output": job.output}
        recipe = self.task.recipe
        record = failed_record({"folder": self.task.folder, **recipe.facts(), **names}, error)
        self.book.append(record)
        self._told(job, record)

    def _stop(self) -> None:
        """Have all processes write what is computed, and end; at a second Ctrl-C, at once."""
        self._stops = True
        try:
            for child in self._children:
                child.process.send_signal(_STOP)
            while self._children:
                child, message = self._inbox.get()
                if message == _NEXT:
                    child.say(None)
                elif isinstance(message, Record) and message.input in child.held:
                    self._hear(child, message, fail_fast=False)
                elif message is None:
                    self._end(child)
        finally:
            for child in [*self._children]:
                child.process.kill()
                self._end(child)

    def _end(self, child: _Child) -> None:
        """Forget a process that has ended, or will now."""
        self._children.remove(child)
        for pipe in (child.process.stdin, child.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # it has both
        child.process.wait()


def _died(child: _Child) -> ResShiftError:
    return ResShiftError(
        f"The process on {child.device} ended with status {child.process.returncode}.",
        hint="Memory may have run out: use a smaller --tile, or fewer --devices. The same command "
        "goes on from here.",
    )


def serve() -> None:
    """Be a process of `Processes`: groups come in on stdin, what became of them goes to stdout."""
    come, go = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed
    one = threading.Lock()

    def say(message: object) -> None:
        with one:
            pickle.dump(message, go)
            go.flush()

    def groups() -> Iterator[Group]:
        with suppress(EOFError):  # nobody is there any more
            while True:
                say(_NEXT)
                group = pickle.load(come)
                if group is None:
                    return
                yield group

    with suppress(KeyboardInterrupt, BrokenPipeError):
        signal.signal(_STOP, signal.default_int_handler)
        task, device = pickle.load(come)
        try:
            _serve(task, device, groups(), say)
        except Exception as error:
            say(expected(error))


def _serve(task: Task, device: str, groups: Iterator[Group], say: Callable[[object], None]) -> None:
    from resshift_cli.restoration.upscaler import Upscaler

    upscaler = Upscaler.load(
        task.recipe.entry, task.files, device=device, tell=say, **task.resources
    )
    recipe = replace(task.recipe, device=upscaler.device)
    facts = {"folder": task.folder, **recipe.facts()}
    with locked_part(task.output, *task.parts), held.opened(task.output) as place:
        part = Part(task.output, place, *task.parts)
        Runner(upscaler, recipe, facts, part, Watch(say)).run(groups)
