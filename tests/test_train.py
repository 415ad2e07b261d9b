from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens_support import small_vq_spec
from PIL import Image
from tiny_model import tiny_spec
from torch.testing import assert_close

from resshift_cli import train
from resshift_cli.degrade import DegradeSpec, Pixels
from resshift_cli.denoiser import SwinUNet
from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UsageError,
)
from resshift_cli.specs import SpecError
from resshift_cli.train import RunSpec, Trainer, TrainSpec
from resshift_cli.upscaler import Upscaler

CPU = torch.device("cpu")
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
        degrade=DegradeSpec(share=0.5, blur=1.0, noise=8.0, jpeg=(50, 95)),
    ),
)


def made_up_photo(seed: int, side: int) -> Pixels:
    """Two gradients under waves, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = [np.sin(40 * (a * rows + b * columns)) for a, b in rng.normal(size=(3, 2))]
    levels = 128 + 60 * (rows - columns)[..., None] + 50 * np.stack(waves, axis=2)
    return levels.clip(0, 255).astype(np.uint8)


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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos; the first by name is held out, and just large enough for it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, side in enumerate([256, 96, 100]):
        Image.fromarray(made_up_photo(i, side)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def start(photos: Path, tmp_path: Path) -> Callable[..., Iterator[dict[str, float]]]:
    def start(out: str, *, seed: int = 0, **changes: Any) -> Iterator[dict[str, float]]:
        config = write_config(tmp_path / "run.toml", **changes)
        return train.train(config, photos, tmp_path / out, seed=seed, device=CPU)

    return start


Start = Callable[..., Iterator[dict[str, float]]]


# Configurations


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert train.read_config(write_config(tmp_path / "run.toml")) == RUN


def test_the_configuration_of_the_bundled_model_is_valid() -> None:
    config = Path(__file__).parent.parent / "training" / "tiny-x4.toml"
    run = train.read_config(config)
    splits = train._read_splits(config.parent / run.photos)
    assert splits["train"] and splits["held-out"]
    assert not set(splits["train"]) & set(splits["held-out"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "6"}, r"run.toml.train.steps must be of type int"),
        ({"batch": 1.5}, r"run.toml.train.batch must be of type int"),
        ({"warmup": None}, r"run.toml.train lacks the key 'warmup'"),
        ({"momentum": 0.9}, r"run.toml.train has the unknown key 'momentum'"),
        ({"degrade": {"share": 0.5}}, r"run.toml.train.degrade lacks the key 'blur'"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_with_its_table_s_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        train.read_config(write_config(tmp_path / "run.toml", **changes))


@pytest.mark.parametrize("content", [b"steps = \n", b"\xff\xfe"])
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="run.toml is not TOML"):
        train.read_config(path)


def test_a_missing_configuration_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="can't be read: No such file") as caught:
        train.read_config(tmp_path / "none.toml")
    assert "tiny-x4.toml" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 100}, "crop 100 is no multiple of 32"),
        ({"crop": 0}, "crop must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": -1}, "batch must be at least 1"),
        ({"crop_tries": 0}, "crop_tries must be at least 1"),
        ({"last_share": 1.5}, "last_share must be within 0..1"),
        ({"save_every": 0}, "save_every must be at least 1"),
        ({"validate_every": 0}, "validate_every must be at least 1"),
        ({"degrade": asdict(replace(RUN.train.degrade, jpeg=(95, 50)))}, "two rising qualities"),
        ({"degrade": asdict(replace(RUN.train.degrade, noise=-1.0))}, "can't be negative"),
    ],
)
def test_numbers_that_nothing_can_be_trained_with_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train.read_config(write_config(tmp_path / "run.toml", **changes))
    assert "run.toml" in caught.value.hint


def test_a_model_whose_autoencoder_needs_weights_is_refused(tmp_path: Path) -> None:
    vq = small_vq_spec(z_channels=48)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(autoencoder=vq)))
    with pytest.raises(UsageError, match="only space-to-depth models"):
        train.read_config(config)


# Photos


def listing(folder: Path, rows: str) -> Path:
    (folder / "photos.csv").write_text(rows)
    return folder / "run.toml"


LISTED = replace(RUN, photos="photos.csv")


def test_the_list_decides_which_photos_are_held_out(photos: Path, tmp_path: Path) -> None:
    rows = "file,split,licence\n2.png,held-out,CC0\n1.png,train,CC0\n0.png,train,CC0\n"
    kept, held_out = train.split_photos(listing(tmp_path, rows), LISTED, photos)
    assert kept == [photos / "1.png", photos / "0.png"]
    assert held_out == [photos / "2.png"]


def test_without_a_list_every_tenth_image_of_the_folder_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    images = [tmp_path / f"{i:02}.png" for i in range(11)] + [tmp_path / "deep" / "x.JPG"]
    for path in [*images, tmp_path / "notes.txt"]:
        path.touch()
    kept, held_out = train.split_photos(tmp_path / "run.toml", RUN, tmp_path)
    assert held_out == sorted(images)[::10]
    assert sorted(kept + held_out) == sorted(images)


@pytest.mark.parametrize("images", [[], ["only.png"]])
def test_a_folder_with_too_few_images_is_refused(tmp_path: Path, images: list[str]) -> None:
    for name in images:
        (tmp_path / name).touch()
    with pytest.raises(InputMissingError, match="too few images") as caught:
        train.split_photos(tmp_path / "run.toml", RUN, tmp_path)
    assert "--photos" in caught.value.hint


def test_a_listed_photo_that_is_missing_is_named(photos: Path, tmp_path: Path) -> None:
    rows = "file,split\n0.png,held-out\n1.png,train\nlost.png,train\n"
    with pytest.raises(InputMissingError, match=r"lost\.png is missing"):
        train.split_photos(listing(tmp_path, rows), LISTED, photos)


def test_a_missing_list_is_said_to_be_missing(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"photos\.csv can't be read"):
        train.split_photos(tmp_path / "run.toml", LISTED, photos)


@pytest.mark.parametrize(
    "rows", ["name,split\n0.png,train\n", "file\n0.png\n", "file,split\n0,x\n"]
)
def test_a_list_without_its_columns_or_splits_is_refused(
    photos: Path, tmp_path: Path, rows: str
) -> None:
    with pytest.raises(UsageError, match=r"photos\.csv does not fit") as caught:
        train.split_photos(listing(tmp_path, rows), LISTED, photos)
    assert "`held-out`" in caught.value.hint


def test_photos_are_rgb_and_the_small_ones_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"{side}.png" for side in (64, 63, 80)]
    Image.new("L", (64, 64), 7).save(paths[0])
    Image.new("RGB", (63, 200)).save(paths[1])
    Image.new("RGBA", (90, 80)).save(paths[2])
    loaded = train.load_photos(paths, 64)
    assert [photo.shape for photo in loaded] == [(64, 64, 3), (80, 90, 3)]
    assert loaded[0].dtype == np.uint8 and (loaded[0] == 7).all()


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_text("no image")
    with pytest.raises(ImageUnreadableError, match=r"fake\.png can't be decoded"):
        train.load_photos([tmp_path / "fake.png"], 64)


def test_a_truncated_photo_is_named(photos: Path) -> None:
    whole = (photos / "0.png").read_bytes()
    (photos / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageUnreadableError, match=r"0\.png can't be decoded"):
        train.load_photos([photos / "0.png"], 64)


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


# Batches


def batch(step: int, seed: int = 0, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    run = replace(RUN, train=replace(RUN.train, **changes))
    return train.make_batch([made_up_photo(0, 96), made_up_photo(1, 120)], run, seed, step)


def test_a_batch_is_crops_and_their_low_resolution_partners() -> None:
    sharp, blurry = batch(0, batch=3)
    assert sharp.shape == (3, 3, 64, 64)
    assert blurry.shape == (3, 3, 16, 16)
    for image in (sharp, blurry):
        assert image.min() >= 0 and image.max() <= 1


def test_partners_show_the_same_place() -> None:
    clean = replace(RUN.train.degrade, share=0.0)
    for step in range(8):
        sharp, blurry = batch(step, degrade=clean)
        inside = (..., slice(2, -2), slice(2, -2))  # the partner saw beyond the crop's border
        means = torch.nn.functional.avg_pool2d(sharp, 4)[inside]
        assert_close(blurry[inside], means, rtol=0.0, atol=0.05)


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    first = batch(4)
    np.random.default_rng(99).random()
    assert all(torch.equal(a, b) for a, b in zip(first, batch(4), strict=True))
    assert not torch.equal(first[0], batch(5)[0])
    assert not torch.equal(first[0], batch(4, seed=1)[0])


@pytest.mark.parametrize("power", [0.0, 1.5])
@pytest.mark.parametrize("count", [1, 2, 64])
def test_drawn_steps_stay_within_the_chain(count: int, power: float) -> None:
    rng = np.random.default_rng(0)
    drawn = torch.cat([train.draw_steps(count, 15, power, 0.0, rng) for _ in range(2000 // count)])
    assert drawn.dtype == torch.int64
    assert set(drawn.tolist()) == set(range(1, 16))


def test_steps_are_drawn_in_proportion_to_a_power_of_their_number() -> None:
    drawn = train.draw_steps(10_000, 4, 1.0, 0.0, np.random.default_rng(0))
    shares = torch.bincount(drawn, minlength=5)[1:] / len(drawn)
    assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), rtol=0.0, atol=2e-3)


def test_a_share_of_the_crops_can_be_given_the_last_step() -> None:
    drawn = train.draw_steps(10_000, 4, 1.0, 0.5, np.random.default_rng(0))
    shares = torch.bincount(drawn, minlength=5)[1:] / len(drawn)
    assert_close(shares, torch.tensor([0.05, 0.1, 0.15, 0.7]), rtol=0.0, atol=2e-3)


def test_a_batch_covers_the_chain_evenly() -> None:
    for seed in range(20):
        drawn = train.draw_steps(15, 15, 0.0, 0.0, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) >= 8
        assert (drawn <= 8).sum() in (7, 8, 9)


# The start


def test_an_untrained_preconditioned_network_returns_zero() -> None:
    network = SwinUNet(replace(RUN.model.denoiser, swin_levels=(0,)))
    train.initialise(network)
    torch.manual_seed(0)
    x, lq = torch.randn(2, 48, 16, 16), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert not network(x, torch.tensor([0, 3]), lq).any()


def test_residual_branches_start_at_zero_and_swin_layers_at_the_identity() -> None:
    network = SwinUNet(RUN.model.denoiser)
    train.initialise(network)
    torch.manual_seed(0)
    h, time = torch.randn(2, 32, 16, 16), torch.randn(2, 128)
    first, swin, _ = network.middle_block
    with torch.no_grad():
        assert torch.equal(first(h, time), h)
        assert_close(swin(h), h)


def test_half_of_the_first_features_are_differences_within_the_low_quality_image() -> None:
    network = SwinUNet(RUN.model.denoiser)
    train.initialise(network)
    weight = network.get_parameter("input_blocks.0.0.weight")
    assert not weight[:16, :48].any() and not weight[16:, 48:].any()
    assert_close(weight[:16, 48:].sum((2, 3)), torch.zeros(16, 3), rtol=0.0, atol=1e-5)
    assert weight[:16, 48:].any() and weight[16:, :48].any()


def test_the_learning_rate_rises_and_then_falls_along_a_cosine() -> None:
    run = replace(RUN, train=replace(RUN.train, steps=10, warmup=2, learning_rate=1.0))
    trainer = Trainer(run, seed=0, device=CPU)
    rates = []
    for trainer.step in (0, 1, 2, 6, 10, 11):
        rates.append(trainer.learning_rate())
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


# Runs


def test_the_loss_falls_on_a_single_photo() -> None:
    clean = replace(RUN.train.degrade, share=0.0)
    settings = replace(RUN.train, steps=40, warmup=5, learning_rate=5e-3, degrade=clean)
    trainer = Trainer(replace(RUN, train=settings), seed=0, device=CPU)
    photo = [made_up_photo(0, 96)]

    @torch.no_grad()
    def loss() -> float:
        """Mean over draws that stay the same, since it depends on them more than on anything."""
        at, losses = trainer.step, []
        for trainer.step in range(8):
            losses.append(trainer.loss(*train.make_batch(photo, trainer.run, 0, trainer.step)))
        trainer.step = at
        return torch.stack(losses).mean().item()

    before = loss()
    for _ in range(settings.steps):
        trainer.advance(photo)
    assert loss() < 0.9 * before


def test_the_average_follows_the_weights() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    before = trainer.denoiser.network.get_parameter("out.2.weight").clone()
    trainer.advance([made_up_photo(0, 96)])
    after = trainer.denoiser.network.get_parameter("out.2.weight")
    average = trainer.average.network.get_parameter("out.2.weight")
    keep = 2 / 11  # early on, less is kept than `ema` says
    assert not torch.equal(before, after)
    assert_close(average, keep * before + (1 - keep) * after)


def weights_of(state: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(state, weights_only=True)
    return {f"{part}.{k}": t for part in ("weights", "average") for k, t in loaded[part].items()}


@pytest.mark.parametrize("stop", [2, 4])
def test_an_interrupted_run_goes_on_to_the_very_same_weights(
    start: Start, tmp_path: Path, stop: int
) -> None:
    for _ in start("whole"):
        pass
    interrupted = start("parts")
    while next(interrupted)["step"] < stop:
        pass
    interrupted.close()  # type: ignore[attr-defined]  # a generator
    assert [int(m["step"]) for m in start("parts")][-1] == 6

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
    assert sorted(path.name for path in out.iterdir()) == [
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
    for _ in train.train(config, photos, tmp_path / "run", device=CPU, init=tiny_weights):
        pass
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == tiny_weights.read_bytes()


def test_a_weight_file_of_another_network_is_refused(
    photos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    narrow = replace(RUN.model.denoiser, mlp_ratio=2)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(denoiser=narrow)))
    with pytest.raises(ModelUnavailableError, match="does not fit its network"):
        next(train.train(config, photos, tmp_path / "run", device=CPU, init=tiny_weights))


def test_a_state_of_another_model_is_refused(start: Start, photos: Path, tmp_path: Path) -> None:
    next(start("run"))
    narrow = replace(RUN.model.denoiser, mlp_ratio=2)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(denoiser=narrow)))
    with pytest.raises(ModelUnavailableError, match="a run of another model") as caught:
        next(train.train(config, photos, tmp_path / "run", device=CPU))
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
    assert "--out" in caught.value.hint


def test_the_gain_is_that_of_the_averaged_network_over_bicubic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    image = np.random.default_rng(0).integers(80, 176, (256, 256, 3), np.uint8)
    sharp = trainer.autoencoder.encode(train.to_tensor(image) * 2 - 1)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: y0)
    assert trainer.validate([image])["gain_db"] == pytest.approx(0.0, abs=0.01)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: sharp.lerp(y0, 0.1))
    assert trainer.validate([image])["gain_db"] == pytest.approx(20.0, abs=2.0)


def test_validation_averages_over_the_middles_of_the_photos() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    image = made_up_photo(0, 256)
    larger = np.pad(image, ((10, 10), (20, 20), (0, 0)))
    gains = [trainer.validate([photo]) for photo in (image, larger, made_up_photo(1, 256))]
    assert gains[0] == gains[1]  # the middle is what counts
    both = trainer.validate([image, made_up_photo(1, 256)])
    assert both["gain_db"] == pytest.approx((gains[0]["gain_db"] + gains[2]["gain_db"]) / 2)
    assert both["worst_db"] == min(gains[0]["worst_db"], gains[2]["worst_db"])
