"""What became of a batch, in one object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resshift_cli import __version__
from resshift_cli.batch.table import Row

if TYPE_CHECKING:
    from resshift_cli.batch.ledger import Record
    from resshift_cli.batch.plan import Plan


@dataclass
class Report:
    """What is told in the end, and what --json prints.

    Attributes:
        model: its name.
        folder: of the inputs, as it was given.
        output: folder of the results, likewise.
        settings: all that the results depend on.
        plan: what was found, once it is known.
        results: what was done, as the ledger has it.
        failures: what failed, likewise, unreadable folders included.
        errors: what ended the batch.
        forecast: what --dry-run says.
    """

    model: str
    folder: Path
    output: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    results: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None

    def add(self, record: Record) -> None:
        """Take over what became of an image."""
        (self.failures if record.status == "failed" else self.results).append(record)

    @property
    def found(self) -> int:
        """Images in the folder."""
        return 0 if self.plan is None else self.plan.images

    @property
    def skipped(self) -> int:
        """Images that were finished before."""
        return 0 if self.plan is None else len(self.plan.finished)

    @property
    def others(self) -> Mapping[str, int]:
        """How many files were left alone because of their names, by extension."""
        return {} if self.plan is None else self.plan.others

    @property
    def done(self) -> int:
        """Images that this run has finished."""
        return len(self.results)

    @property
    def failed(self) -> int:
        """Images and folders that could not be done."""
        return len(self.failures)

    @property
    def warnings(self) -> list[str]:
        """What was wrong with images that were done nonetheless."""
        return [warning for record in self.results for warning in record.warnings or ()]

    def rows(self) -> Iterator[Row]:
        """What became of every image."""
        told = set()
        for status, records in (("done", self.results), ("failed", self.failures)):
            for record in records:
                told.add(record.input)
                yield Row.of(record, status)
        if self.plan is not None:
            for record in self.plan.finished:
                yield Row.of(record, "finished before")
            for job in self.plan.jobs:
                if job.input not in told:
                    yield Row(job.input, job.output, "not done")

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        failed_images = sum(bool(record.output) for record in self.failures)
        left = self.found - self.skipped - self.done - failed_images
        forecast = {} if self.forecast is None else {"dry_run": self.forecast}
        return {
            "version": __version__,
            "model": self.model,
            "folder": str(self.folder),
            "output": "" if self.output is None else str(self.output),
            "settings": self.settings,
            "counts": {
                "found": self.found,
                "done": self.done,
                "skipped": self.skipped,
                "failed": self.failed,
                "left": left,
            },
            "others": dict(self.others),
            **forecast,
            "results": [record.facts() for record in self.results],
            "failures": [record.facts() for record in self.failures],
            "errors": self.errors,
        }
