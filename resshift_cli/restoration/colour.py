"""Keep a result true to its input: in colour, and in all that the input shows.

What a chain returns, reduced again, is not quite the image that it was given. The difference
D = lq - A(result), where A is the antialiased bicubic reduction, is known exactly. Every function
here brings a part of it back:

- `wavelet`: its coarse part. The result gets the low frequencies of the input and keeps its own
  high ones, after the wavelet colour correction of StableSR (arXiv:2305.07015).
- `adain`: mean and standard deviation of each channel. StableSR's other correction takes them of
  the whole image and at full size, where a sharp result varies more than a blurry input should, so
  that contrast is lost; here they are those of the neighbourhood, and of A(result).
- `project`: all of it, so that A(result) becomes the input.

And where the input has no detail of its own, `calm` takes away what a small network draws there.

All of them are local, so that results can come in bands: `reach` says how many rows of the input
around its own a row depends on. A band with that many more rows at either side, or fewer where the
image ends, gives the rows that the whole image gives; bit for bit if the factor is a power of two.

The defaults are `wavelet` and no projection, by what scripts/measure_colour.py shows of the bundled
model: `wavelet` takes away nine tenths of the shift of the mean colour (0.13 of 255 levels with 15
steps, in one photo 0.36) and costs neither fidelity nor sharpness, on clean photos and on degraded
ones. `project` adds 0.04 dB where the input is a clean reduction, but brings the noise of a
degraded one back: almost 0.4 dB are lost.

Images are float32 (N, C, H, W) in [-1, 1]; results are `factor` times the size of their input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.restoration.bands import Bands, Reader, Window
from resshift_cli.restoration.resize import enlarge, reduced
from resshift_cli.system.device import to_device

ColourFix = Literal["none", "wavelet", "adain"]

# Rows of the input that one reduction, one enlargement, and the reduction of an enlargement look at
# on either side.
SHRINK_REACH, ENLARGE_REACH, CYCLE_REACH = 2, 2, 3

# StableSR's wavelet has five levels at the size of the result: at x4 the coarsest three are those
# of the input's size.
WAVELET_LEVELS = 5

ADAIN_LEVELS = 4  # a window of about 6.5 input pixels' standard deviation
ADAIN_FLOOR = (4 / 255) ** 2  # variance below which contrast is left alone

CALM_LEVELS = 2  # a window of about 1.1 input pixels' standard deviation
CALM_REACH = 1 + (2**CALM_LEVELS - 1) + ENLARGE_REACH

# Steps of Richardson's iteration, at Chebyshev's points of the interval that holds the eigenvalues
# of an enlargement followed by a reduction. Five leave 1% of the difference at most, unless that
# takes values outside [-1, 1].
EIGENVALUES = (0.236, 1.02)
ITERATIONS = 5


def wavelet(result: Tensor, lq: Tensor) -> Tensor:
    """Replace the low frequencies by those of the input.

    The dilated binomial filters of the a-trous wavelet are applied to the difference at the input's
    size: 16 times less work at x4 than at the result's, with the same cutoff.

    Args:
        result: the enlarged image.
        lq: the input.

    Raises:
        ValueError: the sides of the result are not multiples of the input's.
    """
    factor = _factor(result, lq)
    difference = _low_pass(lq - reduced(result, factor), _wavelet_levels(factor))
    return (result + enlarge(difference, factor)).clamp(-1, 1)


def adain(result: Tensor, lq: Tensor) -> Tensor:
    """Match the mean and standard deviation of each channel around every pixel to the input's.

    AdaIN(result) = gain (result - mean(A(result))) + mean(lq), with gain = std(lq) / std(A(result))
    and both under a smooth window.

    Args:
        result: the enlarged image.
        lq: the input.

    Raises:
        ValueError: the sides of the result are not multiples of the input's.
    """
    factor = _factor(result, lq)
    mean, variance = _moments(reduced(result, factor))
    target_mean, target_variance = _moments(lq)
    gain = ((target_variance + ADAIN_FLOOR) / (variance + ADAIN_FLOOR)).sqrt()
    offset = target_mean - gain * mean
    return torch.addcmul(enlarge(offset, factor), result, enlarge(gain, factor)).clamp(-1, 1)


def project(result: Tensor, lq: Tensor, consistency: float) -> Tensor:
    """Bring the result to where its antialiased bicubic reduction equals the input.

    Iterative back-projection: result + w U(lq - A(result)), clipped, over and over, where U is
    the bicubic enlargement. Clipping within the loop makes up elsewhere for what it takes away.

    Args:
        result: the enlarged image.
        lq: the input.
        consistency: how far to go, from 0, the result as it is, to 1.

    Raises:
        ValueError: the sides of the result are not multiples of the input's.
    """
    factor = _factor(result, lq)
    low, high = EIGENVALUES
    projected = result
    for i in range(ITERATIONS):
        point = math.cos(math.pi * (i + 0.5) / ITERATIONS)
        step = 2 / (high + low + (high - low) * point)
        difference = enlarge(lq - reduced(projected, factor), factor)
        projected = torch.add(projected, difference, alpha=step).clamp_(-1, 1)
    return torch.lerp(result, projected, consistency)


def calm(result: Tensor, lq: Tensor, level: float) -> Tensor:
    """Let what is flat stay flat: there the result becomes the enlarged input.

    w result + (1 - w) U(lq), with w = e / (e + level^2), where e is the mean square, around every
    pixel, of the finest detail of the input, in levels of 255, in that channel where it is largest.

    Args:
        result: the enlarged image.
        lq: the input.
        level: detail at which the result is half its own and half the enlarged input.

    Raises:
        ValueError: the sides of the result are not multiples of the input's.
    """
    factor = _factor(result, lq)
    detail = (lq - _low_pass(lq, 1)) * (255 / 2)
    energy = _low_pass(detail.square(), CALM_LEVELS).amax(dim=1, keepdim=True)
    weight = enlarge(energy / (energy + level**2), factor).clamp(0, 1)
    return torch.lerp(enlarge(lq, factor).clamp(-1, 1), result, weight)


def correct(
    result: Tensor, lq: Tensor, *, fix: ColourFix, consistency: float, flat: float = 0.0
) -> Tensor:
    """Do all of it as far as it is wanted, the colours first.

    Args:
        result: the enlarged image.
        lq: the input.
        fix: which correction of colours.
        consistency: see `project`.
        flat: the level of `calm`; 0 is without.

    Raises:
        ValueError: the sides of the result are not multiples of the input's.
    """
    if fix == "wavelet":
        result = wavelet(result, lq)
    elif fix == "adain":
        result = adain(result, lq)
    if consistency > 0:
        result = project(result, lq, consistency)
    return calm(result, lq, flat) if flat > 0 else result


def faithful(
    lq: Iterable[Tensor],
    enlarged: Callable[[Iterable[Tensor]], Bands],
    height: int,
    factor: int,
    *,
    fix: ColourFix,
    consistency: float,
    flat: float = 0.0,
) -> Bands:
    """Enlarge images that come in bands, and `correct` them.

    Args:
        lq: bands of the images, on any device.
        enlarged: what enlarges them.
        height: of the images.
        factor: how many times larger they get.
        fix: which correction of colours.
        consistency: see `project`.
        flat: the level of `calm`.
    """
    around = reach(factor, fix=fix, consistency=consistency, flat=flat)
    if around == 0:
        yield from enlarged(lq)
        return
    source = Window(lq)
    shown, own = source.reader(), source.reader()
    larger = Window(enlarged(shown))
    wanted: dict[str, Any] = {"fix": fix, "consistency": consistency, "flat": flat}
    yield from corrected(own, larger, height, factor, range(height), **wanted)


def corrected(
    own: Reader,
    larger: Window,
    height: int,
    factor: int,
    rows: range,
    *,
    fix: ColourFix,
    consistency: float,
    flat: float = 0.0,
) -> Bands:
    """`correct` some rows of enlarged images that come in bands.

    Args:
        own: the images, from the first row that those rows depend on.
        larger: the enlarged ones, likewise.
        height: of the images.
        factor: how many times larger they are.
        rows: those of the images whose enlargement is wanted.
        fix: which correction of colours.
        consistency: see `project`.
        flat: the level of `calm`.
    """
    around = reach(factor, fix=fix, consistency=consistency, flat=flat)
    reader = larger.reader()
    top = rows.start
    while top < rows.stop and larger.take():
        whole = larger.bottom == height * factor
        bottom = min(height if whole else larger.bottom // factor - around, rows.stop)
        if bottom > top:
            first, last = max(top - around, 0), min(bottom + around, height)
            band = reader.rows(first * factor, last * factor)
            seen = to_device(own.rows(first, last), band.device)
            fixed = correct(band, seen, fix=fix, consistency=consistency, flat=flat)
            yield fixed[..., (top - first) * factor : (bottom - first) * factor, :]
            reader.forget(max(bottom - around, 0) * factor)
            own.forget(max(bottom - around, 0))
            top = bottom


def reach(factor: int, *, fix: ColourFix, consistency: float, flat: float = 0.0) -> int:
    """How many rows of the input at either side of its own a row of `correct` depends on."""
    between = []  # the reduction at the beginning and the enlargement at the end
    if fix != "none":
        levels = _wavelet_levels(factor) if fix == "wavelet" else ADAIN_LEVELS
        between.append(2**levels - 1)
    if consistency > 0:
        between.append((ITERATIONS - 1) * CYCLE_REACH)
    least = CALM_REACH if flat > 0 else 0
    if not between:
        return least
    cycles = sum(between) + (len(between) - 1) * CYCLE_REACH
    return max(least, SHRINK_REACH + cycles + ENLARGE_REACH)


def _factor(result: Tensor, lq: Tensor) -> int:
    factor = result.shape[-2] // lq.shape[-2]
    if factor < 1 or list(result.shape[-2:]) != [factor * side for side in lq.shape[-2:]]:
        raise ValueError(
            f"the sides of the result, {tuple(result.shape[-2:])}, are not multiples of the "
            f"input's, {tuple(lq.shape[-2:])}"
        )
    return factor


def _wavelet_levels(factor: int) -> int:
    return max(WAVELET_LEVELS - round(math.log2(factor)), 1)


def _low_pass(image: Tensor, levels: int) -> Tensor:
    """Binomial filters (1, 2, 1) / 4 whose taps lie 1, 2, 4... apart; looks at 2^levels - 1 rows.

    Borders are continued.
    """
    for level in range(levels):
        gap = 2**level
        for axis in (-2, -1):
            length = image.shape[axis]
            padding = (0, 0, gap, gap) if axis == -2 else (gap, gap, 0, 0)
            padded = F.pad(image, padding, mode="replicate")
            before, after = padded.narrow(axis, 0, length), padded.narrow(axis, 2 * gap, length)
            image = (before + after + 2 * image) / 4
    return image


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance around every pixel."""
    mean = _low_pass(image, ADAIN_LEVELS)
    return mean, (_low_pass(image * image, ADAIN_LEVELS) - mean * mean).clamp(min=0)
