"""Tables of TOML or JSON -> frozen types, key by key; what does not fit is refused by name."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from resshift_cli.errors import ModelUnavailableError, UsageError

FIX_TABLE = "Compare its keys and values with the models in weights.toml."

MOST_TOLD = 3  # problems of a table that are named
_FLOATS = 10**300  # whole numbers that surely fit a float are below

T = TypeVar("T")


class SpecError(ModelUnavailableError):
    """A table lacks a key, has one that no code reads, or a value of the wrong type."""


@contextmanager
def written_by_the_user() -> Iterator[None]:
    """Say of a table in a file that people write that it is to be corrected, not a weight file.

    Raises:
        UsageError: in place of SpecError.
    """
    try:
        yield
    except SpecError as error:
        raise UsageError(str(error), hint=error.hint) from error
    except RecursionError as error:
        raise UsageError("A file has tables within tables without end.", hint=FIX_TABLE) from error


@dataclass(frozen=True, slots=True)
class Within:
    """The range that a number from a file must lie in, or the length of a list.

    Networks are built, and memory is taken, by what files say: no number may ask for more than any
    machine has. Whether the numbers make sense is told where they are used.
    """

    least: float
    most: float
    otherwise: str = ""


def from_table(kind: type[T], table: object, where: str) -> T:
    """Build a frozen type from a parsed TOML or JSON table, key by key.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong type; the message names the table.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"{where} is not a table.", hint=FIX_TABLE)
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is always one of the dataclasses above
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    problems = [f"has the unknown key '{str(key)[:50]}'" for key in table if key not in fields]
    problems += [f"lacks the key '{key}'" for key in sorted(required - set(table))]
    if problems:
        raise SpecError(f"{where} {' and '.join(problems[:MOST_TOLD])}.", hint=FIX_TABLE)
    return kind(**{key: _value(hints[key], v, f"{where}.{key}") for key, v in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin is Annotated:
        return _bounded(get_args(hint)[1], _value(get_args(hint)[0], value, where), where)
    if origin in (Union, types.UnionType):
        return _of_several(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_table(hint, value, where)  # type: ignore[arg-type]  # a class, never an instance
    if origin is tuple:
        return _items(get_args(hint), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise SpecError(f"{where} must be one of {get_args(hint)}.", hint=FIX_TABLE)
        return value
    return _plain(hint, value, where)


def _of_several(hint: Any, value: Any, where: str) -> Any:
    """A value of one of several types, which tables tell by their `kind`."""
    hints = [kind for kind in get_args(hint) if kind is not type(None)]  # absent is None
    if len(hints) == 1:
        return _value(hints[0], value, where)
    kinds = {get_args(get_type_hints(kind)["kind"])[0]: kind for kind in hints}
    name = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or name not in kinds:
        raise SpecError(f"{where}.kind must be one of {', '.join(kinds)}.", hint=FIX_TABLE)
    return from_table(kinds[name], value, where)


def _items(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise SpecError(f"{where} must be a list.", hint=FIX_TABLE)
    if items[-1] is not ... and len(value) != len(items):
        raise SpecError(f"{where} must be a list of {len(items)}.", hint=FIX_TABLE)
    return tuple(_value(items[0], item, where) for item in value)


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < _FLOATS else math.inf
    if type(value) is not hint:
        raise SpecError(f"{where} must be of type {hint.__name__}.", hint=FIX_TABLE)
    if hint is float and not math.isfinite(value):
        raise SpecError(f"{where} must be a finite number.", hint=FIX_TABLE)
    return value


def _bounded(bounds: Within, value: Any, where: str) -> Any:
    number = len(value) if isinstance(value, tuple) else value
    if not bounds.least <= number <= bounds.most:
        what = "have a length" if isinstance(value, tuple) else "be"
        why = bounds.otherwise and f": {bounds.otherwise}"
        raise SpecError(
            f"{where} must {what} within {bounds.least:g} to {bounds.most:g}{why}.",
            hint=FIX_TABLE,
        )
    return value
