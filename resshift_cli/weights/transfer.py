"""What downloads from any kind of source have in common: failures, patience and progress."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

T = TypeVar("T")

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes that are here, and the bytes in all if that is known."""

Check = Callable[[int | None, int], None]
"""Told a file's size, if that is known, and how much of it is here; raises to refuse it."""

ONCE, TWICE, PATIENT = 1, 2, 5  # tries without progress that a failure is worth
BACK_OFF, LONGEST_WAIT = 0.5, 60.0  # seconds: before the second try, and at most


class Failure(Exception):
    """What a source said instead of the file, in a few words.

    Attributes:
        tries: how often in a row it may say so before it is given up.
        wait: seconds that it asked to be left alone, if it did.
        hint: a way out of its own, or "".
    """

    def __init__(
        self, words: str, *, tries: int = ONCE, wait: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(words)
        self.tries = tries
        self.wait = wait
        self.hint = hint


class Meter:
    """Passes progress on, and counts the advances beyond all that was here before.

    Attributes:
        gains: how many there were.
    """

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.gains = 0
        self._name = name
        self._progress = progress
        self._furthest = 0

    def start(self, done: int, total: int | None) -> None:
        """Say where a download begins."""
        self._furthest = max(self._furthest, done)
        if self._progress is not None:
            self._progress(self._name, done, total)

    def advance(self, done: int, total: int | None) -> None:
        """Say how far it is, with bytes that just came."""
        self.gains += done > self._furthest
        self.start(done, total)


def patiently(ask: Callable[[], T], meter: Meter) -> T:
    """Ask again after failures that may pass; only those in a row without progress count.

    Raises:
        Failure: the last one.
    """
    failures = 0
    while True:
        gains = meter.gains
        try:
            return ask()
        except Failure as failure:
            failures = failures + 1 if meter.gains == gains else 0
            # Where bytes have come, there is a network, and it will come back.
            tries = PATIENT if failure.tries == TWICE and meter.gains else failure.tries
            if tries == ONCE or failures >= tries:
                raise
            pause = BACK_OFF * 2 ** max(failures - 1, 0) * random.uniform(0.5, 1.0)
            time.sleep(min(pause if failure.wait is None else failure.wait, LONGEST_WAIT))


def answered(status: int, headers: Mapping[str, str]) -> Failure:
    """What an HTTP answer other than the file means.

    Args:
        status: its code.
        headers: its headers, whose names may be in any case.
    """
    passes = status >= 500 or status in (408, 429)
    return Failure(
        f"{status} {_phrase(status)}",
        tries=PATIENT if passes else ONCE,
        wait=_seconds(headers.get("Retry-After", "")) if passes else None,
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "unknown answer"


def _seconds(retry_after: str) -> float | None:
    """The wait that a Retry-After header asks for: seconds, or a date."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
