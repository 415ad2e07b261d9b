"""Options in groups: declared once, and shown under a heading of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from command_line import Run
from typer.testing import CliRunner

from resshift_cli.commands.groups import Computation, Options, Reporting, spread
from resshift_cli.commands.help import Command


@dataclass(frozen=True, slots=True)
class Frying(Options):
    panel = "How to fry"

    minutes: Annotated[int, typer.Option(metavar="N", help="How long.")] = 3


def test_a_command_gets_groups_and_its_user_gives_options() -> None:
    given: list[object] = []

    def fry(egg: Annotated[str, typer.Argument()], *, frying: Frying) -> None:
        given.extend([egg, frying])

    app = typer.Typer()
    app.command()(spread(fry))
    assert CliRunner().invoke(app, ["brown", "--minutes", "5"]).exit_code == 0
    assert given == ["brown", Frying(minutes=5)]


def test_a_group_may_hold_groups() -> None:
    @dataclass(frozen=True, slots=True)
    class Cooking(Options):
        frying: Frying

    Cooking.__annotations__["frying"] = Frying  # it is no name of this module
    given: list[object] = []

    def cook(*, cooking: Cooking) -> None:
        given.append(cooking)

    cook.__annotations__["cooking"] = Cooking
    app = typer.Typer()
    app.command()(spread(cook))
    assert CliRunner().invoke(app, ["--minutes", "5"]).exit_code == 0
    assert given == [Cooking(Frying(minutes=5))]


def test_help_shows_every_group_under_its_heading() -> None:
    def fry(*, slow: bool = False, frying: Frying) -> None: ...

    app = typer.Typer(rich_markup_mode=None)
    app.command(cls=Command)(spread(fry))
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert shown.index("Options:") < shown.index("--slow") < shown.index("How to fry:")
    assert shown.index("How to fry:") < shown.index("--minutes N  How long.")


def test_upscale_and_batch_have_the_same_options_but_for_files(resshift: Run) -> None:
    upscale, batch = (resshift(name, "--help").out for name in ("upscale", "batch"))

    def groups(shown: str) -> str:
        return shown[shown.index("Which model:") : shown.index("Examples:")]

    assert groups(upscale) == groups(batch)
    for group in (Computation, Reporting):
        assert f"{group.panel}:" in upscale
