"""Defaults of one's own: a file `resshift.toml`, and variables `RESSHIFT_*`.

    device = "cuda:1"          # for every command that has --device
    max-memory = "4G"
    [batch]                    # for this one alone
    format = "png"

What is given on the command line comes first, then variables, then the command's table of the file,
then what stands above the tables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from resshift_cli.commands.values import DEFAULT_VARIABLE
from resshift_cli.errors import UsageError, printable

VARIABLE, NAME = "RESSHIFT_CONFIG", "resshift.toml"
PREFIX = "RESSHIFT_"
OTHERS = frozenset({VARIABLE, DEFAULT_VARIABLE, "RESSHIFT_CACHE", "RESSHIFT_REGISTRY"})
OTHERS |= {"RESSHIFT_RELEASES", "RESSHIFT_SHOW_COMPLETION"}
"""Variables that are no options."""

ONE_OF = (
    frozenset({"scale", "width", "height", "long-side", "fit"}),
    frozenset({"overwrite", "skip-existing"}),
)
"""Options that exclude each other: what says one of them takes no default of another."""

NEVER = frozenset({"help", "version", "install-completion", "show-completion"})


def path() -> Path:
    """The file, which need not exist."""
    import platformdirs

    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else platformdirs.user_config_path("resshift") / NAME


def read() -> dict[str, Any]:
    """What the file says; nothing where there is none.

    Raises:
        UsageError: it can't be read, or is no TOML.
    """
    file = path()
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            f"{printable(file)} can't be read: {error.strerror}.",
            hint=f"Mend it, or set {VARIABLE}.",
        ) from error
    import tomllib

    try:
        return tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{printable(file)} is no TOML: {error}.", hint=f"Mend it, or set {VARIABLE}."
        ) from error


def default_model() -> str | None:
    """The model that variable or file name in place of the default one."""
    named = os.environ.get(DEFAULT_VARIABLE) or read().get("model")
    return None if named is None else str(named)


def options(command: Any) -> dict[str, Any]:
    """The long options of a command that may have other defaults: name -> parameter."""
    return {
        option.removeprefix("--"): parameter
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option.removeprefix("--") not in NEVER
    }


def there_are_any() -> bool:
    """Whether the file or a variable says something.

    Raises:
        UsageError: as `read`.
    """
    variables = (name for name in os.environ if name.startswith(PREFIX))
    return bool(read()) or any(name not in OTHERS for name in variables)


def of_commands(
    commands: Callable[[], Mapping[str, Any]], arguments: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """What each command's parameters are, where nothing else is said, as click takes it.

    Args:
        commands: gives the commands by name.
        arguments: what is given on the command line.

    Raises:
        UsageError: the file, or a name in it, makes no sense.
    """
    table = read()
    known = {name: options(command) for name, command in commands().items()}
    _check(table, known)
    everywhere = {key: value for key, value in table.items() if not isinstance(value, dict)}
    given = {text.partition("=")[0].removeprefix("--"): None for text in arguments}
    chosen: dict[str, dict[str, Any]] = {}
    for name, parameters in known.items():
        values: dict[str, Any] = {}
        for more in (everywhere, table.get(name, {}), _variables(parameters), given):
            silenced = {name for group in ONE_OF if group & more.keys() for name in group}
            values = {key: value for key, value in values.items() if key not in silenced} | more
        chosen[name] = {
            parameter.name: [value] if _is_one_of_many(parameter, value) else value
            for option, parameter in parameters.items()
            # --model says with --weights what a file is like, and is seen to by `default_model`.
            if option != "model" and (value := values.get(option)) is not None
        }
    return chosen


def _variables(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Options that variables give."""
    named = {option: PREFIX + option.upper().replace("-", "_") for option in parameters}
    return {
        option: os.environ[variable]
        for option, variable in named.items()
        if variable not in OTHERS and variable in os.environ
    }


def _is_one_of_many(parameter: Any, value: object) -> bool:
    return bool(getattr(parameter, "multiple", False)) and not isinstance(value, list)


def _check(table: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse names that no command has."""
    everywhere = {option for parameters in known.values() for option in parameters}
    for key, value in table.items():
        if isinstance(value, dict):
            if key not in known:
                raise _unknown(f"table [{key}]", key, known)
            if "model" in value:
                raise UsageError(
                    f"{printable(path())} has a model in [{key}].",
                    hint="It stands above the tables, for all commands that it can serve.",
                )
            for option in value:
                if option not in known[key]:
                    raise _unknown(f"option '{option}' in [{key}]", option, known[key])
        elif key not in everywhere:
            raise _unknown(f"option '{key}'", key, everywhere)


def _unknown(what: str, name: str, known: Any) -> UsageError:
    near = get_close_matches(name, known, n=1)
    return UsageError(
        f"{printable(path())} has an unknown {what}.",
        hint=f"Did you mean '{near[0]}'?" if near else "Options are called as on the command line.",
    )
