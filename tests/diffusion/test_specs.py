from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest
from goldens_support import small_unet_spec, small_vq_spec
from tiny_model import tiny_spec

from resshift_cli.diffusion.specs import (
    ModelSpec,
    ScheduleSpec,
    SpaceToDepthSpec,
    TileSpec,
    VQSpec,
    from_json,
    to_json,
)
from resshift_cli.diffusion.tables import SpecError, from_table
from resshift_cli.errors import ModelUnavailableError
from resshift_cli.training.degradation import MildSpec

VQ_MODEL = tiny_spec(
    predict="x0",
    precondition=False,
    denoiser=small_unet_spec(),
    autoencoder=small_vq_spec(num_res_blocks=(1, 2, 3)),
)


def table(**changes: Any) -> dict[str, Any]:
    """The tiny model's table as JSON gives it; a change to None takes a key away."""
    whole = json.loads(to_json(tiny_spec())) | changes
    return {key: value for key, value in whole.items() if value is not None}


def part(name: str, **changes: Any) -> dict[str, Any]:
    """The tiny model's table with changes in one of its inner tables."""
    inner = table()[name] | changes
    return table(**{name: {key: value for key, value in inner.items() if value is not None}})


def refused(changed: object) -> str:
    with pytest.raises(SpecError) as caught:
        from_table(ModelSpec, changed, "[broken]")
    assert "weights.toml" in caught.value.hint
    return str(caught.value)


# Tables


@pytest.mark.parametrize("spec", [tiny_spec(), VQ_MODEL], ids=["space-to-depth", "vq"])
def test_a_model_s_table_survives_json(spec: ModelSpec) -> None:
    assert from_json(to_json(spec), "here") == spec


def test_only_a_network_without_norms_says_so_in_its_file() -> None:
    plain = replace(tiny_spec(), denoiser=replace(tiny_spec().denoiser, norm="none"))
    assert "norm" not in json.loads(to_json(tiny_spec()))["denoiser"]
    assert json.loads(to_json(plain))["denoiser"]["norm"] == "none"
    assert from_json(to_json(plain), "here") == plain


def test_a_missing_key_is_refused_with_the_table_s_name() -> None:
    assert refused(table(scale=None)) == "[broken] lacks the key 'scale'."
    assert refused(part("tile", overlap=None)) == "[broken].tile lacks the key 'overlap'."


def test_an_unknown_key_is_refused_with_the_table_s_name() -> None:
    assert refused(table(colour=1)) == "[broken] has the unknown key 'colour'."
    assert "[broken].denoiser has the unknown key 'width'" in refused(part("denoiser", width=1))


def test_every_problem_with_the_keys_is_named_at_once() -> None:
    message = refused(table(predict=None, scale=None, colour=1))
    assert "'predict'" in message and "'scale'" in message and "'colour'" in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (table(scale="4"), "[broken].scale must be of type int."),
        (table(scale=4.0), "[broken].scale must be of type int."),
        (table(scale=True), "[broken].scale must be of type int."),
        (table(clip_lq=0), "[broken].clip_lq must be of type bool."),
        (table(tile=64), "[broken].tile is not a table."),
        (part("schedule", kappa="2"), "[broken].schedule.kappa must be of type float."),
        (part("schedule", kappa=True), "[broken].schedule.kappa must be of type float."),
        (part("denoiser", channel_mult=2), "[broken].denoiser.channel_mult must be a list."),
        (part("denoiser", channel_mult=[1, 2.5]), "channel_mult must be of type int."),
        (part("denoiser", swin="odd"), "swin must be one of ('reference', 'standard')."),
        (table(predict=["x0"]), "predict must be one of ('x0', 'residual')."),
        ([], "[broken] is not a table."),
        (None, "[broken] is not a table."),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(changed: object, message: str) -> None:
    assert message in refused(changed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    assert "kappa must be a finite number" in refused(part("schedule", kappa=value))


def test_a_whole_number_is_good_for_a_fraction() -> None:
    kappa = from_table(ModelSpec, part("schedule", kappa=2), "here").schedule.kappa
    assert kappa == 2.0 and type(kappa) is float


def test_the_autoencoder_is_chosen_by_its_kind() -> None:
    vq = json.loads(to_json(VQ_MODEL))
    assert isinstance(from_table(ModelSpec, vq, "here").autoencoder, VQSpec)
    assert isinstance(from_table(ModelSpec, table(), "here").autoencoder, SpaceToDepthSpec)


@pytest.mark.parametrize("kind", [None, "kl", 1, ["vq"], {"vq": 1}])
def test_another_kind_of_autoencoder_is_refused(kind: object) -> None:
    message = refused(part("autoencoder", kind=kind))
    assert message == "[broken].autoencoder.kind must be one of vq, space-to-depth."


def test_a_kind_takes_its_own_keys_only() -> None:
    changed = table(autoencoder=asdict(small_vq_spec()) | {"kind": "space-to-depth"})
    assert "[broken].autoencoder has the unknown key 'ch'" in refused(changed)


@pytest.mark.parametrize("jpeg", [[50], [50, 60, 70], []])
def test_a_list_of_fixed_length_has_that_length(jpeg: list[int]) -> None:
    with pytest.raises(SpecError, match=r"here\.jpeg must be a list of 2"):
        from_table(MildSpec, {"share": 0, "blur": 0, "noise": 0, "jpeg": jpeg}, "here")


@pytest.mark.parametrize("text", ["", "{", "\ud800", "[" * 3, "1" * 5000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="The table in x is not JSON"):
        from_json(text, "The table in x")


# Parts that do not fit each other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autoencoder": SpaceToDepthSpec(2, 8.0)}, "48 latent_channels"),
        ({"scale": 2}, "lq_ratio 1 does not go with scale 2"),
        ({"scale": 3}, "scale 3 does not divide"),
        ({"condition": "latent"}, "needs a latent of 3 channels"),
        ({"max_steps": 5}, "max_steps 5 is outside 1 to 4"),
        ({"predict": "x0"}, "precondition goes with"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        replace(tiny_spec(), **changes)


@pytest.mark.parametrize("change", [{"steps": 1}, {"min_noise": 3.0}, {"p": -1.0}])
def test_a_schedule_that_does_not_rise_is_refused(change: dict[str, float]) -> None:
    whole = {"steps": 4, "kappa": 2.0, "p": 0.3, "min_noise": 0.2, "sqrt_eta_end": 0.99}
    with pytest.raises(SpecError, match="A schedule can't be used"):
        from_table(ScheduleSpec, whole | change, "here").build()


def test_sides_that_a_network_takes_follow_from_its_window_and_levels() -> None:
    assert tiny_spec().denoiser.size_multiple == 8
    assert small_unet_spec().size_multiple == 64


def test_a_tile_keeps_its_keys() -> None:
    assert from_table(TileSpec, {"size": 64, "overlap": 16}, "here") == TileSpec(64, 16)


def test_a_broken_table_counts_as_an_unavailable_model() -> None:
    assert SpecError.exit_code == ModelUnavailableError.exit_code == 7


# Imports


@pytest.mark.parametrize("room", ["", ".errors", ".diffusion.schedule", ".diffusion.specs"])
def test_the_ground_floor_imports_neither_torch_nor_numpy(room: str) -> None:
    code = f"import sys, resshift_cli{room}; print({{'torch', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
