from __future__ import annotations

import re

import numpy as np
import psutil
import pytest
import torch
from tiny_model import tiny_spec, tiny_upscaler

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration import fitting
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.fitting import Budget
from resshift_cli.restoration.footprint import tile_bytes
from resshift_cli.weights import registry

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
GIB = 1 << 30


@pytest.fixture(params=["tiny-x4", "realsr-x4-v2"])
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    if request.param == "tiny-x4":
        return tiny_spec()
    known = registry.find(request.param).spec
    assert known is not None
    return known


def test_plenty_of_memory_leaves_the_tiles_of_the_model(spec: ModelSpec) -> None:
    settings = plan.settings(spec, name="")
    assert Budget(spec, torch.float32, CPU, 64 * GIB).fit(settings) == settings


def test_where_memory_is_short_tiles_are_halved_until_one_fits(spec: ModelSpec) -> None:
    settings = plan.settings(spec, name="")
    half = plan.smaller_tile(spec, settings)
    assert half is not None
    room = tile_bytes(spec, settings.tile, 1, torch.float32) - 1
    fitted = Budget(spec, torch.float32, CPU, room).fit(settings)
    assert fitted == half
    assert tile_bytes(spec, fitted.tile, 1, torch.float32) <= room


def test_where_nothing_fits_the_smallest_tile_is_tried(spec: ModelSpec) -> None:
    fitted = Budget(spec, torch.float32, CPU, 0).fit(plan.settings(spec, name=""))
    assert plan.smaller_tile(spec, fitted) is None


def test_tiles_that_somebody_chose_stay() -> None:
    settings = plan.settings(tiny_spec(), name="", tile=128)
    assert Budget(tiny_spec(), torch.float32, CPU, 0).fit(settings) == settings


def test_a_cpu_works_on_one_tile_at_a_time(spec: ModelSpec) -> None:
    assert Budget(spec, torch.float32, CPU, 64 * GIB).tiles_at_once(64) == 1


@pytest.mark.parametrize("gibibytes", [1, 8, 80])
def test_a_card_works_on_as_many_tiles_as_fit(spec: ModelSpec, gibibytes: int) -> None:
    settings, room = plan.settings(spec, name=""), gibibytes * GIB
    count = Budget(spec, torch.float16, CARD, room).tiles_at_once(settings.tile)
    needed = [tile_bytes(spec, settings.tile, n, torch.float16, CARD) for n in (count, 2 * count)]
    assert needed[0] <= room or count == 1
    assert needed[1] > room or count == fitting.MOST_AT_ONCE


def test_small_images_are_computed_at_a_time_where_that_was_found_faster(spec: ModelSpec) -> None:
    few = 4 if spec.autoencoder.kind == "space-to-depth" else 1
    for side, count in ((64, few), (96, few), (104, 1), (512, 1)):
        assert Budget(spec, torch.float32, CPU, 64 * GIB).images_at_once((side, side)) == count
    assert Budget(spec, torch.float32, CPU, 0).images_at_once((64, 64)) == 1


@pytest.mark.parametrize("side", [64, 256, 512])
def test_a_card_gets_as_many_images_as_it_and_the_results_leave_room_for(
    spec: ModelSpec, side: int
) -> None:
    count = Budget(spec, torch.float16, CARD, 8 * GIB).images_at_once((side, side))
    results = 12 * (side * spec.scale) ** 2
    assert estimate_of(spec, side, count) <= 8 * GIB and count * results <= fitting.GROUP_BYTES
    more = 2 * count
    too_much = estimate_of(spec, side, more) > 8 * GIB or more * results > fitting.GROUP_BYTES
    assert too_much or count == fitting.MOST_AT_ONCE


def estimate_of(spec: ModelSpec, side: int, count: int) -> int:
    return tile_bytes(spec, side, count, torch.float16, CARD)


def test_a_cap_counts_what_the_process_has_taken_already() -> None:
    taken = psutil.Process().memory_info().rss
    assert fitting.available(CPU, cap=1) == 0
    assert fitting.available(CPU, cap=taken + GIB) <= 1.1 * GIB
    assert 0 < fitting.available(CPU) <= psutil.virtual_memory().total


def test_an_upscaler_keeps_to_its_cap_and_says_so() -> None:
    told: list[str] = []
    image = np.random.default_rng(0).random((40, 40, 3), dtype=np.float32)
    result = tiny_upscaler(tell=told.append, max_memory=1)(image)
    assert told[0] == "Memory is short: tiles of 8 px instead of 64."
    assert re.fullmatch(r"Tiles of 8 px take about \d{2,} MB in all, .* allowed .*", told[1])
    np.testing.assert_array_equal(result, tiny_upscaler()(image, tile=8, overlap=2))


def test_how_many_images_are_computed_at_a_time_depends_on_nothing_that_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upscaler, size = tiny_upscaler(), (64, 64)
    usual = upscaler.at_once(size)
    monkeypatch.setattr(fitting, "free_memory", lambda device: 0)
    assert upscaler.at_once(size) == usual > 1
    assert tiny_upscaler(max_memory=1).at_once(size) == 1  # which was asked for


def test_a_result_that_memory_can_not_hold_is_refused_before_the_work() -> None:
    image = np.broadcast_to(np.float32(0.5), (400_000, 400_000, 3))
    upscaler = tiny_upscaler()
    with pytest.raises(MemoryError, match="the result takes 30720000000000 bytes"):
        upscaler.enlarge(image, upscaler.settings())
