from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import made_up_photo
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.diffusion.tables import SpecError, from_table
from resshift_cli.training import kernels, realistic
from resshift_cli.training.dataset import to_tensor
from resshift_cli.training.kernels import Kernel
from resshift_cli.training.realistic import FIRST, SECOND, TESTING, RealisticSpec, StageSpec

TRAINING = RealisticSpec()
# A stage that changes nothing, and a pipeline that only reduces and compresses without loss.
NOTHING = replace(
    FIRST, blur=0.0, resize=(0.0, 0.0, 1.0), gaussian=1.0, noise=(0.0, 0.0), poisson=(0.0, 0.0)
)
CLEAN = RealisticSpec(
    first=NOTHING, second_share=0.0, first_jpeg=(100, 100), final_sinc=0.0, final_jpeg=(100, 100)
)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(side: int = 96) -> Tensor:
    return to_tensor(made_up_photo(0, side))


def gray_photo(side: int = 96) -> Tensor:
    return photo(side).mean(1, keepdim=True).expand(1, 3, side, side).contiguous()


def shares(counted: Counter[str], draws: int) -> dict[str, float]:
    return {name: count / draws for name, count in counted.items()}


# The whole


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("spec", [TRAINING, TESTING], ids=["training", "testing"])
def test_a_partner_is_smaller_and_one_that_a_file_can_hold(spec: RealisticSpec, scale: int) -> None:
    image = photo()[..., :90]
    for seed in range(12):
        small = realistic.degrade(image, scale, spec, rng(seed))
        assert small.shape == (1, 3, 96 // scale, 90 // scale)
        assert small.dtype == torch.float32 and small.min() >= 0 and small.max() <= 1
        assert torch.equal((small * 255).round() / 255, small)


def test_a_partner_follows_from_the_generator_alone() -> None:
    made = [realistic.degrade(photo(), 4, TRAINING, rng(seed)) for seed in (7, 7, 8)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("side", [8, 13])
def test_pictures_smaller_than_the_kernels_can_be_degraded(side: int) -> None:
    for seed in range(30):
        small = realistic.degrade(photo(side), 4, TRAINING, rng(seed))
        assert small.shape == (1, 3, side // 4, side // 4) and small.isfinite().all()


@pytest.mark.parametrize("scale", [2, 4])
def test_partners_show_the_same_place(scale: int) -> None:
    """A ramp keeps its level everywhere, whatever the sizes in between."""
    ramp = torch.linspace(0.1, 0.9, 96).expand(1, 3, 96, 96)
    quiet = replace(
        TRAINING,
        first=replace(FIRST, noise=(0.0, 0.0), poisson=(0.0, 0.0)),
        second=replace(SECOND, noise=(0.0, 0.0), poisson=(0.0, 0.0)),
        second_share=1.0,
        first_jpeg=(100, 100),
        final_jpeg=(100, 100),
    )
    expected = torch.nn.functional.avg_pool2d(ramp, scale)
    inside = slice(16 // scale, -16 // scale)
    errors = []
    for seed in range(16):
        small = realistic.degrade(ramp, scale, quiet, rng(seed))
        errors.append((small - expected)[..., inside, inside].mean().item())
    assert max(map(abs, errors)) < 0.01


def test_the_second_stage_comes_with_its_probability() -> None:
    second = replace(NOTHING, noise=(80.0, 80.0))
    spec = replace(CLEAN, second=second, second_share=0.5)
    clean = realistic.degrade(photo(), 4, CLEAN, rng(0))
    noisy = [realistic.degrade(photo(), 4, spec, rng(seed)) for seed in range(200)]
    strong = sum((small - clean).std().item() > 0.1 for small in noisy)
    assert 75 <= strong <= 125


def test_the_second_stage_s_sizes_are_relative_to_the_small_picture() -> None:
    """It keeps a size of 24 pixels, so that a last enlargement to 48 has no finer detail left."""
    noise = torch.from_numpy(rng(0).random((1, 3, 96, 96), dtype=np.float32))
    once = realistic.degrade(noise, 2, CLEAN, rng(0))
    second = replace(NOTHING, resize=(0.0, 1.0, 0.0), resize_range=(0.2, 1.0))
    twice = [
        realistic.degrade(noise, 2, replace(CLEAN, second=second, second_share=1.0), rng(seed))
        for seed in range(12)
    ]
    assert min(small.std().item() for small in twice) < 0.6 * once.std().item()


def test_the_last_sinc_comes_with_its_probability() -> None:
    spec = replace(CLEAN, final_sizes=(13,), final_sinc=0.8)
    seeds = range(150)
    plain, filtered = (
        [realistic.degrade(photo(), 2, kind, rng(seed)) for seed in seeds] for kind in (CLEAN, spec)
    )
    changed = sum(not torch.equal(a, b) for a, b in zip(plain, filtered, strict=True))
    assert 0.7 * 150 <= changed <= 0.9 * 150


def shows_blocks_of_eight(image: Tensor) -> bool:
    """Whether steps across borders of JPEG's blocks stand out, and not also in their middles."""
    steps = image.diff(dim=3).abs().mean((0, 1, 2))
    columns = torch.arange(len(steps)) % 8
    return bool(steps[columns == 7].mean() > 1.5 * steps[columns == 3].mean())


def test_jpeg_is_applied_last_or_before_the_final_size_equally_often() -> None:
    spec = replace(CLEAN, final_jpeg=(5, 5))
    image = gray_photo(256)  # colour has blocks of 16
    made = [realistic.degrade(image, 2, spec, rng(seed)) for seed in range(60)]
    last = sum(map(shows_blocks_of_eight, made))
    assert 18 <= last <= 42  # otherwise the blocks have become 4 pixels wide
    clean = realistic.degrade(image, 2, CLEAN, rng(0))
    assert min((small - clean).abs().mean().item() for small in made) > 0.01


def test_the_jpeg_of_the_first_stage_is_really_applied() -> None:
    spec = replace(CLEAN, first_jpeg=(5, 5))
    clean = realistic.degrade(photo(), 2, CLEAN, rng(1))
    assert (realistic.degrade(photo(), 2, spec, rng(1)) - clean).abs().mean() > 0.01


def test_a_gray_picture_stays_gray_where_all_noise_is_gray() -> None:
    gray = replace(TRAINING, first=replace(FIRST, gray=1.0), second=replace(SECOND, gray=1.0))
    for seed in range(20):
        small = realistic.degrade(gray_photo(), 4, gray, rng(seed))
        assert (small.amax(1) - small.amin(1)).max() <= 2 / 255  # JPEG may round


def test_a_gray_picture_gets_colour_from_coloured_noise() -> None:
    spec = replace(CLEAN, first=replace(NOTHING, noise=(40.0, 40.0), gray=0.4))
    made = [realistic.degrade(gray_photo(), 2, spec, rng(seed)) for seed in range(150)]
    coloured = sum((small.amax(1) - small.amin(1)).mean().item() > 0.01 for small in made)
    assert 0.48 * 150 <= coloured <= 0.72 * 150


# Draws


def test_kernels_are_drawn_as_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, Any]] = []

    def noted(name: str, real: Callable[..., Kernel]) -> Callable[..., Kernel]:
        def draw(*arguments: Any) -> Kernel:
            drawn.append((name, arguments))
            return real(*arguments)

        return draw

    for name in ("gaussian", "plateau", "sinc"):
        monkeypatch.setattr(kernels, name, noted(name, getattr(kernels, name)))
    generator, draws = rng(0), 6000
    sides = [len(realistic.draw_kernel(FIRST, generator)) for _ in range(draws)]
    assert set(sides) == set(FIRST.sizes)
    assert min(Counter(sides).values()) > 0.8 * draws / len(FIRST.sizes)

    kinds: Counter[str] = Counter()
    for name, arguments in drawn:
        if name == "sinc":
            size, cutoff = arguments
            assert math.pi / (3 if size < 13 else 5) <= cutoff <= math.pi
            kinds["sinc"] += 1
            continue
        _, (first, second), turn, *beta = arguments
        assert all(0.2 <= sigma <= 3.0 for sigma in (first, second))
        assert -math.pi <= turn <= math.pi
        shape = name if name == "plateau" or not beta else "generalised"
        low, high = {"plateau": (1, 2), "generalised": (0.5, 4), "gaussian": (1, 1)}[shape]
        assert all(low <= value <= high for value in beta)
        kinds[f"{shape} {'iso' if first == second else 'aniso'}"] += 1
    expected = {
        "sinc": 0.1,
        "gaussian iso": 0.9 * 0.45,
        "gaussian aniso": 0.9 * 0.25,
        "generalised iso": 0.9 * 0.12,
        "generalised aniso": 0.9 * 0.03,
        "plateau iso": 0.9 * 0.12,
        "plateau aniso": 0.9 * 0.03,
    }
    assert shares(kinds, draws) == pytest.approx(expected, abs=0.02)


def test_half_of_the_exponents_are_below_one() -> None:
    generator = rng(0)
    drawn = np.array([realistic.draw_beta((0.5, 4.0), generator) for _ in range(4000)])
    assert (
        drawn.min() >= 0.5
        and drawn.max() <= 4
        and (drawn < 1).mean() == pytest.approx(0.5, abs=0.03)
    )
    plateau = np.array([realistic.draw_beta((1.0, 2.0), generator) for _ in range(400)])
    assert (plateau == 1).mean() == pytest.approx(0.5, abs=0.1)


def test_half_of_the_noise_is_gaussian() -> None:
    """In the dark, where no light is counted, the other half is none at all."""
    black = torch.zeros(1, 3, 16, 16)
    spec = replace(CLEAN, first=replace(NOTHING, noise=(30.0, 30.0), gaussian=0.5, gray=1.0))
    made = [realistic.degrade(black, 2, spec, rng(seed)) for seed in range(200)]
    assert 75 <= sum(bool(small.any()) for small in made) <= 125


@pytest.mark.parametrize("stage", [FIRST, SECOND], ids=["first", "second"])
def test_sizes_are_drawn_as_the_table_says(stage: StageSpec) -> None:
    generator, draws = rng(0), 4000
    factors = np.array([realistic.draw_factor(stage, generator) for _ in range(draws)])
    low, high = stage.resize_range
    assert factors.min() == pytest.approx(low, abs=0.02)
    assert factors.max() == pytest.approx(high, abs=0.02)
    up, down, keep = stage.resize
    assert (factors > 1).mean() == pytest.approx(up, abs=0.03)
    assert (factors < 1).mean() == pytest.approx(down, abs=0.03)
    assert (factors == 1).mean() == pytest.approx(keep, abs=0.03)


# The table


def test_the_numbers_are_those_that_the_published_models_were_trained_with() -> None:
    assert (FIRST.sigma, SECOND.sigma) == ((0.2, 3.0), (0.2, 1.5))
    assert (FIRST.resize_range, SECOND.resize_range) == ((0.15, 1.5), (0.3, 1.2))
    assert (FIRST.noise, SECOND.noise) == ((1.0, 30.0), (1.0, 25.0))
    assert (FIRST.poisson, SECOND.poisson) == ((0.05, 3.0), (0.05, 2.5))
    assert (FIRST.blur, SECOND.blur) == (1.0, 0.8)
    assert (TRAINING.second_share, TRAINING.final_sinc) == (0.5, 0.8)
    assert TRAINING.first_jpeg == TRAINING.final_jpeg == (30, 95)
    assert (max(FIRST.sizes), max(SECOND.sizes), max(TRAINING.final_sizes)) == (19, 13, 13)


def test_a_configuration_may_change_single_numbers() -> None:
    table = {"kind": "realistic", "second_share": 0.0, "final_jpeg": [70, 95]}
    spec = from_table(RealisticSpec, table, "here")
    assert spec == replace(TRAINING, second_share=0.0, final_jpeg=(70, 95))
    with pytest.raises(SpecError, match="here has the unknown key 'blurr'"):
        from_table(RealisticSpec, {"blurr": 1}, "here")


@pytest.mark.parametrize(
    ("stage", "changes", "problem"),
    [
        ({"shapes": (0.5, 0.1, 0.1, 0.1, 0.1, 0.0)}, {}, "degrade.first.shapes must be shares"),
        ({"resize": (1.2, -0.2, 0.0)}, {}, "degrade.first.resize must be shares"),
        ({"gray": 1.5}, {}, "degrade.first.gray must be within 0..1"),
        ({"noise": (5.0, 1.0)}, {}, "degrade.first.noise must be two rising"),
        ({"poisson": (-1.0, 1.0)}, {}, "degrade.first.poisson must be two rising"),
        ({"sigma": (0.0, 1.0)}, {}, "degrade.first.sigma must be two rising numbers above 0"),
        ({"plateau_beta": (0.0, 1.0)}, {}, "degrade.first.plateau_beta must be two rising"),
        ({"resize_range": (1.1, 1.5)}, {}, "degrade.first.resize_range must hold 1"),
        ({"sizes": (3, 4)}, {}, "degrade.first.sizes must be odd"),
        ({}, {"second_share": -0.1}, "degrade.second_share must be within 0..1"),
        ({}, {"first_jpeg": (0, 10)}, "degrade.first_jpeg must be two rising qualities"),
        ({}, {"final_jpeg": (95, 30)}, "degrade.final_jpeg must be two rising qualities"),
        ({}, {"final_sizes": ()}, "degrade.final_sizes must be odd"),
    ],
)
def test_numbers_that_can_t_be_drawn_from_are_said(
    stage: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    assert TRAINING.problem is None and TESTING.problem is None and CLEAN.problem is None
    spec = replace(TRAINING, first=replace(FIRST, **stage), **changes)
    assert problem in (spec.problem or "")


# Parts


def test_a_filter_leaves_flat_colour_and_linear_ramps_alone() -> None:
    ramp = torch.linspace(0.2, 0.8, 40).expand(1, 3, 30, 40).contiguous()
    blurred = realistic.blur(ramp, kernels.gaussian(7, (2.0, 1.0), 0.4))
    assert_close(blurred[..., 3:-3], ramp[..., 3:-3])
    assert (blurred - ramp).abs().max() < 0.03  # reflected, the border has no foreign colours
    flat = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 9, 5)
    assert_close(realistic.blur(flat, kernels.sinc(13, 1.2)), flat)


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_has_its_standard_deviation(gray: bool) -> None:
    flat = torch.full((1, 3, 128, 128), 0.5)
    noise = realistic.add_gaussian(flat, 10.0, gray=gray, rng=rng(0)) - flat
    assert noise.std().item() * 255 == pytest.approx(10, rel=0.03)
    assert bool((noise[:, 0] == noise[:, 1]).all()) == gray


@pytest.mark.parametrize("level", [0.1, 0.6])
def test_poisson_noise_grows_with_the_root_of_the_light(level: float) -> None:
    flat = torch.full((1, 3, 128, 128), level)
    noise = realistic.add_poisson(flat, 0.8, gray=False, rng=rng(0)) - flat
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    assert noise.std().item() == pytest.approx(0.8 * math.sqrt(level / 255), rel=0.03)


def test_gray_poisson_noise_is_the_same_in_all_channels() -> None:
    flat = torch.tensor([0.3, 0.5, 0.6]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    noise = realistic.add_poisson(flat, 0.5, gray=True, rng=rng(0)) - flat
    assert_close(noise[:, 0], noise[:, 1], rtol=0.0, atol=1e-6)
    assert noise.std() > 0.01


def test_noise_is_clipped() -> None:
    for image in (torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)):
        for add in (realistic.add_gaussian, realistic.add_poisson):
            noisy = add(image, 30.0, gray=False, rng=rng(0))
            assert noisy.min() >= 0 and noisy.max() <= 1


def test_jpeg_is_what_a_file_would_hold() -> None:
    image = to_tensor(made_up_photo(0, 40))
    file = io.BytesIO()
    Image.fromarray(made_up_photo(0, 40)).save(file, "JPEG", quality=37, subsampling=2)
    with Image.open(file) as decoded:
        expected = to_tensor(np.array(decoded))
    assert torch.equal(realistic.jpeg(image, 37), expected)


def test_lower_quality_loses_more() -> None:
    losses = [(realistic.jpeg(photo(), q) - photo()).square().mean().item() for q in (90, 50, 10)]
    assert losses[0] < losses[1] < losses[2]
