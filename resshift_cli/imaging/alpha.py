"""Colours that full transparency hides, made harmless.

Editors leave anything there, mostly black or white. As soon as an image is enlarged, such colours
bleed into the pixels beside them and show as dark or light fringes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from resshift_cli.imaging.picture import Pixels


def fill_hidden(colour: Pixels, alpha: Pixels) -> Pixels:
    """Give every pixel that can't be seen the colour of those around it that can.

    The colours are averaged over squares of 2, 4, 8... pixels, weighted by alpha, until every
    square has something to be seen in it; a hidden pixel takes that of the smallest such square
    around it.

    Args:
        colour: float32 (H, W, C), not multiplied by alpha.
        alpha: float32 (H, W, 1) in [0, 1].

    Returns:
        float32 (H, W, C): the very same array if nothing, or everything, is hidden.
    """
    hidden = alpha <= 0
    if not hidden.any() or hidden.all():
        return colour
    around = _spread(colour * alpha, alpha)
    return np.where(hidden, around, colour)


def visible(rows: Iterable[Pixels], channels: int) -> Iterable[Pixels]:
    """The colours of an image that comes in bands, of which none is hidden; with alpha, it is held.

    Args:
        rows: bands, float32 (n, W, C).
        channels: C.
    """
    if channels % 2:
        return rows
    pixels = np.concatenate(list(rows))
    return [fill_hidden(pixels[..., :-1], pixels[..., -1:])]


def _spread(weighted: Pixels, weight: Pixels) -> Pixels:
    """Colours where there is weight, and those of the smallest square that has some elsewhere."""
    known = weight > 0
    colour = np.divide(weighted, weight, out=np.zeros_like(weighted), where=known)
    if known.all():
        return colour
    height, width, _ = weight.shape
    coarse = _spread(_halve(weighted), _halve(weight))
    return np.where(known, colour, coarse.repeat(2, 0).repeat(2, 1)[:height, :width])


def _halve(pixels: Pixels) -> Pixels:
    """Mean of every 2x2 pixels; what is missing at an odd edge counts as nothing."""
    height, width, _ = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)))
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * np.float32(
        0.25
    )
