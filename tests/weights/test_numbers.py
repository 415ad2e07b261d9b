"""Numbers that files say: none makes work or takes memory without end, whatever it is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_model import load_model, tiny_spec

from resshift_cli.diffusion import specs
from resshift_cli.errors import ModelUnavailableError, UsageError
from resshift_cli.weights import registry

SOON = 5.0  # seconds, on a busy machine
HUGE: list[tuple[str, Any]] = [
    ("scale", 0),
    ("scale", -4),
    ("temperature", 1e300),
    ("max_steps", 10**9),
    ("schedule.steps", 10**9),
    ("schedule.kappa", 1e300),
    ("schedule.kappa", 10**400),
    ("schedule.min_noise", 1e-320),
    ("tile.size", 10**18),
    ("tile.overlap", -1),
    ("denoiser.num_res_blocks", 10**6),
    ("denoiser.num_res_blocks", -1),
    ("denoiser.swin_depth", 10**6),
    ("denoiser.swin_levels", [0] * 10**5),
    ("denoiser.channel_mult", [1] * 10**5),
    ("denoiser.channel_mult", [10**9]),
    ("denoiser.model_channels", 10**9),
    ("denoiser.window", 10**4),
    ("denoiser.mlp_ratio", 10**9),
    ("denoiser.lq_ratio", 10**9),
    ("denoiser.noise_channels", 10**9),
    ("autoencoder.factor", 0),
    ("autoencoder.factor", 10**9),
    ("autoencoder.latent_scale", 1e-300),
]
CODEC = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": [1, 1], "z_channels": 3, "codes": 16}
HUGE_CODECS: list[tuple[str, Any]] = [
    ("ch", 10**9),
    ("ch_mult", [1] * 10**4),
    ("num_res_blocks", [10**6, 1]),
    ("z_channels", 10**9),
    ("codes", 10**12),
    ("codes", -1),
]


def changed(place: str, value: Any) -> dict[str, Any]:
    """The table of a tiny model with another value at one place."""
    table: dict[str, Any] = json.loads(specs.to_json(tiny_spec()))
    *outer, key = place.split(".")
    within = table
    for name in outer:
        within = within[name]
    within[key] = value
    return table


def weight_file(folder: Path, table: str) -> Path:
    path = folder / "hostile.safetensors"
    save_file({"a": torch.zeros(1)}, path, {specs.SPEC_KEY: table})
    return path


def refused_soon(path: Path) -> str:
    begin = time.monotonic()
    with pytest.raises(ModelUnavailableError) as caught:
        spec, _, _ = load_model(path)
        spec.schedule.build()
    assert time.monotonic() - begin < SOON
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize(("place", "value"), HUGE, ids=[place for place, _ in HUGE])
def test_a_number_that_no_network_has_is_refused_by_name(
    tmp_path: Path, place: str, value: Any
) -> None:
    message = refused_soon(weight_file(tmp_path, json.dumps(changed(place, value))))
    assert place.rpartition(".")[2] in message


@pytest.mark.parametrize(("key", "value"), HUGE_CODECS, ids=[key for key, _ in HUGE_CODECS])
def test_an_autoencoder_s_numbers_are_bounded_too(tmp_path: Path, key: str, value: Any) -> None:
    codec = CODEC | {"kind": "vq", "quantize": True, key: value}
    table = changed("autoencoder", codec)
    assert f"autoencoder.{key} must" in refused_soon(weight_file(tmp_path, json.dumps(table)))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_channels": 4096, "channel_mult": [64, 64]},
        {"num_res_blocks": 8, "swin_depth": 8, "swin_levels": [0, 1, 2, 3, 4, 5]},
    ],
    ids=["wide", "deep"],
)
def test_numbers_that_are_large_together_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    table = changed("scale", 4)
    table["denoiser"] |= changes
    assert "make no network" in refused_soon(weight_file(tmp_path, json.dumps(table)))


@pytest.mark.parametrize(
    "table",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"scale": ' + "9" * 5000 + "}",
        json.dumps({"k" * 10**6: 1}),
    ],
    ids=["lists", "tables", "digits", "key"],
)
def test_a_table_without_end_is_refused(tmp_path: Path, table: str) -> None:
    refused_soon(weight_file(tmp_path, table))


# What people write themselves


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{b = " * 10_000,
        "[models" + ".a" * 10_000 + "]",
        "".join(f"[models.m{n}]\nlike = 'm{n + 1}'\n" for n in range(3000))
        + "[models.m3000]\nlike = 'realsr-x4-v1'",
        "[models.m]\nlike = 'realsr-x4-v1'\nspec = { scale = 0 }",
        "[models.m]\nlike = 'realsr-x4-v1'\nspec = { schedule = { kappa = 1e300 } }",
        "[models.m]\nlike = 'realsr-x4-v1'\nspec = { schedule = { steps = 1000000000 } }",
        "[models.m]\nlike = 'realsr-x4-v1'\nspec = { schedule = { sqrt_eta_end = 0 } }",
        "[models.m]\nlike = 'realsr-x4-v1'\nweights = { bytes = -1 }",
    ],
    ids=["lists", "inline tables", "tables", "likes", "scale", "kappa", "steps", "end", "bytes"],
)
def test_one_s_own_registry_is_refused_as_a_mistake_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "extra.toml"
    path.write_text(text)
    begin = time.monotonic()
    with pytest.raises(UsageError) as caught:
        registry.models(path)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert time.monotonic() - begin < SOON
