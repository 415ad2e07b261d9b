"""Studies: rows measured on the same images, and what is kept of them."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_study import draw, repeating, setup, single
from PIL import Image

from resshift_cli.errors import (
    ImageUnreadableError,
    OutputError,
    ResShiftError,
)
from resshift_cli.evaluation import metrics, rows
from resshift_cli.evaluation.book import LEDGER, Book
from resshift_cli.evaluation.comparison import Study
from resshift_cli.evaluation.pairs import Setup, read_pair, to_tensor
from resshift_cli.evaluation.rows import Row
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.quality import psnr_y


def test_means_and_differences_are_over_images(tmp_path: Path) -> None:
    pairs = [single(draw(tmp_path / f"{seed}.png", seed=seed)) for seed in range(3)]
    study = Study(pairs, setup(), None, {})
    study.measure(rows.bicubic(4))
    study.measure(repeating())
    by_hand = []
    for pair in pairs:
        original, partner = (to_tensor(p) for p in read_pair(pair, setup()))
        blocks = torch.nn.functional.interpolate(partner, scale_factor=4, mode="nearest")
        by_hand.append(psnr_y(blocks, original))
    bicubic, repeat = (row["metrics"]["psnr-y"] for row in study.summary())
    assert repeat["mean"] == pytest.approx(np.mean(by_hand))
    assert repeat["difference"] == pytest.approx(repeat["mean"] - bicubic["mean"])
    low, high = repeat["difference_interval"]
    assert low <= repeat["difference"] <= high < 0
    assert bicubic["difference"] is None and repeat["images"] == 3


def test_an_image_that_fails_in_one_row_is_left_out_of_all(tmp_path: Path) -> None:
    pairs = [single(draw(tmp_path / f"{seed}.png", seed=seed)) for seed in range(3)]
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "0.png").read_bytes()[:200])
    study = Study([*pairs, single(broken)], setup(), None, {})
    study.measure(rows.bicubic(4))
    calls = 0

    def fail_once(pixels: Pixels) -> Pixels:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ResShiftError("It overflowed.", hint="Use fp32.")
        return repeating().enlarge(pixels)

    study.measure(Row("failing", {}, fail_once))
    study.measure(repeating())
    assert study.names == ["0.png", "2.png"]
    assert isinstance(study.left_out["broken.png"], ImageUnreadableError)
    assert str(study.left_out["1.png"]) == "It overflowed."
    assert {row["metrics"]["psnr-y"]["images"] for row in study.summary()} == {2}
    lines = list(csv.DictReader(study.table().splitlines()))
    assert len(lines) == 6 and {line["image"] for line in lines} == {"0.png", "2.png"}


def test_no_name_becomes_a_formula(tmp_path: Path) -> None:
    study = Study([single(draw(tmp_path / "=1+1.png"))], setup(), None, {})
    study.measure(repeating("@row"))
    (line,) = csv.DictReader(study.table().splitlines())
    assert (line["image"], line["row"]) == ("'=1+1.png", "'@row")


def test_an_image_without_a_finite_value_does_not_count_in_any_row(tmp_path: Path) -> None:
    """A flat image is enlarged without error by both, and has no sharpness to compare with."""
    flat = tmp_path / "flat.png"
    Image.new("RGB", (64, 48), (90, 90, 90)).save(flat)
    pairs = [single(draw(tmp_path / "a.png")), single(flat)]
    study = Study(pairs, setup(), None, {})
    study.measure(rows.bicubic(4))
    study.measure(repeating())
    for row in study.summary():
        psnr = row["metrics"]["psnr-y"]
        assert psnr["images"] == 1 and math.isfinite(psnr["mean"]) and psnr["interval"] is None
    assert "flat.png,bicubic,inf,nan" in study.table()


def test_values_that_are_never_finite_leave_a_gap(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / "flat.png")
    study = Study([single(tmp_path / "flat.png")], setup(), None, {})
    study.measure(rows.bicubic(4))
    (row,) = study.summary()
    assert row["metrics"]["sharpness"]["mean"] is None
    assert row["metrics"]["sharpness"]["images"] == 0


# What is kept


def counted(row: Row, calls: list[int]) -> Row:
    def enlarge(pixels: Pixels) -> Pixels:
        calls.append(1)
        return row.enlarge(pixels)

    return Row(row.title, row.made_by, enlarge)


def kept(tmp_path: Path, row: Row, asked: Setup, count: int = 2) -> tuple[Study, int]:
    """A study of so many images in a folder, and how many it had to enlarge."""
    for seed in range(count):
        if not (tmp_path / f"{seed}.png").exists():
            draw(tmp_path / f"{seed}.png", seed=seed)
    pairs = [single(tmp_path / f"{seed}.png") for seed in range(count)]
    calls: list[int] = []
    (tmp_path / "out").mkdir(exist_ok=True)
    study = Study(pairs, asked, Book(tmp_path / "out"), {})
    study.measure(counted(row, calls))
    return study, len(calls)


def test_what_is_measured_is_not_made_again(tmp_path: Path) -> None:
    first, calls = kept(tmp_path, repeating(), setup())
    assert calls == 2
    second, calls = kept(tmp_path, repeating(), setup(), count=3)
    assert calls == 1
    assert first.values["repeat"].items() <= second.values["repeat"].items()


def test_another_metric_measures_the_kept_images(tmp_path: Path) -> None:
    kept(tmp_path, repeating(), setup())
    more = setup(metrics=[metrics.OWN["psnr-y"], metrics.OWN["ssim-rgb"]])
    study, calls = kept(tmp_path, repeating(), more)
    assert calls == 0
    fresh = Study(study.pairs, more, None, {})
    fresh.measure(repeating())
    assert study.values == fresh.values
    _, calls = kept(tmp_path, repeating(), setup())  # what was known before still is
    assert calls == 0


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"crop": 40}, {"degrade": "mild"}],
    ids=lambda change: next(iter(change)),
)
def test_another_task_is_done_anew(tmp_path: Path, changes: dict[str, Any]) -> None:
    kept(tmp_path, repeating(), setup())
    _, calls = kept(tmp_path, repeating(), setup(**changes))
    assert calls == 2


def test_other_weights_or_another_original_are_done_anew(tmp_path: Path) -> None:
    kept(tmp_path, repeating(), setup())
    _, calls = kept(tmp_path, repeating(made_by={"model": "other"}), setup())
    assert calls == 2
    draw(tmp_path / "1.png", seed=7)
    _, calls = kept(tmp_path, repeating(made_by={"model": "other"}), setup())
    assert calls == 1


def test_a_torn_line_or_a_lost_image_is_made_again(tmp_path: Path) -> None:
    study, _ = kept(tmp_path, repeating(), setup())
    ledger = tmp_path / "out" / LEDGER
    ledger.write_bytes(ledger.read_bytes()[:-20])
    again, calls = kept(tmp_path, repeating(), setup())
    assert calls == 1 and again.values == study.values
    Book(tmp_path / "out").image("0.png", "repeat").unlink()
    again, calls = kept(tmp_path, repeating(), setup())
    assert calls == 1 and again.values == study.values


def test_no_two_results_are_kept_at_one_place(tmp_path: Path) -> None:
    book = Book(tmp_path)
    names = ["a.png", "a.jpg", "a.jpg.png", "a.PNG", "a.PNG.png", "in/a.png", "a.png.png"]
    places = {book.image(name, "some model, 4 steps") for name in names}
    assert len(places) == len(names)
    assert all(place.suffix == ".png" for place in places)


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "holiday.png")
    with pytest.raises(OutputError, match="not of an evaluation"):
        Book(tmp_path)
