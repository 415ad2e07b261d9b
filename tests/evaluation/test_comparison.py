from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    ResShiftError,
    UnsupportedImageError,
    UsageError,
)
from resshift_cli.evaluation import comparison, metrics
from resshift_cli.evaluation.book import LEDGER, Book
from resshift_cli.evaluation.comparison import BICUBIC, Row, Study
from resshift_cli.evaluation.pairs import Pair, Task, find_pairs, read_pair, to_tensor
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.quality import psnr_y


def draw(path: Path, size: tuple[int, int] = (64, 48), seed: int = 0, mode: str = "RGB") -> Path:
    """A picture of smooth random colours, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(path)
    return path


def task(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "scale": 4,
        "degrade": "bicubic",
        "seed": 0,
        "crop": None,
        "metrics": [metrics.OWN["psnr-y"], metrics.OWN["sharpness"]],
    }
    return Task(**{**values, **changes})


def single(path: Path, lq: Path | None = None) -> Pair:
    return Pair(path.name, path, lq)


def repeating(title: str = "repeat", made_by: Mapping[str, Any] | None = None) -> Row:
    """Every pixel becomes a block."""

    def enlarge(pixels: Pixels) -> Pixels:
        return pixels.repeat(4, axis=0).repeat(4, axis=1)

    return Row(title, made_by or {"model": "repeat"}, enlarge)


# Pairs


def test_partners_are_found_by_name_with_or_without_the_scale(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "in/c.png"):
        draw(tmp_path / "hq" / name)
    for name in ("a.png", "bx4.png", "in/c_x4.jpg", "other.png"):
        draw(tmp_path / "lq" / name, (16, 12))
    pairs, left_out = find_pairs(tmp_path / "hq", tmp_path / "lq", scale=4, output=None)
    assert [(pair.name, pair.lq and pair.lq.name) for pair in pairs] == [
        ("a.png", "a.png"),
        ("b.jpg", "bx4.png"),
        ("in/c.png", "c_x4.jpg"),
    ]
    assert left_out == {}


def test_an_original_without_a_partner_is_left_out_with_its_name(tmp_path: Path) -> None:
    draw(tmp_path / "hq" / "a.png")
    draw(tmp_path / "hq" / "b.png")
    draw(tmp_path / "lq" / "ax2.png")
    draw(tmp_path / "lq" / "b.png")
    pairs, left_out = find_pairs(tmp_path / "hq", tmp_path / "lq", scale=4, output=None)
    assert [pair.name for pair in pairs] == ["b.png"]
    assert "a.png has no partner" in str(left_out["a.png"])


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputMissingError, match="no images"):
        find_pairs(tmp_path, None, scale=4, output=None)
    draw(tmp_path / "a.png")
    (tmp_path / "lq").mkdir()
    with pytest.raises(InputMissingError, match="lq") as caught:
        find_pairs(tmp_path, tmp_path / "lq", scale=4, output=None)
    assert "--lq" in caught.value.hint


def test_the_limit_takes_the_first_ones_and_results_are_no_originals(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.png", "out/images/x/a.png"):
        draw(tmp_path / name)
    pairs, _ = find_pairs(tmp_path, None, scale=4, output=tmp_path / "out", limit=2)
    assert [pair.name for pair in pairs] == ["a.png", "b.png"]
    pairs, _ = find_pairs(tmp_path, None, scale=4, output=tmp_path / "out")
    assert len(pairs) == 3


def test_originals_lose_what_is_too_much_at_the_right_and_below(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", (67, 49))
    original, partner = read_pair(single(path), task())
    assert original.shape == (48, 64, 3) and partner.shape == (12, 16, 3)
    with Image.open(path) as image:
        assert (np.asarray(image)[:48, :64] == np.rint(original * 255)).all()


def test_a_given_partner_is_taken_as_it_is(tmp_path: Path) -> None:
    hq = draw(tmp_path / "a.png", (67, 49))
    lq = draw(tmp_path / "lq.png", (16, 12), seed=5)
    _, partner = read_pair(single(hq, lq), task())
    with Image.open(lq) as image:
        assert (np.asarray(image) == np.rint(partner * 255)).all()


@pytest.mark.parametrize("size", [(17, 12), (16, 13), (64, 48), (15, 12)])
def test_a_partner_of_the_wrong_size_is_refused_with_both_sizes(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pair = single(draw(tmp_path / "a.png", (67, 49)), draw(tmp_path / "b.png", size))
    with pytest.raises(UnsupportedImageError, match=f"{size[0]}x{size[1]}.*67x49") as caught:
        read_pair(pair, task())
    assert "16x12" in caught.value.hint


def test_the_crop_is_the_same_place_in_original_and_partner(tmp_path: Path) -> None:
    hq = draw(tmp_path / "a.png", (128, 96))
    whole, small = read_pair(single(hq), task())
    lq = tmp_path / "lq.png"
    Image.fromarray(np.rint(small * 255).astype(np.uint8)).save(lq)
    original, partner = read_pair(single(hq, lq), task(crop=40))
    assert original.shape == (40, 40, 3) and partner.shape == (10, 10, 3)
    assert (original == whole[28:68, 44:84]).all()
    assert (partner == small[7:17, 11:21]).all()


def test_what_has_no_room_for_the_window_is_refused(tmp_path: Path) -> None:
    read_pair(single(draw(tmp_path / "a.png", (64, 20))), task())
    with pytest.raises(UnsupportedImageError, match="too small"):
        read_pair(single(draw(tmp_path / "b.png", (64, 19))), task())


def test_gray_counts_as_rgb_and_transparency_is_refused(tmp_path: Path) -> None:
    original, _ = read_pair(single(draw(tmp_path / "a.png", mode="L")), task())
    assert (original[..., 0] == original[..., 2]).all()
    opaque = draw(tmp_path / "b.png", mode="RGBA")
    read_pair(single(opaque), task())
    with Image.open(opaque) as image:
        image.putalpha(100)
        image.save(tmp_path / "c.png")
    with pytest.raises(UnsupportedImageError, match="transparent"):
        read_pair(single(tmp_path / "c.png"), task())


@pytest.mark.parametrize("kind", ["mild", "realistic"])
def test_a_degradation_follows_from_seed_and_name_alone(tmp_path: Path, kind: str) -> None:
    first, second = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    asked = task(degrade=kind)

    def partner(path: Path, asked: Task) -> Pixels:
        return read_pair(single(path), asked)[1]

    clean = partner(first, task())
    assert (partner(first, asked) == partner(first, asked)).all()
    assert (partner(first, asked) != clean).any()
    assert (partner(first, asked) != partner(second, asked)).any()
    assert (partner(first, asked) != partner(first, task(degrade=kind, seed=1))).any()


def test_the_bicubic_row_has_the_papers_kernel() -> None:
    """Pillow's bicubic has a = -1/2, as MATLAB's."""
    small = np.random.default_rng(0).random((9, 7, 3), dtype=np.float32)
    large = comparison.bicubic(4).enlarge(small)
    for channel in range(3):
        plane = Image.fromarray(small[..., channel])
        expected = np.asarray(plane.resize((28, 36), Image.Resampling.BICUBIC)).clip(0, 1)
        assert np.allclose(large[..., channel], expected, atol=1e-5)


# Studies


def test_means_and_differences_are_over_images(tmp_path: Path) -> None:
    pairs = [single(draw(tmp_path / f"{seed}.png", seed=seed)) for seed in range(3)]
    study = Study(pairs, task(), None, {})
    study.measure(comparison.bicubic(4))
    study.measure(repeating())
    by_hand = []
    for pair in pairs:
        original, partner = (to_tensor(p) for p in read_pair(pair, task()))
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
    study = Study([*pairs, single(broken)], task(), None, {})
    study.measure(comparison.bicubic(4))
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


def test_an_image_without_a_finite_value_does_not_count_in_any_row(tmp_path: Path) -> None:
    """A flat image is enlarged without error by both, and has no sharpness to compare with."""
    flat = tmp_path / "flat.png"
    Image.new("RGB", (64, 48), (90, 90, 90)).save(flat)
    pairs = [single(draw(tmp_path / "a.png")), single(flat)]
    study = Study(pairs, task(), None, {})
    study.measure(comparison.bicubic(4))
    study.measure(repeating())
    for row in study.summary():
        psnr = row["metrics"]["psnr-y"]
        assert psnr["images"] == 1 and math.isfinite(psnr["mean"]) and psnr["interval"] is None
    assert "flat.png,bicubic,inf,nan" in study.table()


def test_values_that_are_never_finite_leave_a_gap(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / "flat.png")
    study = Study([single(tmp_path / "flat.png")], task(), None, {})
    study.measure(comparison.bicubic(4))
    (row,) = study.summary()
    assert row["metrics"]["sharpness"]["mean"] is None
    assert row["metrics"]["sharpness"]["images"] == 0


# What is kept


def counted(row: Row, calls: list[int]) -> Row:
    def enlarge(pixels: Pixels) -> Pixels:
        calls.append(1)
        return row.enlarge(pixels)

    return Row(row.title, row.made_by, enlarge)


def kept(tmp_path: Path, row: Row, asked: Task, count: int = 2) -> tuple[Study, int]:
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
    first, calls = kept(tmp_path, repeating(), task())
    assert calls == 2
    second, calls = kept(tmp_path, repeating(), task(), count=3)
    assert calls == 1
    assert first.values["repeat"].items() <= second.values["repeat"].items()


def test_another_metric_measures_the_kept_images(tmp_path: Path) -> None:
    kept(tmp_path, repeating(), task())
    more = task(metrics=[metrics.OWN["psnr-y"], metrics.OWN["ssim-rgb"]])
    study, calls = kept(tmp_path, repeating(), more)
    assert calls == 0
    fresh = Study(study.pairs, more, None, {})
    fresh.measure(repeating())
    assert study.values == fresh.values
    _, calls = kept(tmp_path, repeating(), task())  # what was known before still is
    assert calls == 0


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"crop": 40}, {"degrade": "mild"}],
    ids=lambda change: next(iter(change)),
)
def test_another_task_is_done_anew(tmp_path: Path, changes: dict[str, Any]) -> None:
    kept(tmp_path, repeating(), task())
    _, calls = kept(tmp_path, repeating(), task(**changes))
    assert calls == 2


def test_other_weights_or_another_original_are_done_anew(tmp_path: Path) -> None:
    kept(tmp_path, repeating(), task())
    _, calls = kept(tmp_path, repeating(made_by={"model": "other"}), task())
    assert calls == 2
    draw(tmp_path / "1.png", seed=7)
    _, calls = kept(tmp_path, repeating(made_by={"model": "other"}), task())
    assert calls == 1


def test_a_torn_line_or_a_lost_image_is_made_again(tmp_path: Path) -> None:
    study, _ = kept(tmp_path, repeating(), task())
    ledger = tmp_path / "out" / LEDGER
    ledger.write_bytes(ledger.read_bytes()[:-20])
    again, calls = kept(tmp_path, repeating(), task())
    assert calls == 1 and again.values == study.values
    Book(tmp_path / "out").image("0.png", "repeat").unlink()
    again, calls = kept(tmp_path, repeating(), task())
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


@pytest.mark.parametrize(
    "titles", [[BICUBIC, "a", "a"], ["m, 1 step", "m  1 step"], [BICUBIC, BICUBIC]]
)
def test_rows_that_could_not_be_told_apart_are_refused(titles: list[str]) -> None:
    comparison.check_titles(["a, 1 step", "a, 15 steps", BICUBIC])
    with pytest.raises(UsageError, match="twice"):
        comparison.check_titles(titles)
