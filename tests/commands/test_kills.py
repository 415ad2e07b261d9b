"""Killed again and again, it gets to the same results."""

from __future__ import annotations

import random
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from command_line import Ran
from faults import COUNTS, FAULTS, begin, found_in, on_unix, run, seconds_of

from resshift_cli.batch import ledger

pytestmark = on_unix


def kill_after(seconds: float, *arguments: object) -> int:
    """Kill a command some time after it was started; returns its exit code."""
    process = begin(*arguments)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)
    process.kill()
    process.communicate()
    return process.returncode


def test_a_batch_killed_again_and_again_gets_to_the_same_results(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    output, whole = tmp_path / "out", tmp_path / "whole"
    span = seconds_of("batch", dozen, "-o", whole, *quick)
    reference = found_in(whole)
    chance = random.Random(FAULTS)
    kept: dict[str, int] = {}
    for number in range(3 * FAULTS):
        if number % 8 == 7:  # by then most is done: start anew
            shutil.rmtree(output, ignore_errors=True)
            kept = {}
        kill_after(chance.uniform(0.3, 1.1) * span, "batch", dozen, "-o", output, *quick)
        records = ledger.Ledger(output).results if output.exists() else {}
        for name, record in records.items():
            result = output / record.output
            assert result.read_bytes() == reference[name]
            assert kept.setdefault(name, result.stat().st_mtime_ns) == result.stat().st_mtime_ns
        assert kept.keys() == records.keys()  # what was finished stays so
        for path in output.glob("*.png"):  # and what has a result's name is whole, known or not
            assert path.read_bytes() == reference[path.name]
        COUNTS["batches killed"] += 1
    assert run("batch", dozen, "-o", output, *quick) == Ran(0, "", "")
    assert found_in(output) == reference


def test_upscale_killed_again_and_again_leaves_nothing_that_looks_finished_and_is_not(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    sources, output, whole = sorted(dozen.iterdir()), tmp_path / "out", tmp_path / "whole"
    span = seconds_of("upscale", *sources, "-o", f"{whole}/", *quick)
    reference = found_in(whole)
    chance = random.Random(FAULTS)
    for _ in range(2 * FAULTS):
        kill_after(
            chance.uniform(0.3, 1.1) * span,
            *("upscale", *sources, "-o", f"{output}/", "--overwrite", *quick),
        )
        for path in output.glob("*.png"):
            assert path.read_bytes() == reference[path.name]
        COUNTS["upscales killed"] += 1
    ran = run("upscale", *sources, "-o", f"{output}/", "--overwrite", *quick)
    assert ran == Ran(0, "", "")
    assert found_in(output) == reference
