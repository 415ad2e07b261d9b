"""Requests that are made again when they fail by chance."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from resshift_cli.errors import ResShiftError

T = TypeVar("T")

TRIES = 6  # of a request that fails
BACK_OFF = 0.25  # seconds before the second try; twice as many before every other
# Statuses of web servers that the same request would get again.
_FINAL = (400, 401, 403, 404, 405, 410)
_HOPELESS = (
    *("NoCredentialsError", "AuthenticationException", "BadHostKeyException"),
    *("InvalidURL", "UnsupportedProtocol"),
)
"""What packages for stores raise, as they call it, where asking again is of no use."""


class Answer(Exception):
    """What a web server said instead of the file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers {status}")
        self.status = status


def patiently(ask: Callable[[], T]) -> T:
    """Ask again, later and later, after failures that may pass.

    Raises:
        Exception: the last one, or one that would come again.
    """
    for number in range(1, TRIES):
        try:
            return ask()
        except Exception as error:
            if _is_final(error):
                raise
            time.sleep(BACK_OFF * 2 ** (number - 1) * random.uniform(0.5, 1.0))
    return ask()


def _is_final(error: Exception) -> bool:
    """Whether a request that failed would fail again."""
    final = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
    if isinstance(error, (ResShiftError, ImportError, *final)):
        return True
    if isinstance(error, Answer):
        return error.status in _FINAL
    return type(error).__name__ in _HOPELESS
