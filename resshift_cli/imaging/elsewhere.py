"""The images of a folder that is not on this machine."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from resshift_cli.errors import InputMissingError, printable
from resshift_cli.imaging.folders import ALL_IMAGES, Beside, Inputs, Selection, Tree, entry, walk
from resshift_cli.imaging.sources import Source, State
from resshift_cli.system import listing
from resshift_cli.system.sorting import in_order
from resshift_cli.system.storage import Remote, is_url
from resshift_cli.system.versions import Known

REMEMBERED = 4096
"""Files whose size and version are remembered from their folder's list."""


def inputs_at(
    where: str | Path, aside: str | Path | None = None, selection: Selection = ALL_IMAGES
) -> Inputs:
    """The images of a folder, here or in a store.

    Args:
        where: its path or URL.
        aside: that of a folder that is left out, such as that of the results.
        selection: which files are taken.
    """
    if is_url(str(where)):
        return StoredTree(Remote(str(where)), str(aside or ""), selection)
    is_here = aside is not None and not is_url(str(aside))
    return Tree(Path(where), Path(str(aside)) if is_here else None, selection)


class StoredTree:
    """`Inputs` in a store, in the order that they would have in a folder here.

    Names that no folder here could have (`..`, or none between two slashes) are told of as places
    that can't be read: nobody is to be led elsewhere by them.

    Args:
        folder: where.
        aside: the `root` of a folder that is left out.
        selection: which files are taken.
    """

    def __init__(self, folder: Remote, aside: str = "", selection: Selection = ALL_IMAGES) -> None:
        self.folder = Remote(folder.url.rstrip("/"))
        self.selection = selection
        self._aside = aside
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._heads: dict[str, bytes] = {}

    @property
    def said(self) -> str:
        """As `Inputs` says."""
        return self.folder.shown

    @property
    def root(self) -> str:
        """As `Inputs` says."""
        return self.folder.shown

    def images(self, beside: Beside | None = None) -> Iterator[str]:
        """As `Inputs` says."""
        beside = beside or Beside()

        def look(place: str) -> Iterator[str]:
            return in_order(self._entries(place, beside))

        for name, about in walk(look, self.selection, beside):
            self._remember(name, Known(*json.loads(about)))
            yield name

    def has(self, name: str) -> bool:
        """As `Inputs` says."""
        return self.selection.allows(name) and self.state(name) is not None

    def source(self, name: str) -> Source:
        """As `Inputs` says."""
        return Source.at(self.folder.below(name), self._known.get(name))

    def state(self, name: str) -> State | None:
        """As `Inputs` says."""
        return self.source(name).state()

    def header(self, name: str) -> Source:
        """As `Inputs` says."""
        head = self._heads.get(name, b"")
        return Source.at(self.folder.below(name), self._known.get(name), head)

    def ahead(self, names: Sequence[str]) -> None:
        """As `Inputs` says."""
        found = {name: self._known.get(name) or self._ask(name) for name in names}
        there = {name: known for name, known in found.items() if known is not None}
        sizes = [known.size for known in there.values()]
        some = listing.heads([self.folder.below(name) for name in there], sizes)
        self._heads = dict(zip(there, some, strict=True))

    def _ask(self, name: str) -> Known | None:
        known = self.folder.below(name).known()
        if known is not None:
            self._remember(name, known)
        return known

    def _remember(self, name: str, known: Known) -> None:
        self._known[name] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _entries(self, place: str, beside: Beside) -> Iterator[str]:
        """What is in a folder and not left out, as `walk` takes it."""
        folder = self.folder.below(place) if place else self.folder
        if folder.shown == self._aside:
            return
        for found in listing.entries(folder):
            within = f"{place}/{found.name}" if place else found.name
            if not is_a_name(found.name):
                if found.known is None or self.selection.takes(within):
                    beside.unreadable[within] = _no_name(folder, found.name)
                continue
            if not self.selection.leaves_out(within):
                about = "" if found.known is None else json.dumps(found.known)
                yield entry(found.name, is_folder=found.known is None, about=about)


def is_a_name(name: str) -> bool:
    """Whether a part of a path is one that files may have everywhere."""
    odd = {"\0", "/"} | ({"\\", ":"} if os.name == "nt" else set())
    return name not in ("", ".", "..") and not odd & set(name)


def _no_name(folder: Remote, name: str) -> InputMissingError:
    return InputMissingError(
        f"'{printable(name)}' in {folder.shown} is a name that no file can have.",
        hint="Call it otherwise there; everything else is done.",
    )
