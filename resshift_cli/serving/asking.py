"""What may be asked for: the options of the rooms below, as values in JSON or of a form.

Their names, types and texts are read off the types that those rooms take, so that what a service
accepts is what the library and the command accept. Ranges are theirs to check.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Any, SupportsFloat, SupportsIndex, cast, get_args, get_type_hints

from resshift_cli.errors import UsageError, printable
from resshift_cli.imaging.files import Handling
from resshift_cli.imaging.formats import FORMATS, SaveOptions
from resshift_cli.restoration.settings import COLOUR_FIXES, Options, Sampling, Tuning
from resshift_cli.restoration.size import Box
from resshift_cli.restoration.wrapping import WRAPS

_TYPES = {
    bool: "boolean",
    SupportsIndex: "integer",
    int: "integer",
    SupportsFloat: "number",
    str: "string",
}
_CHOICES = {
    "color_fix": COLOUR_FIXES,
    "wrap": tuple(WRAPS),
    "format": tuple(extension[1:] for extension in FORMATS),
}
_OF_HANDLING = ("first_frame", "allow_truncated")
"""What a client may say of how files are read; the rest is for whoever runs the service."""

_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False, "": False}


@dataclass(frozen=True, slots=True)
class Option:
    """Something that may be asked for.

    Attributes:
        name: as the library calls it.
        type: as JSON Schema calls it.
        text: what it is for.
        choices: all values that there are, where they can be listed.
    """

    name: str
    type: str
    text: str
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """It in JSON Schema."""
        known: dict[str, Any] = {"type": self.type, "description": self.text}
        return {**known, "enum": list(self.choices)} if self.choices else known

    def read(self, value: object) -> object:
        """A value of JSON, or the text of a form's field.

        Raises:
            UsageError: it is of another type.
        """
        found = self._of_text(value.strip()) if isinstance(value, str) else value
        fits = {
            "boolean": isinstance(found, bool),
            "integer": isinstance(found, int) and not isinstance(found, bool),
            "number": isinstance(found, int | float) and not isinstance(found, bool),
            "string": isinstance(found, str),
        }
        if not fits[self.type] or (self.choices and found not in self.choices):
            raise UsageError(f"'{self.name}' can't be {_shown(value)}.", hint=self._way_out())
        return found

    def _of_text(self, text: str) -> object:
        if self.type == "boolean":
            return _WORDS.get(text.lower(), text)
        if self.type == "string":
            return text.lower() if self.choices else text
        try:
            return int(text) if self.type == "integer" else float(text)
        except ValueError:
            return text

    def _way_out(self) -> str:
        if self.choices:
            return f"Choose one of {', '.join(self.choices)}."
        kinds = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
        return f"Give {kinds.get(self.type, 'a text')}."


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for.

    Attributes:
        model: by name; None for the default one.
        options: how the image is enlarged.
        box: what the result is to fill, in place of a scale.
        handling: how files are read and written.
    """

    model: str | None
    options: Options
    box: Box | None
    handling: Handling


@cache
def options() -> dict[str, Option]:
    """All that there are, by name."""
    found = [Option("model", "string", "one of the models that `/api/models` lists.")]
    found += _of(Options, Sampling, Tuning)
    found += _of(Box)
    found += _of(SaveOptions)
    found += [option for option in _of(Handling) if option.name in _OF_HANDLING]
    return {option.name: option for option in found}


def schema() -> dict[str, Any]:
    """All of them as an object of JSON Schema."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: option.schema() for name, option in options().items()},
    }


def read(values: Mapping[str, object], common: Handling) -> Asked:
    """What some values ask for; those that are null are left to the model and the format.

    Args:
        values: by the names of `options`, of JSON or as texts.
        common: how files are handled where nothing is said.

    Raises:
        UsageError: a name that there is not, a value that can't be, or two sizes.
    """
    known = options()
    for name in values.keys() - known.keys():
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(known)}."
        raise UsageError(f"There is no option '{printable(name)}'.", hint=hint)
    given = {
        name: known[name].read(value)
        for name, value in values.items()
        if value is not None and (value != "" or known[name].type == "boolean")
    }
    sides = given.pop("width", None), given.pop("height", None)
    if "scale" in given and any(sides):
        raise UsageError(
            "'scale' and 'width' or 'height' both say how large a result is.",
            hint="Give one of them; width and height together mean as large as fits in both.",
        )
    if any(side is not None and cast(int, side) < 1 for side in sides):
        raise UsageError("A result has a pixel at least.", hint="Ask for a larger size.")
    model = given.pop("model", None)
    reading = {name: given.pop(name) for name in _OF_HANDLING if name in given}
    writing = {name: given.pop(name) for name in _names(SaveOptions) if name in given}
    handling = replace(common, options=SaveOptions(**cast(Any, writing)), **cast(Any, reading))
    box = Box(*cast(Any, sides)) if any(sides) else None
    return Asked(cast("str | None", model), cast(Options, given), box, handling)


def _names(kind: type) -> list[str]:
    return list(get_type_hints(kind))


def _of(kind: type, *extended: type) -> Iterator[Option]:
    """The options that are fields of a type, with what its docstring says of them.

    Args:
        kind: the type.
        extended: those that it is made of, which a `TypedDict` does not tell.
    """
    texts = {name: text for each in (*extended, kind) for name, text in _texts(each).items()}
    for name, hint in get_type_hints(kind).items():
        types = [_TYPES[part] for part in (get_args(hint) or (hint,)) if part in _TYPES]
        if types:
            yield Option(name, types[0], texts.get(name, ""), _CHOICES.get(name, ()))


def _texts(kind: type) -> dict[str, str]:
    """What the section "Attributes" of a docstring says, by name."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    section, _, _ = section.partition("\n\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return printable(text if len(text) <= 60 else f"{text[:57]}...")
