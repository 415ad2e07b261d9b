"""Where to cut training crops from pictures, and how to flip and turn them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from resshift_cli.training.photos import Photo


def detailed(
    image: Photo, size: int, tries: int, rng: np.random.Generator, reduce: float = 1.0
) -> Photo:
    """The most detailed of a few random (size, size, 3) crops of (H, W, 3), flipped and turned.

    Most of a photo is sky and blur: detail is where a network has something to learn. Half of the
    crops are up to `reduce` times as large and then reduced, which makes new pictures of old ones.
    """
    side = size
    if reduce > 1 and rng.random() < 0.5:
        most = min(reduce, min(image.shape[:2]) / size)
        side = int(size * most ** rng.random())
    crops = []
    for _ in range(tries):
        y = rng.integers(image.shape[0] - side + 1)
        x = rng.integers(image.shape[1] - side + 1)
        crops.append(image[y : y + side, x : x + side])
    crop = _reduced(max(crops, key=_detail), size, Image.Resampling.BICUBIC)
    return _turned([crop], rng)[0]


def detailed_pair(
    hq: Photo, lq: Photo, size: int, tries: int, rng: np.random.Generator
) -> tuple[Photo, Photo]:
    """The same place of a picture and of its smaller partner, chosen as `detailed` does.

    Args:
        hq: (H, W, 3), H and W being the same multiple of `lq`'s.
        lq: (h, w, 3).
        size: side of the crop of `hq`, a multiple of that factor.
        tries: how many random places are compared.
        rng: source of every random choice.
    """
    scale = hq.shape[0] // lq.shape[0]
    side = size // scale
    pairs: list[list[Photo]] = []
    for _ in range(tries):
        y = rng.integers(lq.shape[0] - side + 1)
        x = rng.integers(lq.shape[1] - side + 1)
        large = hq[y * scale :, x * scale :][:size, :size]
        pairs.append([large, lq[y : y + side, x : x + side]])
    large, small = _turned(max(pairs, key=lambda pair: _detail(pair[0])), rng)
    return large, small


def largest(image: Photo, size: int, rng: np.random.Generator) -> Photo:
    """A random square as large as (H, W, 3) allows, reduced to (size, size, 3); half are mirrored.

    As we remember it, the published models were trained so. Pictures smaller than `size` are
    reflected at their borders.
    """
    missing = [max(size - side, 0) for side in image.shape[:2]]
    image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
    side = min(image.shape[:2])
    y = rng.integers(image.shape[0] - side + 1)
    x = rng.integers(image.shape[1] - side + 1)
    crop = _reduced(image[y : y + side, x : x + side], size, Image.Resampling.BOX)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def flat(size: int, rng: np.random.Generator) -> Photo:
    """A made-up crop of one colour, half of them with a soft gradient: skies, walls, paper.

    What is flat has to stay so, and photos have noise everywhere. Some are gray, some as bright
    or dark as can be.
    """
    colour = rng.random(3) * 255
    if rng.random() < 0.3:
        colour[:] = colour[0]
    if rng.random() < 0.2:
        colour = np.round(colour / 255) * 255
    crop = np.broadcast_to(colour, (size, size, 3)).copy()
    if rng.random() < 0.5:
        down, across = rng.normal(size=2) * 40 / size
        y, x = np.mgrid[:size, :size]
        crop += (down * y + across * x)[..., None]
    return crop.round().clip(0, 255).astype(np.uint8)


def _reduced(square: Photo, size: int, filtered: Image.Resampling) -> Photo:
    """A square of at least `size` as one of just that."""
    if len(square) == size:
        return square
    return np.array(Image.fromarray(np.ascontiguousarray(square)).resize((size, size), filtered))


def _turned(crops: list[Photo], rng: np.random.Generator) -> list[Photo]:
    """All of them in the same of eight random positions."""
    quarters, mirrored = int(rng.integers(4)), rng.random() < 0.5
    turned = [np.rot90(crop, quarters) for crop in crops]
    return [crop[:, ::-1] for crop in turned] if mirrored else turned


def _detail(crop: Photo) -> float:
    green = crop[::2, ::2, 1].astype(np.float32)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
