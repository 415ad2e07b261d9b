from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS, NETWORK, calls, random_lq
from PIL import Image
from tiny_model import restore, tiny_networks, tiny_spec, tiny_upscaler
from tqdm.auto import tqdm

from resshift_cli.diffusion.specs import TileSpec
from resshift_cli.errors import UsageError
from resshift_cli.restoration.tiling import Frame
from resshift_cli.restoration.upscaler import Upscaler

# Reproducibility


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    upscaler = tiny_upscaler()
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    first = upscaler(image, seed=3)
    assert np.array_equal(upscaler(image, seed=3), first)
    assert np.array_equal(tiny_upscaler()(image, seed=3), first)
    assert not np.array_equal(upscaler(image, seed=4), first)


def test_one_step_from_a_blind_start_is_the_same_for_every_seed() -> None:
    upscaler = tiny_upscaler(blind_start=True)
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    one = upscaler(image, steps=1, seed=3)
    assert np.array_equal(upscaler(image, steps=1, seed=4), one)
    assert not np.array_equal(upscaler(image, steps=2, seed=3), upscaler(image, steps=2, seed=4))


# Sizes and scales


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 100), (2, 3), (31, 33), (64, 64), (65, 63), (130, 20)]
)
@pytest.mark.parametrize("kind", ["bundled", "x1", "x2", "student-x2-resized"])
def test_any_size_comes_out_as_many_times_as_large_as_the_model_s_scale(
    kind: str, height: int, width: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    upscaler = tiny_upscaler(**KINDS[kind])
    scale = upscaler.spec.scale
    result = upscaler(image, steps=1, tile=32, overlap=8)
    assert result.shape == (scale * height, scale * width, 3)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3.999, 4, 5, 8, 16])
def test_any_scale_gives_the_size_asked_for(scale: float) -> None:
    image = np.zeros((7, 10), dtype=np.uint8)
    result = tiny_upscaler()(image, scale=scale, steps=1)
    assert result.shape == (round(7 * scale), round(10 * scale))


@pytest.mark.parametrize(
    ("own", "scale", "passes"),
    [
        (2, 1, 1),
        (2, 1.5, 1),
        (2, 2, 1),
        (2, 2.01, 1),
        (2, 2.5, 1),
        (2, 2.51, 2),
        (2, 3, 2),
        (2, 4, 2),
        (2, 4.5, 2),
        (2, 5.1, 3),
        (2, 8, 3),
        (2, 16, 4),
        (4, 4, 1),
        (4, 4.01, 1),
        (4, 4.5, 1),
        (4, 5.1, 2),
        (4, 16, 2),
        (1, 3, 1),
    ],
)
def test_a_scale_takes_as_few_passes_as_reach_it(own: int, scale: float, passes: int) -> None:
    upscaler = tiny_upscaler(**KINDS[f"x{own}"] if own < 4 else {})
    seen = calls(upscaler)
    result = upscaler(np.zeros((3, 5), dtype=np.uint8), scale=scale, steps=1, tile=64)
    assert result.shape == (round(3 * scale), round(5 * scale))
    assert len(seen) == passes


def test_an_image_twice_as_large_is_a_reduction_of_the_one_four_times_as_large() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    upscaler = tiny_upscaler()
    reduced = upscaler(image).resize((60, 40), Image.Resampling.LANCZOS)
    difference = np.asarray(upscaler(image, scale=2), dtype=int) - np.asarray(reduced, dtype=int)
    assert np.abs(difference).mean() < 0.5  # rounded to 8 bits once rather than twice


def test_progress_counts_to_the_end_over_several_passes_and_layers() -> None:
    calls: list[tuple[int, int]] = []
    image = np.random.default_rng(0).random((40, 33, 4), dtype=np.float32)
    tiny_upscaler()(image, scale=8, tile=32, overlap=8, progress=lambda *c: calls.append(c))
    totals = {total for _, total in calls}
    assert len(totals) == 1
    assert [done for done, _ in calls] == list(range(1, totals.pop() + 1))


# Refusals


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"scale": 0.5}, "scale"),
        ({"scale": 17}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"steps": 0}, "steps"),
        ({"steps": 16}, "steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"tile": 7}, "tile"),
        ({"tile": -64}, "tile"),
        ({"tile": 32, "overlap": 32}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1.1}, "temperature"),
        ({"detail": -0.1}, "detail"),
        ({"detail": 1.1}, "detail"),
    ],
)
def test_arguments_out_of_range_are_refused_with_a_way_out(
    options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        tiny_upscaler()(np.zeros((8, 8, 3), dtype=np.uint8), **options)
    assert f"--{what}" in caught.value.hint


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 5), dtype=np.uint8),
        np.zeros(8, dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        np.zeros((8, 8, 3), dtype=np.int32),
        torch.zeros(1, 8, 8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.int32),
        torch.zeros(3, 0, 8),
        "photo.png",
    ],
)
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        tiny_upscaler()(image)


@pytest.mark.parametrize("steps", [0, 2, 15])
def test_a_model_distilled_to_one_step_walks_one(steps: int) -> None:
    upscaler = tiny_upscaler(**KINDS["distilled"])
    assert upscaler.settings().steps == upscaler.settings(steps=1).steps == 1
    with pytest.raises(UsageError, match=f"walks 1 step, not {steps}") as caught:
        upscaler.settings(steps=steps)
    assert "--steps" in caught.value.hint


def test_a_model_that_needs_a_mask_is_refused_before_anything_is_computed() -> None:
    network = replace(NETWORK, lq_ratio=4, lq_mask=True)
    with pytest.raises(UsageError, match="'tiny' fills holes: it needs a mask") as caught:
        tiny_upscaler(**KINDS["x1"] | {"denoiser": network})
    assert "models list" in caught.value.hint


# Progress


def test_progress_true_shows_a_bar_of_tqdm_s(capsys: pytest.CaptureFixture[str]) -> None:
    tiny_upscaler()(np.zeros((8, 8, 3), dtype=np.uint8), progress=True)
    steps = tiny_spec().schedule.steps
    assert f"{steps}/{steps}" in capsys.readouterr().err


def test_a_bar_of_one_s_own_is_told_the_work_and_closed() -> None:
    made: list[dict[str, Any]] = []

    class Bar(tqdm):  # type: ignore[type-arg]  # the class takes none when it runs
        def __init__(self, **about: Any) -> None:
            super().__init__(**about, file=io.StringIO())
            made.append(about | {"bar": self})

    tiny_upscaler()(np.zeros((8, 8, 3), dtype=np.uint8), progress=Bar)
    (about,) = made
    assert about["total"] == about["bar"].n == tiny_spec().schedule.steps
    assert about["unit"] == "tile step"


def test_an_argument_that_there_is_not_is_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sclae'"):
        tiny_upscaler()(np.zeros((8, 8, 3), np.uint8), sclae=2)  # type: ignore[call-arg]  # wrong
    with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
        Upscaler(tiny_spec(), *tiny_networks(tiny_spec()), name="", devise="")  # type: ignore[call-arg]  # wrong


# Kinds of arguments


def test_numbers_of_numpy_are_numbers() -> None:
    settings = tiny_upscaler().settings(
        seed=np.int64(3), steps=np.uint8(2), scale=np.float32(2), tile=np.int32(32)
    )
    assert settings == tiny_upscaler().settings(seed=3, steps=2, scale=2.0, tile=32)
    assert {type(settings.seed), type(settings.steps), type(settings.tile)} == {int}


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": "4"},
        {"seed": 1.5},
        {"seed": "7"},
        {"steps": 2.0},
        {"tile": None, "overlap": 1.5},
        {"temperature": "low"},
        {"consistency": [1]},
    ],
)
def test_what_is_no_number_is_refused_by_name(wrong: dict[str, Any]) -> None:
    *_, (name, value) = wrong.items()
    with pytest.raises(UsageError, match=f"The {name} is a .*number, not {re.escape(repr(value))}"):
        tiny_upscaler().settings(**wrong)


def test_a_weight_file_may_be_named_by_a_string(tiny_weights: Path) -> None:
    assert Upscaler.from_file(str(tiny_weights), device="cpu").spec == tiny_spec()


# Borders


def test_the_network_sees_as_much_around_the_borders_as_around_the_middle() -> None:
    """A flat field has no borders then, but for what the tile's own are."""
    upscaler = tiny_upscaler(tile=TileSpec(size=64, overlap=16, margin=4))
    seen = calls(upscaler)
    upscaler(np.zeros((21, 9, 3), np.uint8), steps=1)
    ((x_t, *_),) = seen
    assert x_t.shape[-2:] == (32, 24)
    lq = random_lq(21, 9)
    frame = Frame(5, 7, 32, 24)
    larger = restore(tiny_upscaler(), frame.pad(lq))
    assert torch.equal(restore(upscaler, lq), larger[..., 20 : 20 + 84, 28 : 28 + 36])


@pytest.mark.parametrize(("tile", "side"), [(64, 72), (24, 32), (16, 16)])
def test_an_image_as_large_as_a_tile_stays_one_tile(tile: int, side: int) -> None:
    """It may be a little larger with its margin, unless the tile itself is small."""
    upscaler = tiny_upscaler(tile=TileSpec(size=tile, overlap=4, margin=4))
    seen = calls(upscaler)
    upscaler(np.zeros((tile, tile, 3), np.uint8), steps=1)
    assert [call[0].shape[-2:] for call in seen] == [(side, side)]


def test_a_model_says_how_its_results_keep_their_colours() -> None:
    assert tiny_upscaler().settings().color_fix == "wavelet"
    assert tiny_upscaler(color_fix="none").settings().color_fix == "none"
    assert tiny_upscaler(color_fix="none").settings(color_fix="adain").color_fix == "adain"
