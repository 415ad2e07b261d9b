"""The memory of this process and its machine; no torch, whose devices `device` asks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

if sys.platform != "win32":
    import resource


def free(root: Path = Path("/")) -> int:
    """Bytes that this process can still allocate.

    The least of: what the system has available without swapping, the room in the control groups
    (containers, services, batch systems) that the process is in, and the process's own limits of
    address space and data.

    Args:
        root: where /proc and /sys are.
    """
    available = psutil.virtual_memory().available
    return max(min((available, *_room_in_cgroups(root), *_room_in_process_limits())), 0)


def taken() -> int:
    """Bytes that this process has in memory."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Bytes that this process had in memory at most so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not `ru_maxrss`, which a new process inherits from the one that started it.
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on Macs


def collected(
    bands: Iterable[NDArray[Any]], shape: tuple[int, int, int], kind: type[np.generic] = np.float32
) -> NDArray[Any]:
    """The image that comes in bands (n, W, C), whole.

    Args:
        bands: asked for only if the image can be held.
        shape: (H, W, C).
        kind: type of its numbers.

    Raises:
        MemoryError: it can't.
    """
    needed = np.dtype(kind).itemsize * math.prod(shape)
    available = free()
    if needed > available:  # else the system might grant it, and end the process later
        raise MemoryError(f"the result takes {needed} bytes, and {available} are free")
    image = np.empty(shape, kind)
    top = 0
    for band in bands:
        image[top : top + len(band)] = band
        top += len(band)
    return image


def _room_in_process_limits() -> Iterator[int]:
    """Bytes below RLIMIT_AS and RLIMIT_DATA, where they are set (`ulimit -v`, `ulimit -d`)."""
    if sys.platform == "win32":
        return
    used = psutil.Process().memory_info()
    limits = [(resource.RLIMIT_AS, used.vms)]
    if sys.platform == "linux":  # Macs neither count it nor enforce it
        limits.append((resource.RLIMIT_DATA, used.data))
    for limit, taken in limits:
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - taken


def _room_in_cgroups(root: Path) -> Iterator[int]:
    """Bytes below the limit of each Linux control group that this process is in, v1 or v2.

    Pages of files that were not used lately count as free: the kernel drops them first. Paths are
    walked up to the mount, since a limit holds for all groups below it; in a container the path
    may be the host's, of which only the top is to be seen here.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounts = ["sys/fs/cgroup/memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                room = _room_in_cgroup(root.joinpath(mount, *parts[:depth]), *names)
                if room is not None:
                    yield room


def _room_in_cgroup(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used = ((folder / name).read_text().strip() for name in (limit, usage))
        statistics = (folder / "memory.stat").read_text().split()
    except OSError:
        return None
    if most == "max":
        return None
    counts = dict(zip(statistics[::2], statistics[1::2], strict=True))
    return int(most) - int(used) + int(counts.get(cache, 0))
