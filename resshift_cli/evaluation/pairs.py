"""Originals and their low-quality partners: found by name, or made by degrading."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resshift_cli.errors import (
    InputMissingError,
    ResShiftError,
    UnsupportedImageError,
    printable,
)
from resshift_cli.evaluation.metrics import Metric, Realism
from resshift_cli.imaging import folders
from resshift_cli.imaging.picture import Pixels, levels
from resshift_cli.imaging.read import read
from resshift_cli.restoration.quality import WINDOW
from resshift_cli.training import degradation, realistic
from resshift_cli.training.degradation import BicubicSpec, Degradation, MildSpec

DEGRADATIONS: Mapping[str, Degradation] = {
    "bicubic": BicubicSpec(),
    "mild": MildSpec(share=1.0, blur=1.0, noise=8.0, jpeg=(50, 90)),
    "realistic": realistic.TESTING,
}
"""How low-quality partners are made, by what --degrade calls it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An original and, where there is one, the file of its low-quality partner.

    Attributes:
        name: the original's path within its folder, with slashes.
    """

    name: str
    hq: Path
    lq: Path | None

    @property
    def stem(self) -> str:
        """Its name without the extension."""
        return os.path.splitext(self.name)[0]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same for every row.

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
    metrics: Sequence[Metric | Realism]


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
    found = folders.find(hq, output)
    names = found.images[:limit]
    if not names:
        raise InputMissingError(
            f"There are no images in {printable(hq)}.",
            hint="Give the folder of originals (--hq).",
        )
    left_out: dict[str, ResShiftError] = {**found.unreadable}
    if lq is None:
        return [Pair(name, hq / name, None) for name in names], left_out
    partners = {os.path.splitext(name)[0]: lq / name for name in folders.find(lq, output).images}
    if not partners:
        raise InputMissingError(
            f"There are no images in {printable(lq)}.",
            hint="Give the folder of low-quality partners (--lq).",
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


def read_pair(pair: Pair, setup: Setup) -> tuple[Pixels, Pixels]:
    """An original, cut to whole pixels of its partner, and that partner; both (H, W, 3).

    Cut is what is too much at the right and below, as papers do, and then all but the middle if
    the setup says so.

    Raises:
        ResShiftError: one can't be read, is transparent, too small, or does not fit the other.
    """
    scale = setup.scale
    original = read_image(pair.hq)
    rows, columns = _measured(original.shape, setup)
    given = None if pair.lq is None else read_image(pair.lq)
    height, width = (length // scale for length in original.shape[:2])
    if given is not None and given.shape[:2] != (height, width):
        raise UnsupportedImageError(
            f"{printable(pair.lq)} has {_size(given)} pixels, and {printable(pair.hq)} with "
            f"{_size(original)} is not {scale} times that.",
            hint=f"At scale {scale} the partner has {width}x{height}; see --scale.",
        )
    if min(len(rows), len(columns)) * scale < WINDOW + 2 * scale:
        raise UnsupportedImageError(
            f"{printable(pair.hq)} is too small to be measured.",
            hint=f"Without {scale} pixels of border, {WINDOW} of each side have to be left.",
        )
    original = _cut(original, rows, columns, scale)
    if given is not None:
        return original, _cut(given, rows, columns)
    rng = np.random.default_rng([setup.seed, zlib.crc32(os.fsencode(pair.name))])
    partner = degradation.degrade(to_tensor(original), scale, DEGRADATIONS[setup.degrade], rng)
    return original, to_pixels(partner)


def read_result(path: Path, pair: Pair, setup: Setup, size: tuple[int, int]) -> Pixels:
    """A result that was made elsewhere, cut as its original is.

    Args:
        path: as large as the original, with or without what `read_pair` cuts at the right and
            below, or else of `size`.
        pair: whose result it is.
        setup: see `Setup`.
        size: height and width of what is measured.

    Raises:
        ResShiftError: it can't be read, is transparent, or has another size.
    """
    given = read_image(path)
    if given.shape[:2] == size:
        return given
    whole = read_image(pair.hq).shape
    trimmed = tuple(length // setup.scale * setup.scale for length in whole[:2])
    if given.shape[:2] not in (whole[:2], trimmed):
        raise UnsupportedImageError(
            f"{printable(path)} has {_size(given)} pixels, and {printable(pair.hq)} has "
            f"{whole[1]}x{whole[0]}.",
            hint=f"Results are as large as their originals, or as what is measured of them "
            f"({size[1]}x{size[0]}).",
        )
    return _cut(given, *_measured(whole, setup), setup.scale)


def read_image(path: Path) -> Pixels:
    """An image as RGB on 8-bit levels, (H, W, 3) in [0, 1]; profiles are not applied."""
    picture = read(path)
    pixels = picture.pixels
    if picture.has_alpha:
        if pixels[..., -1].min() < 1:
            raise UnsupportedImageError(
                f"{printable(path)} is transparent in places, which can't be measured.",
                hint="Put it on a background first.",
            )
        pixels = pixels[..., :-1]
    rgb: Pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return levels(rgb, 8).astype(np.float32) / np.float32(255)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _measured(whole: tuple[int, ...], setup: Setup) -> tuple[range, range]:
    """What is measured of an original (height, width, ...): rows and columns of its partner."""
    side = None if setup.crop is None else max(1, setup.crop // setup.scale)

    def middle(length: int) -> range:
        if side is None or side >= length:
            return range(length)
        start = (length - side) // 2
        return range(start, start + side)

    return middle(whole[0] // setup.scale), middle(whole[1] // setup.scale)


def _cut(pixels: Pixels, rows: range, columns: range, scale: int = 1) -> Pixels:
    """Rows and columns, each of them `scale` pixels."""
    return pixels[
        rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale
    ]
