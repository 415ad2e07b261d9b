"""`resshift train` as a command."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from command_line import Ran, Run, files, make_photo, posix, raises, start

from resshift_cli.training.trainer import Trainer

CONFIG = """
photos = ""

[model]
scale = 4
predict = "residual"
precondition = true
clip_lq = false
temperature = 1.0
tile = { size = 64, overlap = 16 }
schedule = { steps = 4, kappa = 2.0, p = 0.3, min_noise = 0.2, sqrt_eta_end = 0.99 }
autoencoder = { kind = "space-to-depth", factor = 4, latent_scale = 8.0 }

[model.denoiser]
latent_channels = 48
model_channels = 32
channel_mult = [1]
num_res_blocks = 1
swin_levels = []
swin_depth = 2
swin_embed_dim = 32
num_head_channels = 32
window = 8
mlp_ratio = 1
swin = "standard"
lq_ratio = 1
lq_mask = false
noise_channels = 0

[train]
steps = 2
batch = 2
crop = 32
crop_tries = 1
learning_rate = 1e-3
warmup = 1
weight_decay = 0.01
clip_norm = 1.0
ema = 0.9
late_steps = 1.0
last_share = 0.0
save_every = 2
validate_every = 2
degrade = { kind = "mild", share = 0.5, blur = 1.0, noise = 8.0, jpeg = [50, 95] }
"""


@pytest.fixture
def lesson(tmp_path: Path) -> list[object]:
    """Arguments that train a tiny model for two steps."""
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        make_photo(tmp_path / "photos" / name, 256, 256)
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    arguments = [config, "--photos", tmp_path / "photos", "--out", tmp_path / "run"]
    return ["train", *arguments, "--device", "cpu"]


def test_a_trained_model_can_be_used_at_once(
    resshift: Run, lesson: list[object], photo: Path
) -> None:
    weights = photo.parent / "run" / "model.safetensors"
    ran = resshift(*lesson)
    assert (ran.code, ran.out) == (0, f"{weights}\n")
    assert re.search(r"2 steps of training are done, [+-]\d+\.\d\d dB over bicubic", ran.err)
    assert resshift("upscale", photo, "--weights", weights).code == 0


def test_training_starts_from_a_given_weight_file(
    resshift: Run, lesson: list[object], tiny_weights: Path
) -> None:
    ran = resshift(*lesson, "--init", tiny_weights)
    assert ran.code == 0
    assert resshift(*lesson[:-3], "run2", "--init", tiny_weights.parent / "none").code == 3


def test_a_run_that_is_finished_stays_as_it_is(
    resshift: Run, lesson: list[object], tmp_path: Path
) -> None:
    assert resshift(*lesson).code == 0
    before = files(tmp_path)
    assert resshift(*lesson).code == 0
    assert files(tmp_path) == before


def test_interrupted_training_says_how_to_go_on(
    resshift: Run, lesson: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "advance", raises(KeyboardInterrupt()))
    told = "Interrupted; the same command goes on from the last saved step.\n"
    assert resshift(*lesson) == Ran(130, "", told)


@posix
def test_ctrl_c_saves_the_step_and_the_same_command_goes_on_from_it(
    resshift: Run, lesson: list[object], tmp_path: Path
) -> None:
    config = Path(str(lesson[1]))
    config.write_text(CONFIG.replace("steps = 2\nbatch", "steps = 400\nbatch"))
    process = start(*lesson)
    assert process.stderr is not None
    for line in process.stderr:
        if "gone" in line:
            process.send_signal(signal.SIGINT)
            break
    _, told = process.communicate(timeout=120)
    found = re.search(r"goes on from step (\d+), which is saved\.$", told.strip())
    assert process.returncode == 130 and found is not None
    step = int(found[1])
    config.write_text(CONFIG.replace("steps = 2\nbatch", f"steps = {step + 1}\nbatch"))
    assert resshift(*lesson).code == 0
    sessions = json.loads((tmp_path / "run" / "environment.json").read_text())["sessions"]
    assert sessions[-1]["from_step"] == step


def test_any_folder_of_pictures_is_taken_where_the_list_is_of_others(
    resshift: Run, lesson: list[object], tmp_path: Path
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("file,split\nother.png,train\nc.png,held-out\n")
    Path(str(lesson[1])).write_text(CONFIG.replace('photos = ""', 'photos = "list.csv"'))
    ran = resshift(*lesson)
    assert ran.code == 0
    assert "None of the pictures that list.csv lists is in" in ran.err
    listed.write_text("file,split\na.png,train\nc.png,held-out\n")
    refused = resshift(*lesson)
    assert refused.code == 3 and "c.png is missing" in refused.err


def test_a_preview_replaces_nothing(resshift: Run, lesson: list[object], tmp_path: Path) -> None:
    there = make_photo(tmp_path / "there.png", 8, 8)
    before = files(tmp_path)
    for name, code, told in (
        (there, 6, "there.png exists already. Give another name after --preview."),
        (tmp_path / "a.jpg", 2, "a.jpg would be a PNG"),
        (tmp_path / "none" / "a.png", 6, "there is no folder"),
    ):
        ran = resshift(*lesson, "--preview", name)
        assert ran.code == code and told in ran.err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "place, value, code, words",
    [
        (1, "none.toml", 3, "There is no file none.toml"),
        (3, "none", 3, "There is no folder none"),
        (7, "cuda:99", 8, "Use the CPU (--device cpu)"),
    ],
)
def test_training_that_cannot_start_leaves_nothing(
    resshift: Run,
    lesson: list[object],
    tmp_path: Path,
    place: int,
    value: str,
    code: int,
    words: str,
) -> None:
    lesson[place] = value
    before = files(tmp_path)
    ran = resshift(*lesson)
    assert ran.code == code
    assert words in ran.err and len(ran.err.splitlines()) == 1
    assert files(tmp_path) == before
