"""Runs the whole command in processes of its own, among faults of every kind.

The bar is the same everywhere: no traceback, the exit code of the table, nothing on stderr but our
own lines, no file half-written, lost or left over. RESSHIFT_FAULTS=20 does twenty times as much.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import forked
import numpy as np
import pytest
from command_line import Ran, as_from_a_shell
from damage import Damaged
from PIL import Image

from resshift_cli.batch import ledger

FAULTS = int(os.environ.get("RESSHIFT_FAULTS", "1"))
OURS = (ledger.NAME, ledger.LOCK)
COUNTS: Counter[str] = Counter()
on_unix = [
    pytest.mark.skipif(os.name != "posix", reason="signals, limits and disks of Unix"),
    pytest.mark.usefixtures("counts"),
]


def command(*arguments: object, program: str = "") -> list[str]:
    start = ["-c", program] if program else ["-m", "resshift_cli"]
    return [sys.executable, *start, *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, so that many processes at once do not wait for each other."""
    return os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def begin(
    *arguments: object,
    env: dict[str, str] | None = None,
    preexec_fn: Callable[[], None] = as_from_a_shell,
    program: str = "",
) -> subprocess.Popen[str]:
    """Start a command; what is no UTF-8 in its output stays visible as such."""
    return subprocess.Popen(
        command(*arguments, program=program),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        env=env or environment(),
        preexec_fn=preexec_fn,
    )


def run(*arguments: object, program: str = forked.COMMAND, prefix: tuple[str, ...] = ()) -> Ran:
    """Run a command in a process of its own that need not start from nothing."""
    return forked.run(*arguments, environment=environment(), program=program, prefix=prefix)


def run_from_nothing(
    *arguments: object,
    env: dict[str, str] | None = None,
    preexec_fn: Callable[[], None] = as_from_a_shell,
    program: str = "",
) -> Ran:
    process = begin(*arguments, env=env, preexec_fn=preexec_fn, program=program)
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


def found_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but what a batch keeps for itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in OURS
    }


def errors_only(err: str) -> list[str]:
    """The lines of stderr, which with --quiet are errors of ours, one line each."""
    lines = err.splitlines()
    for line in lines:
        assert re.match(r"error: \S.*[.)`'/]|and \d+ more, see ", line), err
    return lines


def make(path: Path, height: int = 10, width: int = 14, seed: int = 0) -> Path:
    """A photo of noise, which no format makes much smaller."""
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def options(weights: Path) -> tuple[object, ...]:
    """What makes either command quick."""
    return ("--weights", weights, "--steps", 1, "--device", "cpu", "--quiet")


def no_file_beyond(size: int, program: str = forked.COMMAND) -> str:
    """The program, which may write no file of more bytes."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    return f"import resource\n{limit}\n{program}"


def among(folder: Path, files: Sequence[Damaged]) -> None:
    for file in files:
        (folder / file.name).write_bytes(file.content)


def seconds_of(*arguments: object) -> float:
    started = time.monotonic()
    ran = run_from_nothing(*arguments)
    assert ran.code == 0, ran
    return time.monotonic() - started
