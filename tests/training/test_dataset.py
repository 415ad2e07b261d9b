from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import as_from_a_shell
from pictures import made_up_photo
from PIL import Image
from torch.testing import assert_close

from resshift_cli.errors import ImageUnreadableError, UsageError
from resshift_cli.restoration import resize as degrade
from resshift_cli.training import dataset
from resshift_cli.training.dataset import DataSpec, PairedSpec
from resshift_cli.training.degradation import BicubicSpec, Degradation, MildSpec
from resshift_cli.training.photos import Photo, PhotoFiles, Pictures
from resshift_cli.training.realistic import RealisticSpec

SPEC = DataSpec(
    scale=4,
    batch=2,
    crop=64,
    crop_tries=2,
    degrade=MildSpec(share=0.5, blur=1.0, noise=8.0, jpeg=(50, 95)),
)
PHOTOS = Pictures([made_up_photo(0, 96), made_up_photo(1, 120)])


# Batches


def batch(number: int, seed: int = 0, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    spec = replace(SPEC, **changes)
    return dataset.make_batch(PHOTOS, spec, seed, number)


def test_a_batch_is_crops_and_their_low_resolution_partners() -> None:
    sharp, blurry = batch(0, batch=3)
    assert sharp.shape == (3, 3, 64, 64)
    assert blurry.shape == (3, 3, 16, 16)
    for image in (sharp, blurry):
        assert image.min() >= 0 and image.max() <= 1


def test_partners_show_the_same_place() -> None:
    for number in range(8):
        sharp, blurry = batch(number, degrade=BicubicSpec())
        inside = (..., slice(2, -2), slice(2, -2))  # the partner saw beyond the crop's border
        means = torch.nn.functional.avg_pool2d(sharp, 4)[inside]
        assert_close(blurry[inside], means, rtol=0.0, atol=0.05)


def test_a_batch_follows_from_seed_and_number_alone() -> None:
    first = batch(4)
    np.random.default_rng(99).random()
    assert all(torch.equal(a, b) for a, b in zip(first, batch(4), strict=True))
    assert not torch.equal(first[0], batch(5)[0])
    assert not torch.equal(first[0], batch(4, seed=1)[0])


@pytest.mark.parametrize("kind", [BicubicSpec(), RealisticSpec()], ids=["bicubic", "realistic"])
def test_other_kinds_of_degradation_make_batches_too(kind: Degradation) -> None:
    made = batch(0, degrade=kind)
    assert [x.shape for x in made] == [(2, 3, 64, 64), (2, 3, 16, 16)]
    assert not torch.equal(made[0][0], made[0][1])
    assert all(torch.equal(*both) for both in zip(made, batch(0, degrade=kind), strict=True))


def test_batches_of_these_kinds_follow_from_seed_and_number() -> None:
    first, later, other = (
        batch(number, seed=seed, degrade=BicubicSpec())[0]
        for number, seed in ((0, 0), (1, 0), (0, 1))
    )
    assert not torch.equal(first, later) and not torch.equal(first, other)


def test_a_crop_of_these_kinds_does_not_depend_on_the_batch_s_size() -> None:
    small, large = (batch(3, degrade=RealisticSpec(), batch=size) for size in (1, 3))
    assert torch.equal(small[0][0], large[0][0]) and torch.equal(small[1][0], large[1][0])


def test_batches_of_the_mild_kind_stay_what_they_were() -> None:
    """Runs that were begun go on with them."""
    sharp, blurry = batch(7, seed=3, batch=4)
    digests = [hashlib.sha1(x.numpy().tobytes()).hexdigest()[:8] for x in (sharp, blurry)]
    assert digests == ["38370935", "8909309e"]


def test_the_largest_squares_can_be_taken_instead_of_details() -> None:
    flat = Pictures([np.full((500, 400, 3), 90, np.uint8), np.full((40, 60, 3), 90, np.uint8)])
    spec = replace(SPEC, batch=8, degrade=BicubicSpec(), cut="largest")
    assert spec.smallest == 1
    sharp, blurry = dataset.make_batch(flat, spec, 0, 0)
    assert sharp.shape == (8, 3, 64, 64) and blurry.shape == (8, 3, 16, 16)
    assert_close(sharp, torch.full_like(sharp, 90 / 255))


def test_details_can_be_of_reduced_pictures() -> None:
    plain, reduced = (batch(0, batch=8, degrade=BicubicSpec(), reduce=r) for r in (1.0, 1.5))
    assert [x.shape for x in reduced] == [x.shape for x in plain]
    same = [any(torch.equal(a, b) for b in plain[0]) for a in reduced[0]]
    assert not all(same)


def test_a_share_of_crops_can_be_flat() -> None:
    sharp, blurry = batch(0, batch=40, flat=0.5, degrade=BicubicSpec())
    detail = sharp.diff(dim=2).abs().amax((1, 2, 3))
    assert 10 < (detail < 4 / 255).sum() < 30
    flat = detail == 0
    assert_close(blurry[flat], sharp[flat][..., ::4, ::4], rtol=0.0, atol=1 / 255)


def test_grain_of_a_crop_s_own_is_in_its_partner_too() -> None:
    flat = Pictures([np.full((200, 200, 3), 90, np.uint8)])
    spec = replace(SPEC, scale=1, batch=40, degrade=BicubicSpec(), grain=3.0)
    sharp, blurry = dataset.make_batch(flat, spec, 0, 0)
    assert torch.equal(sharp, blurry)
    stds = sharp.std((1, 2, 3)) * 255
    assert 10 < (stds == 0).sum() < 30
    assert stds.max() < 3.2 and 1.0 < stds[stds > 0].mean() < 2.0
    assert_close(sharp * 255, (sharp * 255).round(), rtol=0.0, atol=1e-3)


def test_held_out_pictures_can_be_damaged_as_mild_ones_are() -> None:
    photos = Pictures([made_up_photo(0, 256)])
    (clean, damaged), again = (
        [dataset.validation_pairs(photos, SPEC, damaged=kind)[0] for kind in kinds]
        for kinds in ((False, True), (False, True))
    )
    assert torch.equal(clean[0], damaged[0]) and not torch.equal(clean[1], damaged[1])
    assert torch.equal(damaged[1], again[1][1])


# Pairs


def reduced(photo: Photo) -> Photo:
    return np.array(Image.fromarray(photo).reduce(4))


PAIRED = replace(SPEC, degrade=PairedSpec())


def test_pairs_are_cut_at_the_same_place() -> None:
    large = [made_up_photo(0, 96), made_up_photo(1, 120)[:64]]
    pairs = Pictures(large, [reduced(photo) for photo in large])
    for number in range(8):
        sharp, blurry = dataset.make_batch(pairs, PAIRED, 0, number)
        assert sharp.shape == (2, 3, 64, 64) and blurry.shape == (2, 3, 16, 16)
        assert_close(blurry, torch.nn.functional.avg_pool2d(sharp, 4), rtol=0.0, atol=2 / 255)


def test_pairs_can_t_be_reduced_to_crops() -> None:
    assert PAIRED.problem is None and PAIRED.smallest == 64
    assert "pairs can't be" in (replace(PAIRED, cut="largest").problem or "")
    assert "pairs can't be" in (replace(PAIRED, reduce=2.0).problem or "")


def test_what_is_wrong_with_a_degradation_is_wrong_with_the_data() -> None:
    bad = replace(SPEC, degrade=RealisticSpec(second_share=2.0))
    assert bad.problem == "degrade.second_share must be within 0..1"


def test_folders_of_pairs_are_opened_with_their_partners(tmp_path: Path) -> None:
    for number, name in enumerate(["a.png", "b.png"]):
        photo = made_up_photo(number, 260)
        for kind, pixels in (("hq", photo), ("lq", reduced(photo))):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / name)
    training, validation = dataset.open_pictures([tmp_path], None, PAIRED)
    assert np.array_equal(validation.partners[0], reduced(made_up_photo(0, 260)))
    assert np.array_equal(training.partners[0], reduced(made_up_photo(1, 260)))
    with pytest.raises(UsageError, match="not 2 times as large"):
        dataset.open_pictures([tmp_path], None, replace(PAIRED, scale=2))


# Validation


def test_validation_takes_the_middles_and_leaves_them_clean_where_training_is_mild() -> None:
    photo = made_up_photo(0, 256)
    larger = np.pad(photo, ((10, 10), (20, 20), (0, 0)))
    for kind in (SPEC.degrade, BicubicSpec()):
        pairs = dataset.validation_pairs(Pictures([photo, larger]), replace(SPEC, degrade=kind))
        for sharp, blurry in pairs:
            assert torch.equal(sharp, dataset.to_tensor(photo))
            assert torch.equal(blurry, degrade.shrink(sharp, 4))


def test_realistic_training_is_validated_on_realistic_partners_the_same_each_time() -> None:
    pictures = Pictures([made_up_photo(0, 256), made_up_photo(0, 256)])
    spec = replace(SPEC, degrade=RealisticSpec())
    first, again = (dataset.validation_pairs(pictures, spec) for _ in range(2))
    assert [torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True)] == [True, True]
    assert not torch.equal(first[0][1], first[1][1])
    assert not torch.equal(first[0][1], degrade.shrink(first[0][0], 4))


def test_pairs_are_validated_on_their_partners() -> None:
    photo = made_up_photo(0, 292)[:260]
    pairs = Pictures([photo], [reduced(photo)])
    ((sharp, blurry),) = dataset.validation_pairs(pairs, PAIRED)
    assert sharp.shape == (1, 3, 256, 256) and blurry.shape == (1, 3, 64, 64)
    assert_close(blurry, torch.nn.functional.avg_pool2d(sharp, 4), rtol=0.0, atol=2 / 255)


def test_at_the_photo_s_own_size_all_are_damaged_however_few_are_in_training() -> None:
    photos = Pictures([made_up_photo(0, 256)] * 8)
    mild = MildSpec(share=0.1, blur=0.0, noise=8.0, jpeg=(50, 95), noisy=0.0)
    pairs = dataset.validation_pairs(photos, replace(SPEC, scale=1, degrade=mild))
    assert all(not torch.equal(sharp, blurry) for sharp, blurry in pairs)


# Workers


@pytest.fixture
def files(tmp_path: Path) -> Pictures:
    """Two picture files, of which only one fits into memory."""
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for number, path in enumerate(paths):
        Image.fromarray(made_up_photo(number, 96 + 8 * number)).save(path)
    return Pictures(PhotoFiles(paths, budget=30_000))


REALISTIC = replace(SPEC, degrade=RealisticSpec(), batch=1)


def test_workers_make_the_same_batches_in_the_same_order(files: Pictures) -> None:
    numbers = range(3, 8)
    state = torch.get_rng_state()
    made = [list(dataset.batches(files, REALISTIC, 1, numbers, workers)) for workers in (0, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    for number, alone, ahead in zip(numbers, *made, strict=True):
        expected = dataset.make_batch(files, REALISTIC, 1, number)
        for a, b, c in zip(alone, ahead, expected, strict=True):
            assert torch.equal(a, c) and torch.equal(b, c)


@pytest.mark.parametrize(
    ("kind", "workers"), [(SPEC.degrade, 0), (RealisticSpec(), 0), (RealisticSpec(), 1)]
)
def test_a_share_of_a_batch_is_the_same_crops(
    files: Pictures, kind: Degradation, workers: int
) -> None:
    spec = replace(SPEC, degrade=kind, batch=4)
    (made,) = dataset.batches(files, spec, 1, [5], workers, share=range(1, 3))
    for part, whole in zip(made, dataset.make_batch(files, spec, 1, 5), strict=True):
        assert torch.equal(part, whole[1:3])


def test_workers_end_with_their_iterator(files: Pictures) -> None:
    made = dataset.batches(files, REALISTIC, 1, range(100), 1)
    next(made)
    assert len(multiprocessing.active_children()) == 1
    made.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_by_whoever_meets_it(files: Pictures, workers: int) -> None:
    assert isinstance(files.hq, PhotoFiles)
    for path in files.hq.paths:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ImageUnreadableError, match=r"\d\.png is cut short or damaged") as caught:
        next(dataset.batches(files, REALISTIC, 0, range(2), workers))
    assert caught.value.hint == "Take it out of the photos."


RUN = """
import multiprocessing
import sys
import time
from contextlib import closing
from pathlib import Path
from resshift_cli.training import dataset, realistic
from resshift_cli.training.photos import PhotoFiles, Pictures

if multiprocessing.current_process().name.endswith("-2"):  # the second worker
    time.sleep(float(sys.argv[2]))
if __name__ == "__main__":
    spec = dataset.DataSpec(4, 1, 64, 1, realistic.RealisticSpec())
    pictures = Pictures(PhotoFiles([Path(sys.argv[1])]))
    numbers = range(10_000_000)
    with closing(dataset.batches(pictures, spec, 0, numbers, workers=2)) as batches:
        for sharp, blurry in batches:
            print("made", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
@pytest.mark.parametrize("late", [0, 3], ids=["started", "while a worker is still starting"])
def test_ctrl_c_leaves_no_processes(late: int, files: Pictures, tmp_path: Path) -> None:
    assert isinstance(files.hq, PhotoFiles)
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(files.hq.paths[0]), str(late)]
    with subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=as_from_a_shell,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == "made\n"
        os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it: to all of them
        _, said = run.communicate(timeout=60)  # until the last that could write has ended
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1  # the workers have nothing to say
