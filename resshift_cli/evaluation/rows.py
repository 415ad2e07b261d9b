"""The rows of a comparison: ways of enlarging, and results that were made elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.evaluation.book import slug
from resshift_cli.evaluation.pairs import Pair, Setup, read_result, to_pixels, to_tensor
from resshift_cli.imaging import folders
from resshift_cli.imaging.picture import Pixels
from resshift_cli.system.digests import digest

BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Row:
    """A way of enlarging.

    Attributes:
        title: what tables call it.
        made_by: what has to be equal for a result to be the same, as JSON can hold it.
        enlarge: (h, w, 3) in [0, 1] -> (scale * h, scale * w, 3).
    """

    title: str
    made_by: Mapping[str, Any]
    enlarge: Callable[[Pixels], Pixels]

    def identity(self, pair: Pair) -> Mapping[str, Any]:
        """What has to be equal for its result of an image to be the same."""
        return self.made_by

    def restore(self, pair: Pair, partner: Pixels, setup: Setup) -> Pixels:
        """Its result of an image, given the low-quality partner as `read_pair` has it."""
        return self.enlarge(partner)


@dataclass(frozen=True, slots=True)
class Results:
    """Files with the names of the originals; see `results`.

    Attributes:
        title: what tables call them.
        folder: where they lie.
        files: within the folder, by the name of the original; several differ in their extension.
    """

    title: str
    folder: Path
    files: Mapping[str, Sequence[str]]

    def identity(self, pair: Pair) -> Mapping[str, Any]:
        """As `Row.identity`."""
        return {"result": digest(self._file(pair))}

    def restore(self, pair: Pair, partner: Pixels, setup: Setup) -> Pixels:
        """As `Row.restore`; the partner only tells the size."""
        height, width = (setup.scale * length for length in partner.shape[:2])
        return read_result(self._file(pair), pair, setup, (height, width))

    def _file(self, pair: Pair) -> Path:
        """The result of an original.

        Raises:
            InputMissingError: there is none, or more than one.
        """
        found = self.files.get(pair.name, ())
        if len(found) == 1:
            return self.folder / found[0]
        several = f" but {' and '.join(map(printable, found))}" if found else ""
        raise InputMissingError(
            f"{printable(self.title)} has no {printable(pair.name)} in {printable(self.folder)}"
            f"{several}.",
            hint="Results have the names of the originals; extensions may differ.",
        )


def bicubic(scale: int) -> Row:
    """Bicubic enlargement, as every table has it (Keys' kernel with a = -1/2)."""

    def enlarge(pixels: Pixels) -> Pixels:
        size = (pixels.shape[0] * scale, pixels.shape[1] * scale)
        # torch has a = -3/4 unless it is asked to antialias, which changes nothing else here.
        large = torch.nn.functional.interpolate(
            to_tensor(pixels), size, mode="bicubic", align_corners=False, antialias=True
        )
        return to_pixels(large)

    return Row(BICUBIC, {"model": BICUBIC}, enlarge)


def results(title: str, folder: Path, originals: Iterable[Pair]) -> Results:
    """Find the results of originals in a folder.

    Raises:
        InputMissingError: it has no images.
    """
    there = folders.find(folder).images if folder.is_dir() else []
    if not there:
        raise InputMissingError(
            f"There are no images in {printable(folder)}.",
            hint="Results (--results NAME=DIR) lie in a folder, by the names of the originals.",
        )
    by_stem: dict[str, list[str]] = {}
    for name in there:
        by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
    same = set(there)
    return Results(
        title,
        folder,
        {
            pair.name: [pair.name] if pair.name in same else by_stem.get(pair.stem, [])
            for pair in originals
        },
    )


def check_titles(titles: Iterable[str]) -> None:
    """Refuse rows that could not be told apart.

    Raises:
        UsageError: two have the same name.
    """
    seen: set[str] = set()
    for title in titles:
        if slug(title) in seen:
            raise UsageError(
                f"'{printable(title)}' is asked for twice.",
                hint="Name every model and number of steps once; rename files of one name.",
            )
        seen.add(slug(title))
