"""Options that a service takes are those of the library, and so of the command."""

from __future__ import annotations

from typing import Any

import pytest

from resshift_cli.commands.groups import SIZES, Computation, Writing
from resshift_cli.errors import UsageError
from resshift_cli.imaging.files import Handling
from resshift_cli.restoration.size import Box
from resshift_cli.serving import asking


def read(**values: object) -> asking.Asked:
    return asking.read(values, Handling())


def test_all_that_the_command_takes_can_be_asked_for() -> None:
    of_command = {*Computation.__annotations__, *Writing.__annotations__}
    of_command -= {*SIZES[3:], "overwrite", "file_format"}
    assert of_command | {"format"} <= asking.options().keys()


def test_each_has_a_text_and_a_type_that_fits() -> None:
    schema = asking.schema()["properties"]
    assert schema["scale"]["type"] == "number" and "1 to 16" in schema["scale"]["description"]
    assert schema["seed"]["type"] == "integer" and schema["wrap"]["enum"] == [
        "none",
        "x",
        "y",
        "xy",
    ]
    assert all(option["description"] for option in schema.values())


def test_texts_of_a_form_are_read_as_what_they_are() -> None:
    form = read(scale="2.5", steps="4", strip_metadata="on", keep_hidden="", format="PNG", seed="")
    json = read(scale=2.5, steps=4, strip_metadata=True, keep_hidden=False, format="png", seed=None)
    assert form == json
    assert form.options == {"scale": 2.5, "steps": 4, "keep_hidden": False}
    assert form.handling.options.strip_metadata and form.handling.options.format == "png"


def test_a_side_or_both_say_how_large_a_result_is() -> None:
    assert read(width="900").box == Box(900)
    assert read(width=900, height=600).box == Box(900, 600)


@pytest.mark.parametrize("values", [
    {"scale": "big"}, {"scale": True}, {"steps": 2.5}, {"steps": "2.5"}, {"keep_hidden": "maybe"},
    {"format": "exe"}, {"width": 0}, {"scale": 2, "width": 90}, {"max_pixels": 9}, {"scale": []},
    {"model": 3}, {"quality": 101}, {"registry": "/etc/passwd"}, {"weights": "model.pth"},
])  # fmt: skip
def test_anything_else_is_refused_with_a_way_out(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        read(**values)
    assert caught.value.hint
