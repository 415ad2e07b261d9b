"""What tests of commands have in common; the fixture `resshift` runs one in this process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of Unix")
may_be_denied = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere"
)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def as_from_a_shell() -> None:
    """Ctrl-C is heeded, even where whatever runs the tests ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Run a command in a process of its own, or a program that is like it."""
    if os.name == "posix":
        options = {"preexec_fn": as_from_a_shell} | options
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= options.pop("environment", {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    program = options.pop("program", "")
    begin = ["-c", program] if program else ["-m", "resshift_cli"]
    command = [sys.executable, *begin, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)


def on_a_terminal(*arguments: object, environment: dict[str, str] | None = None) -> str:
    """What a terminal of 80 columns gets to see."""
    import pty

    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | (environment or {})
    process = start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, environment=terminal)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError as error:  # what Linux gives when the other end is closed
        assert error.errno == errno.EIO
    os.close(ours)
    process.wait(timeout=120)
    return shown.decode()


def make_photo(path: Path, width: int, height: int) -> Path:
    """Noise, which no format can compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def files(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder; folders hold None."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        raise error

    return function
