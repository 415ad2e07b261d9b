"""A page that shows pictures beside each other: one file, which needs no network and no other file.

A server may hand out the tiles on their own instead, each when it comes into view.

Its pictures are drawn on one canvas by the scripts in `viewer/`, the same place of each at the same
size. That there is no ready component under it is a choice: those that slide between two images
(img-comparison-slider, say) clip two elements and heed every drag on them, so that nothing is left
to move a picture by, and know neither a third picture nor a zoom, a lens or a difference; those
that zoom (OpenSeadragon) bring 200 kB to do what the canvas does with the tiles of `pyramid`.
The divider is the browser's own slider, `<input type=range>`, and lists, choices and boxes are its
own, too: keys, fingers and screen readers have the ways that people know.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import BinaryIO

from resshift_cli import __version__
from resshift_cli.errors import printable
from resshift_cli.viewing import pyramid
from resshift_cli.viewing.exhibits import Exhibit

LOSSLESS = 32_000_000
"""Pictures of more pixels in all are embedded with a little loss, or a page would be of 100 MB."""

_SCRIPTS = ("picture.js", "viewer.js", "controls.js")


_END = "</body>\n</html>\n"


@dataclass(frozen=True, slots=True)
class Placed:
    """A tile: which picture, level, column and row it is of; its type; and its file."""

    place: str
    kind: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """What is to be shown.

    Attributes:
        title: of the page.
        exhibits: two or more pictures with sides in one proportion, see `exhibits.check`; the first
            two are shown first.
        notes: what has to be told, a sentence each.
        lossless: whether pictures are embedded without loss; None where they are not large.
    """

    title: str
    exhibits: Sequence[Exhibit]
    notes: Sequence[str] = ()
    lossless: bool | None = None

    @property
    def exact(self) -> bool:
        """Whether pictures are embedded without loss."""
        if self.lossless is not None:
            return self.lossless
        return sum(exhibit.pixels for exhibit in self.exhibits) <= LOSSLESS

    def write(self, file: BinaryIO, advance: Callable[[int, int], object]) -> None:
        """Write it, as the rows of its pictures come.

        Args:
            file: what it is written to.
            advance: called with the number of pictures that are written, and of all.

        Raises:
            ResShiftError: what the rows of pictures raise.
            OSError: what `file` raises.
        """
        file.write(self._head(None).encode())
        for tile in self.tiles(advance):
            begin = f'<script type="text/plain" id="tile-{tile.place}" data-type="{tile.kind}">'
            file.write(begin.encode())
            file.write(base64.b64encode(tile.content))
            file.write(b"</script>\n")
        file.write(_END.encode())

    def document(self, address: str) -> str:
        """It without its tiles, which the browser fetches.

        Args:
            address: what stands before a tile's place in its address.
        """
        return self._head(address) + _END

    def tiles(self, advance: Callable[[int, int], object]) -> Iterator[Placed]:
        """All tiles, as the rows of the pictures come.

        Args:
            advance: as `write`.

        Raises:
            ResShiftError: what the rows of pictures raise.
        """
        for number, exhibit in enumerate(self.exhibits):
            advance(number, len(self.exhibits))
            kind, encode = self._coding(exhibit)
            for tile in pyramid.tiles(exhibit.rows, exhibit.shape, encode):
                place = f"{number}-{tile.level}-{tile.column}-{tile.row}"
                yield Placed(place, kind, tile.content)
        advance(len(self.exhibits), len(self.exhibits))

    def _coding(self, exhibit: Exhibit) -> tuple[str, pyramid.Encode]:
        """The type and the encoder of its tiles; JPEG has no alpha."""
        if self.exact or exhibit.shape[2] in (2, 4):
            return "image/png", pyramid.as_png(exhibit.icc)
        return "image/jpeg", pyramid.as_jpeg(exhibit.icc)

    def _head(self, address: str | None) -> str:
        """All but the tiles, which follow, or are to be had at an address."""
        style, script = _asset("viewer.css"), "".join(map(_asset, _SCRIPTS))
        notes = list(self.notes)
        if not self.exact:
            notes.append(
                f"The pictures are embedded as JPEG of quality {pyramid.JPEG_QUALITY}, since they "
                "are large; an amplified difference shows that, too. The option --lossless embeds "
                "them exactly."
            )
        return Template(_asset("page.html")).substitute(
            title=text(self.title),
            version=__version__,
            style=style,
            style_digest=_digest(style),
            script=script,
            script_digest=_digest(script),
            facts=_table(self.exhibits),
            images="data:" if address is None else "'self'",
            notes="".join(f"<p>{text(note)}</p>\n" for note in notes),
            page=_json(self._document() | {"tiles": address}),
        )

    def _document(self) -> dict[str, object]:
        """What the scripts are told."""
        largest = max(self.exhibits, key=lambda exhibit: exhibit.pixels)
        return {
            "width": largest.shape[1],
            "height": largest.shape[0],
            "tile": pyramid.TILE,
            "pictures": [
                {
                    "title": printable(exhibit.title),
                    "width": exhibit.shape[1],
                    "height": exhibit.shape[0],
                    "levels": pyramid.depth(*exhibit.shape[:2]),
                }
                for exhibit in self.exhibits
            ],
        }


def text(words: object) -> str:
    """What came from outside as HTML."""
    return escape(printable(words))


def _table(exhibits: Sequence[Exhibit]) -> str:
    """A column for every picture: two of them fit where a row of all facts would not."""
    headings = list(dict.fromkeys(name for one in exhibits for name in one.facts))
    head = "".join(f'<th scope="col">{text(one.title)}</th>' for one in exhibits)
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        + "".join(f"<td>{text(one.facts.get(name, ''))}</td>" for one in exhibits)
        + "</tr>\n"
        for name in headings
    )
    return (
        f'<table><thead><tr><th scope="col">picture</th>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table>"
    )


def _json(value: object) -> str:
    """JSON that no name in it can end the element of."""
    return json.dumps(value).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("resshift_cli.viewing").joinpath("viewer", name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """What the page's own policy allows by, and nothing else."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
