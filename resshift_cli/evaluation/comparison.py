"""Several ways of enlarging, measured on the same images, row by row.

The first row is what the others are compared with. An image that fails in any row is left out of
all of them, so that every mean is over the same images.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from resshift_cli import __version__
from resshift_cli.errors import (
    InputMissingError,
    OutputError,
    ResShiftError,
    memory_limit,
    printable,
)
from resshift_cli.evaluation import bootstrap
from resshift_cli.evaluation.book import Book
from resshift_cli.evaluation.metrics import Metric, Realism
from resshift_cli.evaluation.pairs import (
    DEGRADATIONS,
    Pair,
    Setup,
    read_image,
    read_pair,
    to_tensor,
)
from resshift_cli.evaluation.rows import Results, Row
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.realism import Patches
from resshift_cli.system.digests import digest
from resshift_cli.system.spreadsheet import cell

MOST_PATCHES = 10_000
"""Of all images together, for realism: more make it no surer, and take long."""


class Study:
    """Rows measured on the same pairs.

    Args:
        pairs: the images.
        setup: what is the same for all rows.
        book: where results are kept, if they are.
        left_out: images that can't be used, with the reason; more of them are added.

    Attributes:
        values: row -> image -> metric -> value, by titles and names.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        setup: Setup,
        book: Book | None,
        left_out: Mapping[str, ResShiftError],
    ) -> None:
        self.pairs = pairs
        self.setup = setup
        self.book = book
        self.left_out = dict(left_out)
        self.values: dict[str, dict[str, dict[str, float]]] = {}
        self._paired = [metric for metric in setup.metrics if isinstance(metric, Metric)]
        self._realism = next((one for one in setup.metrics if isinstance(one, Realism)), None)
        self._patches: dict[str, dict[str, Patches]] = {}  # by row and image
        self._original_patches: dict[str, Patches] = {}
        self._digests: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The images that all rows so far were measured on."""
        return [pair.name for pair in self.pairs if pair.name not in self.left_out]

    def measure(self, row: Row | Results, done: Callable[[str], None] = lambda name: None) -> None:
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

    def _measure(self, row: Row | Results, pair: Pair) -> dict[str, float]:
        identity = self._identity(row, pair)
        known = None if self.book is None else self.book.values(pair.name, row.title, identity)
        values = {} if known is None else known
        missing = [metric for metric in self._paired if metric.name not in values]
        if known is None or missing or self._realism is not None:
            original, partner = read_pair(pair, self.setup)
            if known is not None:
                restored = self.restored(pair, row.title)
            else:
                restored = row.restore(pair, partner, self.setup)
                if self.book is not None:
                    self.book.save(pair.name, row.title, restored)
            image, reference = to_tensor(restored), to_tensor(original)
            for metric in missing:
                values[metric.name] = metric.measure(image, reference, self.setup.scale)
            if self.book is not None and (known is None or missing):
                self.book.append(pair.name, row.title, identity, values)
            self._describe(row.title, pair.name, image, reference)
        return {metric.name: values[metric.name] for metric in self._paired}

    def _describe(self, title: str, name: str, image: Tensor, original: Tensor) -> None:
        """Keep what realism is to know of an image and, once, of its original."""
        if self._realism is not None:
            most = max(1, MOST_PATCHES // len(self.pairs))
            self._patches.setdefault(title, {})[name] = self._realism.describe(image, most)
            if name not in self._original_patches:
                self._original_patches[name] = self._realism.describe(original, most)

    def _identity(self, row: Row | Results, pair: Pair) -> str:
        """Of everything that a result follows from."""
        try:
            if pair.name not in self._digests:
                files = [digest(path) for path in (pair.hq, pair.lq) if path is not None]
                self._digests[pair.name] = "+".join(files)
            made_by = dict(row.identity(pair))
        except OSError as error:
            raise InputMissingError(
                f"{printable(error.filename)} can't be read: {error.strerror}.",
                hint="Check that it is there and may be read.",
            ) from error
        setup = self.setup
        facts = {
            "version": __version__,
            "files": self._digests[pair.name],
            "degrade": repr(DEGRADATIONS[setup.degrade]) if pair.lq is None else "",
            "seed": setup.seed,
            "scale": setup.scale,
            "crop": setup.crop,
            "row": made_by,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def restored(self, pair: Pair, title: str) -> Pixels:
        """A result that was kept."""
        assert self.book is not None
        return read_image(self.book.image(pair.name, title))

    def summary(self) -> list[dict[str, Any]]:
        """Row by row and metric by metric: means, intervals, differences from bicubic.

        Where a value is not finite, as the PSNR of equal images, the image does not count for
        that metric in any row; `images` says how many do. Realism is one figure of all images,
        which has no interval; `patches` says of how many it is.
        """
        rows: list[dict[str, Any]] = [{"name": title, "metrics": {}} for title in self.values]
        for metric in self.setup.metrics:
            figures = self._real(metric) if isinstance(metric, Realism) else self._means(metric)
            for row, own in zip(rows, figures, strict=True):
                row["metrics"][metric.name] = own
        return rows

    def _means(self, metric: Metric) -> list[dict[str, Any]]:
        """Of every row."""
        names, titles = self.names, list(self.values)
        table = np.array(
            [[self.values[title][name][metric.name] for title in titles] for name in names]
        ).reshape(len(names), len(titles))
        table = table[np.isfinite(table).all(axis=1)]
        if not len(table):
            estimates = [bootstrap.Estimate(math.nan, None, None)] * (2 * len(titles))
        else:
            both = np.concatenate([table, table - table[:, :1]], axis=1)
            estimates = bootstrap.means(both, self.setup.seed)
        return [
            {
                "images": len(table),
                "mean": _number(mean.mean),
                "interval": _interval(mean),
                "difference": _number(difference.mean) if number else None,
                "difference_interval": _interval(difference) if number else None,
            }
            for number, (mean, difference) in enumerate(
                zip(estimates[: len(titles)], estimates[len(titles) :], strict=True)
            )
        ]

    def _real(self, metric: Realism) -> list[dict[str, Any]]:
        """Of every row."""
        names = self.names
        originals = [self._original_patches[name] for name in names]
        found: list[dict[str, Any]] = []
        for title in self.values:
            own = [self._patches[title][name] for name in names]
            value, count = metric.measure(own, originals)
            first = found[0]["mean"] if found else None
            found.append(
                {
                    "images": sum(len(patches[0]) > 0 for patches in originals),
                    "patches": count,
                    "mean": _number(value),
                    "interval": None,
                    "difference": None if first is None else value - first,
                    "difference_interval": None,
                }
            )
        return found

    def table(self) -> str:
        """Every image in every row, as CSV."""
        buffer = io.StringIO()
        lines = csv.writer(buffer, lineterminator="\n")
        lines.writerow(["image", "row", *(metric.name for metric in self._paired)])
        for name in self.names:
            for title, values in self.values.items():
                lines.writerow([cell(name), cell(title), *values[name].values()])
        return buffer.getvalue()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(estimate: bootstrap.Estimate) -> list[float] | None:
    return None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]
