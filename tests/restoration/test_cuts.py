"""Bands of an image that are enlarged one by one have the bits of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kinds import KINDS
from tiny_model import tiny_spec, tiny_upscaler

from resshift_cli.restoration import cuts
from resshift_cli.restoration.cuts import Part
from resshift_cli.restoration.settings import Settings, settings
from resshift_cli.restoration.tiling import plan_axis
from resshift_cli.restoration.upscaler import Upscaler

IMAGE = np.random.default_rng(0).random((117, 13, 3), dtype=np.float32)


def joined(upscaler: Upscaler, image: Any, how: Settings, count: int) -> Any:
    """The result of bands, each of which reads the image in bands of its own."""
    size = (image.shape[0], image.shape[1])
    made = [
        np.concatenate([*upscaler.band(np.array_split(image, 7 + number), image.shape, how, rows)])
        for number, rows in enumerate(cuts.even(size[0], count))
    ]
    return np.concatenate(made)


@pytest.mark.parametrize("steps, overlap, count", [(1, 4, 5), (1, 0, 2), (4, 4, 3), (2, 12, 2)])
def test_bands_have_the_bits_of_the_whole(steps: int, overlap: int, count: int) -> None:
    upscaler = tiny_upscaler()
    how = upscaler.settings(tile=16, overlap=overlap, steps=steps, detail=0.5 if steps > 1 else 1)
    whole = upscaler.enlarge(IMAGE, how)
    assert np.array_equal(joined(upscaler, IMAGE, how, count), whole)


@pytest.mark.parametrize("kind", ["quantised", "x2", "x1", "student-resized", "student-x2-resized"])
def test_so_they_have_with_every_kind_of_network(kind: str) -> None:
    upscaler = tiny_upscaler(**KINDS[kind])
    how = upscaler.settings(tile=32, overlap=4, steps=min(upscaler.spec.steps, 2))
    assert np.array_equal(joined(upscaler, IMAGE, how, 2), upscaler.enlarge(IMAGE, how))


@pytest.mark.parametrize(
    "options", [{"color_fix": "adain"}, {"color_fix": "none"}, {"consistency": 1}]
)
def test_so_they_have_however_colours_are_corrected(options: dict[str, Any]) -> None:
    upscaler = tiny_upscaler(flat=1.0)
    how = upscaler.settings(tile=16, overlap=4, steps=1, **options)
    grey = IMAGE[..., :1]
    assert np.array_equal(joined(upscaler, grey, how, 4), upscaler.enlarge(grey, how))


@pytest.mark.parametrize("batch", [3, 8])
def test_tiles_that_share_a_call_do_so_in_a_band(batch: int) -> None:
    upscaler = tiny_upscaler(tile_batch=batch)
    how = upscaler.settings(tile=16, overlap=4, steps=3)
    assert np.array_equal(joined(upscaler, IMAGE, how, 3), upscaler.enlarge(IMAGE, how))


def test_a_halo_grows_by_a_row_of_tiles_with_every_step() -> None:
    how = settings(tiny_spec(), name="tiny", tile=16, overlap=4, steps=4, color_fix="none")
    part = Part(tiny_spec(), how, (1600, 16), range(800, 802))
    assert [len(tiles) for tiles in part.halo.tiles] == [11, 9, 7, 5, 3, 1]
    assert part.units == 9 + 7 + 5 + 3
    covered = 11 * 12 + 4
    assert len(part.source) == covered + 2 * 2


def test_there_are_as_many_bands_as_cost_half_as_much_again_at_most() -> None:
    spec = tiny_spec()
    for steps in (1, 4):
        how = settings(spec, name="tiny", tile=16, overlap=4, steps=steps)
        bands = cuts.cuts(spec, (4000, 16), how)
        assert [row for rows in bands for row in rows] == list(range(4000))
        work = sum(Part(spec, how, (4000, 16), rows).units for rows in bands)
        whole = Part(spec, how, (4000, 16), range(4000)).units
        assert 1.3 < work / whole <= 1.5, steps
    assert cuts.cuts(spec, (40, 16), how) == [range(40)]


@pytest.mark.parametrize("options", [{"scale": 2}, {"scale": 8}, {"wrap": "x"}])
def test_what_is_resized_or_wraps_is_not_cut(options: dict[str, Any]) -> None:
    spec = tiny_spec()
    assert cuts.can_be_cut(spec, (40, 40), 3, settings(spec, name="tiny"))
    assert not cuts.can_be_cut(spec, (40, 40), 4, settings(spec, name="tiny"))
    assert not cuts.can_be_cut(spec, (40, 40), 3, settings(spec, name="tiny", **options))


def test_where_tiles_begin_and_end() -> None:
    axis = plan_axis(100, size=16, overlap=4, multiple=8)
    assert axis.touched(range(100)) == range(len(axis.starts))
    assert axis.whole(range(len(axis.starts))) == range(100)
    tiles = axis.touched(range(40, 44))
    within = axis.whole(tiles)
    assert within.start <= 40 < 44 <= within.stop
    assert axis.covered(tiles).start < within.start < within.stop < axis.covered(tiles).stop
    assert replace(axis, starts=(0,)).whole(range(1)) == range(100)
