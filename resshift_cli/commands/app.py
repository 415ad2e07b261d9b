"""The command `resshift`: what it consists of, and `main`, the one place that catches.

Nothing heavy is imported before a command has its arguments, and torch only once the cheap checks
are passed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from resshift_cli import __version__
from resshift_cli.commands import console, defaults, exits, models
from resshift_cli.commands.batch import batch
from resshift_cli.commands.bench import bench
from resshift_cli.commands.compare import compare
from resshift_cli.commands.doctor import doctor
from resshift_cli.commands.evaluate import evaluate
from resshift_cli.commands.exits import BROKEN_PIPE, EPILOG, explain
from resshift_cli.commands.face import face
from resshift_cli.commands.groups import spread
from resshift_cli.commands.help import Command
from resshift_cli.commands.inpaint import inpaint
from resshift_cli.commands.options import DebugOption
from resshift_cli.commands.preview import preview
from resshift_cli.commands.restore import restore
from resshift_cli.commands.serve import serve
from resshift_cli.commands.train import train
from resshift_cli.commands.upscale import upscale
from resshift_cli.commands.values import CommandLine
from resshift_cli.errors import OutputError, UsageError

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
WORDS = {"help": "--help", "version": "--version"}
"""Words in place of a command, and what they stand for."""

ANYWAY = frozenset({"doctor", "-h", "--help", "-V", "--version"})

app.command(cls=Command)(spread(upscale))
app.command(cls=Command, short_help="Enlarge all images of a folder, and of those in it.")(
    spread(batch)
)
app.command(cls=Command, short_help="Fill holes in a photo.")(spread(inpaint))
app.command(cls=Command, short_help="Mend photos at their own size.")(spread(restore))
app.command(cls=Command, short_help="Restore the faces of photos.")(spread(face))
app.command(cls=Command, short_help="Show a crop of a photo at settings to choose from.")(
    spread(preview)
)
app.command(cls=Command, short_help="Show pictures beside each other on a page.")(spread(compare))
app.command(cls=Command, short_help="Enlarge in the browser, and for other programs.")(
    spread(serve)
)
app.add_typer(models.app, name="models")
app.command(cls=Command)(spread(bench))
app.command("eval", cls=Command)(spread(evaluate))
app.command(cls=Command)(spread(train))
app.command(cls=Command)(spread(doctor))


def _show_version(on: bool) -> None:
    if on:
        print(f"resshift {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True, epilog=EPILOG)
def resshift(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_show_version, help="Print the version."
        ),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Enlarge images with ResShift, a diffusion model that walks from blurry to sharp.

    `resshift upscale photo.jpg` writes photo_x4.jpg. Every command explains itself with --help.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def commands() -> dict[str, Any]:
    """The commands whose options may have other defaults, by name."""
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in group.commands.items() if name != "models"}


def _defaults(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Defaults of one's own; where they make no sense, help is there nevertheless."""
    try:
        return defaults.of_commands(commands, arguments) if defaults.there_are_any() else {}
    except UsageError:
        if ANYWAY.isdisjoint(arguments):
            raise
        return {}


def run(arguments: Sequence[str]) -> int:
    """Run a command line, without the program's name; returns the exit code.

    It is `main` without what concerns the whole process.

    Raises:
        BrokenPipeError: nobody reads what it prints.
    """
    settings = CommandLine()
    if arguments:
        arguments = [*arguments[1:], WORDS[arguments[0]]] if arguments[0] in WORDS else arguments
    told = console.documents()
    try:
        command = typer.main.get_command(app)
        # Not `command()`, which would print errors in its own way and swallow Ctrl-C.
        with command.make_context(
            "resshift", list(arguments), obj=settings, default_map=_defaults(arguments)
        ) as context:
            command.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if "--json" in arguments and console.documents() == told and isinstance(error, Exception):
            _document(error)
        return explain(error, debug=settings.debug)
    return 0


def _document(error: Exception) -> None:
    """Tell an error as --json does, where a command did not come to that."""
    with suppress(OutputError):  # stdout is the error, or can't be written to either
        error_facts = {"input": None, **exits.facts(error)}
        console.document({"version": __version__, "errors": [error_facts]})


def main() -> NoReturn:
    """Run the command line of this process."""
    if "_RESSHIFT_COMPLETE" in os.environ:  # the shell asks, in Typer's way, how a word may end
        app(prog_name="resshift")
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:
        code = BROKEN_PIPE
    sys.exit(code)
