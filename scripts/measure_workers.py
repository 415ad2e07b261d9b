"""How many images a minute one process does, two of --devices, and one or two workers of Ray.

    python scripts/measure_workers.py 40 --side 128 --model tiny-x4

makes so many photos of noise, does them in every way, each in a folder of its own, and prints what
each took; each process and worker computes with one core, so the machine should have nothing else
to do. What beginning takes is told apart by doing a quarter of the photos as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

ONE_WORKER = "Ray, one worker"
WAYS = {
    "one process": ("--device", "cpu"),
    "two processes": ("--devices", "cpu,cpu"),
    ONE_WORKER: ("--device", "cpu", "--engine", "ray"),
    "Ray, a worker for each core": ("--device", "cpu", "--engine", "ray"),
}

# A cluster of one core, until its stdin ends; with a cluster of its own the command takes all.
CLUSTER = """
import sys, ray
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--model", default="tiny-x4")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    options = parser.parse_args()
    counts = (max(options.count // 4, 1), options.count)
    with tempfile.TemporaryDirectory() as name:
        folders = [make(Path(name, f"in{count}"), count, options.side) for count in counts]
        print("| way | seconds to begin | ms an image | images a minute |\n|---|---|---|---|")
        for way in options.ways:
            with cluster() if way == ONE_WORKER else nullcontext(()) as address:
                few, all_ = (
                    seconds(folder, options.model, (*WAYS[way], *address)) for folder in folders
                )
            each = (all_ - few) / max(counts[1] - counts[0], 1)
            begin = all_ - each * counts[1]
            print(f"| {way} | {begin:.1f} | {1000 * each:.0f} | {60 / each:.0f} |", flush=True)


@contextmanager
def cluster() -> Iterator[tuple[str, ...]]:
    """Have a cluster of one core, and give the options that tell of it."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    ) as process:
        assert process.stdin and process.stdout
        address = next(line for line in process.stdout if ":" in line and " " not in line.strip())
        yield "--address", address.strip()
        process.stdin.close()


def make(folder: Path, count: int, side: int) -> Path:
    """Photos of noise, each of another one."""
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:06}.png")
    return folder


def seconds(folder: Path, model: str, way: tuple[str, ...]) -> float:
    """What doing a folder takes, from the beginning to the end of the command."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "resshift_cli", "batch", str(folder), "-o", output]
        began = time.monotonic()
        subprocess.run(
            [*command, "--model", model, "--quiet", *way],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        return time.monotonic() - began


if __name__ == "__main__":
    main()
