from __future__ import annotations

import numpy as np
import pytest
import torch

from resshift_cli.diffusion import noise

WHOLE = {"top": 0, "left": 0, "height": 100, "width": 70}


@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [
        (0, 0, 100, 70),
        (0, 0, 1, 1),
        (31, 31, 2, 2),
        (32, 0, 32, 32),
        (17, 5, 64, 65),
        (99, 69, 1, 1),
    ],
)
def test_a_window_holds_what_the_whole_field_holds_there(
    top: int, left: int, height: int, width: int
) -> None:
    whole = noise.field(7, 3, 4, **WHOLE)
    window = noise.field(7, 3, 4, top=top, left=left, height=height, width=width)
    assert torch.equal(window, whole[..., top : top + height, left : left + width])


def test_each_seed_and_each_step_has_a_field_of_its_own() -> None:
    fields = [noise.field(seed, step, 3, **WHOLE) for seed in (0, 1) for step in (0, 1)]
    stacked = torch.stack(fields).flatten(1)
    correlation = torch.corrcoef(stacked) - torch.eye(4)
    assert correlation.abs().max() < 0.04  # 21000 numbers: 5 sigma are 0.035


def test_neighbouring_blocks_and_channels_are_unrelated() -> None:
    field = noise.field(0, 1, 3, top=0, left=0, height=32, width=64)[0]
    parts = torch.stack([*field[..., :32].flatten(1), *field[..., 32:].flatten(1)])
    assert (torch.corrcoef(parts) - torch.eye(6)).abs().max() < 0.16  # 1024 numbers


def test_the_numbers_are_standard_normal() -> None:
    field = noise.field(2, 1, 48, top=0, left=0, height=128, width=128).double()
    assert field.mean().abs() < 0.006
    assert abs(field.std() - 1) < 0.004
    assert abs((field**4).mean() - 3) < 0.06
    assert 4.2 < field.abs().max() < 7


def test_the_numbers_never_change() -> None:
    field = noise.field(12345, 15, 48, top=64, left=96, height=1, width=3)
    assert field[0, 0, 0].tolist() == pytest.approx(EXPECTED)


EXPECTED = [-1.353599, -1.271081, 0.734929]


def test_the_largest_seed_works() -> None:
    assert torch.isfinite(noise.field(noise.MAX_SEED, 0, 3, **WHOLE)).all()


def test_the_numbers_are_those_of_the_system_s_own_functions() -> None:
    """Series of sums and products give the same bits on every machine, and round as exact ones."""
    uniform = np.random.default_rng(0).random(100_000)
    uniform[:3] = 2.0**-54, 1 - 2.0**-53, 0.5
    logarithms = noise._log(uniform)
    np.testing.assert_allclose(logarithms, np.log(uniform), rtol=4e-16, atol=1e-16)
    cosines, sines = noise._cos_sin(uniform)
    np.testing.assert_allclose(cosines, np.cos(2 * np.pi * uniform), atol=5e-16)
    np.testing.assert_allclose(sines, np.sin(2 * np.pi * uniform), atol=5e-16)


def test_no_function_of_the_system_s_mathematics_takes_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("log", "cos", "sin", "exp"):
        monkeypatch.delattr(np, name)
    assert torch.isfinite(noise.field(1, 2, 3, **WHOLE)).all()
