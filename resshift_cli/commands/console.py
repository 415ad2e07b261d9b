"""What people see: results on stdout; progress, summaries, errors and hints on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, TextIO

from resshift_cli.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


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
        line = fill(line, width=_width(sys.stderr), break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr, flush=True)


def result(path: Path | str) -> None:
    """Name a finished file on stdout for the next command of a pipe; a person has read `note`."""
    if not (sys.stdout.closed or sys.stdout.isatty()):
        print(printable(str(path)), flush=True)


_documents = 0


def documents() -> int:
    """How many JSON objects were printed."""
    return _documents


def document(value: object) -> None:
    """One JSON object on stdout, in plain ASCII whatever the names in it."""
    global _documents
    _documents += 1
    print(json.dumps(value, indent=2), flush=True)


@dataclass(frozen=True, slots=True)
class Cell:
    """A text within a table that may have to be seen: red where colours are shown."""

    text: str
    alarming: bool = False


def table(header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
    """Aligned columns on stdout; a terminal that is too narrow gets a paragraph for each row."""
    from rich.table import Table

    if sys.stdout.isatty() and _least(header, rows) > _width(sys.stdout):
        _paragraphs(header, rows)
        return
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title in header:
        grid.add_column(title, no_wrap=title is header[0])
    for row in rows:
        grid.add_row(*map(_styled, row))
    _print(grid)


def _least(header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> int:
    """Columns of a terminal that a table takes at least, if only its first column is whole."""
    lines = [header, *([_text(cell) for cell in row] for row in rows)]
    names, *others = zip(*lines, strict=True)
    words = (max(map(len, " ".join(column).split()), default=0) for column in others)
    return max(map(len, names)) + sum(2 + longest for longest in words)


def _paragraphs(header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
    """Rows of a table below each other, with the names of columns before what stands in them."""
    for row in rows:
        name, *texts = map(_text, row)
        told = ", ".join(
            f"{title.lower()} {text}" for title, text in zip(header[1:], texts, strict=True) if text
        )
        print(printable(name))
        print(
            fill(printable(told), _width(sys.stdout), initial_indent="  ", subsequent_indent="  ")
        )


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


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


def elapsed(seconds: float) -> str:
    """How long something took, for people: 12.3 s, 7:12, 1:02:05."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def separator() -> str:
    """What stands between facts on one line of stderr: a dot, where it has such a thing."""
    dot = " · "
    try:
        dot.encode(sys.stderr.encoding or "ascii")
    except UnicodeError:
        return ", "
    return dot


@contextmanager
def waiting(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Turn a spinner on a terminal while something of unknown length goes on."""
    live = is_live(sys.stderr) and not quiet
    with stderr().status(printable(text)) if live else nullcontext():
        yield


def _say(line: Text) -> None:
    """Print one line to stderr; a terminal gets it broken between words."""
    console = stderr()
    with console.capture() as said:
        console.print(line, soft_wrap=not sys.stderr.isatty())
    # By way of `sys.stderr`, which puts it above a bar that is being drawn.
    print(said.get(), end="", file=sys.stderr, flush=True)


def _width(stream: TextIO) -> int:
    return os.get_terminal_size(stream.fileno()).columns or 80


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
    sys.stdout.flush()  # before anything that stderr has to say of it


def _styled(cell: str | Cell) -> Text:
    from rich.text import Text

    if isinstance(cell, str):
        return Text(printable(cell))
    return Text(printable(cell.text), "red" if cell.alarming else "")
