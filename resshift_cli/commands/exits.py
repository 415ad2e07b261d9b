"""How a command ends: its exit code, and one line about what went wrong."""

from __future__ import annotations

import traceback
from typing import Any

from resshift_cli.commands import console, wording
from resshift_cli.commands.signals import Terminated
from resshift_cli.errors import BUG, ResShiftError, UsageError, out_of_memory

INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143

_KINDS: list[type[ResShiftError]] = [ResShiftError, *ResShiftError.__subclasses__()]
MEANINGS = {
    0: "done",
    **{kind.exit_code: kind.meaning for kind in _KINDS},
    BUG: "a bug in resshift",
    INTERRUPTED: "interrupted by Ctrl-C "
    f"({TERMINATED}: terminated, {BROKEN_PIPE}: nobody reads the output)",
}
"""What every exit code tells."""

_TABLE = "\n".join(f"  {code:<5}{told}" for code, told in MEANINGS.items())
EPILOG = f"\b\nExit codes:\n{_TABLE}"
"""The same, below the help."""


def explain(error: BaseException, *, debug: bool) -> int:
    """Print one line about an error, after its traceback if asked for; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        what = "Terminated" if isinstance(error, Terminated) else "Interrupted"
        console.note(f"{what}; {str(error) or 'nothing was written'}.")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    told = facts(error)
    console.error(told["message"], told["hint"])
    return int(told["exit_code"])


def facts(error: BaseException) -> dict[str, Any]:
    """What --json says of an error, and people are told: its message, hint and exit_code."""
    if isinstance(error, ResShiftError):
        return error.facts()
    traced = "Run again with --debug for the traceback."
    if out_of_memory(error):
        message, hint = (
            "There is not enough memory.",
            "Close other programs, or use smaller images.",
        )
        code = ResShiftError.exit_code
    elif isinstance(error, OSError):
        message, hint, code = f"{error}.", traced, ResShiftError.exit_code
    elif wording.is_of_the_command_line(error):
        message, hint = wording.reworded(error)
        code = UsageError.exit_code
    else:
        message = f"This is a bug in resshift: {type(error).__name__}: {error}."
        hint, code = traced, BUG
    return {"message": message, "hint": hint, "exit_code": code}
