"""Mending images at their own size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS, calls
from small_checkpoint import save
from tiny_model import tiny_fills, tiny_networks, tiny_spec

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.restorer import Restorer
from resshift_cli.weights import checkpoint, convert
from resshift_cli.weights.registry import LocalSource, ModelEntry, WeightFile
from resshift_cli.weights.store import Files

MENDS = replace(tiny_fills(), denoiser=replace(tiny_fills().denoiser, lq_mask=False))


def tiny_restorer(spec: ModelSpec = MENDS) -> Restorer:
    options: dict[str, Any] = {"name": "tiny", "device": "cpu", "precision": "fp32"}
    return Restorer(spec, *tiny_networks(spec), **options)


def photo(*shape: int) -> Pixels:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 3), (50, 70, 1), (40, 33, 4), (40, 33, 2)])
def test_an_image_keeps_its_size_and_its_alpha(shape: tuple[int, ...]) -> None:
    image = photo(*shape)
    result = tiny_restorer()(image, steps=1, color_fix="none")
    colours = slice(0, shape[2] - 1 + shape[2] % 2)
    assert result.shape == shape and (result[..., colours] != image[..., colours]).mean() > 0.9
    assert shape[2] % 2 or (result[..., -1] == image[..., -1]).all()


def test_the_strength_says_how_far_it_is_replaced() -> None:
    image, restorer = photo(40, 40, 3), tiny_restorer()
    none, half, all_of_it = (restorer(image, strength=s, steps=1) for s in (0, 0.5, 1))
    assert (none == image).all()
    np.testing.assert_allclose(half, (image + all_of_it) / 2, atol=1e-6)


def test_colours_that_alpha_hides_stay_and_reach_nothing() -> None:
    image = photo(40, 40, 4)
    image[..., 3] = 1
    image[:, 30:, 3] = 0
    black = image.copy()
    black[:, 30:, :3] = 0
    results = [tiny_restorer()(each, steps=1) for each in (image, black)]
    assert (results[0][:, :30] == results[1][:, :30]).all()
    assert (results[1][:, 30:] == black[:, 30:]).all()


def test_bands_give_what_the_whole_image_gives() -> None:
    image, restorer = photo(70, 40, 3), tiny_restorer()
    settings = restorer.settings(steps=1, tile=32, overlap=8)
    bands = restorer.stream([image[:9], image[9:50], image[50:]], (70, 40, 3), settings, 0.7)
    whole = restorer(image, steps=1, tile=32, overlap=8, strength=0.7)
    assert (np.concatenate(list(bands)) == whole).all()


def test_a_model_that_takes_a_mask_is_told_that_all_is_known() -> None:
    restorer = tiny_restorer(tiny_fills())
    seen = calls(restorer)
    restorer(photo(32, 32, 3), steps=1)
    assert seen[0][2].shape[1] == 4 and (seen[0][2][:, 3] == -1).all()


def test_what_can_t_be_is_refused() -> None:
    with pytest.raises(UsageError, match="'tiny' enlarges by 4") as caught:
        tiny_restorer(tiny_spec())
    assert "models list --task restore" in caught.value.hint
    with pytest.raises(UsageError, match="strength of 1.5 is outside 0 to 1"):
        tiny_restorer()(photo(8, 8, 3), strength=1.5)
    with pytest.raises(TypeError, match="scale"):
        tiny_restorer()(photo(8, 8, 3), scale=2)  # type: ignore[call-arg]


def test_a_decoder_that_was_tuned_with_the_network_decodes(tmp_path: Path) -> None:
    """As in the published model for blur, whose checkpoint holds it as `vae`."""
    spec = tiny_spec(**KINDS["x1"])
    denoiser, codec = tiny_networks(spec)
    usual = checkpoint.own_tensors(codec)
    checkpoint.write(tmp_path / "codec.safetensors", usual, {})
    with torch.random.fork_rng(devices=[]):
        tuned = {n: t + 0.05 * torch.randn_like(t) for n, t in usual.items() if "decoder" in n}
    content = {"state_dict": denoiser.network.state_dict(), "vae": tuned}
    source, target = save(content, tmp_path / "deblur.pth"), tmp_path / "deblur.safetensors"
    shapes = convert.shapes_of_denoiser(spec), convert.shapes_of_autoencoder(spec)
    convert.convert(source, target, shapes[0], tunable=shapes[1], provenance={})
    file = WeightFile((LocalSource(str(target)),), "unknown", "", 0)
    entry = ModelEntry("deblur", "", "deblurring", "", "", file, (), spec=spec)
    files = Files(target, tmp_path / "codec.safetensors")
    loaded = Restorer.load(entry, files, device="cpu", precision="fp32")
    codec.load_state_dict(usual | tuned)
    expected = Restorer(spec, denoiser, codec, name="tiny", device="cpu", precision="fp32")
    image = photo(32, 32, 3)
    result = loaded(image, steps=1)
    assert (result == expected(image, steps=1)).all()
    assert (result != tiny_restorer(spec)(image, steps=1)).any()
