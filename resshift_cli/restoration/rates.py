"""How fast this machine is: at matrix products now, and at networks as `resshift bench` found.

What was measured of networks is remembered for later estimates. A rate belongs to a machine, a
device, a precision and a layout, so that a cache folder that several machines share keeps them
apart, and models with the same networks share what was measured.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from resshift_cli import __version__
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.system import atomic, cache
from resshift_cli.system.device import card_name

FILE = "rates.json"

# Matrix products that take less are over too soon to tell the machine's rate.
_LONG_ENOUGH = 5e-3  # seconds
_SMALLEST, _LARGEST = 256, 4096  # sides of the matrices
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Rate:
    """What one measurement of a whole job gave.

    Attributes:
        tile: side of its tiles, in input pixels.
        batch: tiles per call of a network.
        denoising: floating-point operations per second in all but the autoencoder.
        coding: the same of the autoencoder, or None where it has no work.
    """

    tile: int
    batch: int
    denoising: float
    coding: float | None

    def __post_init__(self) -> None:
        """Refuse what no measurement gives."""
        numbers = (self.tile, self.batch, self.denoising, 1 if self.coding is None else self.coding)
        if min(numbers) <= 0:
            raise ValueError(f"not all of {numbers} are above zero")


Rates = Mapping[str, tuple[Rate, ...]]
"""By layout, see `layout`."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What computes, and how fast.

    Attributes:
        device: where.
        dtype: what the networks compute in.
        flops: floating-point operations per second of large matrix products, measured here.
        rates: what whole jobs reached here, where `resshift bench` has measured it.
    """

    device: torch.device
    dtype: torch.dtype
    flops: float
    rates: Rates = field(default_factory=dict)


def measure(device: torch.device, dtype: torch.dtype) -> Machine:
    """Time matrix products for a fraction of a second, with as many threads as torch uses.

    What `resshift bench` has measured here before comes along.
    """
    side = _SMALLEST
    while (seconds := _product_seconds(side, device, dtype)) < _LONG_ENOUGH and side < _LARGEST:
        side *= 2
    return Machine(device, dtype, 2 * side**3 / seconds, known(device, dtype))


def _product_seconds(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Median time of a product of square matrices, the first one not counted."""
    matrix = torch.linspace(-1, 1, side * side, device=device).view(side, side).to(dtype)
    times = []
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def describe_machine() -> dict[str, Any]:
    """This machine, as far as it decides how fast its CPU computes."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "resshift": __version__,
    }


def name_of(device: torch.device) -> str:
    """The device for people: `cpu`, or a GPU with the name of its make."""
    return f"{device} {card_name(device)}".rstrip()


def layout(spec: ModelSpec) -> str:
    """What models with equal networks have in common."""
    sizes = [dataclasses.asdict(spec.denoiser), dataclasses.asdict(spec.autoencoder)]
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:16]


def known(device: torch.device, dtype: torch.dtype) -> Rates:
    """What was measured here."""
    return {
        name: tuple(Rate(**rate) for rate in measured)
        for name, measured in _table().get(_place(device, dtype), {}).items()
    }


def remember(
    spec: ModelSpec, device: torch.device, dtype: torch.dtype, measured: Iterable[Rate]
) -> None:
    """Keep rates; each takes the place of what was measured before with its tile and batch.

    Raises:
        OutputError: the cache folder can't be written.
    """
    atomic.make_folder(_path().parent)
    with cache.locked(FILE):
        table = _table()
        layouts = table.setdefault(_place(device, dtype), {})
        kept = [Rate(**rate) for rate in layouts.get(layout(spec), ())]
        by_tile = {(rate.tile, rate.batch): rate for rate in [*kept, *measured]}
        layouts[layout(spec)] = [dataclasses.asdict(by_tile[key]) for key in sorted(by_tile)]
        atomic.write(_path(), json.dumps(table, indent=1).encode())


def _table() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Place -> layout -> rates; empty if the file is not as we write it: estimates do without."""
    try:
        table = json.loads(_path().read_text(encoding="utf-8"))
        for layouts in table.values():
            for measured in layouts.values():
                for rate in measured:
                    Rate(**rate)
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return table


def _path() -> Path:
    return cache.folder() / FILE


def _place(device: torch.device, dtype: torch.dtype) -> str:
    facts = [*describe_machine().values(), name_of(device), str(dtype).removeprefix("torch.")]
    return ", ".join(map(str, facts))


@functools.cache
def _cpu() -> str:
    """The CPU's own name, or the best that the system tells."""
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, check=True, capture_output=True, text=True
            ).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()
