"""A batch for people, image by image, as CSV or as a page of HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from html import escape
from pathlib import Path, PurePath

from resshift_cli import __version__
from resshift_cli.batch import names
from resshift_cli.batch.record import Record
from resshift_cli.errors import UsageError, printable
from resshift_cli.system import atomic
from resshift_cli.system.spreadsheet import cell
from resshift_cli.system.storage import Remote, is_url

FORMATS = (".csv", ".html")


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        input: path within the folder of inputs.
        output: path within the folder of results.
        status: in a word or two.
        width, height: of the result.
        seconds: of computing.
        input_sha256, output_sha256: what the files had.
        remark: what was wrong.
    """

    input: str
    output: str
    status: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    input_sha256: str | None = None
    output_sha256: str | None = None
    remark: str = ""

    @classmethod
    def of(cls, record: Record, status: str, remark: str = "") -> Row:
        """A line of the ledger."""
        return cls(
            record.input,
            record.output,
            status,
            record.width,
            record.height,
            record.seconds,
            record.input_sha256,
            record.output_sha256,
            remark or record.error or "; ".join(_remarks(record)),
        )


def _remarks(record: Record) -> Iterator[str]:
    yield from map(str, record.warnings or ())
    if (record.found or {}).get("faces") == 0:
        yield "no face restored"


def check_format(path: str | Path) -> None:
    """Find out before the work whether a table can be written.

    Raises:
        UsageError: its extension is neither .csv nor .html, or nothing can be written there.
    """
    if is_url(str(path)):
        Remote(str(path)).check_writable()
    if PurePath(path).suffix.lower() not in FORMATS:
        raise UsageError(
            f"{printable(names.said(str(path)))} is neither a .csv nor an .html file.",
            hint="Give the report a name that ends with one of them.",
        )


def write(path: str | Path, rows: Iterable[Row], title: str) -> None:
    """Write a table.

    Args:
        path: ends with .csv or .html; a URL is one in a store.
        rows: of the images.
        title: what an HTML page says above it.

    Raises:
        OutputError: it can't be written.
    """
    ordered = sorted(rows, key=lambda row: row.input)
    is_csv = PurePath(path).suffix.lower() == ".csv"
    content = (_csv(ordered) if is_csv else _html(ordered, title)).encode()
    if is_url(str(path)):
        Remote(str(path)).write(content)
    else:
        atomic.write(Path(path), content)


def _csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(field.name for field in fields(Row))
    for row in rows:
        lines.writerow(
            cell(printable(value)) if isinstance(value, str) else value for value in astuple(row)
        )
    return buffer.getvalue()


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; vertical-align: top; }}
td.sha {{ font: 12px monospace; }}
tr.bad td {{ color: #a00; }}
</style></head><body><h1>{title}</h1><p>{counts}. resshift {version}.</p>
<table><tr>{head}</tr>
{body}
</table></body></html>
"""


def _html(rows: Sequence[Row], title: str) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    return _PAGE.format(
        title=escape(printable(title)),
        counts=", ".join(f"{count} {escape(status)}" for status, count in counts.items()) or "none",
        version=__version__,
        head="".join(f"<th>{field.name.replace('_', ' ')}</th>" for field in fields(Row)),
        body="\n".join(map(_html_row, rows)),
    )


def _html_row(row: Row) -> str:
    cells = []
    for field, value in zip(fields(Row), astuple(row), strict=True):
        kind = ' class="sha"' if field.name.endswith("sha256") else ""
        cells.append(f"<td{kind}>{'' if value is None else escape(printable(value))}</td>")
    bad = "" if row.status in ("done", "finished before", "proven") else ' class="bad"'
    return f"<tr{bad}>{''.join(cells)}</tr>"
