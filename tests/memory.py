"""How much memory something takes, on Linux."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from resshift_cli.system import memory

_PROC = Path("/proc/self")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
needs_proc = pytest.mark.skipif(
    not hasattr(_LIBC, "malloc_trim") or not (_PROC / "clear_refs").exists(),
    reason="needs /proc/self/clear_refs and the C library of GNU",
)


T = TypeVar("T")


def apart(measure: Callable[..., T], *given: object) -> T:
    """What a function of a test module returns in a process of its own.

    What other tests have freed in this one would be taken again there, and be in no figure.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *given).result()


def peak_over(run: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises while something runs."""
    gc.collect()
    assert _LIBC is not None
    _LIBC.malloc_trim(0)  # what was freed is given back, or using it again would not count
    (_PROC / "clear_refs").write_text("5")  # the peak starts anew
    before = memory.taken()
    run()
    return memory.peak() - before
