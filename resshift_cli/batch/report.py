"""What became of a batch, in one object."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resshift_cli import __version__

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
        found: images in the folder.
        skipped: those that were finished before.
        results: what was done, as the ledger has it.
        failures: what failed, likewise, unreadable folders included.
        errors: what ended the batch.
        forecast: what --dry-run says.
    """

    model: str
    folder: Path
    output: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    found: int = 0
    skipped: int = 0
    results: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None

    def begin(self, plan: Plan) -> None:
        """Take over what was found, and what was finished before."""
        self.found = plan.images
        self.skipped = len(plan.finished)

    def add(self, record: Record) -> None:
        """Take over what became of an image."""
        (self.failures if record.status == "failed" else self.results).append(record)

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
            **forecast,
            "results": [record.facts() for record in self.results],
            "failures": [record.facts() for record in self.failures],
            "errors": self.errors,
        }
