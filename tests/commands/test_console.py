"""What is printed, and what is left out."""

from __future__ import annotations

import sys

import pytest
from command_line import on_a_terminal, posix

from resshift_cli.commands import console
from resshift_cli.errors import printable


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Schönes Foto (1).jpg", "Schönes Foto (1).jpg"),
        ("a\nerror: b", r"a\nerror: b"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_what_could_play_tricks_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(f"There is no file {'x' * 300}\n[bold]y[/].", "Check its name :smile:.")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: There is no file {'x' * 300}\\n[bold]y[/]. Check its name :smile:.\n"


def test_a_table_in_a_pipe_has_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("NAME", "TEXT"), [("tiny-x4", "word " * 40), ("b", "x")])
    out = capsys.readouterr().out.splitlines()
    assert out == ["NAME     TEXT", f"tiny-x4  {('word ' * 40).strip()}", "b        x"]


def test_a_table_in_a_narrow_terminal_is_a_paragraph_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(console, "_width", lambda stream: 22)
    console.table(
        ("NAME", "TASK", "LICENCE"), [("tiny-x4", "real-world", "Apache-2.0"), ("b",) * 3]
    )
    assert capsys.readouterr().out.splitlines() == [
        *("tiny-x4", "  task real-world,", "  licence Apache-2.0"),
        *("b", "  task b, licence b"),
    ]


@posix
def test_no_column_of_a_table_is_lost_on_a_terminal_of_80_columns() -> None:
    shown = on_a_terminal("models", "list")
    assert "HERE" in shown and "bundled" in shown and "COMMERCIAL" in shown


@pytest.mark.parametrize("seconds, shown", [(0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_durations_read_like_a_clock(seconds: float, shown: str) -> None:
    assert console.clock(seconds) == shown


@pytest.mark.parametrize("seconds, shown", [(17.04, "17.0 s"), (432, "7:12"), (3725, "1:02:05")])
def test_what_took_minutes_is_told_in_minutes(seconds: float, shown: str) -> None:
    assert console.elapsed(seconds) == shown
