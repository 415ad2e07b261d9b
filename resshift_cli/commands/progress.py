"""Progress as people see it: bars on a terminal, else a plain line now and then.

Jobs count on bars of `system.progress.Bars`; what those say, `1% · 0:05 gone · about 5:35 left`,
is the same in either place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resshift_cli.commands import console
from resshift_cli.errors import printable
from resshift_cli.system.progress import Bar, Bars, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

# A plain line comes after a share of the work, but not too soon after the last one, or else after
# a long time. Terminals are drawn so many times a second.
PLAIN_PARTS = 10
PLAIN_SOON, PLAIN_LONG = 2.0, 30.0  # seconds
REFRESHES = 4

BAR_FROM = 60  # columns of a terminal; in narrower ones the words are all that is shown
SHORTEST_BAR = 10


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Bars]:
    """Show the progress of what is counted meanwhile.

    Yields:
        A maker of bars. A bar of the unit "" tells its share and its time alone; in plain lines a
        bar that is made while another one is open is named by the lines of that one.
    """
    if quiet:
        yield silent
    elif console.is_live(sys.stderr):
        with _terminal() as drawn:
            yield drawn
    else:
        yield _Lines()


def shares(bar: Bar) -> Callable[[int, int], None]:
    """What a job can call with units done and units in all, to move a bar of total 1."""
    before = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal before
        bar.update(done / total - before)
        before = done / total

    return advance


@dataclass(slots=True, eq=False)
class Count:
    """What is done of something, and what is to be said of it.

    Attributes:
        desc, total, unit, unit_scale, done: as `tqdm.tqdm` has them.
        started: when, in seconds of `time.monotonic`.
        separator: what stands between the words.
        first: the time of the first update and what was done by then: work before it, or before
            the count began, says nothing about how fast it goes.
        told: the time of the last update.
        remark: what is said beside the count.
    """

    desc: str
    total: float | None
    unit: str
    unit_scale: bool
    done: float
    started: float
    separator: str
    first: tuple[float, float] | None = None
    told: float = 0.0
    remark: str = ""

    def add(self, n: float) -> None:
        """Count `n` more units as done."""
        self.done += n
        self.told = time.monotonic()
        self.first = self.first or (self.told, self.done)

    @property
    def share(self) -> float:
        """What is done of all, 0 to 1; 0 where that is not known."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def left(self, now: float) -> float | None:
        """Seconds to go, as far as what was done lets expect."""
        if self.total is None or self.first is None or self.done <= self.first[1]:
            return None
        since, before = self.first
        each = (self.told - since) / (self.done - before)
        return max(0.0, each * (self.total - self.done) - (now - self.told))

    def words(self, room: int | None = None) -> str:
        """All that there is to say, or what is worth most of it in so many columns."""
        now = time.monotonic()
        left = self.left(now)
        parts = {
            "share": f"{self.share:.0%}" if self.total else "",
            "amount": self._amount(),
            "speed": self._speed(now),
            "remark": printable(self.remark),
            "gone": f"{console.clock(now - self.started)} gone",
            "left": "" if left is None else f"about {console.clock(left)} left",
        }
        for least in ("speed", "gone", "amount", "remark"):
            line = self.separator.join(filter(None, parts.values()))
            if room is None or len(line) <= room:
                break
            parts[least] = ""
        return self.separator.join(filter(None, parts.values()))

    def _amount(self) -> str:
        if not self.unit:
            return ""
        if self.unit_scale:
            of = f" of {console.size(round(self.total))}" if self.total else ""
            return f"{console.size(round(self.done))}{of}" if self.done else ""
        if self.total is None:
            return f"{self.done:.0f} {self.unit}{'s' * (self.done != 1)}"
        return f"{self.done:.0f}/{self.total:.0f} {self.unit}{'s' * (self.total != 1)}"

    def _speed(self, now: float) -> str:
        if not self.unit_scale or self.first is None or now <= self.first[0]:
            return ""
        return f"{console.size(round((self.done - self.first[1]) / (now - self.first[0])))}/s"


class _Lines:
    """`Bars` that print a line now and then."""

    def __init__(self) -> None:
        self.open: list[Count] = []
        self.separator = console.separator()
        self.told_at, self.told = float("-inf"), 0

    def __call__(
        self,
        *,
        total: float | None = None,
        desc: str | None = None,
        unit: str = "it",
        unit_scale: bool = False,
        initial: float = 0,
    ) -> Bar:
        now = time.monotonic()
        count = Count(desc or "", total, unit, unit_scale, initial, now, self.separator)
        if not self.open:
            self.told = 0
        self.open.append(count)
        return _LineBar(self, count)

    def tell(self) -> None:
        """Print a line if it is time for one; of the bar that was made first."""
        count, innermost = self.open[0], self.open[-1]
        now, part = time.monotonic(), int(count.share * PLAIN_PARTS)
        due = PLAIN_SOON if part > self.told else PLAIN_LONG
        if count.done == count.total or now - self.told_at < due:
            return
        self.told_at, self.told = now, part
        title = f"{count.desc}: " if count.desc else ""
        inner = f"{self.separator}{innermost.desc} {innermost.share:.0%}"
        console.note(f"{title}{count.words()}{inner if innermost is not count else ''}")


class _LineBar:
    def __init__(self, lines: _Lines, count: Count) -> None:
        self.lines, self.count = lines, count

    def update(self, n: float = 1) -> None:
        self.count.add(n)
        self.lines.tell()

    def set_postfix_str(self, s: str = "") -> None:
        self.count.remark = s

    def close(self) -> None:
        if self.count in self.lines.open:
            self.lines.open.remove(self.count)


@contextmanager
def _terminal() -> Iterator[Bars]:
    """`Bars` that are drawn on a terminal, one below the other."""
    from rich import progress as rich
    from rich.table import Column
    from rich.text import Text

    terminal, separator = console.stderr(), console.separator()
    terminal.width -= 3  # room for the ^C that a terminal shows, which else breaks the line
    title = Column(no_wrap=True, overflow="ellipsis", max_width=terminal.width // 3)
    columns: list[rich.ProgressColumn] = [
        rich.TextColumn("{task.description}", markup=False, table_column=title)
    ]
    if terminal.width >= BAR_FROM:
        columns.append(rich.BarColumn(bar_width=None))

    class Words(rich.ProgressColumn):
        max_refresh = None

        def render(self, task: rich.Task) -> Text:
            titles = [each.description for each in drawing.tasks]
            return Text(task.fields["count"].words(_room(terminal, titles)))

    columns.append(Words(table_column=Column(no_wrap=True)))
    with rich.Progress(
        *columns, console=terminal, transient=True, refresh_per_second=REFRESHES
    ) as drawing:

        def make(
            *,
            total: float | None = None,
            desc: str | None = None,
            unit: str = "it",
            unit_scale: bool = False,
            initial: float = 0,
        ) -> Bar:
            now = time.monotonic()
            count = Count(desc or "", total, unit, unit_scale, initial, now, separator)
            task = drawing.add_task(printable(count.desc), total=None, count=count)
            return _RichBar(drawing, task, count)

        yield make


def _room(terminal: Console, titles: list[str]) -> int:
    """Columns for the words beside the titles, and beside a bar where there is one."""
    from rich.cells import cell_len

    bar = SHORTEST_BAR + 1 if terminal.width >= BAR_FROM else 0
    title = min(max(map(cell_len, titles)), terminal.width // 3)
    return terminal.width - title - 1 - bar


class _RichBar:
    def __init__(self, drawing: Progress, task: TaskID, count: Count) -> None:
        self.drawing, self.task, self.count = drawing, task, count

    def update(self, n: float = 1) -> None:
        self.count.add(n)
        # Until now the bar was pulsing, as one of unknown length does.
        self.drawing.update(self.task, total=self.count.total, completed=self.count.done)

    def set_postfix_str(self, s: str = "") -> None:
        self.count.remark = s

    def close(self) -> None:
        if self.task in self.drawing.task_ids:
            self.drawing.remove_task(self.task)
