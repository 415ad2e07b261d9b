"""How much memory something takes, on Linux."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_PROC = Path("/proc/self")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
needs_proc = pytest.mark.skipif(
    not hasattr(_LIBC, "malloc_trim") or not (_PROC / "clear_refs").exists(),
    reason="needs /proc/self/clear_refs and the C library of GNU",
)


def peak_over(run: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises while something runs."""
    gc.collect()
    assert _LIBC is not None
    _LIBC.malloc_trim(0)  # what was freed is given back, or using it again would not count
    (_PROC / "clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    for line in (_PROC / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise KeyError(key)
