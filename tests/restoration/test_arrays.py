from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import tiny_spec, tiny_upscaler

from resshift_cli.errors import ImageArgumentError


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_array_comes_back_as_the_same_kind_of_array(channels: int, dtype: type) -> None:
    image = (np.random.default_rng(0).random((9, 8, channels)) * 255).astype(np.uint8)
    given = image if dtype == np.uint8 else (image / 255).astype(dtype)
    result = tiny_upscaler()(given, steps=1)
    assert result.shape == (36, 32, channels)
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= (255 if dtype == np.uint8 else 1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_picture_comes_back_in_its_own_mode(mode: str) -> None:
    result = tiny_upscaler()(Image.new(mode, (8, 9), 100), steps=1)
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == (mode, (32, 36))


@pytest.mark.parametrize("shape", [(3, 9, 8), (1, 3, 9, 8)])
def test_a_tensor_comes_back_as_a_tensor(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, dtype=torch.float16)
    result = tiny_upscaler()(image, steps=1)
    assert result.dtype == torch.float16
    assert result.shape == (*shape[:-2], 36, 32)


def test_array_and_tensor_and_picture_give_the_same_image() -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    upscaler = tiny_upscaler()
    expected = upscaler(array)
    assert np.array_equal(np.asarray(upscaler(Image.fromarray(array))), expected)
    tensor = upscaler(torch.from_numpy(array).permute(2, 0, 1).float() / 255)
    assert np.array_equal((tensor.permute(1, 2, 0) * 255).round().numpy(), expected)


def test_gray_is_what_the_network_makes_of_three_equal_channels() -> None:
    gray = np.random.default_rng(0).random((9, 8, 1), dtype=np.float32)
    upscaler = tiny_upscaler()
    colour = upscaler(np.repeat(gray, 3, axis=2))
    assert np.allclose(upscaler(gray)[..., 0], colour.mean(axis=2), atol=1e-6)


def test_constant_alpha_stays_constant_and_costs_no_network_call() -> None:
    image = np.full((9, 8, 4), 128, dtype=np.uint8)
    totals = set()
    result = tiny_upscaler()(image, progress=lambda done, total: totals.add(total))
    assert set(result[..., 3].flatten().tolist()) == {128}
    assert totals == {tiny_spec().schedule.steps}


def test_alpha_is_enlarged_like_a_gray_image_with_nothing_made_up() -> None:
    rng = np.random.default_rng(0)
    colour, alpha = rng.random((9, 8, 3)), rng.random((9, 8, 1))
    upscaler = tiny_upscaler()
    result = upscaler(np.concatenate([colour, alpha], axis=2))
    assert np.allclose(result[..., :3], upscaler(colour), atol=1e-6)
    assert np.allclose(result[..., 3:], upscaler(alpha, consistency=1.0, detail=0), atol=1e-6)


def test_colours_under_full_transparency_are_enlarged_as_they_are_if_that_is_wanted() -> None:
    rng = np.random.default_rng(0)
    colour, alpha = rng.random((9, 8, 3)), np.zeros((9, 8, 1))
    alpha[:4] = 1
    upscaler = tiny_upscaler()
    kept = upscaler(np.concatenate([colour, alpha], axis=2), keep_hidden=True)
    assert np.allclose(kept[..., :3], upscaler(colour), atol=1e-6)
    filled = upscaler(np.concatenate([colour, alpha], axis=2))
    assert not np.allclose(filled[..., :3], upscaler(colour), atol=0.05)


def test_sixteen_bits_keep_their_range_and_type() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (9, 8, 3), dtype=np.uint16)
    upscaler = tiny_upscaler()
    result = upscaler(image, steps=1)
    assert result.dtype == np.uint16
    exact = upscaler((image / 65535).astype(np.float32), steps=1)
    assert np.abs(result / 65535 - exact).max() < 1e-5


def test_a_tensor_of_levels_comes_back_as_levels() -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    result = tiny_upscaler()(torch.from_numpy(array).permute(2, 0, 1), steps=1)
    assert result.dtype == torch.uint8
    assert np.array_equal(result.permute(1, 2, 0).numpy(), tiny_upscaler()(array, steps=1))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
@pytest.mark.parametrize(
    ("values", "what"),
    [((0, 255), "from 0 to 255"), ((-1, 1), "from -1 to 1"), ((0, np.nan), "not finite")],
)
def test_floats_of_another_range_are_refused_with_what_was_expected(
    values: tuple[float, float], what: str, kind: Any
) -> None:
    image = np.full((3, 8, 3), values[0], np.float32)
    image[1, 1, 1] = values[1]
    with pytest.raises(ImageArgumentError, match=f"{what}.*floats in \\[0, 1\\] were expected"):
        tiny_upscaler()(kind(image))


def test_floats_may_miss_their_range_by_rounding() -> None:
    image = np.full((8, 8, 3), 1.0005, np.float32)
    assert tiny_upscaler()(image, steps=1).shape == (32, 32, 3)


def test_a_picture_of_sixteen_bits_is_handled() -> None:
    picture = Image.fromarray(np.full((8, 9), 30000, np.uint16))
    result = tiny_upscaler()(picture, steps=1)
    assert (picture.mode, result.mode, result.size) == ("I;16", "I;16", (36, 32))
