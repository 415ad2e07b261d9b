"""How a command ends: its exit code, and one line about what went wrong."""

from __future__ import annotations

import traceback

from resshift_cli.commands import console
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
    if isinstance(error, ResShiftError):
        console.error(str(error), error.hint)
        return error.exit_code
    if out_of_memory(error):
        console.error("There is not enough memory.", "Close other programs, or use smaller images.")
        return ResShiftError.exit_code
    if isinstance(error, OSError):
        console.error(f"{error}.", "Run again with --debug for the traceback.")
        return ResShiftError.exit_code
    # Typer brings its own copy of click, and older ones use click itself: go by the interface.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        context = getattr(error, "ctx", None)
        command = "resshift" if context is None else context.command_path
        message = " ".join(format_message().split())
        console.error(message if message.endswith(".") else f"{message}.", f"See {command} --help.")
        return UsageError.exit_code
    console.error(
        f"This is a bug in resshift: {type(error).__name__}: {error}.",
        "Run again with --debug for the traceback.",
    )
    return BUG
