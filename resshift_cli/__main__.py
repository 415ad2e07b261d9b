"""Where the command starts: `resshift`, and `python -m resshift_cli`.

Importing the commands takes a while. Signals are seen to before, so that Ctrl-C ends the command on
one line then, too.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

_WORDS = {signal.SIGINT: b"Interrupted", signal.SIGTERM: b"Terminated"}


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: what is imported just now could catch an exception."""
    os.write(2, _WORDS[signal.Signals(number)] + b"; nothing was written.\n")
    os._exit(128 + number)


def main() -> NoReturn:
    """Run the command line of this process."""
    heeded = [number for number in _WORDS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, _leave)
    # Threads that wait for each other are to sleep soon. GNU's OpenMP lets them spin for 10 ms:
    # where another program wants the cores, the work then takes ten times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from resshift_cli.commands import app, exits

    try:
        if signal.SIGINT in heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app.main()
    except KeyboardInterrupt as again:  # while it was ending already
        os._exit(exits.TERMINATED if isinstance(again, exits.Terminated) else exits.INTERRUPTED)
    finally:
        for number in heeded:  # nothing is left to be interrupted but Python's own end
            signal.signal(number, signal.SIG_IGN)
        # A Ctrl-C that came within some exec("..."), as dataclasses have it, would else kill Python
        # in the end though it was caught; by the next one Python forgets it.
        exec("")


if __name__ == "__main__":
    main()
