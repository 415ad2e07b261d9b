from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Ran, Run
from pictures import made_up_photo
from PIL import Image
from tiny_run import RUN, write_config

from resshift_cli.training import dataset, preview
from resshift_cli.training.dataset import DataSpec
from resshift_cli.training.degradation import MildSpec
from resshift_cli.training.photos import Pictures
from resshift_cli.training.realistic import RealisticSpec

SPEC = DataSpec(
    scale=4,
    batch=2,
    crop=64,
    crop_tries=1,
    degrade=MildSpec(share=0.5, blur=1.0, noise=8.0, jpeg=(50, 95)),
)
PHOTOS = Pictures([made_up_photo(0, 96), made_up_photo(1, 120)])


def test_a_sheet_shows_what_a_run_is_trained_on_first() -> None:
    page = np.array(preview.draw(PHOTOS, SPEC, 3, 3))
    pairs = []
    for number in range(2):
        sharp, blurry = dataset.make_batch(PHOTOS, SPEC, 3, number)
        pairs += list(zip(sharp, blurry, strict=True))
    for number, (hq, lq) in enumerate(pairs[:3]):
        x, y = 8 + number * 144, 20
        shown = [page[y : y + 64, at : at + 64] for at in (x, x + 72)]
        large = (hq.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        small = (lq.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        assert np.array_equal(shown[0], large)
        assert np.array_equal(shown[1], small.repeat(4, 0).repeat(4, 1))
        assert (page[: y - 2, x : x + 64] < 128).any()  # a label


@pytest.mark.parametrize(
    ("crop", "count", "size"),
    [(64, 1, (152, 92)), (64, 8, (1016, 184)), (64, 3, (440, 92)), (256, 4, (1064, 568))],
)
def test_a_sheet_is_as_large_as_its_pairs_need(
    crop: int, count: int, size: tuple[int, int]
) -> None:
    photos = Pictures([made_up_photo(0, 300)])
    assert preview.draw(photos, replace(SPEC, crop=crop), 0, count).size == size


# The command


@pytest.fixture
def lesson(tmp_path: Path) -> list[object]:
    """Arguments that train on two photos."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        photo = Image.fromarray(made_up_photo(number, 256))
        photo.save(tmp_path / "photos" / f"{number}.png")
    config = write_config(tmp_path / "run.toml", degrade={"kind": "realistic"})
    return ["train", config, "--photos", tmp_path / "photos"]


def test_the_command_saves_a_sheet_and_trains_nothing(
    resshift: Run, lesson: list[object], tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    path = tmp_path / "pairs.png"
    assert resshift(*lesson, "--preview", path, "--seed", 4) == Ran(0, f"{path}\n", "")
    assert set(tmp_path.rglob("*")) - before == {path}
    spec = replace(RUN.data, degrade=RealisticSpec())
    expected = preview.draw(Pictures([made_up_photo(1, 256)]), spec, 4, 12)
    with Image.open(path) as saved:
        assert np.array_equal(np.array(saved), np.array(expected))


def test_without_a_folder_for_the_run_the_command_says_what_it_needs(
    resshift: Run, lesson: list[object]
) -> None:
    ran = resshift(*lesson)
    assert ran.code == 2
    assert "--out" in ran.err and "--preview" in ran.err


def test_a_sheet_that_can_t_be_written_is_an_output_error(
    resshift: Run, lesson: list[object], tmp_path: Path
) -> None:
    ran = resshift(*lesson, "--preview", tmp_path / "none" / "pairs.png")
    assert ran.code == 6 and "can't be written" in ran.err
