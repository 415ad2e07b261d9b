"""Does the groups of a plan in processes, one for each device of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from resshift_cli.batch.crew import ENDED, NEXT, Crew, Hand, Task, work
from resshift_cli.batch.groups import Group
from resshift_cli.batch.ledger import Ledger, release
from resshift_cli.batch.runner import Watch
from resshift_cli.batch.shards import Shard
from resshift_cli.errors import expected

# What a process runs. It imports from where this one does.
_PROGRAM = """
import sys
sys.path[:] = sys.argv[1:]
from resshift_cli.batch import processes
processes.serve()
"""
_STOP = signal.SIGINT if os.name == "posix" else signal.SIGTERM  # Windows has no other
_HERE = "this machine"


@dataclass(eq=False)
class _Child(Hand):
    """A process.

    Attributes:
        device: where it computes.
        process: it.
    """

    device: str
    process: subprocess.Popen[bytes]

    def say(self, message: object) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended, which its stdout tells
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()

    def interrupt(self) -> None:
        self.process.send_signal(_STOP)

    def kill(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # it has both
        self.process.wait()

    def last_words(self) -> str:
        return f"on {self.device} ended with status {self.process.returncode}"


class Processes(Crew):
    """An `Engine` of a process for each device.

    Args:
        task: what they have to know, for a shard of which each is a part.
        devices: theirs, as torch names them.
        book: of the folder of results; what no process could do is entered there.
        watch: what is told meanwhile.
        tell: is told what a model has to say of memory.
    """

    def __init__(
        self,
        task: Task,
        devices: Sequence[str],
        book: Ledger,
        watch: Watch,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(task, book, watch, tell)
        self.devices = devices

    def hire(self) -> Iterator[Hand]:
        """A process for each device that has none."""
        busy = {hand.part.number for hand in self.hands}
        of = max(len(self.devices), 2)  # the ledger of the whole is this process' own
        for number, device in enumerate(self.devices, 1):
            if number not in busy:
                yield self._start(device, Shard(number, of))

    def _start(self, device: str, part: Shard) -> Hand:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone
        )
        child = _Child(_HERE, part, device, process)
        child.say((replace(self.task, parts=(*self.task.parts, part)), device))
        threading.Thread(target=self._listen, args=(child,), daemon=True).start()
        return child

    def _listen(self, child: _Child) -> None:
        """Put what a process says into the inbox."""
        assert child.process.stdout is not None
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                self.inbox.put((child, pickle.load(child.process.stdout)))
        child.process.wait()
        release(
            self.task.output, *self.task.parts, child.part
        )  # before another one takes its place
        self.inbox.put((child, ENDED))


def serve() -> None:
    """Be a process of `Processes`: parcels come in on stdin, what became of them goes to stdout."""
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
                say(NEXT)
                parcel = pickle.load(come)
                if parcel is None:
                    return
                yield from parcel

    with suppress(KeyboardInterrupt, BrokenPipeError):
        signal.signal(_STOP, signal.default_int_handler)
        task, device = pickle.load(come)
        try:
            work(task, device, groups(), Watch(say), say)
        except Exception as error:
            say(expected(error))
