"""Mistakes in a command line, told in words of our own, and the help that ends with examples."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Run

from resshift_cli import __version__
from resshift_cli.commands.app import app
from resshift_cli.commands.help import EXAMPLES


@pytest.mark.parametrize(
    "words, told",
    [
        ("upscael x", "There is no command 'upscael'. Did you mean upscale? See resshift --help."),
        ("xyz", "There is no command 'xyz'. See resshift --help."),
        ("upscale x --scael 3", "There is no option --scael. Did you mean --scale?"),
        ("upscale", "INPUT is missing. See resshift upscale --help."),
        ("eval", "--hq is missing."),
        ("upscale x --steps", "--steps wants a value."),
        ("upscale x --steps a", "Invalid value for '--steps': 'a' is no whole number."),
        ("upscale x --consistency a", "Invalid value for '--consistency': 'a' is no number."),
        ("upscale x --scale 4y", "'4y' is no number, such as 4 or 2.5."),
        ("upscale x --json=1", "--json takes no value."),
    ],
)
def test_mistakes_are_told_without_the_words_of_libraries(
    resshift: Run, words: str, told: str
) -> None:
    ran = resshift(*words.split())
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert told in ran.err


def test_what_people_write_is_understood(resshift: Run, photo: Path) -> None:
    ran = resshift("upscale", photo, "--scale", "2x", "--device", "CPU", "--precision", "FP32")
    assert ran.code == 0
    assert photo.with_name("photo_x2.png").exists()


def test_no_suggestion_is_better_than_any(resshift: Run, photo: Path) -> None:
    ran = resshift("upscale", photo.with_name("nope.png"))
    assert "Check its name and folder." in ran.err
    assert "Did you mean" in resshift("upscale", photo.with_name("foto.png")).err


@pytest.mark.parametrize(
    "words, code",
    [("upscale none.png --model none", 2), ("upscale none.png --scale 99", 2), ("batch none", 3)],
)
def test_json_is_printed_for_every_error(resshift: Run, words: str, code: int) -> None:
    ran = resshift(*words.split(), "--json")
    (error,) = json.loads(ran.out)["errors"]
    assert ran.code == error["exit_code"] == code
    assert ran.err == f"error: {error['message']} {error['hint']}\n"


def test_words_for_help_and_version_are_understood(resshift: Run) -> None:
    assert resshift("help") == resshift("--help")
    assert resshift("help", "upscale") == resshift("upscale", "--help")
    assert resshift("version").out == resshift("-V").out == f"resshift {__version__}\n"
    assert resshift("models") == resshift("models", "list")


def every_command() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    models = {f"models {name}": one for name, one in group.commands["models"].commands.items()}
    return {name: one for name, one in group.commands.items() if name != "models"} | models


@pytest.mark.parametrize("name", every_command())
def test_every_help_ends_with_examples_that_can_be_given(resshift: Run, name: str) -> None:
    shown = resshift(*name.split(), "--help").out
    for example in EXAMPLES[name]:
        assert f"\n  {example}\n" in shown
        words = shlex.split(example.partition("<")[0])[1 + len(name.split()) :]
        every_command()[name].make_context(name, words)  # or it raises
