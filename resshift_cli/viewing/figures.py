"""How close pictures are to a reference, computed band by band, however large they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from resshift_cli.evaluation.metrics import OWN, Metric, Realism
from resshift_cli.evaluation.page import number
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import quality
from resshift_cli.restoration.quality import WINDOW
from resshift_cli.restoration.realism import Patches
from resshift_cli.viewing.exhibits import Exhibit

BAND = 512  # rows that are measured at a time; a multiple of realism's patches
PATCHES = 512  # that realism is told of, of each picture

_OVERLAP = WINDOW - 1  # rows before a band that SSIM's window reaches into


@dataclass(slots=True)
class _Sums:
    """What is known of the bands so far."""

    realism: Realism | None
    patches_a_band: int
    rows: int = 0
    error: float = 0.0
    windows: int = 0
    likeness: float = 0.0
    patches: tuple[list[Patches], list[Patches]] = field(default_factory=lambda: ([], []))

    def add(self, image: Tensor, reference: Tensor) -> None:
        """A band (1, 3, n, W) of both, with the rows before it."""
        before = _OVERLAP if self.rows else 0
        fresh = image[..., before:, :], reference[..., before:, :]
        count = fresh[0].shape[2]
        self.rows += count
        self.error += count * 10 ** (-quality.psnr_y(*fresh, border=0) / 10)
        windows = image.shape[2] - _OVERLAP
        if windows > 0 and image.shape[3] >= WINDOW:
            self.windows += windows
            self.likeness += windows * quality.ssim_y(image, reference, border=0)
        if self.realism is not None:
            for patches, band in zip(self.patches, fresh, strict=True):
                patches.append(self.realism.describe(band, self.patches_a_band))

    def figures(self) -> dict[str, float]:
        """By the names of `resshift eval`."""
        found = {
            "psnr-y": math.inf if self.error == 0 else -10 * math.log10(self.error / self.rows),
            "ssim-y": self.likeness / self.windows if self.windows else math.nan,
        }
        if self.realism is not None:
            found["realism"], _ = self.realism.measure(*self.patches)
        return found


def measure(exhibit: Exhibit, reference: Exhibit, realism: Realism | None) -> dict[str, float]:
    """PSNR and SSIM of the luma, and realism, as `resshift eval` calls them.

    Every pixel counts, those at the borders too; profiles are not applied, and gray counts as RGB.
    There are none of a picture of another size than the reference, nor where either is transparent.

    Args:
        exhibit: a picture.
        reference: what it should be.
        realism: how that is measured, if it is.

    Returns:
        Figures by name; one is not a number where the picture is too small for it.

    Raises:
        ResShiftError: what the rows of either raise.
    """
    if exhibit.shape[:2] != reference.shape[:2]:
        return {}
    sums = _Sums(realism, math.ceil(PATCHES * BAND / max(BAND, reference.shape[0])))
    for bands in zip(_bands(exhibit.rows), _bands(reference.rows), strict=True):
        images = [_rgb(band) for band in bands]
        if images[0] is None or images[1] is None:
            return {}
        sums.add(images[0], images[1])
    return sums.figures()


def told(figures: dict[str, float], realism: Realism | None) -> dict[str, str]:
    """Figures as facts of a picture: by their titles, with their digits."""
    known: dict[str, Metric | Realism] = {**OWN}
    if realism is not None:
        known[realism.name] = realism
    return {
        known[name].title: "none" if math.isnan(value) else number(value, known[name].digits)
        for name, value in figures.items()
    }


def _bands(rows: Iterable[Pixels]) -> Iterator[Pixels]:
    """`BAND` rows at a time, each but the first with the `_OVERLAP` before them."""
    held: list[Pixels] = []
    before: list[Pixels] = []
    for part in rows:
        held.append(part)
        while sum(map(len, held)) >= BAND:
            joined = np.concatenate(held)
            band, held = joined[:BAND], [joined[BAND:]]
            yield np.concatenate([*before, band])
            before = [band[-_OVERLAP:]]
    if sum(map(len, held)):
        yield np.concatenate([*before, *held])


def _rgb(pixels: Pixels) -> Tensor | None:
    """(n, W, C) -> (1, 3, n, W); None of what is transparent in places."""
    channels = pixels.shape[2]
    if channels in (2, 4):
        if pixels[..., -1].min() < 1:
            return None
        pixels = pixels[..., :-1]
    spread = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return torch.from_numpy(np.array(spread)).permute(2, 0, 1)[None]
