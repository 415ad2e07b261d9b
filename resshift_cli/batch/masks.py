"""Which pixels are to be filled of each image of a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.imaging.folders import EXTENSIONS
from resshift_cli.imaging.masks import Mask
from resshift_cli.restoration.crafts import Filling, Inpaint

FILES = "files"  # in place of what a mask's own file is called

_ENDINGS = sorted({*EXTENSIONS, *map(str.upper, EXTENSIONS)})


@dataclass(frozen=True)
class InpaintEach(Filling):
    """Fills the holes of a folder's images.

    Attributes:
        mask: what tells in every image; where there is a folder, its shape is `FILES`.
        folder: masks that are called as the images are, in folders of the same names; another
            extension will do.
    """

    mask: Mask
    folder: Path | None = None

    def facts(self) -> dict[str, Any]:
        """See `Craft.facts`; where the folder lies makes no difference, and what is in it does."""
        facts = self.mask.facts()
        return {"masks": facts.pop("mask"), **facts}

    def of(self, place: str) -> Inpaint:
        """See `Craft.of`.

        Raises:
            InputMissingError: the image has no mask.
            UsageError: it has several.
        """
        if self.folder is None:
            return Inpaint(self.mask)
        return Inpaint(replace(self.mask, shape=str(self._file(self.folder, place))))

    def _file(self, folder: Path, place: str) -> Path:
        path = folder / place
        if path.exists():
            return path
        stem = os.path.join(folder, place).removesuffix(path.suffix)
        found = [Path(stem + ending) for ending in _ENDINGS if os.path.exists(stem + ending)]
        if not found:
            raise InputMissingError(
                f"There is no mask for {printable(place)} in {printable(self.folder)}.",
                hint="It has the photo's name, with any extension; --exclude leaves photos out.",
            )
        if len(found) > 1 and not found[0].samefile(found[1]):  # as where .PNG is .png
            raise UsageError(
                f"{printable(found[0])} and {printable(found[1].name)} could both be the mask of "
                f"{printable(place)}.",
                hint="Move one of them away.",
            )
        return found[0]
