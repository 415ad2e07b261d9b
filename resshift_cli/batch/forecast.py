"""What a batch will take, before it is begun."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resshift_cli.batch.plan import Headers, Plan, computations
from resshift_cli.errors import ResShiftError
from resshift_cli.imaging.opening import Header
from resshift_cli.restoration import estimate, rates
from resshift_cli.restoration.estimate import Estimate


def forecast(plan: Plan, known: Headers) -> dict[str, Any]:
    """What --dry-run says.

    Args:
        plan: of the batch.
        known: headers of its jobs.

    Returns:
        images to do, what is `refused`, seconds, peak_bytes of memory, disk_bytes that the results
        may take, and free_bytes.
    """
    sound = {name: header for name, header in known.items() if isinstance(header, Header)}
    refused = {failure.input: failure.error for failure in plan.failures}
    refused |= {name: why for name, why in known.items() if isinstance(why, ResShiftError)}
    seconds, peak = _estimate(plan, list(sound.values()))
    return {
        "images": sum(job.input in sound for job in plan.jobs),
        "refused": [{"input": name, **error.facts()} for name, error in refused.items()],
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "disk_bytes": disk_bytes(plan, sound),
        "free_bytes": free_bytes(plan.output),
    }


def _estimate(plan: Plan, known: Sequence[Header]) -> tuple[float, int]:
    """Seconds that all images take, and bytes of memory that one takes at most."""
    if not known:
        return 0.0, 0
    recipe = plan.recipe
    machine = rates.measure(recipe.device, recipe.dtype)
    seconds, peak = 0.0, 0
    cache: dict[tuple[int, int], Estimate] = {}
    for header in known:
        size = (header.height, header.width)
        if size not in cache:
            height, width = size
            how = recipe.settings_for(height, width)
            cache[size] = estimate.estimate(recipe.spec, machine, how, height=height, width=width)
        seconds += cache[size].seconds * computations(header)
        peak = max(peak, cache[size].bytes)
    return seconds, peak


def disk_bytes(plan: Plan, known: Headers) -> int:
    """About what the results will take on the disk: inputs' bytes per pixel, more pixels.

    Args:
        plan: of the batch.
        known: headers of its jobs, as far as they make sense.
    """
    total = 0.0
    for job in plan.jobs:
        header = known.get(job.input)
        if not isinstance(header, Header):
            continue  # it will fail
        try:
            size = job.source.stat().st_size
        except OSError:
            continue
        total += size * plan.recipe.settings_for(header.height, header.width).scale ** 2
    return int(total)


def free_bytes(folder: Path) -> int:
    """Bytes free where a folder is or will be."""
    whole = folder.absolute()
    return shutil.disk_usage(next(p for p in (whole, *whole.parents) if p.exists())).free
