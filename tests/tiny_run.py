"""A training run of the smallest kind, and how its configuration file is written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tiny_model import tiny_spec

from resshift_cli.training.degradation import MildSpec
from resshift_cli.training.recipe import RunSpec, TrainSpec

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
