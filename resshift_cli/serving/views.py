"""A comparison that is looked at in the browser while its tiles lie in one file of ours."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from resshift_cli.serving.work import Made, Shown
from resshift_cli.viewing.page import Page


@dataclass(frozen=True, slots=True)
class View:
    """A page whose tiles are handed out one by one.

    Attributes:
        document: the page.
        path: all tiles, one after the other.
        places: type, begin and length of each.
    """

    document: str
    path: Path
    places: dict[str, tuple[str, int, int]]

    def tile(self, place: str) -> tuple[str, bytes] | None:
        """Type and content of a tile; None where there is none."""
        if place not in self.places:
            return None
        kind, begin, length = self.places[place]
        with self.path.open("rb") as file:
            file.seek(begin)
            return kind, file.read(length)


class Views:
    """The views of results, each made when it is first asked for.

    Args:
        folder: where their tiles lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, View] = {}
        self._making = threading.Lock()

    def of(self, name: str, outcome: Made | Shown) -> View:
        """The view of an outcome.

        Args:
            name: of the job, which names its file.
            outcome: what is shown.

        Raises:
            ResShiftError: a picture can't be read.
            OSError: there is no room.
        """
        with self._making:
            if name not in self._made:
                self._made[name] = self._make(self.folder / f"{name}.tiles", outcome)
            return self._made[name]

    def _make(self, path: Path, outcome: Made | Shown) -> View:
        places = {}
        with outcome.shown() as exhibits, path.open("wb") as file:
            page = Page(f"{exhibits[0].title} compared", exhibits)
            for tile in page.tiles(lambda done, total: None):
                places[tile.place] = (tile.kind, file.tell(), len(tile.content))
                file.write(tile.content)
            return View(page.document("tiles/"), path, places)

    def forget(self, name: str) -> None:
        """Delete one, if it was made."""
        view = self._made.pop(name, None)
        if view is not None:
            with suppress(OSError):
                view.path.unlink(missing_ok=True)
