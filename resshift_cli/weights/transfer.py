"""What downloads from any kind of source have in common: failures, patience and progress."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

from resshift_cli.system.progress import Bar, Bars

T = TypeVar("T")

Admission = Callable[[int | None, int, str], int]
"""Told a file's size, if that is known, how much of it is here, and the SHA-256 that it is said to
have, or ""; returns the most bytes that may come to be here, or raises to refuse it."""

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
    """Shows how far a download is, and counts the advances beyond all that was here before.

    Attributes:
        gains: how many there were.
        most: bytes that may come to be here.
    """

    def __init__(self, name: str, bars: Bars) -> None:
        self.gains = 0
        self.most: float = math.inf
        self._name = name
        self._bars = bars
        self._bar: Bar | None = None
        self._total: int | None = None
        self._done = self._furthest = 0

    def start(self, done: int, total: int | None) -> None:
        """Say where a download begins; it may begin again."""
        if self._bar is None or total != self._total:
            self.close()
            self._bar = self._bars(
                total=total, desc=self._name, unit="B", unit_scale=True, initial=done
            )
        else:
            self._bar.update(done - self._done)
        self._done, self._total, self._furthest = done, total, max(self._furthest, done)

    def advance(self, count: int) -> None:
        """Say that so many bytes have come; fewer than none where they come anew.

        Raises:
            Failure: more have come than may be here.
        """
        self._done += count
        self.gains += self._done > self._furthest
        self._furthest = max(self._furthest, self._done)
        if self._bar is not None:
            self._bar.update(count)
        if self._done > self.most:
            raise Failure(f"sends more than the {self.most:,.0f} bytes that it may")

    def close(self) -> None:
        """Have it shown no more."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


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


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it came from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


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
    except (ValueError, OverflowError, OSError):  # no date, or one that no clock shows
        return None
