"""What may be asked for: the options of the rooms below, as values in JSON or of a form.

Their names, types and texts are read off the types that those rooms take, so that what a service
accepts is what the library and the command accept. Ranges are theirs to check.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import (
    Any,
    ClassVar,
    SupportsFloat,
    SupportsIndex,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from resshift_cli.errors import UsageError, printable
from resshift_cli.imaging import detection
from resshift_cli.imaging.files import Handling
from resshift_cli.imaging.formats import FORMATS, SaveOptions
from resshift_cli.imaging.masks import Mask, Rectangle, Unknown
from resshift_cli.restoration import settings as choosing
from resshift_cli.restoration.crafts import Craft, Inpaint, Restore, Upscale
from resshift_cli.restoration.face_restorer import FaceOptions, Which
from resshift_cli.restoration.portraits import Over, Portray
from resshift_cli.restoration.settings import COLOUR_FIXES, Options, Sampling, Tuning
from resshift_cli.restoration.size import Box
from resshift_cli.restoration.wrapping import WRAPS
from resshift_cli.weights import registry
from resshift_cli.weights.registry import ModelEntry

_TYPES = {
    bool: "boolean",
    SupportsIndex: "integer",
    int: "integer",
    SupportsFloat: "number",
    float: "number",
    str: "string",
    Rectangle: "array",
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
        if self.type == "array":
            known["items"] = {"type": "string"}
        return {**known, "enum": list(self.choices)} if self.choices else known

    def read(self, value: object) -> object:
        """A value of JSON, or the text of a form's field.

        Raises:
            UsageError: it is of another type, or a text that can't be.
        """
        if self.type == "array":
            return self._boxes(value)
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

    def _boxes(self, value: object) -> tuple[Rectangle, ...]:
        """Rectangles in a list, or in a text with blanks between them."""
        texts = value.split() if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UsageError(
                f"'{self.name}' can't be {_shown(value)}.",
                hint="Give a list of texts such as 10,20,300,40.",
            )
        return tuple(Rectangle.of(text) for each in texts for text in each.split())

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
            return f"Choose one of {_all(self.choices)}."
        kinds = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
        return f"Give {kinds.get(self.type, 'a text')}."


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for.

    Attributes:
        task: what is to be done, one of `TASKS`.
        model: by name; None for the default one.
        options: how the model does it.
        own: what is asked of the task besides.
        box: what the result is to fill, in place of a scale.
        handling: how files are read and written.
    """

    task: str
    model: str | None
    options: Options
    own: dict[str, Any]
    box: Box | None
    handling: Handling

    def craft(self, beside: Beside) -> Craft[Any]:
        """What is done.

        Raises:
            UsageError: it can't be done so.
            UnknownModelError: there is no model that it takes besides.
        """
        return TASKS[self.task].craft(self, beside)


@dataclass(frozen=True, slots=True)
class Told:
    """A mask.

    Attributes:
        shape: `alpha` or a colour, or what an image is called.
        light: where that is light.
    """

    shape: str
    light: Unknown | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What a task may need besides.

    Attributes:
        find: finds a model that enlarges, by its name.
        mask: what says where a photo is unknown.
    """

    find: Callable[[str], ModelEntry]
    mask: Told | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work that may be asked for.

    Attributes:
        craft: makes it.
        options: what its models take.
        own: what is asked of it besides, by the types that have fields for it.
        left: names of those fields that are not asked for.
        is_masked: whether it takes a mask.
        needed: a model with all files that it may take for this.
    """

    craft: Callable[[Asked, Beside], Craft[Any]]
    options: tuple[type, ...]
    own: tuple[type, ...] = ()
    left: tuple[str, ...] = ()
    is_masked: bool = False
    needed: Callable[[ModelEntry], ModelEntry] = lambda entry: entry


def _inpaint(asked: Asked, beside: Beside) -> Craft[Any]:
    mask, own = beside.mask, asked.own
    if mask is None and not own.get("boxes"):
        raise UsageError(
            "Nothing says which pixels are to be filled.",
            hint="Give a mask: an image as large as the photo that is white there, alpha, or a "
            "colour such as #ff00ff; or boxes such as 10,20,300,40.",
        )
    if mask is None:
        return Inpaint(Mask(**own))
    return Inpaint(Mask(mask.shape, light=mask.light, **own))


def _restore(asked: Asked, beside: Beside) -> Craft[Any]:
    strength = choosing.strength(asked.own.get("strength", 1.0))
    return Restore(strength)


def _face(asked: Asked, beside: Beside) -> Craft[Any]:
    own, scale = asked.own.copy(), asked.options.get("scale")
    over = Over(own.pop("background", None))
    which = Which(**own)
    if not which.aligned:
        detection.check_installed()
    name = over.model(aligned=which.aligned, scale=None if scale is None else float(scale))
    tiles = {side: asked.options.get(side) for side in ("tile", "overlap")}
    return Portray(None if name is None else beside.find(name), tiles, **asdict(which))


TASKS: Mapping[str, Kind] = {
    "upscale": Kind(lambda asked, beside: Upscale(), (Options, Sampling, Tuning)),
    "restore": Kind(_restore, (Tuning, Sampling), (Restore,)),
    "inpaint": Kind(_inpaint, (Sampling,), (Mask,), ("shape",), is_masked=True),
    "face": Kind(
        _face, (FaceOptions, Tuning, Sampling), (Which, Over), needed=registry.finding_faces
    ),
}
"""By what commands and routes call them."""


def kind(task: object) -> Kind:
    """A kind of work by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if not isinstance(task, str) or task not in TASKS:
        raise UsageError(f"'task' can't be {_shown(task)}.", hint=f"Choose one of {_all(TASKS)}.")
    return TASKS[task]


@cache
def options(task: str = "upscale") -> dict[str, Option]:
    """All that there are for a task, by name."""
    asked = TASKS[task]
    found = [Option("model", "string", "one of the models that `/api/models` lists.")]
    found += _own(task)
    found += _of(*asked.options)
    if Options in asked.options:
        found += _of(Box)
    found += _of(SaveOptions)
    found += [option for option in _of(Handling) if option.name in _OF_HANDLING]
    return {option.name: option for option in found}


def _own(task: str) -> list[Option]:
    kind = TASKS[task]
    return [option for of in kind.own for option in _of(of) if option.name not in kind.left]


def schema(task: str = "upscale") -> dict[str, Any]:
    """All of them as an object of JSON Schema."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: option.schema() for name, option in options(task).items()},
    }


def read(values: Mapping[str, object], common: Handling, task: str = "upscale") -> Asked:
    """What some values ask for; those that are null are left to the model and the format.

    Args:
        values: by the names of `options`, of JSON or as texts.
        common: how files are handled where nothing is said.
        task: what is to be done.

    Raises:
        UsageError: a task or name that there is not, a value that can't be, or two sizes.
    """
    kind(task)  # or it is refused now
    known = options(task)
    for name in values.keys() - known.keys():
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are {_all(known)}."
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
    own = {option.name: given.pop(option.name) for option in _own(task) if option.name in given}
    return Asked(task, cast("str | None", model), cast(Options, given), own, box, handling)


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)


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
        if get_origin(hint) is ClassVar:
            continue
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
