"""Several ways of enlarging, measured on the same images, row by row.

A row is one way of enlarging, such as a model at some number of steps; bicubic is always one. An
image that fails in any row is left out of all of them, so that every mean is over the same images.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from resshift_cli import __version__
from resshift_cli.errors import (
    InputMissingError,
    OutputError,
    ResShiftError,
    UsageError,
    memory_limit,
    printable,
)
from resshift_cli.evaluation import bootstrap
from resshift_cli.evaluation.book import Book, slug
from resshift_cli.evaluation.pairs import (
    DEGRADATIONS,
    Pair,
    Task,
    read_image,
    read_pair,
    to_pixels,
    to_tensor,
)
from resshift_cli.imaging.picture import Pixels
from resshift_cli.system.digests import digest

BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Row:
    """One way of enlarging.

    Attributes:
        title: what tables call it.
        made_by: what has to be equal for a result to be the same, as JSON can hold it.
        enlarge: (h, w, 3) in [0, 1] -> (scale * h, scale * w, 3).
    """

    title: str
    made_by: Mapping[str, Any]
    enlarge: Callable[[Pixels], Pixels]


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


class Study:
    """Rows measured on the same pairs.

    Args:
        pairs: the images.
        task: what is asked.
        book: where results are kept, if they are.
        left_out: images that can't be used, with the reason; more of them are added.

    Attributes:
        values: row -> image -> metric -> value, by titles and names.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        task: Task,
        book: Book | None,
        left_out: Mapping[str, ResShiftError],
    ) -> None:
        self.pairs = pairs
        self.task = task
        self.book = book
        self.left_out = dict(left_out)
        self.values: dict[str, dict[str, dict[str, float]]] = {}
        self._digests: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The images that all rows so far were measured on."""
        return [pair.name for pair in self.pairs if pair.name not in self.left_out]

    def measure(self, row: Row, done: Callable[[str], None] = lambda name: None) -> None:
        """Measure a row on every image that is not left out, and tell `done` after each."""
        values = self.values.setdefault(row.title, {})
        for pair in self.pairs:
            if pair.name not in self.left_out:
                try:
                    with memory_limit("Measure a crop (--crop), or take smaller tiles (--tile)."):
                        values[pair.name] = self._measure(row, pair)
                except OutputError:
                    raise  # concerns them all
                except ResShiftError as error:
                    self.left_out[pair.name] = error
            done(pair.name)

    def _measure(self, row: Row, pair: Pair) -> dict[str, float]:
        wanted = {metric.name: metric for metric in self.task.metrics}
        identity = self._identity(row, pair)
        known = {} if self.book is None else self.book.values(pair.name, row.title, identity)
        if wanted.keys() <= known.keys():
            return {name: known[name] for name in wanted}
        original, partner = read_pair(pair, self.task)
        if known and self.book is not None:
            restored = read_image(self.book.image(pair.name, row.title))
        else:
            restored = row.enlarge(partner)
            if self.book is not None:
                self.book.save(pair.name, row.title, restored)
        image, reference = to_tensor(restored), to_tensor(original)
        for name, metric in wanted.items():
            if name not in known:
                known[name] = metric.measure(image, reference, self.task.scale)
        if self.book is not None:
            self.book.append(pair.name, row.title, identity, known)
        return {name: known[name] for name in wanted}

    def _identity(self, row: Row, pair: Pair) -> str:
        """Of everything that a result follows from."""
        if pair.name not in self._digests:
            try:
                files = [digest(path) for path in (pair.hq, pair.lq) if path is not None]
            except OSError as error:
                raise InputMissingError(
                    f"{printable(error.filename)} can't be read: {error.strerror}.",
                    hint="Check that it is there and may be read.",
                ) from error
            self._digests[pair.name] = "+".join(files)
        task = self.task
        facts = {
            "version": __version__,
            "files": self._digests[pair.name],
            "degrade": repr(DEGRADATIONS[task.degrade]) if pair.lq is None else "",
            "seed": task.seed,
            "scale": task.scale,
            "crop": task.crop,
            "row": dict(row.made_by),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def restored(self, pair: Pair, title: str) -> Pixels:
        """A result that was kept."""
        assert self.book is not None
        return read_image(self.book.image(pair.name, title))

    def summary(self) -> list[dict[str, Any]]:
        """Row by row and metric by metric: means, intervals, differences from bicubic.

        Where a value is not finite, as the PSNR of equal images, the image does not count for
        that metric in any row; `images` says how many do.
        """
        names, titles = self.names, list(self.values)
        rows: list[dict[str, Any]] = [{"name": title, "metrics": {}} for title in titles]
        for metric in self.task.metrics:
            table = np.array(
                [[self.values[title][name][metric.name] for title in titles] for name in names]
            ).reshape(len(names), len(titles))
            table = table[np.isfinite(table).all(axis=1)]
            if not len(table):
                estimates = [bootstrap.Estimate(math.nan, None, None)] * (2 * len(titles))
            else:
                both = np.concatenate([table, table - table[:, :1]], axis=1)
                estimates = bootstrap.means(both, self.task.seed)
            for number, row in enumerate(rows):
                mean, difference = estimates[number], estimates[len(titles) + number]
                row["metrics"][metric.name] = {
                    "images": len(table),
                    "mean": _number(mean.mean),
                    "interval": _interval(mean),
                    "difference": _number(difference.mean) if number else None,
                    "difference_interval": _interval(difference) if number else None,
                }
        return rows

    def table(self) -> str:
        """Every image in every row, as CSV."""
        buffer = io.StringIO()
        lines = csv.writer(buffer, lineterminator="\n")
        lines.writerow(["image", "row", *(metric.name for metric in self.task.metrics)])
        for name in self.names:
            for title, values in self.values.items():
                lines.writerow([name, title, *values[name].values()])
        return buffer.getvalue()


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


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(estimate: bootstrap.Estimate) -> list[float] | None:
    return None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]
