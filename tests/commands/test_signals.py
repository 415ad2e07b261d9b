"""A signal at any moment ends it on one line and leaves nothing."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import Ran
from faults import COUNTS, FAULTS, begin, found_in, on_unix, run, seconds_of

pytestmark = on_unix


def is_awake(process: subprocess.Popen[str]) -> bool:
    """Whether the command has seen to SIGTERM; before that there is only Python starting up."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def stop_after(seconds: float, number: int, output: Path, *arguments: object, wait: bool) -> Ran:
    """Send a command a signal some time after it has begun, or after it has finished an image."""
    process = begin(*arguments, "-o", f"{output}/")
    while process.poll() is None and not (
        is_awake(process) and (not wait or [*output.glob("*.png")])
    ):
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell when Python is up")
@pytest.mark.parametrize("job", ["batch", "upscale"])
def test_a_signal_at_any_moment_ends_it_on_one_line_and_leaves_nothing(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...], job: str
) -> None:
    whole = tmp_path / "whole"
    inputs = [dozen] if job == "batch" else sorted(dozen.iterdir())
    span = seconds_of(job, *inputs, "-o", f"{whole}/", *quick)
    reference = found_in(whole)
    count = 6 * FAULTS

    def stop(number: int) -> str:
        output = tmp_path / f"out{number}"
        which, code = [(signal.SIGINT, 130), (signal.SIGTERM, 143)][number % 2]
        word = {130: "Interrupted", 143: "Terminated"}[code]
        wait = number % 3 == 2  # every third one is sent when the first result is there
        delay = span * number / count / (10 if wait else 1)
        ran = stop_after(delay, which, output, job, *inputs, *quick, wait=wait)
        where = f"{which.name} after {delay:.3f} s: {ran}"
        assert ran.code in (0, code), where
        assert ran.out == "", where
        told = re.fullmatch(rf"{word}; [^\n]+\.\n", ran.err)
        assert (ran.err == "") if ran.code == 0 else told, where
        results = found_in(output) if output.exists() else {}
        assert results.items() <= reference.items(), where
        assert ran.code or len(results) == 12, where
        stage = "before" if not results else "within" if len(results) < 12 else "after"
        if job == "batch":
            last = run(job, *inputs, "-o", f"{output}/", *quick) if number % 6 == 5 else None
            assert last is None or (last.code, found_in(output)) == (0, reference)
        elif not results:
            assert not output.exists(), where
        shutil.rmtree(output, ignore_errors=True)
        return f"{job} stopped by {which.name} {stage} the writing"

    with ThreadPoolExecutor(2) as pool:
        for stage in pool.map(stop, range(count)):
            COUNTS[stage] += 1
