"""Eight views of every tile, and the average of what is predicted of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS, calls, every_kind, random_lq
from tiny_model import restore, tiny_spec, tiny_upscaler
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.diffusion.autoencoder import build
from resshift_cli.restoration import estimate, turning
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.turning import TURNS, Turn

every_turn = pytest.mark.parametrize("turn", TURNS, ids=str)


def still(
    seed: int, step: int, channels: int, *, top: int, left: int, height: int, width: int
) -> Tensor:
    """No noise, which is the same to all sides."""
    return torch.zeros(1, channels, height, width)


@every_turn
def test_a_turn_is_undone(turn: Turn) -> None:
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert torch.equal(turn.back(turn(image)), image)


def test_all_turns_differ() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert len({tuple(turn(image).flatten().tolist()) for turn in TURNS}) == 8


@every_turn
def test_a_latent_of_space_to_depth_turns_with_the_pixels_that_it_holds(turn: Turn) -> None:
    codec = build(tiny_spec().autoencoder)
    pixels = random_lq(8, 12)
    assert torch.equal(codec.rearranged(codec.encode(pixels), turn), codec.encode(turn(pixels)))


def test_the_result_is_the_average_over_the_image_turned() -> None:
    upscaler, lq = tiny_upscaler(), random_lq(16, 8) / 8  # no result is cut at black or white
    apart = [turn.back(restore(upscaler, turn(lq), steps=1, field=still)) for turn in TURNS]
    averaged = restore(upscaler, lq, steps=1, field=still, tta=True)
    assert_close(averaged, torch.stack(apart).mean(0), atol=1e-4, rtol=0)
    assert not torch.allclose(averaged, apart[0], atol=1e-2)


@every_kind
def test_all_that_the_network_is_shown_turns_alike(kind: str) -> None:
    upscaler = tiny_upscaler(**KINDS[kind])
    seen = calls(upscaler)
    restore(upscaler, random_lq(8, 16), tta=True)
    spec = upscaler.spec
    assert len(seen) == spec.steps * 8
    first = seen[0]
    for turn, call in zip(TURNS, seen[:8], strict=True):
        latent = [upscaler.autoencoder.rearranged(part, turn) for part in first[:2]]
        assert all(map(torch.equal, call[:2], latent))
        shown = latent[1] if spec.condition == "latent" else turn(first[2])
        assert torch.equal(call[2], shown)
        assert (call[5] is None) if first[5] is None else torch.equal(call[5], turn(first[5]))


def test_tiles_that_are_cut_from_an_image_are_turned_each_by_itself() -> None:
    upscaler, lq = tiny_upscaler(tile_batch=3), random_lq(40, 70)
    options: dict[str, Any] = {"tile": 32, "overlap": 8, "steps": 2, "tta": True}
    assert_close(restore(upscaler, lq, **options), restore(tiny_upscaler(), lq, **options))


def test_eight_times_the_work_is_counted_and_told() -> None:
    image = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    told: list[tuple[int, int]] = []
    tiny_upscaler()(image, steps=2, tta=True, progress=lambda *counts: told.append(counts))
    assert told[-1] == (16, 16)
    spec = tiny_spec()
    once = plan.settings(spec, name="tiny", steps=2)
    views = estimate.work(spec, replace(once, tta=True), 40, 70)
    assert views.denoising == 8 * estimate.work(spec, once, 40, 70).denoising


def test_without_it_a_tile_is_predicted_from_once() -> None:
    assert turning.turns(False) == (Turn(0, False),)
