"""What Typer finds wrong with a command line, in the words of this program."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from resshift_cli.commands import defaults
from resshift_cli.errors import printable

KINDS = {"int_parsing": "no whole number", "float_parsing": "no number"}


def is_of_the_command_line(error: BaseException) -> bool:
    """Whether Typer raised it: it brings a copy of click of its own, whose types have no name."""
    return hasattr(error, "format_message")


def reworded(error: Any) -> tuple[str, str]:
    """Message and hint for an error of Typer."""
    context = getattr(error, "ctx", None)
    path = "resshift" if context is None else context.command_path
    message = " ".join(error.format_message().split())
    near: list[str] = []
    if missing := getattr(error, "option_name", "") if hasattr(error, "possibilities") else "":
        message = f"There is no option {missing}."
        near = get_close_matches(missing, error.possibilities or (), n=1)
    elif command := re.match(r"No such command '(.*?)'\.", message):
        message = f"There is no command '{command[1]}'."
        near = get_close_matches(command[1], context.command.commands if context else (), n=1)
    elif option := re.match(r"Option '(.*)' requires an argument", message):
        message = f"{option[1]} wants a value."
    elif option := re.match(r"Option '(.*)' does not take a value", message):
        message = f"{option[1]} takes no value."
    elif thing := re.match(r"Missing (?:argument|option|parameter) '(.*?)'", message):
        message = f"{thing[1]} is missing."
    elif (value := _unparsed(error)) is not None:
        message = f"{message.partition(': ')[0]}: {value}."
    hint = _origin(error) or f"See {path} --help."
    return (
        message if message.endswith(".") else f"{message}.",
        f"Did you mean {near[0]}? {hint}" if near else hint,
    )


def _unparsed(error: Any) -> str | None:
    """What pydantic, which Typer reads values with, says of one that it can't read."""
    problems = getattr(error.__cause__, "errors", None)
    if problems is None:
        return None
    first = problems()[0]
    kind = KINDS.get(first.get("type"))
    return None if kind is None else f"'{first.get('input')}' is {kind}"


def _origin(error: Any) -> str:
    """Where a value comes from that is not of the command line."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    if parameter is None or context is None:
        return ""
    source = context.get_parameter_source(parameter.name)
    if getattr(source, "name", "") != "DEFAULT_MAP":
        return ""
    return f"It comes from {printable(defaults.path())}, or from a variable RESSHIFT_*."
