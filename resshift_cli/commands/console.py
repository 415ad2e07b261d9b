"""What people see: results on stdout; progress, summaries, errors and hints on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Protocol, TextIO

from resshift_cli.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# A plain progress line comes after a share of the work, but not too soon after the last one, or
# else after a long time.
PLAIN_PARTS = 10
PLAIN_SOON, PLAIN_LONG = 2.0, 30.0  # seconds


class Advance(Protocol):
    """Tells how far a job is: units done, units in all, and what else is worth saying."""

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """Show it."""


class Transfer(Protocol):
    """Tells how far a download is: the file's name, bytes done, and in all if that is known."""

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show it."""


def is_live(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def error(message: str, hint: str) -> None:
    """Say on one line what went wrong, and the way out."""
    text = printable(f"{message} {hint}".strip())
    try:
        from rich.text import Text

        _say(Text.assemble(("error:", "red"), f" {text}"))
    except MemoryError:  # it may be what has to be told
        print(f"error: {text}", file=sys.stderr, flush=True)


def warning(text: str) -> None:
    """One line on stderr that has to be seen."""
    from rich.text import Text

    _say(Text(printable(text), "red"))


def note(text: str) -> None:
    """One line on stderr."""
    line = printable(text)
    if sys.stderr.isatty():
        line = fill(line, width=_width(), break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr, flush=True)


def result(path: Path) -> None:
    """Name a finished file on stdout for the next command of a pipe; a person has read `note`."""
    if not sys.stdout.isatty():
        print(printable(str(path)), flush=True)


def document(value: object) -> None:
    """One JSON object on stdout, in plain ASCII whatever the names in it."""
    print(json.dumps(value, indent=2), flush=True)


@dataclass(frozen=True, slots=True)
class Cell:
    """A text within a table that may have to be seen: red where colours are shown."""

    text: str
    alarming: bool = False


def table(header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
    """Aligned columns on stdout; on a terminal the last one is wrapped."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title in header:
        grid.add_column(title, no_wrap=title is not header[-1])
    for row in rows:
        grid.add_row(*map(_styled, row))
    _print(grid)


def facts(values: Mapping[str, object]) -> None:
    """Names and values, one pair per line; lists take a line per item."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            cell = item if isinstance(item, Cell) else Cell(str(item))
            grid.add_row("" if number else name, _styled(cell))
    _print(grid)


def size(count: int) -> str:
    """Bytes for people, in powers of 1000 as disks and downloads count; "?" for 0."""
    if count == 0:
        return "?"
    for unit, bytes_in in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_in:
            number = count / bytes_in
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """About how long, for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def waiting(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Turn a spinner on a terminal while something of unknown length goes on."""
    live = is_live(sys.stderr) and not quiet
    with stderr().status(printable(text)) if live else nullcontext():
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
def transfers(*, quiet: bool = False) -> Iterator[Transfer]:
    """Show downloads: a bar for each on a terminal, else a plain line now and then.

    Yields:
        What is told a file's name, bytes done, and bytes in all if they are known.
    """
    if quiet:
        yield lambda name, done, total: None
    elif is_live(sys.stderr):
        with _transfer_bars() as transfer:
            yield transfer
    else:
        lines: dict[str, Advance] = {}

        def transfer(name: str, done: int, total: int | None) -> None:
            if total:
                line = lines.setdefault(name, _lines(printable(name), "MB", per=10**6))
                line(done, total)

        yield transfer


@contextmanager
def _transfer_bars() -> Iterator[Transfer]:
    from rich import progress as bars

    columns: list[bars.ProgressColumn] = [
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=None),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(compact=True),
    ]
    with bars.Progress(*columns, console=stderr(), transient=True, refresh_per_second=4) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def transfer(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(printable(name), total=None)
            bar.update(tasks[name], completed=done, total=total)

        yield transfer


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Advance]:
    from rich import progress as bars
    from rich.table import Column

    console = stderr()
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


def _lines(title: str, unit: str, per: int = 1) -> Advance:
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
            f"{done // per}/{total // per} {unit}",
            remark,
            f"{clock(now - started)} gone",
        ]
        if done > first[1]:
            left = (now - first[0]) / (done - first[1]) * (total - done)
            parts.append(f"about {clock(left)} left")
        note(f"{title}: {', '.join(filter(None, parts))}")

    return advance


def _say(line: Text) -> None:
    """Print one line to stderr; a terminal gets it broken between words."""
    console = stderr()
    with console.capture() as said:
        console.print(line, soft_wrap=not sys.stderr.isatty())
    # By way of `sys.stderr`, which puts it above a bar that is being drawn.
    print(said.get(), end="", file=sys.stderr, flush=True)


def _width() -> int:
    return os.get_terminal_size(sys.stderr.fileno()).columns or 80


def stderr() -> Console:
    """Where progress and messages go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _print(grid: Table) -> None:
    """Print a table to stdout without the spaces that fill up its last column."""
    from rich.console import Console

    # Into a pipe nothing is wrapped.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _styled(cell: str | Cell) -> Text:
    from rich.text import Text

    if isinstance(cell, str):
        return Text(printable(cell))
    return Text(printable(cell.text), "red" if cell.alarming else "")
