"""What a result says of how it was made."""

from __future__ import annotations

from resshift_cli import __version__
from resshift_cli.restoration.settings import Settings
from resshift_cli.weights.registry import ModelEntry


def note(entry: ModelEntry, settings: Settings) -> str:
    """Model, terms and settings of a result in plain ASCII, for its metadata."""
    terms = f" ({entry.licence}{'' if entry.commercial else ', non-commercial use only'})"
    text = (
        f"resshift {__version__}: {entry.name}{terms if entry.licence else ''}, "
        f"{settings.steps} steps, seed {settings.seed}"
    )
    return text.encode("ascii", "backslashreplace").decode()
