"""A training run of the smallest kind, and how its configuration file is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import small_vq_spec
from pictures import made_up_photo
from tiny_model import tiny_spec

from resshift_cli.training import dataset
from resshift_cli.training.degradation import MildSpec
from resshift_cli.training.photos import Photo, Pictures
from resshift_cli.training.recipe import RunSpec, TrainSpec
from resshift_cli.training.trainer import Trainer

CPU = torch.device("cpu")
Start = Callable[..., Iterator[dict[str, float]]]
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch 2.9")

MILD = MildSpec(share=0.5, blur=1.0, noise=8.0, jpeg=(50, 95))
RUN = RunSpec(
    photos="",
    model=tiny_spec(),
    train=TrainSpec(
        steps=6,
        batch=2,
        crop=64,
        crop_tries=2,
        learning_rate=2e-3,
        warmup=2,
        weight_decay=0.01,
        clip_norm=1.0,
        ema=0.9,
        late_steps=1.0,
        last_share=0.0,
        save_every=2,
        validate_every=3,
        degrade=MILD,
        samples=0,
    ),
)


VQ_RUN = replace(
    RUN,
    model=tiny_spec(
        predict="x0",
        precondition=False,
        denoiser=replace(RUN.model.denoiser, latent_channels=3),
        autoencoder=small_vq_spec(codes=16),
    ),
    train=replace(RUN.train, objective="plain", steps=1, samples=0),
)


def batch(run: RunSpec = RUN, number: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return dataset.make_batch(Pictures([made_up_photo(0, 96)]), run.data, 0, number)


def loss_of(trainer: Trainer, pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Of a whole batch at the trainer's step."""
    return trainer.loss(*pairs, *trainer.drawn())


def held_out(*photos: Photo) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return dataset.validation_pairs(Pictures(photos), RUN.data)


def changed(**changes: Any) -> RunSpec:
    return replace(RUN, train=replace(RUN.train, **changes))


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Those of a saved state, of its average, and of the judges if it has any."""
    state = torch.load(path, weights_only=True)
    parts = {"weights": state["weights"], "average": state["average"]}
    if "adversary" in state:
        parts["judges"] = state["adversary"]["judges"]
    return {f"{part}.{k}": t for part, tensors in parts.items() for k, t in tensors.items()}


def toml(value: Any) -> str:
    if isinstance(value, dict):
        given = {key: v for key, v in value.items() if v is not None}
        return "{ " + ", ".join(f"{key} = {toml(v)}" for key, v in given.items()) + " }"
    return json.dumps(value)


def write_config(path: Path, run: RunSpec = RUN, **changes: Any) -> Path:
    """A configuration file; changes are of the table `train`, and None takes a key away."""
    table = asdict(run)
    table["train"] = {k: v for k, v in (table["train"] | changes).items() if v is not None}
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in table.items()))
    return path
