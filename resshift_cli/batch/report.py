"""What became of a batch, in one object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resshift_cli import __version__
from resshift_cli.batch.table import Row

if TYPE_CHECKING:
    from resshift_cli.batch.record import Record
    from resshift_cli.batch.survey import Survey


KEPT = 10
"""Warnings that are kept in any case."""


@dataclass
class Report:
    """What is told in the end, and what --json prints.

    Attributes:
        model: its name.
        folder: of the inputs, as it was given.
        output: folder of the results, likewise.
        settings: all that the results depend on.
        keeps: whether to keep what grows with the number of images, for `rows` and `document`.
        survey: what was found, once it is known.
        results: what was done, as the ledger has it, if it keeps that.
        failures: what failed, likewise, unreadable folders included.
        warnings: what was wrong with images that were done nonetheless; the first ones, unless it
            keeps all.
        done, failed, failed_images, warned: how many of these there are, but folders among images.
        faces, faceless: faces that were restored, and images that had none.
        errors: what ended the batch.
        forecast: what --dry-run says.
    """

    model: str
    folder: str
    output: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    keeps: bool = True
    survey: Survey | None = None
    results: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    done: int = 0
    failed: int = 0
    failed_images: int = 0
    warned: int = 0
    faces: int = 0
    faceless: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None

    def add(self, record: Record) -> None:
        """Take over what became of an image."""
        failed = record.status == "failed"
        self.done += not failed
        self.failed += failed
        self.failed_images += failed and bool(record.output)
        warnings = [] if failed else record.warnings or []
        self.warned += len(warnings)
        self.warnings += warnings[: None if self.keeps else max(KEPT - len(self.warnings), 0)]
        faces = (record.found or {}).get("faces")
        if isinstance(faces, int):
            self.faces += faces
            self.faceless += faces == 0
        if self.keeps:
            (self.failures if failed else self.results).append(record)

    @property
    def found(self) -> int:
        """Images in the folder, or those of them that are this shard's."""
        return 0 if self.survey is None else self.survey.images

    @property
    def skipped(self) -> int:
        """Images that were finished before."""
        return 0 if self.survey is None else self.survey.finished

    @property
    def others(self) -> Mapping[str, int]:
        """How many files were left alone because of their names, by extension."""
        return {} if self.survey is None else self.survey.beside.others

    def rows(self) -> Iterator[Row]:
        """What became of every image."""
        told = set()
        for status, records in (("done", self.results), ("failed", self.failures)):
            for record in records:
                told.add(record.input)
                yield Row.of(record, status)
        if self.survey is not None:
            for record in self.survey.records:
                yield Row.of(record, "finished before")
            for name, output in self.survey.names:
                if name not in told:
                    yield Row(name, output, "not done")

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        left = self.found - self.skipped - self.done - self.failed_images
        forecast = {} if self.forecast is None else {"dry_run": self.forecast}
        return {
            "version": __version__,
            "model": self.model,
            "folder": self.folder,
            "output": self.output,
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
