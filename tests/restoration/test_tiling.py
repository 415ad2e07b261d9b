from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch.testing import assert_close

from resshift_cli.errors import UsageError
from resshift_cli.restoration import tiling
from resshift_cli.restoration.tiling import Blend, Box, Frame, Grid

SIZES = [(64, 64), (65, 64), (100, 171), (9, 400), (1, 1)]


def plan(height: int, width: int, *, size: int = 64, overlap: int = 16) -> Grid:
    axes = (tiling.plan_axis(side, size=size, overlap=overlap) for side in (height, width))
    return Grid(*axes)


@dataclass
class Computed:
    """Tiles that a function makes, and that need no mending."""

    compute: Callable[[Sequence[Box]], torch.Tensor]

    def mended(self) -> list[tuple[Box, torch.Tensor]]:
        return []


def whole(
    grid: Grid,
    tile: Callable[[Sequence[Box]], torch.Tensor],
    *,
    factor: int = 1,
    batch: int = 1,
    multiple: int = 1,
) -> torch.Tensor:
    bands = Blend(grid, factor).bands(Computed(tile), batch=batch, multiple=multiple)
    return torch.cat(list(bands), dim=-2)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("overlap", [0, 1, 16, 63])
def test_cut_then_blend_gives_the_image_back(height: int, width: int, overlap: int) -> None:
    image = torch.rand(1, 3, height, width)
    grid = plan(height, width, overlap=overlap)
    blended = whole(grid, lambda boxes: torch.cat([b.cut(image) for b in boxes]))
    assert_close(blended, image)


@pytest.mark.parametrize("factor", [2, 4])
def test_tiles_finer_than_the_grid_blend_to_the_finer_image(factor: int) -> None:
    image = torch.rand(1, 3, 100 * factor, 130 * factor)
    grid = plan(100, 130)
    blended = whole(
        grid, lambda boxes: torch.cat([b.cut(image, factor) for b in boxes]), factor=factor
    )
    assert_close(blended, image)


def test_a_single_tile_is_not_changed_by_a_bit() -> None:
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(whole(plan(64, 64), lambda boxes: image), image)


def test_a_band_is_not_held_once_it_is_handed_over() -> None:
    grid = Grid(tiling.plan_axis(40, size=16, overlap=4), tiling.plan_axis(16, size=16, overlap=4))
    handed = []
    ones = Computed(lambda boxes: torch.ones(len(boxes), 1, 16, 16))
    for band in Blend(grid).bands(ones):
        handed.append(weakref.ref(band))
        del band
        assert handed[-1]() is None
    assert len(handed) == len(grid.rows.starts)


@pytest.mark.parametrize("length", [65, 100, 128, 129, 1000, 4096])
@pytest.mark.parametrize("overlap", [0, 8, 32])
def test_tiles_cover_the_side_with_at_least_the_overlap_in_common(
    length: int, overlap: int
) -> None:
    axis = tiling.plan_axis(length, size=64, overlap=overlap)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == length
    gaps = [b - a for a, b in zip(axis.starts, axis.starts[1:], strict=False)]
    assert max(gaps) <= 64 - overlap
    assert max(gaps) - min(gaps) <= 1, "tiles are spread evenly"
    fewer = len(axis.starts) - 1
    assert fewer * 64 - (fewer - 1) * overlap < length, "one tile fewer would not do"


@pytest.mark.parametrize("length", [257, 512, 750, 1000, 1333, 4000])
def test_the_side_of_tiles_is_the_one_that_costs_least(length: int) -> None:
    chosen = tiling.plan_axis(length, size=256, overlap=16, multiple=32)
    others = [tiling.plan_axis(length, size=s, overlap=16) for s in range(192, 257, 32)]
    assert chosen.size % 32 == 0
    assert chosen.size * len(chosen.starts) == min(o.size * len(o.starts) for o in others)


def test_default_tiles_cost_at_most_35_percent_more_than_the_image_itself() -> None:
    axes = [tiling.plan_axis(side, size=96, overlap=8, multiple=32) for side in (1000, 750)]
    work = math.prod(axis.size * len(axis.starts) for axis in axes)
    assert work <= 1.35 * 1000 * 750


def test_weights_rise_smoothly_from_the_border_of_a_tile() -> None:
    first, second = tiling.plan_axis(112, size=64, overlap=16).weights()
    rising = second[:16]
    assert rising[0] < 0.01
    assert rising[-1] > 0.99
    assert (rising.diff() > 0).all()
    assert rising.diff().max() < 0.11, "no jump"
    assert torch.equal(first[:48], torch.ones(48))
    assert_close(first[48:] + rising, torch.ones(16))


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_the_number_of_tiles_per_call_changes_nothing(batch: int) -> None:
    image = torch.rand(1, 3, 300, 200)

    def cut(boxes: Sequence[Box]) -> torch.Tensor:
        calls.append(len(boxes))
        return torch.cat([box.cut(image) for box in boxes])

    calls: list[int] = []
    grid = plan(300, 200)
    one_by_one = whole(grid, cut)
    assert set(calls) == {1}
    assert torch.equal(whole(grid, cut, batch=batch), one_by_one)
    assert max(calls) == min(batch, len(grid))


@pytest.mark.parametrize("overlap", [64, 65, -1])
def test_an_overlap_that_does_not_fit_is_refused_with_a_way_out(overlap: int) -> None:
    with pytest.raises(UsageError, match="64 px") as caught:
        tiling.plan_axis(300, size=64, overlap=overlap)
    assert "--overlap" in caught.value.hint


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (2, 2), (7, 64), (40, 56)])
def test_reflection_frames_any_size(height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width)
    padded = Frame(10, 0, 64, 64).pad(image)
    assert padded.shape == (1, 3, 64, 64)
    assert torch.equal(padded[..., 10 : 10 + height, :width], image)
    assert set(padded.flatten().tolist()) == set(image.flatten().tolist())


def test_reflection_is_torch_s_where_torch_can_do_it() -> None:
    image = torch.rand(1, 3, 40, 56)
    expected = torch.nn.functional.pad(image, (5, 3, 20, 4), mode="reflect")
    assert torch.equal(Frame(20, 5, 64, 64).pad(image), expected)


def test_reflection_goes_on_back_and_forth() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    expected = [3, 2, 1, 2, 3, 2, 1, 2, 3, 2]
    assert Frame(0, 2, 1, 10).pad(row).flatten().tolist() == expected


@pytest.mark.parametrize(("length", "tile"), [(128, 96), (300, 128), (97, 96), (1000, 256)])
def test_no_side_is_cut_into_tiles_much_smaller_than_asked_for(length: int, tile: int) -> None:
    axis = tiling.plan_axis(length, size=tile, overlap=8, multiple=32)
    assert axis.size >= tile * 2 / 3


def test_tiles_that_overlap_alike_share_their_weights() -> None:
    axis = tiling.plan_axis(64 + 9 * 48, size=64, overlap=16)
    weights = axis.weights()
    assert len(weights) == 10
    assert len({id(weight) for weight in weights}) == 3, "the first, the last, and those between"
