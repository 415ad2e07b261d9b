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
        size = sum((outputs / name).stat().st_size for name in ledger.files(outputs))
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        told = run(inputs, outputs)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        print(
            f"{size / 1e6:.0f} MB of ledger: {seconds:.0f} s, {used:.0f} s of CPU time, "
            f"{after.ru_maxrss / 1024:.0f} MB at most; {told}",
            flush=True,
        )


def make(count: int, inputs: Path, outputs: Path) -> None:
    """Make finished images, by the example of one."""
    inputs.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(inputs / "example.png")
    run(inputs, outputs)
    example = Ledger(outputs).results["example.png"]
    (inputs / "example.png").unlink()
    facts = replace(example, input="{name}", output="{name}", input_bytes=0, output_bytes=0).facts()
    template = json.dumps(facts | {"input_sha256": "{first}", "output_sha256": "{second}"})
    before, after = template.split(f'"input_mtime_ns": {facts["input_mtime_ns"]}')
    with (outputs / ledger.NAME).open("w") as book:
        for number in range(count):
            name = f"{number // FOLDER:06}/photo-{number:09}.png"
            for folder in (inputs, outputs):
                if number % FOLDER == 0:
                    (folder / name).parent.mkdir()
                open(folder / name, "w").close()
            changed = os.stat(inputs / name).st_mtime_ns
            digests = os.urandom(64).hex()
            line = f'{before}"input_mtime_ns": {changed}{after}'.replace("{name}", name)
            line = line.replace("{first}", digests[:64]).replace("{second}", digests[64:])
            begun = line.replace('"status": "done"', '"status": "writing"')
            book.write(f"{begun}\n{line}\n")


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
