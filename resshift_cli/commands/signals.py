"""Ctrl-C and SIGTERM: whatever is under way is left in order, and at once.

A signal that was ignored when the command began, as for a job in the background, stays so.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from resshift_cli.commands import streams

SOON = 0.001  # seconds after which a signal comes again that came where nothing can be raised


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything that cleans up after Ctrl-C cleans up after it too."""


def heed() -> None:
    """From here on, have signals raise `KeyboardInterrupt` and `Terminated`."""
    for number, handler in ((signal.SIGINT, _interrupt), (signal.SIGTERM, _terminate)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _raise(KeyboardInterrupt, number, frame)


def _terminate(number: int, frame: FrameType | None) -> None:
    _raise(Terminated, number, frame)


def _raise(kind: type[KeyboardInterrupt], number: int, frame: FrameType | None) -> None:
    """Raise what a signal stands for, or have the signal come again where that would be lost."""
    streams.stop_waiting()
    if not _is_naming(frame):
        raise kind
    again = threading.Timer(SOON, _send, (number,))
    again.daemon = True
    again.start()


def _send(number: int) -> None:
    """Have the main thread heed a signal, also when it waits for something."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _is_naming(frame: FrameType | None) -> bool:
    """Whether a class is being made, and tells its members their names.

    Python up to 3.11 makes a RuntimeError of whatever is raised there, which then is taken for a
    damaged file or a bug by whoever was importing something.
    """
    while frame is not None:
        if frame.f_code.co_name == "__set_name__":
            return True
        frame = frame.f_back
    return False


@contextmanager
def deferred() -> Iterator[None]:
    """Raise what signals ask for only after this block; the second one ends the process at once.

    It is for C++ that runs Python while it is imported, as torch: an exception there aborts it.
    """
    arrived: list[tuple[int, FrameType | None]] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if arrived:
            os._exit(128 + number)
        arrived.append((number, frame))

    heeded = _heeded()
    for number in heeded:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
    for number, frame in arrived:
        heeded[number](number, frame)


class Postponed:
    """Within this block the first signal may only be asked about, and is raised at its end.

    The second one is heeded at once. Entering it gives what says whether one has come.

    Args:
        told: called when the first one comes.

    Attributes:
        in_order: whether the block came to its end after a signal.
    """

    def __init__(self, told: Callable[[], object]) -> None:
        self.told = told
        self.in_order = False
        self._arrived: list[tuple[int, FrameType | None]] = []
        self._heeded: dict[int, Any] = {}

    def __enter__(self) -> Callable[[], bool]:
        """From here on, keep signals."""
        self._heeded = _heeded()
        for number in self._heeded:
            signal.signal(number, self._keep)
        return lambda: bool(self._arrived)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Heed them again."""
        for number, handler in self._heeded.items():
            signal.signal(number, handler)
        if kind is None and self._arrived:
            self.in_order = True
            number, frame = self._arrived[0]
            self._heeded[number](number, frame)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self._arrived:
            self._heeded[number](number, frame)
        self._arrived.append((number, frame))
        self.told()


def _heeded() -> dict[int, Any]:
    """The handlers of signals that are not ignored."""
    return {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) in (_interrupt, _terminate)
    }
