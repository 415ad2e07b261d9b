"""Locks in stores: a file that is there while somebody has it, and renewed as long as he lives.

Whether of two who want one at once only one gets it is the store's to say: those that put a file
only where there is none (S3, Google Cloud Storage, Azure) see to it, others (sftp) all but.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from resshift_cli.errors import OutputError, ResShiftError
from resshift_cli.system import atomic
from resshift_cli.system.storage import Remote
from resshift_cli.system.versions import Known

RENEWED = 10.0  # seconds between two signs of life
DEAD = 45.0  # seconds without one, by the store's own clock, after which a lock is nobody's
LOOK = 2.0  # seconds between two looks at a lock that another has


@contextmanager
def leased(file: Remote, *, busy: str, hint: str, patience: float = 0) -> Iterator[None]:
    """Have a lock that nobody else has; gone on leaving.

    Whoever was killed has it for `DEAD` seconds more, in which this waits.

    Args:
        file: what stands for it.
        busy: what is said if somebody has it.
        hint: what helps if it can't be had.
        patience: seconds in which somebody who has it, and lives, may let go of it.

    Raises:
        OutputError: another has it, or it can't be made.
    """
    mark = secrets.token_hex(8)
    _take(file, mark, busy, hint, patience)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(file, mark, ended), name="lease", daemon=True)
    try:
        renewing.start()  # where a signal may be raised, too
        yield
    finally:
        ended.set()
        if renewing.ident is not None:
            renewing.join()
        if _has(file, mark):
            file.remove()


def _take(file: Remote, mark: str, busy: str, hint: str, patience: float) -> None:
    last: Known | None = None
    began = time.monotonic()
    ends = began + patience
    while not file.write(_sign(mark), create=True):
        there = file.known()
        if there is None:
            continue  # gone meanwhile
        if last is not None and there.version != last.version and time.monotonic() >= ends:
            raise OutputError(busy, hint=f"Wait for it. {hint}")
        silence = _now(file) - there.changed if there.changed else time.monotonic() - began
        if silence > DEAD:
            file.remove()
            continue
        last = last or there
        time.sleep(LOOK)


def _renew(file: Remote, mark: str, ended: threading.Event) -> None:
    while not ended.wait(RENEWED):
        try:
            if not _has(file, mark):
                return  # taken for dead, as after a night's sleep of the machine
            file.write(_sign(mark))
        except ResShiftError:
            continue  # a store that does not answer may do so next time


def _has(file: Remote, mark: str) -> bool:
    try:
        return (file.read() or b"").startswith(mark.encode())
    except ResShiftError:
        return False


def _sign(mark: str) -> bytes:
    """What is in a lock: whose it is, and something new every time."""
    return f"{mark} {secrets.token_hex(8)}\n".encode()


def _now(file: Remote) -> float:
    """What time it is by the clock that files in the store are dated by."""
    folder, _, name = file.url.rpartition("/")
    trial = Remote(f"{folder}/{atomic.temporary_name(name)}")
    trial.write(b"\n")
    found = trial.known()
    trial.remove()
    return time.time() if found is None else found.changed
