"""The dial: how far a result is from the mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plain_chain
import pytest
import torch
from kinds import calls, random_lq
from tiny_model import load_model, restore, tiny_networks, tiny_spec, tiny_upscaler
from torch.testing import assert_close

from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.errors import ModelUnavailableError, UsageError
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.weights import checkpoint

ONE: dict[str, Any] = {"max_steps": 1, "mean": True}


def pair(precision: str = "fp32", **changes: Any) -> Upscaler:
    """A model of one step with weights for samples and others for the mean."""
    spec = tiny_spec(**ONE, **changes)
    denoiser, codec = tiny_networks(spec)
    return Upscaler(spec, denoiser, codec, name="pair", device="cpu", precision=precision)


def single(denoiser: Denoiser, *, mean: bool) -> Upscaler:
    """A model of one step with one of both sets of weights."""
    spec = tiny_spec(max_steps=1)
    alone, codec = tiny_networks(spec)
    source = denoiser.mean if mean else denoiser.network
    assert source is not None
    alone.network.load_state_dict(source.state_dict())
    return Upscaler(spec, alone, codec, name="alone", device="cpu", precision="fp32")


# Of a chain


@pytest.mark.parametrize("tile", [64, 16])
def test_detail_leads_from_the_first_prediction_of_the_chain_to_its_last(tile: int) -> None:
    """The tiny model's latent is a rearrangement of pixels: what holds of one holds of both."""
    upscaler, lq = tiny_upscaler(), random_lq(30, 26) * 0.3
    none, some, all_of_it = (restore(upscaler, lq, tile=tile, detail=d) for d in (0, 0.25, 1))
    assert not torch.equal(none, all_of_it)
    assert_close(some, none + 0.25 * (all_of_it - none), atol=1e-5, rtol=0)


def test_all_detail_is_the_chain_as_it_is_and_the_default() -> None:
    upscaler, lq = tiny_upscaler(), random_lq(16, 16)
    assert torch.equal(restore(upscaler, lq, detail=1), restore(upscaler, lq))


def test_no_detail_is_what_is_predicted_at_the_start_of_the_chain() -> None:
    upscaler, lq = tiny_upscaler(blind_start=True), random_lq(16, 16)
    first = plain_chain.restore(upscaler, lq, seed=0, steps=1)
    assert_close(restore(upscaler, lq, detail=0), first, atol=1e-5, rtol=0)


def test_the_dial_of_a_chain_costs_no_call_of_the_network() -> None:
    upscaler = tiny_upscaler()
    seen = calls(upscaler)
    restore(upscaler, random_lq(16, 16), detail=0.5)
    assert len(seen) == 4


def test_a_single_prediction_has_nothing_to_blend_with() -> None:
    upscaler, image = tiny_upscaler(), np.zeros((8, 8, 3), np.uint8)
    assert np.array_equal(upscaler(image, steps=1, detail=1), upscaler(image, steps=1))
    with pytest.raises(UsageError, match="single prediction") as caught:
        upscaler(image, steps=1, detail=0.5)
    assert "--steps" in caught.value.hint


# Of two sets of weights


def test_detail_0_and_1_are_the_two_sets_of_weights() -> None:
    upscaler, lq = pair(), random_lq(24, 24)
    samples, mean = (single(upscaler.denoiser, mean=mean) for mean in (False, True))
    assert torch.equal(restore(upscaler, lq, detail=1), restore(samples, lq))
    assert torch.equal(restore(upscaler, lq, detail=0), restore(mean, lq))


def test_between_them_the_weights_are_averaged() -> None:
    upscaler, lq = pair(), random_lq(24, 24)
    assert upscaler.denoiser.mean is not None
    alone = single(upscaler.denoiser, mean=True)
    with torch.no_grad():
        own, other = alone.denoiser.network.state_dict(), upscaler.denoiser.network.state_dict()
        for name, tensor in own.items():
            if tensor.is_floating_point():
                tensor.lerp_(other[name], 0.25)
    assert_close(restore(upscaler, lq, detail=0.25), restore(alone, lq), atol=1e-6, rtol=0)


def test_the_table_says_what_is_best_by_default() -> None:
    upscaler, lq = pair(detail=0.25), random_lq(16, 16)
    assert torch.equal(restore(upscaler, lq), restore(upscaler, lq, detail=0.25))
    assert upscaler.settings().detail == 0.25


def test_only_the_latest_few_details_are_kept() -> None:
    upscaler = pair()
    for detail in (0.1, 0.2, 0.3, 0.4, 0.1, 0.5):
        upscaler.engine.at(detail)
    assert list(upscaler.engine._made) == [0.3, 0.4, 0.1, 0.5]


def test_what_was_loaded_stays_as_it_was() -> None:
    upscaler = pair("bf16")
    before = {name: t.clone() for name, t in upscaler.denoiser.state_dict().items()}
    restore(upscaler, random_lq(16, 16), detail=0.5)
    after = upscaler.denoiser.state_dict()
    assert all(
        torch.equal(before[name], t) and t.dtype == before[name].dtype for name, t in after.items()
    )


def test_tiles_that_overflow_are_computed_in_float32_at_their_detail() -> None:
    told: list[str] = []
    upscaler, lq = pair("fp16"), random_lq(16, 16)
    upscaler.engine.tell = told.append
    half = restore(upscaler, lq, detail=0.5)
    network = upscaler.engine.at(0.5).denoiser.network
    network.register_forward_hook(
        lambda _, args, output: output * float("inf") if output.dtype == torch.float16 else output
    )
    mended = restore(upscaler, lq, detail=0.5)
    assert_close(mended, half, atol=0.05, rtol=0)
    assert len(told) == 1 and "float32" in told[0]


@pytest.mark.parametrize("changes", [{}, ONE])
def test_opacity_is_never_made_up(changes: dict[str, Any]) -> None:
    upscaler = tiny_upscaler(**changes)
    image = np.random.default_rng(0).random((12, 12, 4), np.float32)
    none, all_of_it = (upscaler(image, detail=detail) for detail in (0, 1))
    assert np.array_equal(none[..., 3], all_of_it[..., 3])
    assert not np.array_equal(none[..., :3], all_of_it[..., :3])


# Of a file


def written(path: Path) -> Upscaler:
    upscaler = pair(detail=0.5)
    denoiser = upscaler.denoiser
    spec = replace(upscaler.spec, mean=False)
    checkpoint.save_model(path, spec, denoiser.network, mean=denoiser.mean)
    return upscaler


def test_a_file_has_both_sets_of_weights_and_its_default(tmp_path: Path) -> None:
    before = written(tmp_path / "pair.safetensors").denoiser.half().float().state_dict()
    spec, denoiser, _ = load_model(tmp_path / "pair.safetensors")
    assert spec == tiny_spec(**ONE, detail=0.5)
    after = denoiser.state_dict()
    assert before.keys() == after.keys() and "mean.out.2.weight" in after
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_file_that_lacks_the_mean_it_promises_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    checkpoint.save_model(path, tiny_spec(**ONE), tiny_networks(tiny_spec())[0].network)
    with pytest.raises(ModelUnavailableError, match=r"lacks mean\."):
        load_model(path)
