from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens_support import small_vq_spec
from pictures import made_up_photo
from PIL import Image
from safetensors.torch import load_file
from tiny_model import tiny_spec
from tiny_run import RUN, write_config
from torch.testing import assert_close

from resshift_cli.diffusion import autoencoder, chain
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import SpecError
from resshift_cli.errors import (
    InputMissingError,
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UsageError,
)
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.training import dataset, network, recipe, train
from resshift_cli.training import trainer as trainer_room
from resshift_cli.training.dataset import to_tensor
from resshift_cli.training.degradation import BicubicSpec
from resshift_cli.training.photos import Pictures, Pixels
from resshift_cli.training.ranks import Ranks
from resshift_cli.training.recipe import PerceptualSpec, RunSpec
from resshift_cli.training.trainer import Trainer
from resshift_cli.weights import checkpoint

CPU = torch.device("cpu")


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
        return train.train(config, [photos], tmp_path / out, seed=seed, device=CPU)

    return start


Start = Callable[..., Iterator[dict[str, float]]]


def batch(run: RunSpec = RUN, number: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return dataset.make_batch(Pictures([made_up_photo(0, 96)]), run.data, 0, number)


def loss_of(trainer: Trainer, pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Of a whole batch at the trainer's step."""
    return trainer.loss(*pairs, *trainer.drawn())


def held_out(*photos: Pixels) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return dataset.validation_pairs(Pictures(photos), RUN.data)


# Photos


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


# The start


def test_an_untrained_preconditioned_network_returns_zero() -> None:
    unet = SwinUNet(replace(RUN.model.denoiser, swin_levels=(0,)))
    network.initialise(unet, preconditioned=True)
    torch.manual_seed(0)
    x, lq = torch.randn(2, 48, 16, 16), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert not unet(x, torch.tensor([0, 3]), lq).any()


def test_residual_branches_start_at_zero_and_swin_layers_at_the_identity() -> None:
    unet = SwinUNet(RUN.model.denoiser)
    network.initialise(unet, preconditioned=True)
    torch.manual_seed(0)
    h, time = torch.randn(2, 32, 16, 16), torch.randn(2, 128)
    first, swin, _ = unet.middle_block
    with torch.no_grad():
        assert torch.equal(first(h, time), h)
        assert_close(swin(h), h)


def test_half_of_the_first_features_are_differences_within_the_low_quality_image() -> None:
    unet = SwinUNet(RUN.model.denoiser)
    network.initialise(unet, preconditioned=True)
    weight = unet.get_parameter("input_blocks.0.0.weight")
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
    settings = replace(RUN.train, steps=40, warmup=5, learning_rate=5e-3, degrade=BicubicSpec())
    trainer = Trainer(replace(RUN, train=settings), seed=0, device=CPU)
    photo = Pictures([made_up_photo(0, 96)])

    @torch.no_grad()
    def loss() -> float:
        """Mean over draws that stay the same, since it depends on them more than on anything."""
        at, losses = trainer.step, []
        for trainer.step in range(8):
            losses.append(
                loss_of(trainer, dataset.make_batch(photo, trainer.run.data, 0, trainer.step))
            )
        trainer.step = at
        return torch.stack(losses).mean().item()

    before = loss()
    for _ in range(settings.steps):
        trainer.advance(*dataset.make_batch(photo, trainer.run.data, 0, trainer.step))
    assert loss() < 0.9 * before


def test_the_average_follows_the_weights() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    before = trainer.denoiser.network.get_parameter("out.2.weight").clone()
    trainer.advance(*batch())
    after = trainer.denoiser.network.get_parameter("out.2.weight")
    average = trainer.average.network.get_parameter("out.2.weight")
    keep = 2 / 11  # early on, less is kept than `ema` says
    assert not torch.equal(before, after)
    assert_close(average, keep * before + (1 - keep) * after)


def weights_of(state: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(state, weights_only=True)
    return {f"{part}.{k}": t for part in ("weights", "average") for k, t in loaded[part].items()}


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch 2.9")


@pytest.mark.parametrize(
    ("stop", "optimiser"),
    [(2, "adamw"), (4, "adamw"), pytest.param(4, "muon", marks=needs_muon)],
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
    for _ in train.train(config, [photos], tmp_path / "run", device=CPU, init=tiny_weights):
        pass
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == tiny_weights.read_bytes()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "started from `tiny.safetensors`, whose licence may bind this model" in card


def test_a_weight_file_of_another_network_is_refused(
    photos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    narrow = replace(RUN.model.denoiser, mlp_ratio=2)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(denoiser=narrow)))
    with pytest.raises(ModelUnavailableError, match="does not fit its network"):
        next(train.train(config, [photos], tmp_path / "run", device=CPU, init=tiny_weights))


def test_a_state_of_another_model_is_refused(start: Start, photos: Path, tmp_path: Path) -> None:
    next(start("run"))
    narrow = replace(RUN.model.denoiser, mlp_ratio=2)
    config = write_config(tmp_path / "run.toml", replace(RUN, model=tiny_spec(denoiser=narrow)))
    with pytest.raises(ModelUnavailableError, match="a run of another model") as caught:
        next(train.train(config, [photos], tmp_path / "run", device=CPU))
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


def test_the_gain_is_that_of_the_averaged_network_over_bicubic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    image = np.random.default_rng(0).integers(80, 176, (256, 256, 3), np.uint8)
    sharp = trainer.autoencoder.encode(to_tensor(image) * 2 - 1)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: y0)
    assert trainer.validate(held_out(image))["gain_db"] == pytest.approx(0.0, abs=0.01)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: sharp.lerp(y0, 0.1))
    assert trainer.validate(held_out(image))["gain_db"] == pytest.approx(20.0, abs=2.0)


def test_validation_averages_over_the_middles_of_the_photos() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    image = made_up_photo(0, 256)
    larger = np.pad(image, ((10, 10), (20, 20), (0, 0)))
    gains = [trainer.validate(held_out(photo)) for photo in (image, larger, made_up_photo(1, 256))]
    assert gains[0] == gains[1]  # the middle is what counts
    both = trainer.validate(held_out(image, made_up_photo(1, 256)))
    assert both["gain_db"] == pytest.approx((gains[0]["gain_db"] + gains[2]["gain_db"]) / 2)
    assert both["worst_db"] == min(gains[0]["worst_db"], gains[2]["worst_db"])


# How a step is computed


def gradients(run: RunSpec, **more: Any) -> dict[str, torch.Tensor]:
    """Of the loss of one batch, in a network that has left its start."""
    trainer = Trainer(run, seed=0, device=CPU, **more)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    loss_of(trainer, batch(run)).backward()  # type: ignore[no-untyped-call]  # torch's own
    return {n: p.grad for n, p in trainer.denoiser.named_parameters() if p.grad is not None}


def changed(**changes: Any) -> RunSpec:
    return replace(RUN, train=replace(RUN.train, **changes))


def after_two_steps(run: RunSpec) -> dict[str, torch.Tensor]:
    trainer = Trainer(run, seed=0, device=CPU)
    for number in range(2):
        trainer.advance(*batch(run, number))
    return dict(trainer.denoiser.state_dict())


def test_recomputed_activations_give_the_very_same_gradients() -> None:
    kept = gradients(RUN)
    recomputed = gradients(changed(checkpointing=True))
    assert kept.keys() == recomputed.keys() and kept
    assert all(torch.equal(recomputed[name], kept[name]) for name in kept)


def test_recomputed_activations_are_not_kept() -> None:
    def saved(run: RunSpec) -> int:
        trainer, kept = Trainer(run, seed=0, device=CPU), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.nbytes), lambda nothing: nothing
        ):
            loss_of(trainer, batch(run))
        return sum(kept)

    assert saved(changed(checkpointing=True)) < 0.6 * saved(RUN)


def test_a_batch_computed_in_parts_leads_to_the_same_weights() -> None:
    whole = after_two_steps(changed(batch=4, amp="off"))
    parts = after_two_steps(changed(batch=4, amp="off", accumulate=2))
    for name in whole:
        assert_close(parts[name], whole[name], rtol=0.0, atol=1e-4)
    start = Trainer(RUN, seed=0, device=CPU).denoiser.state_dict()
    assert any(not torch.allclose(start[name], whole[name], atol=1e-3) for name in whole)


@pytest.mark.parametrize(("amp", "share"), [("bf16", 0.1), ("fp16", 0.02)])
def test_half_precision_gives_nearly_the_same_gradients(amp: str, share: float) -> None:
    exact, half = gradients(changed(amp="off")), gradients(changed(amp=amp))
    apart = sum((half[name] - exact[name]).square().sum() for name in exact)
    size = sum(exact[name].square().sum() for name in exact)
    assert 0 < (apart / size) ** 0.5 < share


def test_a_float16_gradient_that_overflows_is_skipped_and_its_scale_lowered() -> None:
    trainer = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    before = {name: t.clone() for name, t in trainer.denoiser.state_dict().items()}
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    trainer.advance(*batch())
    assert trainer.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[n], t) for n, t in trainer.denoiser.state_dict().items())


def test_a_float16_gradient_that_never_fits_ends_the_run() -> None:
    trainer = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 1.0})
    with torch.no_grad():
        trainer.denoiser.network.get_parameter("out.2.bias").fill_(float("nan"))
    with pytest.raises(ResShiftError, match="gradient of step 1 is not finite"):
        trainer.advance(*batch())


def test_the_scale_of_float16_gradients_is_part_of_the_state(tmp_path: Path) -> None:
    trainer = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    trainer.advance(*batch())
    trainer.save(tmp_path / "state.pt")
    again = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    again.restore(tmp_path / "state.pt")
    assert again.scaler.get_scale() == 2.0**39 and again.step == 1


def test_automatic_precision_is_the_fastest_that_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_room, "has_fast_bf16", lambda device: True)
    assert trainer_room.amp_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.setattr(trainer_room, "has_fast_bf16", lambda device: False)
    assert trainer_room.amp_dtype("auto", CPU) is None
    assert trainer_room.amp_dtype("auto", torch.device("cuda")) == torch.float16


@pytest.mark.parametrize("ranks", [Ranks(count=3), Ranks(count=2, rank=1)])
def test_a_batch_that_processes_can_t_share_evenly_is_refused(ranks: Ranks) -> None:
    with pytest.raises(UsageError, match=r"batch 2 can't be shared by \d processes") as caught:
        Trainer(changed(accumulate=2), seed=0, device=CPU, ranks=ranks)
    assert "multiple of" in caught.value.hint


# Muon


@needs_muon
def test_muon_changes_all_directions_of_an_inner_matrix_alike() -> None:
    changes = {}
    for optimiser in ("adamw", "muon"):
        run = changed(optimiser=optimiser, amp="off", learning_rate=1e-3, warmup=0, weight_decay=0)
        trainer = Trainer(run, seed=0, device=CPU)
        with torch.no_grad():  # past the residual branches that start at zero
            for parameter in trainer.denoiser.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        before = copy.deepcopy(trainer.denoiser.network.state_dict())
        trainer.advance(*batch(run))
        after = trainer.denoiser.network.state_dict()
        changes[optimiser] = {name: after[name] - before[name] for name in after}

    def spread(change: torch.Tensor) -> float:
        """The largest singular value over the median."""
        values = torch.linalg.svdvals(change.flatten(1))
        return (values.max() / values.median()).item()

    inner = "input_blocks.1.0.in_layers.2.weight"
    assert spread(changes["muon"][inner]) < 1.5 < 2 < spread(changes["adamw"][inner])
    for name in ("input_blocks.0.0.weight", "out.2.weight", "out.2.bias"):
        assert torch.equal(changes["muon"][name], changes["adamw"][name]), name
    sizes = [changes[name][inner].square().mean().sqrt() for name in ("muon", "adamw")]
    assert 0.1 < sizes[0] / sizes[1] < 1, "one learning rate is for both"


@needs_muon
def test_no_part_of_the_optimiser_follows_a_gradient_that_overflows() -> None:
    trainer = Trainer(changed(amp="fp16", optimiser="muon"), seed=0, device=CPU)
    before = copy.deepcopy(trainer.denoiser.state_dict())
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    trainer.advance(*batch())
    assert trainer.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[n], t) for n, t in trainer.denoiser.state_dict().items())
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**10})
    trainer.advance(*batch())
    after = trainer.denoiser.state_dict()
    assert all(t.isfinite().all() for t in after.values())
    assert not torch.equal(before["network.out.2.weight"], after["network.out.2.weight"])


def test_muon_is_refused_where_torch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UsageError, match="muon.* needs torch 2.9"):
        Trainer(changed(optimiser="muon"), seed=0, device=CPU)


# Perceptual term


class Means(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 2)


def test_the_perceptual_term_adds_the_distance_of_the_decoded_pictures(tmp_path: Path) -> None:
    crops = torch.rand(2, 3, 64, 64)
    torch.export.save(torch.export.export(Means(), (crops,)), tmp_path / "means.pt2")
    run = changed(perceptual=PerceptualSpec(weight=3.0, features="means.pt2"))
    plain = Trainer(RUN, seed=0, device=CPU)
    with_term = Trainer(run, seed=0, device=CPU, features=tmp_path / "means.pt2")
    assert with_term.features is not None
    sharp, blurry = batch()
    t, noise = plain.drawn()
    x0, y0 = (plain.autoencoder.encode(x) for x in (sharp * 2 - 1, plain.enlarged(blurry)))
    with torch.no_grad():
        x_t = chain.shift(x0, y0, noise, plain.schedule, t)
        restored = plain.denoiser(x_t, y0, blurry * 2 - 1, plain.schedule, t)
        pixels = plain.autoencoder.decode(restored) / 2 + 0.5
        distance = with_term.features(pixels, sharp).mean()
        added = with_term.loss(sharp, blurry, t, noise) - plain.loss(sharp, blurry, t, noise)
    assert distance > 0
    assert_close(added, 3 * distance, rtol=0.05, atol=1e-6)


def test_the_last_step_can_go_without_the_perceptual_term(tmp_path: Path) -> None:
    crops = torch.rand(2, 3, 64, 64)
    count = ({0: torch.export.Dim("count", min=1)},)
    exported = torch.export.export(Means(), (crops,), dynamic_shapes=count)
    torch.export.save(exported, tmp_path / "means.pt2")
    run = changed(perceptual=PerceptualSpec(3.0, "means.pt2", but_last=True), amp="off")
    with_term = Trainer(run, seed=0, device=CPU, features=tmp_path / "means.pt2")
    plain = Trainer(changed(amp="off"), seed=0, device=CPU)
    sharp, blurry = batch()
    _, noise = plain.drawn()
    last = plain.schedule.steps
    added = []
    for t in (torch.tensor([last, last]), torch.tensor([last, 1]), torch.tensor([2, 1])):
        losses = [x.loss(sharp, blurry, t, noise).item() for x in (with_term, plain)]
        added.append(losses[0] - losses[1])
    assert added[0] == 0 < added[1] < added[2]


class Says(torch.nn.Module):
    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: object) -> torch.Tensor:
        return self.answer


def test_with_restraint_less_detail_of_damaged_images_is_learned_but_at_the_last_step() -> None:
    trainer = Trainer(changed(restraint=2.0), seed=0, device=CPU)
    sharp, clean = (part[:1].repeat(3, 1, 1, 1) for part in batch(changed(degrade=BicubicSpec())))
    damage = 4 / 255 * torch.where(torch.rand(1, 3, 16, 16) < 0.5, -1, 1)
    blurry = clean + damage * torch.tensor([1, 0, 1]).view(3, 1, 1, 1)
    t, noise = torch.tensor([2, 2, trainer.schedule.steps]), torch.zeros(3, 48, 16, 16)
    x0, mean = trainer.autoencoder.encode(sharp * 2 - 1), torch.rand(48, 16, 16)
    trainer.average = Says(mean[None])  # type: ignore[assignment]
    trainer.replica = Says(torch.stack([mean + 0.2 * (x0[0] - mean), x0[1], x0[2]]))
    assert trainer.loss(sharp, blurry, t, noise).item() == pytest.approx(0, abs=1e-6)
    trainer.replica = Says(x0)
    assert trainer.loss(sharp, blurry, t, noise) > 1e-3


def test_a_run_takes_its_feature_network_from_beside_its_configuration(
    start: Start, tmp_path: Path
) -> None:
    term = {"weight": 0.1, "features": "lost.pt2"}
    with pytest.raises(InputMissingError, match=f"no feature network {tmp_path}/lost.pt2"):
        next(start("run", perceptual=term))


# Autoencoders with weights

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


@pytest.fixture
def vq_weights(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    codec = autoencoder.build(VQ_RUN.model.autoencoder)
    path = tmp_path / "vq.safetensors"
    checkpoint.write(path, checkpoint.own_tensors(codec), {})
    return path


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


def test_an_autoencoder_can_come_from_the_file_of_a_model_that_holds_it(
    vq_weights: Path, tmp_path: Path
) -> None:
    trainer = Trainer(VQ_RUN, seed=0, device=CPU, autoencoder=vq_weights)
    trainer.export(tmp_path / "whole.safetensors")
    again = Trainer(VQ_RUN, seed=1, device=CPU, autoencoder=tmp_path / "whole.safetensors")
    for name, tensor in again.autoencoder.state_dict().items():
        assert torch.equal(tensor, trainer.autoencoder.state_dict()[name].half().float())


def test_an_autoencoder_without_a_file_is_asked_for(photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.toml", VQ_RUN)
    with pytest.raises(UsageError, match="does not say where they are") as caught:
        next(train.train(config, [photos], tmp_path / "run"))
    assert "--autoencoder" in caught.value.hint


def test_a_file_of_another_autoencoder_is_refused_by_name(vq_weights: Path, tmp_path: Path) -> None:
    other = replace(VQ_RUN.model, autoencoder=small_vq_spec(codes=32))
    with pytest.raises(
        ModelUnavailableError, match=r"quantize.embedding.weight of shape \(16, 3\)"
    ):
        Trainer(replace(VQ_RUN, model=other), seed=0, device=CPU, autoencoder=vq_weights)


def test_no_gradient_goes_through_the_encoder(vq_weights: Path) -> None:
    trainer = Trainer(VQ_RUN, seed=0, device=CPU, autoencoder=vq_weights)
    loss_of(trainer, batch(VQ_RUN)).backward()  # type: ignore[no-untyped-call]  # torch's own
    assert all(p.grad is None for p in trainer.autoencoder.parameters())


# Where a run starts


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


# What a run leaves


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
    list(train.train(config, [photos], out, seed=5, command=["resshift", "train", "x"]))
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


def test_samples_end_with_the_original_and_begin_with_what_it_became() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    photo = made_up_photo(0, 300)
    ((degraded, mean, walked, sharp),) = trainer.samples(held_out(photo))
    assert degraded.shape == (3, 64, 64)
    assert torch.equal(sharp, to_tensor(photo[22:278, 22:278])[0])
    for restored in (mean, walked):  # by a network that knows nothing yet
        assert restored.shape == sharp.shape
    assert not torch.equal(mean, walked)


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


@pytest.mark.full_size  # compiling takes a minute
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch
def test_a_compiled_network_trains_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain = after_two_steps(changed(amp="off"))
    compiled = after_two_steps(changed(amp="off", compile=True))
    assert compiled.keys() == plain.keys()
    for name in plain:
        assert_close(compiled[name], plain[name], rtol=0.0, atol=1e-4)
