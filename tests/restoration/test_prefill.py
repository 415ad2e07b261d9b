"""What stands in a hole before a network sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kinds import calls
from tiny_model import tiny_fills, tiny_networks, tiny_spec
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.tables import SpecError
from resshift_cli.restoration import bands, mending, prefill
from resshift_cli.restoration.inpainter import Inpainter

SPEC = tiny_fills(prefill=True)


def holed(size: int, *boxes: tuple[int, int, int, int]) -> Tensor:
    """(1, 1, size, size), true within boxes of (top, left, bottom, right)."""
    unknown = torch.zeros(1, 1, size, size, dtype=torch.bool)
    for top, left, bottom, right in boxes:
        unknown[..., top:bottom, left:right] = True
    return unknown


def filled(spec: ModelSpec, image: np.ndarray, hole: np.ndarray) -> list[tuple[Tensor, ...]]:
    """What the networks were shown."""
    inpainter = Inpainter(spec, *tiny_networks(spec), name="x", device="cpu", precision="fp32")
    seen = calls(inpainter)
    inpainter(image, hole, steps=1)
    return seen


def test_a_hole_in_one_colour_gets_that_colour_and_what_is_known_stays() -> None:
    colours = torch.rand(1, 3, 1, 1).expand(1, 3, 40, 40)
    unknown = holed(40, (0, 0, 12, 9), (20, 20, 40, 40))
    spoiled = colours.masked_fill(unknown, -1.0)
    assert_close(prefill.prefilled(spoiled, unknown), colours, rtol=0, atol=1e-6)
    image = torch.rand(1, 3, 40, 40)
    known = (~unknown).expand_as(image)
    assert torch.equal(prefill.prefilled(image, unknown)[known], image[known])


def test_across_a_scratch_colours_go_over_into_each_other() -> None:
    ramp = torch.linspace(-1, 1, 41).expand(1, 3, 41, 41)
    made = prefill.prefilled(ramp, holed(41, (0, 15, 41, 26)))
    assert (made - ramp).abs().max() < 0.15 and (made[0, 0, 20].diff() >= 0).all()


def test_far_from_all_that_is_known_it_is_gray() -> None:
    size = 2 * prefill.REACH + 20
    made = prefill.prefilled(torch.ones(1, 3, size, size), holed(size, (1, 1, size - 1, size - 1)))
    assert not made[..., size // 2, size // 2].any() and (made[..., 2, 2] == 1).all()


def test_bands_give_what_the_whole_image_gives() -> None:
    unknown = holed(300, (40, 10, 52, 280), (90, 100, 260, 270))
    image = torch.cat([torch.rand(1, 3, 300, 300), unknown * 2.0 - 1], dim=1)
    whole = mending._prefilled(image)
    made = bands.local(torch.split(image, 37, dim=2), 300, mending._prefilled, reach=prefill.REACH)
    assert_close(torch.cat(list(made), dim=2), whole, rtol=0, atol=1e-6)


def test_networks_of_such_a_model_see_it_in_the_hole() -> None:
    image, hole = np.full((64, 64, 3), 0.75, np.float32), np.zeros((64, 64), bool)
    hole[20:30, 8:50] = True
    for spec, level in ((SPEC, 0.5), (tiny_fills(), -1.0)):
        colours = torch.cat([lq[:, :3].flatten() for _, _, lq, *_ in filled(spec, image, hole)])
        assert_close(colours.min(), torch.tensor(level), rtol=0, atol=1e-5)


def test_it_is_told_in_the_file_of_a_model_that_takes_a_mask() -> None:
    assert specs.from_json(specs.to_json(SPEC), "a file") == SPEC
    assert "prefill" not in specs.to_json(tiny_fills())
    with pytest.raises(SpecError, match="prefill is for models that take a mask"):
        tiny_spec(prefill=True)
    changes: dict[str, Any] = {"denoiser": replace(SPEC.denoiser, lq_mask=False)}
    with pytest.raises(SpecError, match="lq_mask"):
        tiny_fills(prefill=True, **changes)
