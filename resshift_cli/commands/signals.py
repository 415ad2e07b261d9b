"""Ctrl-C and SIGTERM: whatever is under way is left in order, and at once.

A signal that was ignored when the command began, as for a job in the background, stays so.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from resshift_cli.commands import streams


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything that cleans up after Ctrl-C cleans up after it too."""


def heed() -> None:
    """From here on, have signals raise `KeyboardInterrupt` and `Terminated`."""
    for number, handler in ((signal.SIGINT, _interrupt), (signal.SIGTERM, _terminate)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    streams.stop_waiting()
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    streams.stop_waiting()
    raise Terminated


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

    heeded: dict[int, Any] = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) in (_interrupt, _terminate)
    }
    for number in heeded:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
    for number, frame in arrived:
        heeded[number](number, frame)
