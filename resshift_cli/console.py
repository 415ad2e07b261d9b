"""What people see: results on stdout; progress, summaries, errors and hints on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Protocol, TextIO

from resshift_cli.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

# A plain progress line comes after a share of the work, but not too soon after the last one, or
# else after a long time.
PLAIN_PARTS = 10
PLAIN_SOON, PLAIN_LONG = 2.0, 30.0  # seconds


class Advance(Protocol):
    """Tells how far a job is: units done, units in all, and what else is worth saying."""

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """Show it."""


def is_live(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def error(message: str, hint: str) -> None:
    """Say on one line what went wrong, and the way out."""
    from rich.text import Text

    line = Text.assemble(("error:", "red"), f" {printable(f'{message} {hint}'.strip())}")
    _stderr().print(line, soft_wrap=True)


def note(text: str) -> None:
    """One line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def result(path: Path) -> None:
    """Name a finished file on stdout for the next command of a pipe; a person has read `note`."""
    if not sys.stdout.isatty():
        print(printable(str(path)), flush=True)


def document(value: object) -> None:
    """One JSON object on stdout, in plain ASCII whatever the names in it."""
    print(json.dumps(value, indent=2), flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout; on a terminal the last one is wrapped."""
    widths = [max(map(len, column)) for column in list(zip(header, *rows, strict=True))[:-1]]
    indent = " " * sum(width + 2 for width in widths)
    width = _stdout_width()
    for *cells, last in (header, *rows):
        start = "".join(f"{cell:{size}}  " for cell, size in zip(cells, widths, strict=True))
        wrapper = TextWrapper(width=width, initial_indent=start, subsequent_indent=indent)
        print("\n".join(wrapper.wrap(last)))


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def waiting(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Turn a spinner on a terminal while something of unknown length goes on."""
    live = is_live(sys.stderr) and not quiet
    with _stderr().status(printable(text)) if live else nullcontext():
        yield


@contextmanager
def progress(title: str, unit: str, *, quiet: bool = False) -> Iterator[Advance]:
    """Show a job's progress: a bar on a terminal, else a plain line now and then.

    Args:
        title: what is being worked on.
        unit: what is counted, in the plural.
        quiet: show nothing.

    Yields:
        What the job calls whenever it has done some units.
    """
    title = printable(title)
    if quiet:
        yield lambda done, total, remark="": None
    elif is_live(sys.stderr):
        with _bar(title, unit) as advance:
            yield advance
    else:
        yield _lines(title, unit)


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Advance]:
    from rich import progress as bars
    from rich.table import Column

    console = _stderr()
    console.width -= 3  # room for the ^C that a terminal shows, which else breaks the line
    columns: list[bars.ProgressColumn] = [
        bars.TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=console.width // 3),
        ),
        bars.BarColumn(bar_width=None),
        bars.TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(compact=True),
    ]
    with bars.Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task(title, total=None, count="")

        def advance(done: int, total: int, remark: str = "") -> None:
            count = f"{done}/{total} {unit}{remark and ', '}{remark}"
            bar.update(task, completed=done, total=total, count=count)

        yield advance


def _lines(title: str, unit: str) -> Advance:
    started = time.monotonic()
    first: tuple[float, int] | None = None  # when it was called first, and what was done by then
    told_at, told = -math.inf, 0

    def advance(done: int, total: int, remark: str = "") -> None:
        nonlocal first, told_at, told
        now, part = time.monotonic(), done * PLAIN_PARTS // total
        first = first or (now, done)
        due = PLAIN_SOON if part > told else PLAIN_LONG
        if done == total or now - told_at < due:
            return
        told_at, told = now, part
        parts = [
            f"{done / total:.0%}",
            f"{done}/{total} {unit}",
            remark,
            f"{clock(now - started)} gone",
        ]
        if done > first[1]:
            left = (now - first[0]) / (done - first[1]) * (total - done)
            parts.append(f"about {clock(left)} left")
        note(f"{title}: {', '.join(filter(None, parts))}")

    return advance


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _stdout_width() -> int:
    if not sys.stdout.isatty():
        return 10_000
    return os.get_terminal_size(sys.stdout.fileno()).columns or 80
