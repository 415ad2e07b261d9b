"""What `resshift eval` can measure, by name: our own figures, and those of the package pyiqa.

Most are of one image and its original; realism is one figure of all images together.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor

from resshift_cli.errors import ModelUnavailableError, ResShiftError, UsageError, printable
from resshift_cli.restoration import quality, realism
from resshift_cli.restoration.features import FeatureNetwork
from resshift_cli.restoration.realism import Patches

PYIQA = ("lpips", "clipiqa", "musiq", "niqe")
"""What papers report beside PSNR and SSIM; pyiqa has many more."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of one restored image.

    Attributes:
        name: what --metric calls it.
        title: what tables call it.
        better: "higher", "lower", or "near 1".
        digits: decimals that tables have of it.
        measure: (image, original, border) -> value; images are (1, 3, H, W) in [0, 1], and
            `border` pixels at each side do not count where papers leave them out.
    """

    name: str
    title: str
    better: str
    digits: int
    measure: Callable[[Tensor, Tensor, int], float]


REALISM = "realism"


class Realism:
    """How real all results look together, see `restoration.realism`.

    Attributes:
        name: what --metric calls it.
        title: what tables call it.
        better: as in `Metric`, as the next.
        digits: decimals that tables have of it.

    Args:
        device: where the network of features runs.

    Raises:
        UsageError: its weights are not installed.
    """

    name, title, better, digits = REALISM, "realism, KID", "lower", 3

    def __init__(self, device: torch.device) -> None:
        self._network = FeatureNetwork().to(device)
        self._device = device

    def describe(self, image: Tensor, most: int) -> Patches:
        """What is to be known of an image (1, 3, H, W) in [0, 1]: of at most so many patches.

        Where there are more, those taken are spread evenly, at the same places in every image of
        this size.
        """
        patches = realism.cut(quality.levels(image).float())
        if len(patches) > most:
            patches = patches[torch.linspace(0, len(patches) - 1, most).round().long()]
        return realism.describe(self._network, patches.to(self._device))

    def measure(
        self, results: Sequence[Patches], originals: Sequence[Patches]
    ) -> tuple[float, int]:
        """The distance of images from their originals, and of how many patches it is.

        Fewer than two of them have none: it is not a number then.
        """
        joined = realism.join(results)
        count = len(joined[0])
        if count < 2:
            return math.nan, count
        return realism.distance(joined, realism.join(originals)), count


OWN = {
    metric.name: metric
    for metric in (
        Metric("psnr-y", "PSNR-Y, dB", "higher", 2, quality.psnr_y),
        Metric("ssim-y", "SSIM-Y", "higher", 4, quality.ssim_y),
        Metric("psnr-rgb", "PSNR-RGB, dB", "higher", 2, quality.psnr_rgb),
        Metric("ssim-rgb", "SSIM-RGB", "higher", 4, quality.ssim_rgb),
        Metric(
            "sharpness",
            "sharpness",
            "near 1",
            3,
            lambda image, original, border: quality.relative_sharpness(image, original),
        ),
        Metric(
            "colour-shift",
            "colour shift",
            "lower",
            2,
            lambda image, original, border: quality.colour_shift(image, original),
        ),
    )
}


def find(name: str, device: torch.device) -> Metric | Realism:
    """A metric by its name, with its network loaded if it has one.

    Args:
        name: one of `OWN`, `REALISM`, or of pyiqa's.
        device: where networks run.

    Raises:
        UsageError: there is no such metric, or it needs a package that is not installed.
        ModelUnavailableError: its weights can't be fetched.
    """
    if name in OWN:
        return OWN[name]
    if name == REALISM:
        return Realism(device)
    try:
        import pyiqa
    except ImportError as error:
        if name in PYIQA:
            raise UsageError(
                f"The metric '{name}' needs the package pyiqa.",
                hint="pip install 'resshift[metrics]'; its terms allow non-commercial use only.",
            ) from error
        raise _unknown(name, PYIQA) from error
    if name not in pyiqa.list_models():
        raise _unknown(name, pyiqa.list_models())
    try:
        with redirect_stdout(sys.stderr):  # it tells of what it loads
            network: Any = pyiqa.create_metric(name, device=device)
    except Exception as error:  # downloads, files and networks fail in many ways
        reason = printable(str(error) or type(error).__name__).rstrip(".")
        raise ModelUnavailableError(
            f"pyiqa can't make the metric '{name}' ready: {reason}.",
            hint="pyiqa fetches its weights itself when a metric is first used: go online once.",
        ) from error
    better = "lower" if network.lower_better else "higher"
    return Metric(name, name, better, 4, partial(_by_pyiqa, name, network, device))


def _by_pyiqa(
    name: str, network: Any, device: torch.device, image: Tensor, original: Tensor, border: int
) -> float:
    """Whole images, on the levels that files have; those without a reference ignore it."""
    images = [quality.levels(x).float().to(device) for x in (image, original)]
    try:
        with torch.inference_mode():
            return float(network(*(images[:1] if network.metric_mode == "NR" else images)))
    except Exception as error:  # some are for images of some sizes only, or for whole sets
        reason = printable(str(error) or type(error).__name__).rstrip(".")
        raise ResShiftError(
            f"pyiqa's metric '{name}' fails on an image of {image.shape[3]}x{image.shape[2]}: "
            f"{reason}.",
            hint="Leave that metric (--metric) out, or that image.",
        ) from error


def _unknown(name: str, more: Sequence[str]) -> UsageError:
    own = [*OWN, REALISM]
    near = get_close_matches(name, own, n=1) or get_close_matches(name, more, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known are {', '.join([*own, *PYIQA])}."
    return UsageError(f"There is no metric named '{printable(name)}'.", hint=hint)
