from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import assert_eight_bits, detailed
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.restoration import resize as degrade
from resshift_cli.training import degradation, realistic
from resshift_cli.training.degradation import BicubicSpec, Degradation, MildSpec
from resshift_cli.training.realistic import RealisticSpec

ALWAYS = MildSpec(share=1.0, blur=1.0, noise=8.0, jpeg=(50, 95))


def degraded(spec: MildSpec, seed: int) -> Tensor:
    return degradation.degrade(detailed(), 4, spec, np.random.default_rng(seed))


# The mild degradation


@pytest.mark.parametrize("seed", range(20))
def test_a_degraded_picture_is_one_that_a_file_can_hold(seed: int) -> None:
    small = degraded(ALWAYS, seed)
    assert small.shape == (1, 3, 16, 24)
    assert_eight_bits(small)


def test_a_seed_decides_the_degradation() -> None:
    assert torch.equal(degraded(ALWAYS, 3), degraded(ALWAYS, 3))
    others = [degraded(ALWAYS, seed) for seed in range(6)]
    assert all(not torch.equal(a, b) for i, a in enumerate(others) for b in others[:i])


def test_without_a_share_every_picture_is_only_shrunk() -> None:
    clean = degrade.shrink(detailed(), 4)
    never = replace(ALWAYS, share=0.0)
    assert all(torch.equal(degraded(never, seed), clean) for seed in range(10))


def test_about_the_share_is_degraded() -> None:
    clean = degrade.shrink(detailed(), 4)
    half = replace(ALWAYS, share=0.5)
    count = sum(not torch.equal(degraded(half, seed), clean) for seed in range(100))
    assert 35 <= count <= 65


def test_each_part_makes_a_difference_of_its_own() -> None:
    gray = detailed()[:, :1].expand(1, 3, -1, -1)  # the best JPEG hardly changes what has no colour
    clean = degrade.shrink(gray, 4)
    fine = MildSpec(share=1.0, blur=0.0, noise=0.0, jpeg=(100, 100))

    def change(spec: MildSpec) -> float:
        """Largest of a few pictures, in levels."""
        small = [
            degradation.degrade(gray, 4, spec, np.random.default_rng(seed)) for seed in range(8)
        ]
        return max((image - clean).abs().max().item() for image in small) * 255

    assert change(fine) < 3
    assert change(replace(fine, blur=4.0)) > 6
    assert change(replace(fine, noise=8.0)) > 6
    assert change(replace(fine, jpeg=(10, 10))) > 6


def test_noise_is_as_strong_as_the_spec_says_at_most() -> None:
    gray = torch.full((1, 3, 128, 128), 128 / 255)
    spec = MildSpec(share=1.0, blur=0.0, noise=8.0, jpeg=(100, 100))
    stds = [
        degradation.degrade(gray, 4, spec, np.random.default_rng(seed)).std().item() * 255
        for seed in range(30)
    ]
    assert 6.0 < max(stds) < 8.8


def test_a_share_may_have_no_noise_and_the_rest_more_than_the_faintest() -> None:
    gray = torch.full((1, 3, 64, 64), 128 / 255)
    spec = MildSpec(share=1.0, blur=0.0, noise=8.0, jpeg=(100, 100), noisy=0.5)
    stds = [
        degradation.degrade(gray, 4, spec, np.random.default_rng(seed)).std().item() * 255
        for seed in range(100)
    ]
    assert 30 < sum(std == 0 for std in stds) < 70
    faint = [
        degradation.degrade(
            gray, 4, replace(spec, noisy=1.0, faintest=6.0), np.random.default_rng(seed)
        ).std()
        for seed in range(30)
    ]
    assert min(faint) * 255 > 4.0 and max(faint) * 255 < 8.8


def test_some_grain_is_gray_and_some_smooth() -> None:
    level = torch.full((1, 3, 64, 64), 0.5)
    grains = [degradation.grainy(level, 8.0, np.random.default_rng(seed)) for seed in range(40)]
    grains = [grain - level for grain in grains if grain.std() > 3 / 255]
    gray = [float((grain - grain.mean(1, keepdim=True)).abs().max()) < 2 / 255 for grain in grains]
    alike = [float((grain[..., 1:] * grain[..., :-1]).mean() / grain.var()) for grain in grains]
    assert 0 < sum(gray) < len(grains)
    assert min(alike) < 0.1 and 0.3 < max(alike) < 0.7


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    blurred = degradation._blur(detailed(), 2.0)
    assert_close(blurred.mean(), detailed().mean(), rtol=0.0, atol=2e-3)
    assert blurred.diff(dim=2).abs().mean() < 0.2 * detailed().diff(dim=2).abs().mean()


# Kinds


def test_the_bicubic_kind_only_shrinks() -> None:
    rng = np.random.default_rng(0)
    assert torch.equal(
        degradation.degrade(detailed(), 4, BicubicSpec(), rng), degrade.shrink(detailed(), 4)
    )


def test_the_realistic_kind_is_the_two_stage_pipeline() -> None:
    whole = [
        made(detailed(), 4, RealisticSpec(), np.random.default_rng(5))
        for made in (degradation.degrade, realistic.degrade)
    ]
    assert torch.equal(*whole)
    assert not torch.equal(whole[0], degrade.shrink(detailed(), 4))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"jpeg": (95, 50)}, "two rising qualities"),
        ({"jpeg": (0, 50)}, "two rising qualities"),
        ({"noise": -1.0}, "can't be negative"),
        ({"blur": -0.1}, "can't be negative"),
        ({"noisy": 1.5}, "within 0..1"),
        ({"faintest": 9.0}, "within 0 and degrade.noise"),
    ],
)
def test_what_is_wrong_with_a_mild_degradation_is_said(
    changes: dict[str, Any], problem: str
) -> None:
    assert ALWAYS.problem is None and BicubicSpec().problem is None
    assert problem in (replace(ALWAYS, **changes).problem or "")


@pytest.mark.parametrize("spec", [ALWAYS, RealisticSpec()], ids=["mild", "realistic"])
def test_the_number_of_threads_does_not_matter(spec: Degradation) -> None:
    threads = torch.get_num_threads()
    image = detailed(288, 288)
    try:
        made = []
        for count in (1, 3):
            torch.set_num_threads(count)
            made.append(
                [degradation.degrade(image, 4, spec, np.random.default_rng(s)) for s in range(8)]
            )
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))
