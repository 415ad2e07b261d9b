"""stdout and stderr, whatever they are: closed, on a full disk, of few characters, read by nobody.

- A closed stdout takes the names of results and loses them; what was asked for is refused.
- Failures to write to stdout are `OutputError`; those to write messages are lost, as no place is
  left to tell of them.
- Characters that stdout does not have are escaped, as stderr's always are.
- Where a reader has stalled, a signal stops the waiting for it.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable

from resshift_cli.errors import OutputError

PATIENCE = 0.2  # seconds between looks at whether a signal has come

_stopped = False


def stop_waiting() -> None:
    """Don't wait for readers any longer; what they don't take at once is lost."""
    global _stopped
    _stopped = True


def open_all() -> None:
    """Put what this module promises in the place of stdout and stderr."""
    for number in range(3):  # else the next file that is opened gets the number, and the messages
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = Closed()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = Stdout(sys.stdout)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = Stderr(sys.stderr)


class Closed(io.TextIOBase):
    """A stdout that is not there, as `>&-` leaves it, and services and pythonw have it."""

    def __init__(self) -> None:
        self.close()

    def isatty(self) -> bool:
        """No."""
        return False

    def flush(self) -> None:
        """Nothing is left to be written."""

    def write(self, text: str, /) -> int:
        """Refuse.

        Raises:
            OutputError: always.
        """
        raise OutputError(
            "stdout is closed, and this is printed to it.",
            hint="Give it a file, or a pipe: > out.txt",
        )


class _Stream(io.TextIOWrapper):
    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding, by_line = stream.encoding, stream.line_buffering
        super().__init__(
            stream.detach(), encoding, errors="backslashreplace", line_buffering=by_line
        )

    def write(self, text: str, /) -> int:
        """Write, or tell why that can't be done as the class does."""
        self._attempt(lambda: super(_Stream, self).write(text))
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        self._attempt(super().flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            self._wait()
            action()
        except BrokenPipeError:
            self._abandon()
            raise
        except OSError as error:
            self._abandon()
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        raise NotImplementedError

    def _wait(self) -> None:
        """Wait until what is written can be taken; the write then doesn't block."""
        if os.name == "nt":  # where that can't be known
            return
        while not select.select((), (self.fileno(),), (), 0 if _stopped else PATIENCE)[1]:
            if _stopped:
                self._abandon()

    def _abandon(self) -> None:
        """Lose all that comes, and what has not gone out: Python tries once more in the end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class Stdout(_Stream):
    """An stdout that can be written to, or could be."""

    def _tell(self, error: OSError) -> None:
        raise OutputError(
            f"stdout can't be written: {error.strerror or error}.",
            hint="Make room where it goes, or let it go elsewhere.",
        ) from error


class Stderr(_Stream):
    """An stderr that messages go to as long as it takes them."""

    def _tell(self, error: OSError) -> None:
        pass
