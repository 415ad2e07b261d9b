"""Weights in eight bits: how near they stay, how little room they take, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import load_model, tiny_networks, tiny_spec
from torch import Tensor

from resshift_cli.diffusion import specs
from resshift_cli.errors import ModelUnavailableError
from resshift_cli.weights import checkpoint, rounding
from resshift_cli.weights.rounding import SCALE

SPEC = tiny_spec(mean=True)
FIRST = "input_blocks.0.0.weight"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    denoiser, _ = tiny_networks(SPEC)
    checkpoint.save_model(path, SPEC, denoiser.network, mean=denoiser.mean, bits=8)
    return path


def test_weights_are_off_by_half_a_step_of_their_channel_at_most() -> None:
    weights = torch.randn(5, 3, 3, 3) * torch.tensor([1e-6, 0.01, 1, 50, 0]).view(-1, 1, 1, 1)
    file = rounding.rounded({"w": weights, "b": torch.ones(5) / 3})
    assert file["w"].dtype == torch.int8 and file["b"].dtype == torch.float16
    step = weights.abs().amax((1, 2, 3)) / 127
    off = (rounding.restored(file["w"], file["w" + SCALE]) - weights).abs().amax((1, 2, 3))
    assert bool((off <= step * 0.501).all()) and bool((off[:4] > 0).all())


def test_a_model_is_loaded_as_it_was_rounded_its_mean_too(small: Path) -> None:
    saved, _ = tiny_networks(SPEC)
    spec, loaded, _ = load_model(small)
    assert spec == SPEC and loaded.mean is not None and saved.mean is not None
    for ours, theirs in ((saved.network, loaded.network), (saved.mean, loaded.mean)):
        file = rounding.rounded(checkpoint.own_tensors(ours))
        weight = rounding.restored(file[FIRST], file[FIRST + SCALE])
        assert torch.equal(theirs.get_parameter(FIRST), weight)
        assert not torch.equal(weight, ours.get_parameter(FIRST))


def test_a_file_takes_half_the_room_of_half_precision(small: Path, tmp_path: Path) -> None:
    denoiser, _ = tiny_networks(SPEC)
    half = tmp_path / "half.safetensors"
    checkpoint.save_model(half, SPEC, denoiser.network, mean=denoiser.mean)
    assert small.stat().st_size < 0.6 * half.stat().st_size


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop(FIRST + SCALE), f"it has {FIRST}, which holds no plain"),
        (lambda t: t.update({FIRST + SCALE: torch.ones(3)}), f"it has {FIRST}, which holds no"),
        (lambda t: t[FIRST + SCALE].fill_(torch.nan), f"values in {FIRST} that are not finite"),
        (lambda t: t.update({"out.0.x.scale": torch.ones(3)}), "it has the unknown out.0.x.scale"),
    ],
    ids=["without scales", "too few scales", "no numbers", "scales of nothing"],
)
def test_scales_that_do_not_fit_are_refused(
    small: Path, change: Callable[[dict[str, Tensor]], object], told: str
) -> None:
    tensors, metadata = load_file(small), specs.read_metadata(small)
    change(tensors)
    save_file(tensors, small, dict(metadata))
    with pytest.raises(ModelUnavailableError) as caught:
        load_model(small)
    assert told in str(caught.value)
