from __future__ import annotations

import pytest
import torch
from pictures import assert_eight_bits, detailed
from torch.testing import assert_close

from resshift_cli.restoration import resize as degrade


@pytest.mark.parametrize(("height", "width"), [(64, 96), (8, 4), (67, 101)])
def test_shrinking_divides_the_sides(height: int, width: int) -> None:
    small = degrade.shrink(detailed(height, width), 4)
    assert small.shape == (1, 3, height // 4, width // 4)
    assert_eight_bits(small)


def test_a_constant_stays_constant() -> None:
    flat = torch.full((1, 3, 32, 32), 77 / 255)
    assert torch.equal(degrade.shrink(flat, 4), torch.full((1, 3, 8, 8), 77 / 255))
    assert_close(degrade.enlarge(flat, 4), torch.full((1, 3, 128, 128), 77 / 255))


def test_shrinking_does_not_alias() -> None:
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(16).expand(1, 3, 64, 64)
    inside = degrade.shrink(stripes, 4)[..., 2:-2]
    assert_close(inside, torch.full_like(inside, 0.5), rtol=0.0, atol=3 / 255)


def test_overshoot_of_the_cubic_is_clipped() -> None:
    edge = torch.cat([torch.zeros(1, 3, 32, 30), torch.ones(1, 3, 32, 34)], dim=3)
    assert_eight_bits(degrade.shrink(edge, 4))


def test_enlarging_multiplies_the_sides() -> None:
    assert degrade.enlarge(detailed(9, 5), 4).shape == (1, 3, 36, 20)
