from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import small_vq_spec
from tiny_run import MILD, RUN, toml, write_config

from resshift_cli.errors import InputMissingError, UnknownModelError, UsageError
from resshift_cli.training import photos, recipe
from resshift_cli.training.recipe import AdversarySpec
from resshift_cli.training.trainer import Trainer
from resshift_cli.weights import checkpoint, registry, store

HALVES = ("mean", "samples")
STAGES = ("tiny-x1-start", "tiny-x1-mean", "tiny-x1")
JUDGED = {"weight": 2.0, "learning_rate": 1e-4}
TRAINING = Path(__file__).parents[2] / "training"


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert recipe.read(write_config(tmp_path / "run.toml")) == RUN


@pytest.mark.parametrize(
    "name", ["chain-x4", "tiny-x4-mean", "tiny-x4-letters", "tiny-x4-samples", *STAGES]
)
def test_the_configurations_of_small_models_are_valid(name: str) -> None:
    config = TRAINING / f"{name}.toml"
    run = recipe.read(config)
    splits = photos.read_splits(config.parent / run.photos)
    assert splits["train"] and splits["held-out"]
    assert not set(splits["train"]) & set(splits["held-out"])


def test_the_two_halves_of_a_model_of_one_step_are_of_one_network() -> None:
    mean, samples = (recipe.read(TRAINING / f"tiny-x4-{half}.toml") for half in HALVES)
    planes = replace(mean.model.denoiser, noise_channels=samples.model.denoiser.noise_channels)
    shown = replace(mean.model, detail=samples.model.detail, denoiser=planes)
    assert shown == samples.model
    assert mean.model.denoiser.noise_channels == 0
    assert mean.model.steps == 1
    assert samples.train.adversary is not None and samples.train.adversary.keep_mean


def test_the_stages_of_the_model_that_mends_are_of_one_network_and_the_last_is_judged() -> None:
    start, mean, last = (recipe.read(TRAINING / f"{stage}.toml") for stage in STAGES)
    assert start.model == mean.model == last.model
    assert (start.train.objective, mean.train.objective) == ("plain", "absolute")
    assert last.train.adversary is not None and last.train.bits == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "6"}, r"run.toml.train.steps must be of type int"),
        ({"batch": 1.5}, r"run.toml.train.batch must be of type int"),
        ({"warmup": None}, r"run.toml.train lacks the key 'warmup'"),
        ({"momentum": 0.9}, r"run.toml.train has the unknown key 'momentum'"),
        ({"objective": "best"}, r"run.toml.train.objective must be one of"),
        ({"amp": "fp8"}, r"run.toml.train.amp must be one of"),
        ({"degrade": {"kind": "mild"}}, r"run.toml.train.degrade lacks the key 'blur'"),
        ({"adversary": {"weight": 2.0}}, r"train.adversary lacks the key 'learning_rate'"),
        ({"adversary": JUDGED | {"noise": 1}}, r"train.adversary has the unknown key 'noise'"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_with_its_table_s_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        recipe.read(write_config(tmp_path / "run.toml", **changes))
    assert caught.value.exit_code == 2  # the user's own file, not a weight file


@pytest.mark.parametrize("content", [b"steps = \n", b"\xff\xfe"])
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="run.toml is not TOML"):
        recipe.read(path)


def test_a_missing_configuration_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="can't be read: No such file") as caught:
        recipe.read(tmp_path / "none.toml")
    assert "tiny-x4-mean.toml" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 100}, "crop 100 is no multiple of 32"),
        ({"crop": 0}, "crop must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": -1}, "batch must be at least 1"),
        ({"crop_tries": 0}, "crop_tries must be at least 1"),
        ({"reduce": 0.5}, "reduce must be at least 1"),
        ({"reduce": 2.0, "cut": "largest"}, 'reduce is for cut = "detail"'),
        ({"last_share": 1.5}, "last_share must be within 0..1"),
        ({"save_every": 0}, "save_every must be at least 1"),
        ({"validate_every": 0}, "validate_every must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"batch": 3, "accumulate": 2}, "batch 3 can't be computed in 2 equal parts"),
        ({"learning_rate": -1e-3}, "learning_rate can't be negative"),
        ({"final_rate": -1e-3}, "final_rate can't be negative"),
        ({"warmup": -1}, "warmup can't be negative"),
        ({"samples": -1}, "samples can't be negative"),
        ({"restraint": -1.0}, "restraint can't be negative"),
        ({"ema": 1.0}, "ema and beta2 must be at least 0 and below 1"),
        ({"beta2": -0.1}, "ema and beta2 must be at least 0 and below 1"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"perceptual": {"weight": -1.0, "features": "f.pt2"}}, "perceptual.weight can't be"),
        ({"decay": 0.0}, "decay must be above 0 and at most 1"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1"),
        ({"flat": 1.0}, "flat must be at least 0 and below 1"),
        ({"flat": 0.1, "degrade": {"kind": "paired"}}, "flat crops have no partners"),
        ({"grain": -1.0}, "grain can't be negative"),
        ({"grain": 2.0, "degrade": {"kind": "paired"}}, "grain would be missing"),
        ({"adversary": {"weight": 0.0, "learning_rate": 1e-4}}, "adversary.weight must be above 0"),
        ({"adversary": JUDGED | {"penalty": -1.0}}, "adversary.penalty can't be negative"),
        ({"adversary": JUDGED | {"even": 1.5}}, "adversary.even can't be above 1"),
        ({"adversary": JUDGED | {"clean": 1.5}}, "adversary.clean can't be above 1"),
        ({"adversary": JUDGED | {"shift": 7}}, "adversary.shift must be even"),
        ({"adversary": JUDGED | {"shift": 40}}, "crop less adversary.shift must be at least 32"),
        ({"objective": "absolute", "restraint": 3.0}, "is of pixels, and the restraint of latents"),
        ({"adversary": JUDGED, "accumulate": 2}, "accumulate must be 1"),
        ({"adversary": JUDGED, "restraint": 3.0}, "the restraint is adversary.restraint"),
        (
            {"adversary": JUDGED, "perceptual": {"weight": 1.0, "features": "f.pt2"}},
            "the weight of features is adversary.features",
        ),
        ({"degrade": asdict(replace(MILD, jpeg=(95, 50)))}, "two rising qualities"),
        ({"degrade": asdict(replace(MILD, noise=-1.0))}, "can't be negative"),
    ],
)
def test_numbers_that_nothing_can_be_trained_with_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        recipe.read(write_config(tmp_path / "run.toml", **changes))
    assert "run.toml" in caught.value.hint


@pytest.mark.parametrize("kind", [{}, {"kind": "wild"}])
def test_a_degradation_of_no_known_kind_is_refused(tmp_path: Path, kind: dict[str, str]) -> None:
    table = {key: value for key, value in asdict(MILD).items() if key != "kind"}
    with pytest.raises(UsageError, match=r"degrade.kind must be one of bicubic, mild"):
        recipe.read(write_config(tmp_path / "run.toml", degrade=table | kind))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"like": "rsd-x4"}, "only models that are shown the pixels of the image"),
        ({"denoiser": {"channel_mult": [1, 1, 1, 1, 1]}}, "crop 256 is no multiple of 512"),
    ],
)
def test_models_that_can_t_be_trained_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recipe.read(write_like(tmp_path, {"like": "realsr-x4-v2"} | changes, crop=256))


def test_judges_of_holes_have_no_reduction_and_no_grid(tmp_path: Path) -> None:
    table = {"like": "inpaint-imagenet"}
    config = write_like(tmp_path, table, adversary=JUDGED | {"grid": 1.0}, crop=256, holes=0.5)
    with pytest.raises(UsageError, match="adversary.grid are for models that fill no holes"):
        recipe.read(config)


def test_crops_for_validation_have_to_fit_the_network(tmp_path: Path) -> None:
    table = {"like": "realsr-x4-v2", "denoiser": {"channel_mult": [1, 1, 1, 1, 1]}}
    with pytest.raises(UsageError, match="256 pixels, which is no multiple of 512"):
        recipe.read(write_like(tmp_path, table, crop=512))


def test_only_a_vqgan_has_an_autoencoder_to_load(tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.toml", replace(RUN, autoencoder="realsr-x4-v2"))
    with pytest.raises(UsageError, match="has no autoencoder to load"):
        recipe.read(config)


def test_the_learning_rate_rises_and_then_falls_along_a_cosine() -> None:
    run = replace(RUN, train=replace(RUN.train, steps=10, warmup=2, learning_rate=1.0))
    rates = [run.train.rate(step) for step in (0, 1, 2, 6, 10, 11)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_the_learning_rate_can_stay_at_its_peak_until_the_last_part() -> None:
    settings = replace(RUN.train, steps=12, warmup=2, learning_rate=1.0, decay=0.4)
    rates = [settings.rate(step) for step in (1, 2, 8, 10, 12)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0])


def test_the_judges_rate_rises_and_falls_with_the_model_s() -> None:
    judged = AdversarySpec(weight=1.0, learning_rate=0.5)
    settings = replace(RUN.train, steps=10, warmup=2, learning_rate=1.0, adversary=judged)
    for step in range(11):
        assert settings.judges_rate(step) == pytest.approx(settings.rate(step) / 2)


# Models of the registry


def write_like(folder: Path, model: dict[str, Any], **changes: Any) -> Path:
    """A configuration whose model is that table."""
    path = write_config(folder / "run.toml", **changes)
    kept = [line for line in path.read_text().splitlines() if not line.startswith("model =")]
    path.write_text("\n".join([f"model = {toml(model)}", *kept]))
    return path


def test_a_model_can_be_like_one_of_the_registry(tmp_path: Path) -> None:
    run = recipe.read(write_like(tmp_path, {"like": "realsr-x4-v3"}, crop=256))
    assert run.model == registry.find("realsr-x4-v3").spec


def test_a_model_differs_from_the_one_it_is_like_in_what_it_says_itself(tmp_path: Path) -> None:
    table = {"like": "realsr-x4-v3", "schedule": {"kappa": 1.0}, "predict": "residual"}
    run = recipe.read(write_like(tmp_path, table, crop=256))
    base = registry.find("realsr-x4-v3").spec
    assert base is not None
    schedule = replace(base.schedule, kappa=1.0)
    assert run.model == replace(base, schedule=schedule, predict="residual")


def test_a_model_like_none_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no model named 'realsr-x5'"):
        recipe.read(write_like(tmp_path, {"like": "realsr-x5"}))


def test_a_model_can_be_like_one_whose_table_its_file_has(tmp_path: Path) -> None:
    run = recipe.read(write_like(tmp_path, {"like": "tiny-x4", "detail": 0.5}))
    assert (run.model.detail, run.model.mean, run.model.denoiser.noise_channels) == (0.5, False, 16)


def test_a_model_like_one_without_a_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "located", lambda entry: None)
    for name in ("tiny-x4", 4):
        with pytest.raises(UsageError, match=f"is like {name!r}, whose table is not known here"):
            recipe.read(write_like(tmp_path, {"like": name}))


# The recipes of the repository


@pytest.mark.parametrize(("name", "steps"), [("realsr-x4-v1", 15), ("realsr-x4-v3", 4)])
def test_the_published_recipes_are_those_of_the_published_models(name: str, steps: int) -> None:
    run = recipe.read(TRAINING / f"{name}.toml")
    assert run.model == registry.find(name).spec
    assert run.model.schedule.steps == steps
    assert registry.find(run.autoencoder).autoencoder is not None
    with torch.device("meta"):
        denoiser, codec = checkpoint.build(run.model)
    assert 118e6 < sum(p.numel() for p in denoiser.parameters()) < 119e6
    assert codec.channels == 3


@pytest.mark.parametrize("name", ["realsr-x4-v1", "realsr-x4-v3"])
def test_a_published_recipe_trains_at_a_reduced_size(tmp_path: Path, name: str) -> None:
    run = recipe.read(TRAINING / f"{name}.toml")
    narrow = replace(
        run.model,
        denoiser=replace(
            run.model.denoiser, model_channels=32, swin_embed_dim=32, channel_mult=(1, 1, 1, 1)
        ),
        autoencoder=small_vq_spec(codes=16),
    )
    run = replace(run, model=narrow, train=replace(run.train, batch=1, accumulate=1))
    trainer = Trainer(run, seed=0, device=torch.device("cpu"))
    before = trainer.denoiser.network.get_parameter("out.2.weight").clone()
    loss = trainer.advance(torch.rand(1, 3, 256, 256), torch.rand(1, 3, 64, 64))
    assert loss.isfinite() and loss > 0
    assert not torch.equal(before, trainer.denoiser.network.get_parameter("out.2.weight"))
