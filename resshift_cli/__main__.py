"""Where the command starts: `resshift`, and `python -m resshift_cli`.

Importing the commands takes a while. Signals are seen to before, so that Ctrl-C ends the command on
one line then, too. Until then nothing is imported that Python does not bring along.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import NoReturn


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Have Ctrl-C end on one line before there are handlers of signals, too."""
    if issubclass(kind, KeyboardInterrupt):
        _say(b"Interrupted")
        os._exit(130)
    sys.__excepthook__(kind, error, trace)


def _say(word: bytes) -> None:
    """Say how it ended, unless a reader that has stalled would have to be waited for."""
    import select

    try:
        if os.name == "nt" or select.select((), (2,), (), 0)[1]:
            os.write(2, word + b"; nothing was written.\n")
    except OSError:
        pass  # stderr is closed


sys.excepthook = _uncaught


def main() -> NoReturn:
    """Run the command line of this process."""
    import signal

    words = {signal.SIGINT: b"Interrupted", signal.SIGTERM: b"Terminated"}

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        """End at once: what is imported just now could catch an exception."""
        _say(words[signal.Signals(number)])
        os._exit(128 + number)

    heeded = [number for number in words if signal.getsignal(number) != signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, leave)
    # Threads that wait for each other are to sleep soon. GNU's OpenMP lets them spin for 10 ms:
    # where another program wants the cores, the work then takes ten times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from resshift_cli.commands import streams

    streams.open_all()
    from resshift_cli.commands import app, exits, signals

    try:
        signals.heed()
        app.main()
    except KeyboardInterrupt as again:  # while it was ending already
        terminated = isinstance(again, signals.Terminated)
        os._exit(exits.TERMINATED if terminated else exits.INTERRUPTED)
    finally:
        for number in heeded:  # nothing is left to be interrupted but Python's own end
            signal.signal(number, signal.SIG_IGN)
        # A Ctrl-C that came within some exec("..."), as dataclasses have it, would else kill Python
        # in the end though it was caught; by the next one Python forgets it.
        exec("")


if __name__ == "__main__":
    main()
