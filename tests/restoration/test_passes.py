from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS
from tiny_model import restore, tiny_upscaler
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.diffusion import noise
from resshift_cli.errors import UsageError
from resshift_cli.restoration import colour

# Bands


def in_bands(image: np.ndarray[Any, Any], *heights: int) -> list[np.ndarray[Any, Any]]:
    return np.split(image, np.cumsum(heights))


@pytest.mark.parametrize("scale", [4, 2.5, 10])
def test_an_image_that_comes_in_bands_gives_the_same_result(scale: float) -> None:
    image = np.random.default_rng(0).random((46, 21, 3), dtype=np.float32)
    upscaler = tiny_upscaler()
    settings = upscaler.settings(scale=scale, tile=16, overlap=4, steps=2)
    whole = upscaler.enlarge(image, settings)
    bands = list(upscaler.stream(in_bands(image, 1, 30), image.shape, settings))
    assert len(bands) > 1
    assert_close(np.concatenate(bands), whole)


def test_only_a_few_rows_are_read_ahead_of_those_that_are_done() -> None:
    """However high the image is: a row of tiles per step, and the parts that tiles share."""
    upscaler = tiny_upscaler()
    settings = upscaler.settings(tile=16, overlap=4)
    read = done = most = 0

    def rows() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal read
        for _ in range(100):
            read += 8
            yield np.zeros((8, 16, 3), np.float32)

    for band in upscaler.stream(rows(), (800, 16, 3), settings):
        most = max(most, read - done)
        done += len(band) // 4
    assert done == 800
    assert most <= (settings.steps + 1) * (16 + noise.BLOCK) + noise.BLOCK


# Several images at a time


def small_images(count: int) -> list[np.ndarray[Any, Any]]:
    """Of several sizes and kinds, all of which are padded to 24x32."""
    rng = np.random.default_rng(0)
    shapes = [(24, 32, 3), (17, 25, 3), (20, 30, 1), (24, 27, 3), (18, 32, 1)]
    return [rng.random(shape, dtype=np.float32) for shape in (shapes * count)[:count]]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", ["bundled", "quantised", "planes-at-every-step"])
def test_a_result_depends_neither_on_its_neighbours_nor_on_its_place(
    kind: str, precision: str
) -> None:
    upscaler = tiny_upscaler(precision, **KINDS[kind])
    images = [image[place:16, place:24] for place, image in enumerate(small_images(3))]
    settings = upscaler.settings(seed=3, steps=2)  # CPUs are slow at half precision
    expected = upscaler.together(images, settings, 3)
    (alone,) = upscaler.together(images[2:], settings, 3)
    assert np.array_equal(alone, expected[2])
    for place, image in enumerate(images):
        moved = upscaler.together([1 - image, 1 - image, image], settings, 3)[2]
        assert np.array_equal(moved, expected[place])


@pytest.mark.parametrize("changes", [{}, {"scale": 2.5}, {"color_fix": "adain"}, {"steps": 1}])
def test_images_at_a_time_become_what_they_become_alone(changes: dict[str, Any]) -> None:
    upscaler, images = tiny_upscaler(), small_images(5)
    settings = upscaler.settings(consistency=0.5, **changes)
    told: list[tuple[int, int]] = []
    results = upscaler.together(images, settings, 5, lambda *about: told.append(about))
    for image, result in zip(images, results, strict=True):
        np.testing.assert_allclose(result, upscaler.enlarge(image, settings), atol=1e-5)
    assert told == [(step + 1, settings.steps) for step in range(settings.steps)]


@pytest.mark.parametrize(
    "images",
    [
        [],
        small_images(3),
        [np.zeros((24, 32, 3), np.float32), np.zeros((25, 32, 3), np.float32)],
        [np.zeros((24, 32, 4), np.float32)],
        [np.zeros((70, 32, 3), np.float32)],
    ],
    ids=["none", "too many", "of two sizes", "with alpha", "of two tiles"],
)
def test_other_images_are_not_computed_at_a_time(images: list[Any]) -> None:
    upscaler = tiny_upscaler()
    with pytest.raises(ValueError, match="not 1 to 2 images"):
        upscaler.together(images, upscaler.settings(), 2)


def test_an_image_that_overflows_leaves_its_neighbours_as_they_are() -> None:
    upscaler, images = tiny_upscaler("fp16", tell=lambda text: None), small_images(3)
    settings = upscaler.settings()
    expected = upscaler.together(images, settings, 3)

    def overflow(_: object, args: tuple[Tensor, ...], output: Tensor) -> None:
        if args[0].dtype == torch.float16:
            output[1, 0, 3, 3] = float("inf")

    upscaler.denoiser.network.register_forward_hook(overflow)
    mended = upscaler.together(images, settings, 3)
    assert np.array_equal(mended[0], expected[0])
    assert np.array_equal(mended[2], expected[2])
    assert not np.array_equal(mended[1], expected[1])
    np.testing.assert_allclose(mended[1], expected[1], atol=0.05)


# Faithfulness


@pytest.mark.parametrize("color_fix", ["none", "wavelet", "adain"])
@pytest.mark.parametrize("consistency", [0.0, 0.7])
def test_a_correction_sees_no_difference_between_bands_and_a_whole_image(
    color_fix: Any, consistency: float
) -> None:
    image = np.random.default_rng(0).random((150, 20, 3), dtype=np.float32)
    upscaler = tiny_upscaler()
    settings = upscaler.settings(
        tile=16, overlap=4, color_fix=color_fix, consistency=consistency, steps=1
    )
    lq = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    plain = restore(upscaler, lq, tile=16, overlap=4, steps=1)
    expected = colour.correct(plain, lq, fix=color_fix, consistency=consistency) / 2 + 0.5
    result = upscaler.enlarge(image, settings)
    assert_close(torch.from_numpy(result), expected[0].permute(1, 2, 0), atol=1e-5, rtol=0)


def test_by_default_a_result_has_the_mean_colours_of_the_image() -> None:
    image = np.tile(np.array([0.2, 0.5, 0.7], np.float32), (40, 40, 1))
    upscaler = tiny_upscaler()
    with torch.no_grad():
        upscaler.denoiser.network.get_parameter("out.2.bias").add_(0.5)
    without, with_fix = upscaler(image, color_fix="none"), upscaler(image)
    assert np.abs(without.mean((0, 1)) - image[0, 0]).min() > 0.02
    assert np.abs(with_fix.mean((0, 1)) - image[0, 0]).max() < 0.001


@pytest.mark.parametrize("wrong", [{"consistency": 1.5}, {"color_fix": "wavelets"}])
def test_a_correction_that_does_not_exist_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="consistency|colour fix") as caught:
        tiny_upscaler()(np.zeros((8, 8, 3), np.float32), **wrong)
    assert "--co" in caught.value.hint
