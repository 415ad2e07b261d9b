"""`resshift batch --verify`: whether a folder is finished, and everything as it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import console, progress
from resshift_cli.commands.groups import Reporting
from resshift_cli.errors import (
    InputMissingError,
    ResShiftError,
    UsageError,
    counted,
    printable,
)

if TYPE_CHECKING:
    from resshift_cli.batch.places import Place
    from resshift_cli.batch.verify import Finding
    from resshift_cli.imaging.folders import Beside, Inputs
    from resshift_cli.restoration.crafts import Craft

SHOWN = 10  # problems that are told of


def verify(
    folder: str,
    output: str | None,
    find: Callable[[str, str], Inputs],
    craft: Craft[Any],
    report: str | None,
    reporting: Reporting,
) -> None:
    """Verify a folder, and tell what was found.

    Args:
        folder: of the inputs.
        output: folder of the results, or None for the one beside `folder`.
        find: gives the inputs in a folder, without that of the results.
        craft: what was done, as far as it reads files beside the inputs.
        report: where the findings go, too.
        reporting: what is told.

    Raises:
        Exit: something is not proven.
        InputMissingError, UsageError: there is no ledger, or more than one.
        OutputError: the ledger is none of ours, or the report can't be written.
    """
    from resshift_cli.batch import ledger, places, table
    from resshift_cli.batch import verify as batch_verify
    from resshift_cli.imaging.folders import Beside

    results = places.at(output or _results_of(folder))
    if not ledger.files(results):
        raise InputMissingError(
            f"There is no {ledger.NAME} in {printable(results.said)}, so nothing can be proven.",
            hint="Name the folder of results with -o.",
        )
    tree, beside = find(folder, results.root), Beside()
    with console.waiting("Reading the ledger", quiet=reporting.quiet):
        book, images = ledger.Ledger(results), sum(1 for _ in tree.images())
    told = _Told(keeps=report is not None)
    with progress.bars(quiet=reporting.quiet) as bars:
        bar = bars(total=images, desc=PurePath(tree.root).name, unit="image")
        for finding in batch_verify.verify(tree, book, beside, craft.sha256_beside):
            told.add(finding)
            bar.update(not finding.is_gone)
        bar.close()
    if report is not None:
        table.write(report, map(_row, told.findings), f"resshift batch --verify {tree.said}")
    if reporting.as_json:
        console.document(_document(tree, results, beside, told))
    if not reporting.quiet:
        _tell(tree, results, told)
    for finding in told.problems[:SHOWN]:
        console.error(f"{tree.source(finding.input).said} {finding.problem}.", "")
    if len(told.problems) > SHOWN:
        console.note(f"and {len(told.problems) - SHOWN} more; --report FILE.csv lists all")
    if told.problems:
        raise typer.Exit(ResShiftError.exit_code)


@dataclass
class _Told:
    """What was found, counted; all of it is kept only for a report.

    Attributes:
        keeps: whether it is.
        findings: if so.
        problems: those that are not proven.
        found: inputs.
        proven: those of them that are.
        gone: results without.
    """

    keeps: bool
    findings: list[Finding] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    found: int = 0
    proven: int = 0
    gone: int = 0

    def add(self, finding: Finding) -> None:
        self.found += not finding.is_gone
        self.gone += finding.is_gone
        self.proven += not (finding.is_gone or finding.problem)
        if finding.problem:
            self.problems.append(finding)
        if self.keeps:
            self.findings.append(finding)

    def counts(self) -> dict[str, int]:
        return {
            "found": self.found,
            "proven": self.proven,
            "problems": len(self.problems),
            "without_input": self.gone,
        }


def _results_of(folder: str) -> Path:
    """The folder of results beside a folder, if there is one."""
    from resshift_cli.batch import ledger, names
    from resshift_cli.system.storage import is_url

    if is_url(folder):
        raise UsageError(
            f"Which results of {names.said(folder)} are to be proven?", hint="Name them with -o."
        )
    there = names.results_beside(Path(folder), lambda place: bool(ledger.files(place)))
    if len(there) == 1:
        return there[0]
    told = ", ".join(map(printable, there)) or "none"
    raise UsageError(
        f"Which folder of results is to be proven? Beside {printable(folder)} there is: {told}.",
        hint="Name it with -o.",
    )


def _document(tree: Inputs, results: Place, beside: Beside, told: _Told) -> dict[str, Any]:
    return {
        "version": __version__,
        "folder": tree.said,
        "output": results.said,
        "counts": told.counts(),
        "others": dict(beside.others),
        "problems": [
            {"input": finding.input, "output": finding.output, "message": finding.problem}
            for finding in told.problems
        ],
    }


def _tell(tree: Inputs, results: Place, told: _Told) -> None:
    more = f", {counted(told.gone, 'result')} whose input is gone" if told.gone else ""
    console.note(
        f"{counted(told.found, 'image')} in {tree.said}: {told.proven} proven, "
        f"{counted(len(told.problems), 'problem')}{more}. Results are in {results.said}"
    )


def _row(finding: Finding) -> Any:
    from resshift_cli.batch.table import Row

    status = "not proven" if finding.problem else "input is gone" if finding.is_gone else "proven"
    if finding.record is None:
        return Row(finding.input, finding.output, status, remark=finding.problem)
    return Row.of(finding.record, status, finding.problem)
