"""How far a batch is: a bar for all of its work, and one for the image under way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from resshift_cli.batch.resume import Job
from resshift_cli.system.progress import Bar, Bars, silent


class Gauge:
    """Moves the bars of a batch.

    Args:
        bars: makes them.
        title: of all.
        jobs: images to be done.
        work: what they take in all, see `Job.work`.
        usual: what one takes whose work is not known.
        failed: images that can't be done, as far as that is known before.
    """

    def __init__(
        self,
        bars: Bars = silent,
        title: str = "",
        jobs: int = 0,
        *,
        work: float = 0.0,
        usual: float = 1.0,
        failed: int = 0,
    ) -> None:
        self.bars = bars
        self.jobs = jobs
        self.work = work
        self.usual = usual
        self.whole = bars(total=work, desc=title, unit="")
        self.image: Bar | None = None
        self.group: Sequence[Job] = ()
        self.before = [0.0]
        self.first, self.number = 0, -1
        self.share = self.done = 0.0
        self.failed = failed

    def begin(self, jobs: Sequence[Job]) -> None:
        """Tell what is computed from now on; what was before is done with."""
        self._close_image()
        self.first += len(self.group)
        self.number = -1
        work = (job.work or self.usual for job in jobs)
        self.group, self.before = jobs, [*itertools.accumulate(work, initial=self.before[-1])]

    def advance(self, place: int, share: float) -> None:
        """Tell what share of an image of those is computed; those before it are done with."""
        if place != self.number:
            self._close_image()
            self.image = self.bars(total=1, desc=self.group[place].input, unit="")
            self.number, self.share = place, 0.0
            self._remark()
        before, after = self.before[place : place + 2]
        done = before + share * (after - before)
        self.whole.update(done - self.done)
        if self.image is not None:
            self.image.update(share - self.share)
        self.share, self.done = share, done

    def finish(self, job: Job) -> None:
        """Tell that an image is done with, where several are under way."""
        self.begin([job])
        self.number = 0
        self.whole.update(self.before[-1] - self.done)
        self.done = self.before[-1]
        self._remark()

    def part(self, work: float) -> None:
        """Tell that so much of an image is done, where several are under way."""
        self.before[-1] += work
        self.whole.update(self.before[-1] - self.done)
        self.done = self.before[-1]

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
        number = self.first + max(self.number, 0) + 1
        self.whole.set_postfix_str(f"{number}/{self.jobs} images{failed}")
