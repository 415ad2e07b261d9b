"""Damage of old photos over what a model learns from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Run, make_photo
from PIL import Image, ImageDraw
from tiny_model import tiny_fills
from tiny_run import CPU, MILD, RUN, batch, held_out, loss_of, write_config
from torch.testing import assert_close

from resshift_cli.errors import UsageError
from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.training import damage, dataset, recipe, runlog, validation
from resshift_cli.training.photos import Pictures
from resshift_cli.training.trainer import Trainer

HOLED = replace(
    RUN,
    model=tiny_fills(),
    train=replace(RUN.train, objective="absolute", holes=0.5, steps=2, samples=1),
)


def masks(side: int, count: int) -> list[np.ndarray]:
    return [damage.mask(side, np.random.default_rng(seed)) for seed in range(count)]


def test_damage_follows_from_the_seed_and_covers_some_of_a_crop() -> None:
    for side in (64, 128):
        first, again = masks(side, 40), masks(side, 40)
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        shares = np.array([mask.mean() for mask in first])
        assert shares.max() <= damage.MOST and shares.min() > 0
        assert 0.03 < shares.mean() < 0.12 and shares.std() > 0.02


@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_damage_is_drawn(kind: damage.Draw) -> None:
    drawn = []
    for seed in range(20):
        image = Image.new("L", (128, 128))
        kind(ImageDraw.Draw(image), 128, np.random.default_rng(seed))
        drawn.append((np.asarray(image) > 127).mean())
    assert sum(share > 0 for share in drawn) >= 15 and max(drawn) < 0.5


def test_a_plane_tells_where_an_image_is_unknown() -> None:
    images = torch.rand(12, 3, 64, 64) / 2 + 0.25
    given = damage.over(images, 0.5, np.random.default_rng(0))
    colours, unknown = given[:, :3], given[:, 3:].bool()
    assert torch.equal(colours, images.masked_fill(unknown, 0.0))
    assert torch.equal(given[:, 3:], unknown.float())
    assert 3 <= unknown.flatten(1).any(1).sum() <= 9
    for share, some in ((0.0, False), (1.0, True)):
        mask = damage.over(images, share, np.random.default_rng(0))[:, 3]
        assert torch.equal(mask.flatten(1).any(1), torch.full((12,), some))


def test_what_is_around_a_hole_can_be_drawn_into_it() -> None:
    images = torch.full((6, 3, 64, 64), 0.75)
    given = damage.over(images, 1.0, np.random.default_rng(0), prefill=True)
    black = damage.over(images, 1.0, np.random.default_rng(0))
    assert given[:, 3].any() and torch.equal(given[:, 3], black[:, 3])
    assert_close(given[:, :3], images, rtol=0, atol=1e-6)
    run = replace(HOLED, train=replace(HOLED.train, holes=1.0))
    seen = batch(run)[1], batch(replace(run, model=tiny_fills(prefill=True)))[1]
    where = seen[0][:, 3:].bool().expand(-1, 3, -1, -1)
    assert not seen[0][:, :3][where].any() and seen[1][:, :3][where].mean() > 0.1


def test_crops_are_the_same_with_damage_and_without() -> None:
    sharp, blurry = batch(HOLED)
    clean = replace(HOLED.data, holes=None)
    photos = Pictures([np.zeros((96, 96, 3), np.uint8)])
    assert dataset.make_batch(photos, clean, 0, 0)[1].shape[1] == 3
    assert sharp.shape == (2, 3, 64, 64) and blurry.shape == (2, 4, 64, 64)
    assert held_out(np.zeros((256, 256, 3), np.uint8))[0][1].shape[1] == 3


def test_half_of_the_crops_with_holes_are_otherwise_as_good_as_they_were() -> None:
    degrade = replace(MILD, share=1.0)
    sharp, blurry = batch(
        replace(HOLED, train=replace(HOLED.train, holes=1.0, batch=16, degrade=degrade))
    )
    clean = ((sharp - blurry[:, :3]) * (1 - blurry[:, 3:])).abs().amax((1, 2, 3)) == 0
    assert 3 <= int(clean.sum()) <= 13


def test_what_is_held_out_is_measured_without_holes_and_with_them() -> None:
    photos = Pictures([np.full((256, 256, 3), 200, np.uint8)] * 2)
    for holes in (False, True):
        for _, blurry in dataset.validation_pairs(photos, HOLED.data, holes=holes):
            assert blurry.shape == (1, 4, 256, 256) and bool(blurry[:, 3].any()) is holes


def test_at_its_own_size_a_picture_is_measured_by_what_can_be_mended_or_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = Pictures([np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)])
    trainer = Trainer(HOLED, seed=0, device=CPU)
    ((sharp, spoiled),) = dataset.validation_pairs(photos, HOLED.data)
    assert not torch.equal(sharp, spoiled[:, :3])
    pairs = dataset.validation_pairs(photos, HOLED.data, holes=True)
    whole = pairs[0][1][:, 3:].bool().expand(-1, 3, -1, -1)
    assert torch.equal(sharp[~whole], pairs[0][1][:, :3][~whole])
    sharp = trainer.autoencoder.encode(sharp * 2 - 1)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: sharp.lerp(y0, 0.1) + 0.01)
    assert validation.measure(trainer, pairs)["gain_db"] == pytest.approx(20, abs=1)


def test_a_model_that_learned_from_holes_fills_them(
    resshift: Run, photos: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.toml", HOLED)
    ran = resshift("train", config, "--photos", photos, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    weights = tmp_path / "run" / runlog.WEIGHTS
    measured = [json.dumps(entry) for entry in runlog.measured(tmp_path / "run")]
    assert '"holes_gain_db"' in measured[-1] and '"gain_db"' in measured[-1]
    assert Inpainter.from_file(weights, device="cpu").spec.denoiser.lq_mask
    photo = make_photo(tmp_path / "photo.png", 40, 30)
    options = ("--weights", weights, "--overwrite")
    assert resshift("inpaint", photo, "--box", "5,5,9,9", *options).code == 0
    assert resshift("restore", photo, *options).code == 0


def test_pairs_can_be_looked_at_before_training(
    resshift: Run, photos: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.toml", HOLED)
    sheet = tmp_path / "sheet.png"
    assert resshift("train", config, "--photos", photos, "--preview", sheet).code == 0
    assert sheet.exists()


def test_holes_are_for_models_that_are_told_of_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lq_mask"):
        recipe.read(write_config(tmp_path / "run.toml", holes=0.5))
    with pytest.raises(UsageError, match="holes must be within"):
        recipe.read(write_config(tmp_path / "run.toml", HOLED, holes=1.5))


def test_the_small_model_for_both_learns_to_fill_and_mend_from_its_first_steps() -> None:
    run = recipe.read(Path(__file__).parents[2] / "training" / "tiny-x1-start.toml")
    assert (run.model.scale, run.model.prefill, run.model.steps) == (1, True, 1)
    run = replace(run, train=replace(run.train, crop=64, batch=2, warmup=1, holes=1.0))
    trainer, pairs = Trainer(run, seed=0, device=CPU), batch(run)
    assert sum(p.numel() for p in trainer.denoiser.parameters()) * 2 < 8e6
    with torch.no_grad():
        before = loss_of(trainer, pairs)
    for _ in range(3):
        trainer.advance(*pairs)
    with torch.no_grad():
        assert loss_of(trainer, pairs) < before
