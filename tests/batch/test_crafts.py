"""A folder that is mended or filled, not enlarged."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
from batch_folder import lines, make_animation, results
from command_line import Run, files, make_photo
from PIL import Image, ImageSequence

from resshift_cli.batch import ledger, names
from resshift_cli.restoration import crafts


@pytest.fixture
def masks(folder: Path) -> Path:
    """A mask for every image of `folder`, whose upper rows are to be filled."""
    there = folder.with_name("masks")
    for name, size in (("a.png", (12, 9)), ("b.png", (9, 12)), ("sub/c.PNG", (8, 8))):
        write_mask(there / name, *size)
    return there


def write_mask(path: Path, width: int, height: int, rows: int = 4) -> None:
    light = np.zeros((height, width), np.uint8)
    light[:rows] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(light).save(path)


@pytest.fixture
def inpaint(resshift: Run, folder: Path, masks: Path, fills: Path) -> Run:
    """Fills the images of `folder`."""
    words = ("batch", folder, "--task", "inpaint", "--masks", masks, "--weights", fills)
    return partial(resshift, *words, "--steps", 1)


@pytest.fixture
def restore(resshift: Run, folder: Path, mends: Path) -> Run:
    """Mends them."""
    return partial(resshift, "batch", folder, "--task", "restore", "--weights", mends, "--steps", 1)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_images_are_mended_as_the_command_for_one_does(
    restore: Run, resshift: Run, folder: Path, mends: Path
) -> None:
    ran, output = restore("--strength", 0.5), folder.with_name("in_restored")
    assert ran.code == 0 and "3 images" in ran.err and "3 done" in ran.err
    alone = ("-o", folder / "one.png", "--weights", mends, "--steps", 1, "--strength", 0.5)
    assert resshift("restore", folder / "a.png", *alone).code == 0
    assert (folder / "one.png").read_bytes() == (output / "a.png").read_bytes()
    told = lines(output)[0]
    assert (told["task"], told["asked"], told["scale"]) == ("restore", {"strength": 0.5}, 1.0)


def test_holes_are_filled_by_masks_of_the_same_names(inpaint: Run, folder: Path) -> None:
    assert inpaint().code == 0
    output = folder.with_name("in_filled")
    assert set(results(output)) == {"a.png", "b.jpg", "sub", "sub/c.png"}
    before, after = pixels(folder / "a.png"), pixels(output / "a.png")
    assert (before[4:] == after[4:]).all() and (before[:4] != after[:4]).any()
    assert all(len(line["mask_sha256"]) == 64 for line in lines(output))


def test_what_is_finished_stays_until_its_mask_or_a_setting_changes(
    inpaint: Run, restore: Run, masks: Path
) -> None:
    inpaint()
    assert "3 finished before" in inpaint().err
    write_mask(masks / "a.png", 12, 9, rows=2)
    assert "1 done, 2 finished before" in inpaint().err
    changed = inpaint("--grow", 1)
    assert changed.code == 6 and "made otherwise: grow 0, not 1. Give another" in changed.err
    assert "3 done" in inpaint("--grow", 1, "--overwrite").err
    restore()
    assert "made otherwise: strength 1.0, not 0.5" in restore("--strength", 0.5).err


def test_masks_are_read_again_only_if_they_may_have_changed(
    inpaint: Run, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpaint()
    os.utime(masks / "a.png", (1, 1))
    assert "3 finished before" in inpaint().err
    (masks / "a.png").write_bytes((masks / "a.png").read_bytes())
    read = []

    def digest(path: Path) -> str:
        read.append(path)
        return "another"

    monkeypatch.setattr(crafts, "digest", digest)
    moved = masks.rename(masks.with_name("moved"))
    dry = inpaint("--masks", moved, "--dry-run")
    assert "1 to do, 2 finished before" in dry.err and read == [moved / "a.png"]


def test_a_ledger_of_before_masks_had_a_state_still_holds(inpaint: Run, folder: Path) -> None:
    inpaint()
    book = folder.with_name("in_filled") / ledger.NAME
    old = [json.loads(line) for line in book.read_text().splitlines()]
    assert all(line.pop("mask_state") for line in old)
    book.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    assert "0 done, 3 finished before" in inpaint().err


def test_results_of_another_task_are_not_taken_for_finished(
    restore: Run, inpaint: Run, tmp_path: Path
) -> None:
    restore("-o", tmp_path / "out")
    ran = inpaint("-o", tmp_path / "out")
    assert ran.code == 6 and "made otherwise: task restore, not inpaint" in ran.err


def test_an_image_without_a_mask_is_a_failure_until_it_has_one(
    inpaint: Run, folder: Path, masks: Path
) -> None:
    (masks / "b.png").rename(masks / "away.png")
    dry = inpaint("--dry-run")
    assert "2 to do" in dry.err and "There is no mask for b.jpg in" in dry.err
    ran = inpaint()
    assert ran.code == 1 and "2 done, 0 finished before, 1 failed" in ran.err
    failed = {line["input"]: line.get("exit_code") for line in lines(folder.with_name("in_filled"))}
    assert failed == {"a.png": None, "b.jpg": 3, "sub/c.png": None}
    (masks / "away.png").rename(masks / "b.png")
    assert "1 done, 2 finished before, 0 failed" in inpaint().err


@pytest.mark.parametrize(
    ("width", "rows", "said"),
    [
        (5, 4, "is 5x9, and "),
        (12, 0, "in/a.png to be filled. It is white"),
        (12, 9, "in/a.png known. It is white"),
    ],
)
def test_a_mask_that_does_not_fit_its_image_fails_that_alone(
    inpaint: Run, masks: Path, width: int, rows: int, said: str
) -> None:
    write_mask(masks / "a.png", width, 9, rows)
    assert "1 that can't be done" in inpaint("--dry-run").err
    ran = inpaint()
    assert ran.code == 1 and said in ran.err and "2 done" in ran.err


def test_two_masks_of_one_image_are_not_chosen_between(inpaint: Run, masks: Path) -> None:
    write_mask(masks / "b.tif", 9, 12)
    assert "b.png and b.tif could both be the mask of b.jpg" in inpaint().err
    write_mask(masks / "b.jpg", 9, 12)
    assert "1 done, 2 finished before" in inpaint().err


def test_masks_within_the_folder_are_no_images_of_it(
    inpaint: Run, folder: Path, masks: Path
) -> None:
    masks = masks.rename(folder / "mask[s]")
    ran = inpaint("--masks", masks)
    assert ran.code == 0 and f"3 images in {folder}: 3 done" in ran.err
    assert inpaint("--masks", masks, "--verify").code == 0


def test_rectangles_and_the_images_themselves_can_tell_the_hole(
    resshift: Run, fills: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_photo(folder / "a.png", 12, 9)
    fill = ("batch", folder, "--task", "inpaint", "--weights", fills, "--steps", 1)
    assert resshift(*fill, "--box", "0,0,4,4", "-o", tmp_path / "boxed").code == 0
    assert lines(tmp_path / "boxed")[0]["asked"]["boxes"] == ["0,0,4,4"]
    assert (pixels(tmp_path / "boxed" / "a.png")[4:] == pixels(folder / "a.png")[4:]).all()
    opaque = resshift(*fill, "--masks", "alpha")
    assert opaque.code == 1 and "a.png has no alpha" in opaque.err


def test_a_folder_is_proven_with_its_masks(
    resshift: Run, inpaint: Run, folder: Path, masks: Path
) -> None:
    inpaint()
    assert inpaint("--verify").code == 0
    write_mask(masks / "a.png", 12, 9, rows=2)
    ran = inpaint("--verify", "--json")
    assert json.loads(ran.out)["problems"][0]["message"] == "has another mask than its result"
    assert resshift("batch", folder, "--verify").code == 0  # no mask is looked at


def test_every_process_and_shard_does_the_same(inpaint: Run, folder: Path, tmp_path: Path) -> None:
    inpaint()
    whole = results(folder.with_name("in_filled"))
    for number in (1, 2):
        assert inpaint("-o", tmp_path / "cut", "--shard", f"{number}/2").code == 0
    cut = [p for p in (tmp_path / "cut").rglob("*") if p.suffix in (".png", ".jpg")]
    assert all(whole[p.relative_to(tmp_path / "cut").as_posix()] == p.read_bytes() for p in cut)
    assert len(cut) == 3
    assert inpaint("-o", tmp_path / "more", "--devices", "cpu,cpu").code == 0
    assert (tmp_path / "more" / "a.png").read_bytes() == whole["a.png"]


def test_an_animation_is_filled_frame_by_frame(inpaint: Run, folder: Path, masks: Path) -> None:
    make_animation(folder / "d.png")
    write_mask(masks / "d.tif", 16, 12)
    assert inpaint("--include", "d.png").code == 0
    with Image.open(folder.with_name("in_filled") / "d.png") as image:
        assert len(list(ImageSequence.Iterator(image))) == 3


def test_small_holes_are_forecast_to_take_less(inpaint: Run, folder: Path, masks: Path) -> None:
    make_photo(folder / "a.png", 400, 300)
    only = partial(inpaint, "--include", "a.png", "--dry-run", "--json")
    times = []
    for rows in (3, 299):
        write_mask(masks / "a.png", 400, 300, rows)
        times.append(json.loads(only().out)["dry_run"]["seconds"])
    assert times[0] < times[1] / 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--task paint", 2, "'paint' is none of upscale, restore, inpaint and face"),
        ("--task inpaint", 2, "Nothing says which pixels are to be filled. Give a folder of masks"),
        ("--task inpaint --masks none", 3, "none is no folder of masks"),
        ("--task inpaint --masks in/a.png", 2, "in/a.png is no folder of masks"),
        ("--task inpaint --masks in", 2, "in is the folder of the images themselves"),
        (
            "--masks masks",
            2,
            "--masks does not go with --task upscale. Leave it out, or use --task",
        ),
        ("--task restore --grow 3", 2, "--grow does not go with --task restore"),
        ("--task restore --scale 2", 2, "--scale does not go with --task restore"),
        ("--task restore --long-side 9", 2, "--long-side does not go with --task restore"),
        ("--task inpaint --masks masks --strength 0.5", 2, "use --task restore"),
        ("--task restore --model tiny-x4", 2, "which `resshift restore` does not do"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    resshift: Run,
    folder: Path,
    masks: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    before = files(folder.parent)
    ran = resshift("batch", "in", *options.split())
    assert ran.code == code and said in ran.err
    assert files(folder.parent) == before


def test_weights_for_something_else_are_refused(
    resshift: Run, folder: Path, tiny_weights: Path, mends: Path
) -> None:
    ran = resshift("batch", folder, "--task", "restore", "--weights", tiny_weights)
    assert ran.code == 2 and "enlarges by 4, and can't mend" in ran.err
    boxed = ("--task", "inpaint", "--box", "0,0,2,2", "--weights", mends)
    assert "takes no mask" in resshift("batch", folder, *boxed).err


def test_results_beside_a_folder_are_found_whatever_the_task(
    restore: Run, resshift: Run, folder: Path, tmp_path: Path
) -> None:
    restore()
    copy(folder / "a.png", tmp_path / "else.png")
    found = names.results_beside(folder, lambda place: bool(ledger.files(place)))
    assert found == [folder.with_name("in_restored")]
    assert resshift("batch", folder, "--verify").code == 0
