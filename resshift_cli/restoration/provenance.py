"""What a result says of how it was made."""

from __future__ import annotations

import torch

from resshift_cli import __version__
from resshift_cli.imaging import own
from resshift_cli.restoration.settings import Settings
from resshift_cli.system.device import precision_name
from resshift_cli.weights.registry import ModelEntry


def threads(device: torch.device) -> int | None:
    """How many threads compute, on which the last bits of a result depend; None on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else None


def note(entry: ModelEntry, settings: Settings, device: torch.device, dtype: torch.dtype) -> str:
    """Model, terms and settings of a result in plain ASCII, for its metadata."""
    terms = f" ({entry.licence}{'' if entry.commercial else ', non-commercial use only'})"
    count = threads(device)
    text = (
        f"{own.SIGNATURE}{__version__}: {entry.name}{terms if entry.licence else ''}, "
        f"{settings.steps} step{'s' * (settings.steps != 1)}, detail {settings.detail:g}, "
        f"seed {settings.seed}, {precision_name(dtype)}"
    )
    if settings.wrap != "none":
        text += f", wrap {settings.wrap}"
    if settings.tta:
        text += ", eight views of every tile"
    if count is not None:
        text += f", {count} thread{'s' * (count != 1)}"
    return text.encode("ascii", "backslashreplace").decode()
