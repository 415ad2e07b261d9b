"""What a batch will take, before it is begun."""

from __future__ import annotations

from typing import Any

from resshift_cli.batch.plan import Plan
from resshift_cli.batch.survey import Survey
from resshift_cli.restoration import estimate, rates


def forecast(plan: Plan, found: Survey) -> dict[str, Any]:
    """What --dry-run says.

    Args:
        plan: of the batch.
        found: what it comes to.

    Returns:
        images to do, what is `refused` (all of it, if `found` keeps that) and how much in all,
        seconds, peak_bytes of memory, disk_bytes that the results may take, and free_bytes.
    """
    refused = {failure.input: failure.error for failure in found.failures} | found.refused
    seconds, peak = _estimate(plan, found)
    return {
        "images": found.jobs - found.to_refuse,
        "refused": [{"input": name, **error.facts()} for name, error in refused.items()],
        "refused_in_all": found.failed + len(found.beside.unreadable) + found.to_refuse,
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "disk_bytes": int(found.disk_bytes),
        "free_bytes": plan.output.room(),
    }


def _estimate(plan: Plan, found: Survey) -> tuple[float, int]:
    """Seconds that all images take, and bytes of memory that one takes at most."""
    if not found.computations:
        return 0.0, 0
    recipe = plan.recipe
    machine = rates.measure(recipe.device, recipe.dtype)
    seconds, peak = 0.0, 0
    for (height, width), count in found.computations.items():
        how = recipe.settings_for(height, width)
        one = estimate.estimate(recipe.spec, machine, how, height=height, width=width)
        seconds += one.seconds * count
        peak = max(peak, one.bytes)
    return seconds, peak
