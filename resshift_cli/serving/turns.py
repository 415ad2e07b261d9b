"""Who computes: one job at a time, and the next one when that has had its while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

WHILE = 0.5  # seconds that a job has before it steps aside for one that waits


class Turns:
    """A lock that is given in the order in which it is asked for, and can be lent in between."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = 0
        self._served = 0
        self._since = 0.0

    def __enter__(self) -> None:
        """Wait for one's turn."""
        with self._changed:
            ticket = self._asked
            self._asked += 1
            self._changed.wait_for(lambda: self._served == ticket)
            self._since = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the next one begin."""
        with self._changed:
            self._served += 1
            self._changed.notify_all()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within one's turn: let others have theirs meanwhile."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def step_aside(self) -> None:
        """Within one's turn: let whoever waits go first, if it has lasted a while."""
        others = self._asked - self._served > 1
        if others and time.monotonic() - self._since >= WHILE:
            with self.lent():
                pass
