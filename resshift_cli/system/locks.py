"""Files that one process at a time may hold, and that stay where they are."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path

from resshift_cli.errors import OutputError, printable
from resshift_cli.system import atomic, held


def waited_for(path: Path) -> AbstractContextManager[object]:
    """Hold a lock file, as soon as the process that has it lets go; released on leaving.

    Raises:
        OSError: it can't be made, or not be locked.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path).acquire()


def at_once(
    path: Path, *, busy: str, hint: str, patience: float = 0
) -> AbstractContextManager[object]:
    """Hold a lock file that nobody else has; released on leaving.

    Args:
        path: the file, in a folder that is there.
        busy: what is said if another process has it.
        hint: what helps if it can't be had.
        patience: seconds in which the other may let go of it.

    Raises:
        OutputError: another process has it, it can't be locked, or is not ours.
    """
    from filelock import FileLock, Timeout

    try:
        with suppress(FileNotFoundError):
            held.check_own(path, path.lstat())
        return FileLock(path, timeout=patience).acquire()
    except Timeout as error:
        raise OutputError(busy, hint=f"Wait for it. {hint}") from error
    except OSError as error:
        raise OutputError(
            f"{printable(path.parent)} can't be locked: {atomic.reason(error)}.", hint=hint
        ) from error
