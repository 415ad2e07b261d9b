"""Networks that are shown planes of noise: what they draw differs by the seed."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import load_model
from tiny_run import CPU, RUN, batch, write_config

from resshift_cli import Upscaler
from resshift_cli.restoration import features
from resshift_cli.training import train
from resshift_cli.training.network import FIRST
from resshift_cli.training.recipe import RunSpec
from resshift_cli.training.trainer import Trainer, parted

PLANES = 2
SHOWN = replace(
    RUN, model=replace(RUN.model, denoiser=replace(RUN.model.denoiser, noise_channels=PLANES))
)


def noisy(path: Path, detail: float = 1.0) -> bool:
    """Whether another seed makes another image of a file's network, but for the chain's noise."""
    upscaler = Upscaler.from_file(path, device="cpu", precision="fp32")
    photo = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    first, second = (
        upscaler.enlarge(photo, upscaler.settings(steps=1, seed=seed, detail=detail))
        for seed in (0, 1)
    )
    return not np.array_equal(first, second)


def trained(folder: Path, photos: Path, init: Path, run: RunSpec, **changes: Any) -> Path:
    """The weights that a run of a step leaves."""
    blind = replace(run, model=replace(run.model, blind_start=True, max_steps=1))
    changes |= {"steps": 1, "learning_rate": 0.1}
    config = write_config(folder.with_suffix(".toml"), blind, **changes)
    list(train.train(config, [photos], folder, init=init))
    return folder / "model.safetensors"


def test_planes_count_for_little_at_first() -> None:
    first = Trainer(SHOWN, seed=0, device=CPU).denoiser.network.get_parameter(FIRST)
    assert 0 < first[:, -PLANES:].std() < first[:, :-PLANES].std()


def test_noise_of_the_latent_is_the_same_whether_or_not_there_are_planes() -> None:
    pairs = batch()
    plain, shown = (Trainer(run, seed=0, device=CPU) for run in (RUN, SHOWN))
    t, noise = shown.drawn()
    latent, planes = parted(noise, SHOWN.model)
    assert planes is not None and planes.shape == (2, PLANES, 16, 16)
    assert torch.equal(shown.loss(*pairs, t, noise), plain.loss(*pairs, t, latent))


def test_a_run_with_planes_starts_from_a_network_without(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    without = trained(tmp_path / "without", photos, tiny_weights, RUN)
    shown = trained(tmp_path / "shown", photos, without, SHOWN)
    assert noisy(shown) and not noisy(without)
    first = load_model(shown)[1].network.get_parameter(FIRST)
    assert first.shape[1] == load_model(without)[1].network.get_parameter(FIRST).shape[1] + PLANES
    assert noisy(trained(tmp_path / "again", photos, shown, SHOWN))


@pytest.mark.skipif(find_spec(features.PACKAGE) is None, reason="needs resshift[realism]")
def test_the_mean_that_is_kept_beside_samples_sees_no_noise(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    without = trained(tmp_path / "without", photos, tiny_weights, RUN)
    judged = {"weight": 1.0, "learning_rate": 1e-3, "keep_mean": True}
    pair = trained(tmp_path / "pair", photos, without, SHOWN, adversary=judged)
    assert noisy(pair) and noisy(pair, 0.5) and not noisy(pair, 0)
