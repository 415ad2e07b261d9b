"""Several ways of enlarging, measured on the same images: pairs, rows, and what is kept of them.

A row is one way of enlarging, such as a model at some number of steps; bicubic is always one. An
image that fails in any row is left out of all of them, so that every mean is over the same images.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resshift_cli import __version__, atomic, batch, bootstrap, degrade, images, jobs, realistic
from resshift_cli.degrade import BicubicSpec, Degradation, MildSpec
from resshift_cli.download import digest
from resshift_cli.errors import (
    InputMissingError,
    OutputError,
    ResShiftError,
    UnsupportedImageError,
    UsageError,
    printable,
)
from resshift_cli.evaluate import WINDOW
from resshift_cli.images import Picture
from resshift_cli.metrics import Metric

Pixels = NDArray[np.float32]

BICUBIC = "bicubic"
DEGRADATIONS: Mapping[str, Degradation] = {
    "bicubic": BicubicSpec(),
    "mild": MildSpec(share=1.0, blur=1.0, noise=8.0, jpeg=(50, 90)),
    "realistic": realistic.TESTING,
}
"""How low-quality partners are made, by what --degrade calls it."""

LEDGER, IMAGES = "measured.jsonl", "images"


@dataclass(frozen=True, slots=True)
class Pair:
    """An original and, where there is one, the file of its low-quality partner.

    Attributes:
        name: the original's path within its folder, with slashes.
    """

    name: str
    hq: Path
    lq: Path | None


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of every row.

    Attributes:
        scale: pixels of the original per pixel of its partner, along each side.
        degrade: one of `DEGRADATIONS`, for originals without a partner.
        seed: of degradation, noise and confidence intervals.
        crop: take the middle of so many pixels of the original, or all of it.
        metrics: what is measured, without `scale` pixels of border where papers do so.
    """

    scale: int
    degrade: str
    seed: int
    crop: int | None
    metrics: Sequence[Metric]


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


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def to_pixels(image: Tensor) -> Pixels:
    """(1, 3, H, W) -> (H, W, 3), clipped to [0, 1]."""
    pixels: Pixels = image[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return pixels


def find_pairs(
    hq: Path, lq: Path | None, *, scale: int, output: Path | None, limit: int | None = None
) -> tuple[list[Pair], dict[str, ResShiftError]]:
    """The originals of a folder and their partners, by name; and what has none, with the reason.

    The partner of `a/b.png` has the same path but for its extension, or `x4` or `_x4` before it
    (the scale), as data sets have it.

    Args:
        hq: folder of originals, searched at any depth.
        lq: folder of their partners, if there is one.
        scale: see above.
        output: folder of results, which may lie in `hq`.
        limit: take the first so many originals only.

    Raises:
        InputMissingError: there are no images.
    """
    aside = output or Path(os.devnull)
    found = batch.find(hq, aside)
    names = found.images[:limit]
    if not names:
        raise InputMissingError(
            f"There are no images in {printable(hq)}.", hint="--hq names the folder of originals."
        )
    left_out = {failure.input: failure.error for failure in found.failures}
    if lq is None:
        return [Pair(name, hq / name, None) for name in names], left_out
    partners = {os.path.splitext(name)[0]: lq / name for name in batch.find(lq, aside).images}
    if not partners:
        raise InputMissingError(
            f"There are no images in {printable(lq)}.",
            hint="--lq names the folder of low-quality partners.",
        )
    pairs = []
    for name in names:
        stem = os.path.splitext(name)[0]
        for ending in ("", f"x{scale}", f"_x{scale}"):
            if stem + ending in partners:
                pairs.append(Pair(name, hq / name, partners[stem + ending]))
                break
        else:
            left_out[name] = InputMissingError(
                f"{printable(hq / name)} has no partner in {printable(lq)}.",
                hint="Partners have the same name; extensions may differ.",
            )
    return pairs, left_out


def read_pair(pair: Pair, task: Task) -> tuple[Pixels, Pixels]:
    """An original, cut to whole pixels of its partner, and that partner; both (H, W, 3).

    Cut is what is too much at the right and below, as papers do, and then all but the middle if
    the task says so.

    Raises:
        ResShiftError: one can't be read, is transparent, too small, or does not fit the other.
    """
    scale = task.scale
    original = _read(pair.hq)
    height, width = (length // scale for length in original.shape[:2])
    given = None if pair.lq is None else _read(pair.lq)
    if given is not None and given.shape[:2] != (height, width):
        raise UnsupportedImageError(
            f"{printable(pair.lq)} has {_size(given)} pixels, and {printable(pair.hq)} with "
            f"{_size(original)} is not {scale} times that.",
            hint=f"At scale {scale} the partner has {width}x{height}; see --scale.",
        )
    side = None if task.crop is None else max(1, task.crop // scale)
    (top, tall), (left, wide) = (_middle(length, side) for length in (height, width))
    if min(tall, wide) * scale < WINDOW + 2 * scale:
        raise UnsupportedImageError(
            f"{printable(pair.hq)} is too small to be measured.",
            hint=f"Without {scale} pixels of border, {WINDOW} of each side have to be left.",
        )
    original = original[top * scale : (top + tall) * scale, left * scale : (left + wide) * scale]
    if given is not None:
        return original, given[top : top + tall, left : left + wide]
    rng = np.random.default_rng([task.seed, zlib.crc32(os.fsencode(pair.name))])
    partner = degrade.degrade(to_tensor(original), scale, DEGRADATIONS[task.degrade], rng)
    return original, to_pixels(partner)


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
                    with jobs.memory_limit("Use a --crop, or a --tile smaller than now."):
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
            restored = _read(self.book.image(pair.name, row.title))
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
        return _read(self.book.image(pair.name, title))

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
        path = self.folder / LEDGER
        try:
            there = [entry.name for entry in os.scandir(self.folder)]
            content = path.read_bytes() if path.name in there else b""
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(
                f"{printable(self.folder)} can't be read: {error.strerror}.",
                hint="Give another folder with -o.",
            ) from error
        if path.name not in there and any(not name.startswith(".") for name in there):
            raise OutputError(
                f"{printable(self.folder)} holds files that are not of an evaluation.",
                hint="Give a new folder with -o, or an empty one.",
            )
        for line in content.split(b"\n"):
            try:
                record = json.loads(line)
                self.lines[record["image"], record["row"]] = {
                    "identity": str(record["identity"]),
                    "values": {str(name): float(v) for name, v in record["values"].items()},
                }
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # torn when the power went

    def values(self, image: str, row: str, identity: str) -> dict[str, float]:
        """What is known of a result that is there; nothing if it was made in another way."""
        line = self.lines.get((image, row))
        if line is None or line["identity"] != identity or not self.image(image, row).is_file():
            return {}
        return dict(line["values"])

    def image(self, image: str, row: str) -> Path:
        """Where a result is kept: no two of them at one place."""
        stem, suffix = os.path.splitext(image)
        as_it_is = suffix == ".png" and os.path.splitext(stem)[1].lower() not in batch.EXTENSIONS
        return self.folder / IMAGES / _slug(row) / (image if as_it_is else f"{image}.png")

    def save(self, image: str, row: str, pixels: Pixels) -> None:
        """Keep an image."""
        path = self.image(image, row)
        atomic.make_folder(path.parent)
        images.write(Picture(np.ascontiguousarray(pixels, np.float32)), path, overwrite=True)

    def append(self, image: str, row: str, identity: str, values: Mapping[str, float]) -> None:
        """Keep figures."""
        line = {"image": image, "row": row, "identity": identity, "values": dict(values)}
        path = self.folder / LEDGER
        try:
            with path.open("ab") as file:
                # After a torn line begin a new one; empty lines are passed over.
                file.write(b"\n" + json.dumps(line).encode("ascii") + b"\n")
        except OSError as error:
            raise OutputError(
                f"{printable(path)} can't be written: {error.strerror}.",
                hint="Make room, then run the same command again: it goes on from here.",
            ) from error
        self.lines[image, row] = {"identity": identity, "values": dict(values)}


def check_titles(titles: Iterable[str]) -> None:
    """Refuse rows that could not be told apart.

    Raises:
        UsageError: two have the same name.
    """
    seen: set[str] = set()
    for title in titles:
        if _slug(title) in seen:
            raise UsageError(
                f"'{printable(title)}' is asked for twice.",
                hint="Give every model and every --steps once; rename weight files of one name.",
            )
        seen.add(_slug(title))


def _slug(title: str) -> str:
    """A row's title as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", title)


def _read(path: Path) -> Pixels:
    """An image as RGB on 8-bit levels, (H, W, 3) in [0, 1]; profiles are not applied."""
    picture = images.read(path)
    pixels = picture.pixels
    if picture.has_alpha:
        if pixels[..., -1].min() < 1:
            raise UnsupportedImageError(
                f"{printable(path)} is transparent in places, which can't be measured.",
                hint="Put it on a background first.",
            )
        pixels = pixels[..., :-1]
    rgb: Pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return images.levels(rgb, 8).astype(np.float32) / np.float32(255)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _middle(length: int, side: int | None) -> tuple[int, int]:
    """Start and length of what is taken."""
    if side is None or side >= length:
        return 0, length
    return (length - side) // 2, side


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(estimate: bootstrap.Estimate) -> list[float] | None:
    return None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]
