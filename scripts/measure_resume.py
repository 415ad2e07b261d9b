"""How long a batch that is finished takes to see it, and what memory: `docs/scale.md` has figures.

    python scripts/measure_resume.py 1000000 /tmp/many

makes so many finished images, all of them empty files with lines in a ledger, and runs the command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from resshift_cli.batch import ledger
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.record import Record

FOLDER = 1000  # images of a folder


def main() -> None:
    """Make the folder, unless it is there, and measure twice: before and after packing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    inputs, outputs = options.folder / "in", options.folder / "out"
    if not outputs.exists():
        make(options.count, inputs, outputs)
    for _ in range(2):
        size = sum(path.stat().st_size for path in ledger.files(outputs))
        began = time.monotonic()
        told = run(inputs, outputs)
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{size / 1e6:.0f} MB of ledger: {seconds:.0f} s, {peak:.0f} MB at most; {told}")


def make(count: int, inputs: Path, outputs: Path) -> None:
    """Make finished images, by the example of one."""
    inputs.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(inputs / "example.png")
    run(inputs, outputs)
    example = Ledger(outputs).results["example.png"]
    (inputs / "example.png").unlink()
    with (outputs / ledger.NAME).open("w") as book:
        for number in range(count):
            name = f"{number // FOLDER:06}/photo-{number:09}.png"
            for folder in (inputs, outputs):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).touch()
            changed = (inputs / name).stat().st_mtime_ns
            record = replace(
                example,
                input=name,
                output=name,
                input_mtime_ns=changed,
                input_bytes=0,
                output_bytes=0,
                input_sha256=digest(number),
                output_sha256=digest(-number),
            )
            for line in lines(record):
                book.write(line)


def lines(record: Record) -> list[str]:
    """What a batch enters for an image."""
    begun = replace(record, status="writing")
    return [json.dumps(each.facts()) + "\n" for each in (begun, record)]


def digest(number: int) -> str:
    """Sixty-four digits that no packing makes shorter."""
    return np.random.default_rng(abs(2 * number + (number < 0))).bytes(32).hex()


def run(inputs: Path, outputs: Path) -> str:
    """Run the command, and return its last line."""
    command = ["batch", inputs, "-o", outputs, "--model", "tiny-x4", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "resshift_cli", *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1]


if __name__ == "__main__":
    main()
