"""How far a batch is: a bar for all of its work, and one for the image under way."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from resshift_cli.batch.resume import Job
from resshift_cli.system.progress import Bar, Bars


class Gauge:
    """Moves the bars of a batch.

    Args:
        bars: makes them.
        title: of all.
        jobs: in the order in which they are done; one of unknown work counts as a usual one.
        failed: images that can't be done, as far as that is known before.
    """

    def __init__(self, bars: Bars, title: str, jobs: Sequence[Job], failed: int = 0) -> None:
        known = [job.work for job in jobs if job.work]
        usual = statistics.fmean(known) if known else 1.0
        self.bars = bars
        self.names = [job.input for job in jobs]
        self.work = [job.work or usual for job in jobs]
        self.before = list(itertools.accumulate(self.work, initial=0.0))
        self.whole = bars(total=self.before[-1], desc=title, unit="")
        self.image: Bar | None = None
        self.number = -1
        self.share = self.done = 0.0
        self.failed = failed

    def advance(self, number: int, share: float) -> None:
        """Tell what share of an image is computed; those before it are done with."""
        if number != self.number:
            self._close_image()
            self.image = self.bars(total=1, desc=self.names[number], unit="")
            self.number, self.share = number, 0.0
            self._remark()
        done = self.before[number] + share * self.work[number]
        steps = share - self.share, done - self.done
        self.share, self.done = share, done
        self.whole.update(steps[1])
        if self.image is not None:
            self.image.update(steps[0])

    def fail(self) -> None:
        """Count an image that could not be done."""
        self.failed += 1
        self._remark()

    def close(self) -> None:
        """Take the bars from the screen."""
        self._close_image()
        self.whole.close()

    def _close_image(self) -> None:
        if self.image is not None:
            self.image.close()
        self.image = None

    def _remark(self) -> None:
        failed = f", {self.failed} failed" if self.failed else ""
        self.whole.set_postfix_str(f"{max(self.number, 0) + 1}/{len(self.names)} images{failed}")
