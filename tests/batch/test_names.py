"""What results are called."""

from __future__ import annotations

import os

import pytest

from resshift_cli.batch.names import name_outputs
from resshift_cli.imaging.formats import Format, SaveOptions


@pytest.mark.parametrize(
    "inputs, expected",
    [
        (["a.gif", "a.png", "a.jpg"], ["a.gif.png", "a.png", "a.jpg"]),
        (["a.gif"], ["a.gif.png"]),
        (["a.gif", "a.gif.png"], ["a.gif.png.png", "a.gif.png"]),
        (["d/a.gif", "a.gif"], ["d/a.gif.png", "a.gif.png"]),
        (["A.PNG", "a.png"], ["A.PNG", "a.png"]),
        (["plain"], ["plain.png"]),
    ],
)
def test_no_two_results_have_one_name(inputs: list[str], expected: list[str]) -> None:
    assert list(map(name_outputs(inputs).__getitem__, inputs)) == expected


@pytest.mark.parametrize(
    "inputs, expected",
    [
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["a.gif", "A.PNG"], ["a.gif.png", "A.PNG"]),
        (["a.jpg", "a.jpg.png"], ["a.jpg.png.png", "a.jpg.png"]),
    ],
)
def test_a_format_that_was_asked_for_names_the_results(
    inputs: list[str], expected: list[str]
) -> None:
    outputs = name_outputs(inputs, options=SaveOptions(format="png"))
    assert [outputs[name] for name in inputs] == expected
    kept = name_outputs(["a.jpeg"], options=SaveOptions(format="jpg"))
    assert kept == {"a.jpeg": "a.jpeg"}


def test_names_that_would_become_too_long_are_cut_and_still_differ() -> None:
    inputs = [f"d/{'é' * 124}{i}.gif" for i in range(4)]
    outputs = name_outputs(inputs).values()
    assert len(set(outputs)) == 4
    assert all(name.startswith("d/éé") and name.endswith(".png") for name in outputs)
    assert all(len(os.fsencode(name.removeprefix("d/"))) <= 255 for name in outputs)


def test_what_the_format_can_not_hold_becomes_a_png_unless_a_format_was_asked_for() -> None:
    inputs = ["clear.bmp", "plain.bmp", "clear.bmp.png"]

    def can_hold(name: str, kind: Format) -> bool:
        return not name.startswith("clear") or kind.alpha

    outputs = name_outputs(inputs, can_hold=can_hold)
    assert list(outputs.values()) == ["plain.bmp", "clear.bmp.png", "clear.bmp.png.png"]
    asked = name_outputs(inputs[:1], options=SaveOptions(format="bmp"), can_hold=can_hold)
    assert asked == {"clear.bmp": "clear.bmp"}
