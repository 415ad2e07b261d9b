"""A comparison as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from resshift_cli.errors import printable
from resshift_cli.evaluation.details import Strip, png

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; font-weight: 600; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { vertical-align: bottom; }
small { opacity: .75; white-space: nowrap; }
.wide { overflow-x: auto; }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(8rem, 16rem);
  gap: .5rem; overflow-x: auto; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; image-rendering: pixelated;
  background: var(--soft); }
figcaption { font-size: .85rem; }
"""


def page(document: dict[str, Any], strips: Sequence[Strip], notes: Sequence[str]) -> str:
    """The page.

    Args:
        document: what --json prints.
        strips: details to show.
        notes: how the figures came about, a sentence each.
    """
    parts = [
        "<h1>Enlargements compared</h1>",
        "<ul>",
        *(f"<li>{_text(note)}</li>" for note in notes),
        "</ul>",
        "<h2>Means</h2>",
        _means(document),
    ]
    if document["left_out"]:
        parts += ["<h2>Left out</h2>", "<ul>"]
        parts += [f"<li>{_text(item['message'])}</li>" for item in document["left_out"]]
        parts.append("</ul>")
    parts.append("<h2>Details</h2>")
    parts += [_strip(strip) for strip in strips]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Enlargements compared</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A figure for a table; "-" where there is none."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def interval(values: Sequence[float] | None, digits: int, *, signed: bool = False) -> str:
    """From and to."""
    return "" if values is None else " .. ".join(number(v, digits, signed=signed) for v in values)


def _means(document: dict[str, Any]) -> str:
    metrics = document["metrics"]
    head = "".join(
        f"<th>{_text(metric['title'])}<br><small>{_text(metric['better'])} is better</small></th>"
        for metric in metrics
    )
    body = ""
    for row in document["rows"]:
        cells = ""
        for metric in metrics:
            figures, digits = row["metrics"][metric["name"]], metric["digits"]
            cells += f"<td>{number(figures['mean'], digits)}"
            if figures["interval"]:
                cells += f"<br><small>{interval(figures['interval'], digits)}</small>"
            if figures["difference"] is not None:
                cells += f"<br>{number(figures['difference'], digits, signed=True)}"
            if figures["difference_interval"]:
                span = interval(figures["difference_interval"], digits, signed=True)
                cells += f"<br><small>{span}</small>"
            cells += "</td>"
        body += f"<tr><td>{_text(row['name'])}</td>{cells}</tr>\n"
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{body}'
        "</tbody></table></div>\n<p>In every cell: the mean, its 95 % interval, its difference "
        "from bicubic, and the 95 % interval of that.</p>"
    )


def _strip(strip: Strip) -> str:
    left, top, width, height = strip.place
    figures = "\n".join(
        f'<figure><img alt="{_text(title)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{base64.b64encode(png(levels)).decode()}">'
        f"<figcaption>{_text(title)}</figcaption></figure>"
        for title, levels in strip.cells
    )
    where = f"{width}x{height} at {left}, {top}"
    return (
        f"<h3>{_text(strip.name)} <small>{where}</small></h3>\n"
        f'<div class="strip">\n{figures}\n</div>'
    )


def _text(text: str) -> str:
    return escape(printable(text))
