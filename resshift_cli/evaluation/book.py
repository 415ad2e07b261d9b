"""The folder of an evaluation: enlarged images, and their figures by image and row."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from resshift_cli.errors import OutputError, printable
from resshift_cli.imaging import encode, targets
from resshift_cli.imaging.folders import EXTENSIONS
from resshift_cli.imaging.picture import Picture, Pixels
from resshift_cli.system import atomic, held
from resshift_cli.system.journal import Journal

LEDGER, IMAGES = "measured.jsonl", "images"


@dataclass(slots=True)
class Book:
    """A folder where results are kept: images as PNG, and their figures, one JSON line each.

    A line is written after its image, so a torn or missing one only means that the image is made
    again. Later lines count.

    Raises:
        OutputError: the folder holds other things, or can't be read.
    """

    folder: Path
    lines: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there."""
        try:
            there = [entry.name for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(
                f"{printable(self.folder)} can't be read: {error.strerror}.",
                hint="Give another folder with -o.",
            ) from error
        if LEDGER not in there and any(not name.startswith(".") for name in there):
            raise OutputError(
                f"{printable(self.folder)} holds files that are not of an evaluation.",
                hint="Give a new folder with -o, or an empty one.",
            )
        for record in self._journal.lines():
            try:
                self.lines[record["image"], record["row"]] = {
                    "identity": str(record["identity"]),
                    "values": {str(name): float(v) for name, v in record["values"].items()},
                }
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # of another kind

    @property
    def _journal(self) -> Journal:
        return Journal(
            self.folder / LEDGER,
            hint="Make room, then run the same command again: it goes on from here.",
        )

    def values(self, image: str, row: str, identity: str) -> dict[str, float] | None:
        """What is known of a result that is there; None if it was made in another way."""
        line = self.lines.get((image, row))
        if line is None or line["identity"] != identity or not self.image(image, row).is_file():
            return None
        return dict(line["values"])

    def image(self, image: str, row: str) -> Path:
        """Where a result is kept: no two of them at one place."""
        stem, suffix = os.path.splitext(image)
        as_it_is = suffix == ".png" and os.path.splitext(stem)[1].lower() not in EXTENSIONS
        return self.folder / IMAGES / slug(row) / (image if as_it_is else f"{image}.png")

    def save(self, image: str, row: str, pixels: Pixels) -> None:
        """Keep an image."""
        path = self.image(image, row)
        atomic.make_folder(self.folder)
        content = encode.encode(Picture(np.ascontiguousarray(pixels, np.float32)), path)
        with held.opened(self.folder) as folder:
            within = path.relative_to(self.folder).as_posix()
            targets.save_below(content, folder, within, overwrite=True)

    def append(self, image: str, row: str, identity: str, values: Mapping[str, float]) -> None:
        """Keep figures."""
        line = {"image": image, "row": row, "identity": identity, "values": dict(values)}
        self._journal.append(line)
        self.lines[image, row] = {"identity": identity, "values": dict(values)}


def slug(title: str) -> str:
    """A row's title as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", title)
