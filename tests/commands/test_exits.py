"""Exit codes: told by the classes of errors, and nowhere else otherwise."""

from __future__ import annotations

import re
from pathlib import Path

from command_line import Run

from resshift_cli.commands import exits

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_tells_every_exit_code() -> None:
    table = README.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE)
    assert {int(code): told for code, told in rows} == exits.MEANINGS


def test_help_tells_every_exit_code(resshift: Run) -> None:
    lines = resshift("--help").out.partition("Exit codes:\n")[2].splitlines()
    told = dict(line.strip().split(maxsplit=1) for line in lines if line.strip())
    assert {int(code): meaning for code, meaning in told.items()} == exits.MEANINGS
