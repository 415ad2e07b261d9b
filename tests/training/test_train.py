from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_model import load_model, tiny_spec
from tiny_run import (
    RUN,
    VQ_RUN,
    Start,
    needs_muon,
    weights_of,
    write_config,
)

from resshift_cli.diffusion.tables import SpecError
from resshift_cli.errors import (
    InputMissingError,
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UsageError,
)
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.training import recipe, train


@pytest.mark.parametrize(("small", "least"), [("0.png", 256), ("1.png", 96)])
def test_photos_that_are_all_too_small_are_a_usage_error(
    photos: Path, start: Start, small: str, least: int, tmp_path: Path
) -> None:
    for path in photos.iterdir():
        if (path.name == "0.png") == (small == "0.png"):
            Image.new("RGB", (least - 1, 300)).save(path)
    with pytest.raises(UsageError, match=f"none has {least} pixels") as caught:
        next(start("run"))
    assert small in str(caught.value) and "256" in caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stop", "optimiser"),
    [(2, "adamw"), (4, "muon32"), pytest.param(4, "muon", marks=needs_muon)],
)
def test_an_interrupted_run_goes_on_to_the_very_same_weights(
    start: Start, tmp_path: Path, stop: int, optimiser: str
) -> None:
    for _ in start("whole", optimiser=optimiser):
        pass
    interrupted = start("parts", optimiser=optimiser)
    while next(interrupted)["step"] < stop:
        pass
    interrupted.close()  # type: ignore[attr-defined]  # a generator
    assert [int(m["step"]) for m in start("parts", optimiser=optimiser)][-1] == 6

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected, actual = weights_of(whole / "state.pt"), weights_of(parts / "state.pt")
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
    files = [(folder / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert files[0] == files[1]


def test_steps_after_the_last_saved_one_are_done_again(start: Start) -> None:
    interrupted = start("run", save_every=4)
    steps = [int(next(interrupted)["step"]) for _ in range(2)]
    assert steps == [3, 4]
    interrupted.close()  # type: ignore[attr-defined]  # a generator
    assert [int(m["step"]) for m in start("run", save_every=4)] == [6]


def test_a_finished_run_has_nothing_left_to_do(start: Start) -> None:
    assert list(start("run"))
    assert list(start("run")) == []


def test_another_seed_leads_elsewhere(start: Start, tmp_path: Path) -> None:
    for seed in (0, 1):
        for _ in start(f"run{seed}", seed=seed, steps=2):
            pass
    a, b = (weights_of(tmp_path / f"run{seed}" / "state.pt") for seed in (0, 1))
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_its_state_its_metrics_and_a_model_that_runs(
    start: Start, tmp_path: Path
) -> None:
    yielded = list(start("run"))
    out = tmp_path / "run"
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "README.md",
        "config.toml",
        "environment.json",
        "events",
        "metrics.jsonl",
        "model.safetensors",
        "state.pt",
    ]
    upscaler = Upscaler.from_file(out / "model.safetensors", device="cpu", precision="fp32")
    large = upscaler(np.full((9, 7, 3), 128, np.uint8))
    assert large.shape == (36, 28, 3)
    average = weights_of(out / "state.pt")["average.network.out.2.weight"]
    exported = upscaler.denoiser.network.get_parameter("out.2.weight")
    assert torch.equal(exported, average.half().float()) and average.any()

    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines == yielded
    assert [line["step"] for line in lines] == [2, 3, 4, 6]
    assert [line["step"] for line in lines if "gain_db" in line] == [3, 6]
    assert all(line["loss"] > 0 and line["seconds_per_step"] > 0 for line in lines)
    assert all(line["worst_db"] <= line["gain_db"] for line in lines if "gain_db" in line)


def test_a_run_can_start_from_a_weight_file(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.toml", learning_rate=0.0, weight_decay=0.0, steps=1)
    for _ in train.train(config, [photos], tmp_path / "run", init=tiny_weights):
        pass
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == tiny_weights.read_bytes()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "started from `tiny.safetensors`, whose licence may bind this model" in card


def test_a_model_may_be_written_in_eight_bits(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.toml", learning_rate=0.0, steps=1, bits=8)
    list(train.train(config, [photos], tmp_path / "run", init=tiny_weights))
    file = load_file(tmp_path / "run" / "model.safetensors")
    assert file["input_blocks.0.0.weight"].dtype == torch.int8
    load_model(tmp_path / "run" / "model.safetensors")


def test_a_weight_file_of_another_network_is_refused(
    photos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    narrow = replace(RUN.model.denoiser, mlp_ratio=2)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(denoiser=narrow)))
    with pytest.raises(ModelUnavailableError, match="does not fit its network"):
        next(train.train(config, [photos], tmp_path / "run", init=tiny_weights))


def test_a_state_of_another_model_is_refused(start: Start, photos: Path, tmp_path: Path) -> None:
    next(start("run"))
    narrow = replace(RUN.model.denoiser, mlp_ratio=2)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(denoiser=narrow)))
    with pytest.raises(ModelUnavailableError, match="a run of another model") as caught:
        next(train.train(config, [photos], tmp_path / "run"))
    assert "--out" in caught.value.hint


@pytest.mark.parametrize("kept", [0, 1000, -1000])
def test_a_damaged_state_is_refused(start: Start, tmp_path: Path, kept: int) -> None:
    next(start("run"))
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:kept])
    with pytest.raises(ModelUnavailableError, match=r"state\.pt is damaged"):
        next(start("run"))


def test_a_state_of_something_else_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_text("hello")
    with pytest.raises(ModelUnavailableError, match=r"state\.pt is damaged"):
        next(start("run"))


def test_a_run_that_diverges_ends_and_keeps_the_last_good_state(
    start: Start, tmp_path: Path
) -> None:
    run = start("run", learning_rate=1e30, save_every=1, warmup=0, clip_norm=1e30)
    with pytest.raises(ResShiftError, match="is not finite") as caught:
        for _ in run:
            pass
    assert "learning_rate" in caught.value.hint
    saved = weights_of(tmp_path / "run" / "state.pt")
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_a_folder_that_can_t_be_made_is_an_output_error(start: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="can't be made") as caught:
        next(start("taken"))
    assert "another folder" in caught.value.hint


def test_two_runs_do_not_share_a_folder(start: Start, photos: Path, tmp_path: Path) -> None:
    first = start("run")
    next(first)
    with pytest.raises(OutputError, match="Another process trains in") as caught:
        next(train.train(tmp_path / "run.toml", [photos], tmp_path / "run"))
    assert "--out" in caught.value.hint
    assert list(first)[-1]["step"] == 6


def test_what_a_killed_process_was_writing_is_cleared_away(start: Start, tmp_path: Path) -> None:
    next(start("run"))
    left = tmp_path / "run" / ".state.pt.0123abcd.tmp"
    left.write_text("half")
    next(start("run"))
    assert not left.exists()


def test_a_run_takes_its_feature_network_from_beside_its_configuration(
    start: Start, tmp_path: Path
) -> None:
    term = {"weight": 0.1, "features": "lost.pt2"}
    with pytest.raises(InputMissingError, match=f"no feature network {tmp_path}/lost.pt2"):
        next(start("run", perceptual=term))


def test_a_model_with_an_autoencoder_is_trained_around_it(
    photos: Path, vq_weights: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.toml", replace(VQ_RUN, autoencoder="vq.safetensors"))
    for _ in train.train(config, [photos], tmp_path / "run", autoencoder=vq_weights):
        pass
    upscaler = Upscaler.from_file(
        tmp_path / "run" / "model.safetensors", device="cpu", precision="fp32"
    )
    assert upscaler(np.full((9, 7, 3), 128, np.uint8)).shape == (36, 28, 3)
    kept = load_file(vq_weights)
    for name, tensor in upscaler.autoencoder.state_dict().items():
        assert torch.equal(tensor, kept[name].half().float()), name
    assert "holds the autoencoder of `vq.safetensors`" in (tmp_path / "run/README.md").read_text()


def test_an_autoencoder_without_a_file_is_asked_for(photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.toml", VQ_RUN)
    with pytest.raises(UsageError, match="does not say where they are") as caught:
        next(train.train(config, [photos], tmp_path / "run"))
    assert "--autoencoder" in caught.value.hint


def test_initial_weights_that_mean_something_else_are_refused(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    model = tiny_spec(precondition=False)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=model))
    with pytest.raises(SpecError, match="was trained with precondition = True, and this run has"):
        next(train.train(config, [photos], tmp_path / "run", init=tiny_weights))


def test_a_run_can_start_from_a_network_of_another_chain(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    model = tiny_spec(schedule=replace(RUN.model.schedule, steps=9, kappa=1.0))
    config = write_config(tmp_path / "run.toml", replace(RUN, model=model), steps=1)
    assert list(train.train(config, [photos], tmp_path / "run", init=tiny_weights))


def test_a_run_goes_on_with_its_own_seed_only(start: Start) -> None:
    next(start("run"))
    with pytest.raises(UsageError, match="run with seed 0, not 1") as caught:
        next(start("run", seed=1))
    assert "--seed 0" in caught.value.hint


def test_a_run_keeps_its_very_configuration(photos: Path, tmp_path: Path) -> None:
    rows = "file,split\n0.png,held-out\n1.png,train\n2.png,train\n"
    (tmp_path / "list.csv").write_text(rows)
    config = write_config(tmp_path / "run.toml", replace(RUN, photos="list.csv"), steps=2)
    config.write_text(config.read_text() + "# a remark\n")
    out = tmp_path / "run"
    for _ in train.train(config, [photos], out):
        pass
    assert (out / "config.toml").read_bytes() == config.read_bytes()
    assert recipe.read(out / "config.toml") == recipe.read(config)
    assert (out / "list.csv").read_text() == rows


def test_a_configuration_that_was_changed_on_the_way_is_kept_as_well(
    start: Start, tmp_path: Path
) -> None:
    list(start("run", steps=2))
    before = (tmp_path / "run" / "config.toml").read_bytes()
    list(start("run", steps=4))
    assert (tmp_path / "run" / "config-until-000002.toml").read_bytes() == before
    assert recipe.read(tmp_path / "run" / "config.toml").train.steps == 4


def test_a_run_tells_where_it_ran_each_time(start: Start, photos: Path, tmp_path: Path) -> None:
    next(start("run", seed=5))
    config, out = tmp_path / "run.toml", tmp_path / "run"
    list(
        train.train(
            config, [photos], out, seed=5, session=train.Session(command=["resshift", "train", "x"])
        )
    )
    first, second = json.loads((out / "environment.json").read_text())["sessions"]
    assert (first["from_step"], second["from_step"]) == (0, 2)
    assert second["seed"] == 5 and second["device"] == "cpu" and second["processes"] == 1
    assert second["command"] == ["resshift", "train", "x"]
    assert second["pictures"] == {"training": 2, "held out": 1}
    assert second["versions"]["torch"] == torch.__version__


def test_no_step_is_told_twice_after_an_interruption(start: Start, tmp_path: Path) -> None:
    metrics = tmp_path / "run" / "metrics.jsonl"
    interrupted = start("run", save_every=4, validate_every=1)
    while next(interrupted)["step"] < 5:
        pass
    interrupted.close()  # type: ignore[attr-defined]  # a generator
    with metrics.open("a") as file:
        file.write('{"step": 6, "lo')  # as if it had been killed while writing
    list(start("run", save_every=4, validate_every=1))
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [*range(1, 7)]


def test_events_for_tensorboard_say_the_same_as_the_metrics(start: Start, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    told = list(start("run"))
    events = EventAccumulator(str(tmp_path / "run" / "events"))
    events.Reload()
    for name in ("loss", "gain_db", "learning_rate"):
        expected = [(m["step"], pytest.approx(m[name])) for m in told if name in m]
        assert [(e.step, e.value) for e in events.Scalars(name)] == expected


def test_a_run_without_tensorboard_writes_no_events(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    list(start("run", steps=2))
    assert not (tmp_path / "run" / "events").exists()
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_each_validation_leaves_a_sheet_of_samples(start: Start, tmp_path: Path) -> None:
    list(start("run", samples=4))
    sheets = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in sheets] == ["000003.png", "000006.png"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.size == (4 * (256 + 8) + 8, 256 + 28)  # one held-out photo


def test_a_run_drafts_the_card_of_its_model(start: Start, tmp_path: Path) -> None:
    told = list(start("run"))
    card = (tmp_path / "run" / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown")
    assert "| training | 6 of 6 steps, 2 crops of 64 px each, objective balanced |" in card
    assert "| pictures | 2 to train on, 1 held out |" in card
    assert f"{told[-1]['gain_db']:+.2f} dB on held-out pictures" in card


def test_a_card_that_somebody_has_filled_in_stays(start: Start, tmp_path: Path) -> None:
    list(start("run", steps=2))
    card = tmp_path / "run" / "README.md"
    filled = card.read_text().replace("license: unknown", "license: mit")
    card.write_text(filled)
    list(start("run", steps=4))
    assert card.read_text() == filled


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"sessions": 3}'])
def test_a_damaged_record_of_where_it_ran_is_told(
    start: Start, tmp_path: Path, content: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match=r"environment\.json is damaged") as caught:
        next(start("run"))
    assert "Delete it" in caught.value.hint
