"""`resshift batch --verify`: whether a folder is finished, and everything as it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
    from resshift_cli.batch.verify import Finding
    from resshift_cli.imaging.folders import Found

SHOWN = 10  # problems that are told of


class Find(Protocol):
    """Finds inputs in a folder, leaving out that of the results."""

    def __call__(self, folder: Path, results: Path, *, quiet: bool) -> Found:
        """Find them."""


def verify(
    folder: Path, output: Path | None, find: Find, report: Path | None, reporting: Reporting
) -> None:
    """Verify a folder, and tell what was found.

    Args:
        folder: of the inputs.
        output: folder of the results, or None for the one beside `folder`.
        find: finds the inputs.
        report: where the findings go, too.
        reporting: what is told.

    Raises:
        Exit: something is not proven.
        InputMissingError, UsageError: there is no ledger, or more than one.
        OutputError: the ledger is none of ours, or the report can't be written.
    """
    from resshift_cli.batch import ledger, table
    from resshift_cli.batch import verify as batch_verify

    results = output or _results_of(folder)
    if not (results / ledger.NAME).exists():
        raise InputMissingError(
            f"There is no {ledger.NAME} in {printable(results)}, so nothing can be proven.",
            hint="Name the folder of results with -o.",
        )
    found = find(folder, results, quiet=reporting.quiet)
    book = ledger.Ledger(results)
    with progress.bars(quiet=reporting.quiet) as bars:
        bar = bars(total=len(found.images), desc=folder.absolute().name, unit="image")
        findings = []
        for finding in batch_verify.verify(folder, found, book):
            findings.append(finding)
            bar.update(not finding.is_gone)
        bar.close()
    if report is not None:
        table.write(report, map(_row, findings), f"resshift batch --verify {folder}")
    problems = [finding for finding in findings if finding.problem]
    if reporting.as_json:
        console.document(_document(folder, results, found, findings))
    if not reporting.quiet:
        _tell(folder, results, findings)
    for finding in problems[:SHOWN]:
        console.error(f"{folder / finding.input} {finding.problem}.", "")
    if len(problems) > SHOWN:
        console.note(f"and {len(problems) - SHOWN} more; --report FILE.csv lists all")
    if problems:
        raise typer.Exit(ResShiftError.exit_code)


def _results_of(folder: Path) -> Path:
    """The folder of results beside a folder, if there is one."""
    from resshift_cli.batch import ledger, names

    there = names.ledgers_beside(folder, ledger.NAME)
    if len(there) == 1:
        return there[0]
    told = ", ".join(map(printable, there)) or "none"
    raise UsageError(
        f"Which folder of results is to be proven? Beside {printable(folder)} there is: {told}.",
        hint="Name it with -o.",
    )


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    inputs = [finding for finding in findings if not finding.is_gone]
    return {
        "found": len(inputs),
        "proven": sum(not finding.problem for finding in inputs),
        "problems": sum(bool(finding.problem) for finding in findings),
        "without_input": len(findings) - len(inputs),
    }


def _document(
    folder: Path, results: Path, found: Found, findings: Sequence[Finding]
) -> dict[str, Any]:
    return {
        "version": __version__,
        "folder": str(folder),
        "output": str(results),
        "counts": _counts(findings),
        "others": dict(found.others),
        "problems": [
            {"input": finding.input, "output": finding.output, "message": finding.problem}
            for finding in findings
            if finding.problem
        ],
    }


def _tell(folder: Path, results: Path, findings: Sequence[Finding]) -> None:
    counts = _counts(findings)
    gone = counts["without_input"]
    more = f", {counted(gone, 'result')} whose input is gone" if gone else ""
    console.note(
        f"{counted(counts['found'], 'image')} in {folder}: {counts['proven']} proven, "
        f"{counted(counts['problems'], 'problem')}{more}. Results are in {results}"
    )


def _row(finding: Finding) -> Any:
    from resshift_cli.batch.table import Row

    status = "not proven" if finding.problem else "input is gone" if finding.is_gone else "proven"
    if finding.record is None:
        return Row(finding.input, finding.output, status, remark=finding.problem)
    return Row.of(finding.record, status, finding.problem)
