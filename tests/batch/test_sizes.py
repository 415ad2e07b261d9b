"""Sizes in place of a scale, and results among the inputs, for a whole folder."""

from __future__ import annotations

import json
from pathlib import Path

from batch_folder import results
from command_line import Run, make_photo
from PIL import Image

from resshift_cli.batch import ledger
from resshift_cli.imaging import own


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_every_image_of_a_folder_gets_the_size(batch: Run, folder: Path) -> None:
    assert batch(folder, "--long-side", 30).code == 0
    output = folder.with_name("in_long30")
    assert [size_of(output / name) for name in ("a.png", "b.jpg", "sub/c.png")] == [
        *((30, 22), (22, 30), (30, 30))
    ]
    records = ledger.Ledger(output).results
    assert {record.size for record in records.values()} == {"long30"}
    assert [records[name].scale for name in ("a.png", "sub/c.png")] == [2.5, 3.75]
    assert "3 proven" in batch(folder, "--verify").err


def test_the_same_size_goes_on_and_another_one_is_another_recipe(batch: Run, folder: Path) -> None:
    output = folder.with_name("out")
    command = (folder, "-o", output)
    assert batch(*command, "--width", 24).code == 0
    before = results(output)
    assert "3 finished before" in batch(*command, "--width", 24).err
    for other in (("--width", 25), ("--height", 24), ("--scale", 2), ()):
        ran = batch(*command, *other)
        assert ran.code == 6 and "made otherwise: size w24, not " in ran.err
    assert results(output) == before
    assert batch(*command, "--width", 25, "--overwrite").code == 0
    assert size_of(output / "a.png") == (25, 19)


def test_images_that_are_larger_already_are_told_of_and_stop_nothing(
    batch: Run, folder: Path
) -> None:
    make_photo(folder / "large.png", 90, 9)
    told = json.loads(batch(folder, "--width", 40, "--dry-run", "--json", "-q").out)["dry_run"]
    assert told["images"] == 3 and [why["input"] for why in told["refused"]] == ["large.png"]
    ran = batch(folder, "--width", 40)
    assert ran.code == 1 and "3 done, 0 finished before, 1 failed" in ran.err
    assert "large.png is 90x9 already, more than 40 pixels across" in ran.err


def test_alike_images_with_a_size_are_what_each_is_alone(
    batch: Run, upscale: Run, alike: Path
) -> None:
    assert batch(alike, "--width", 60).code == 0
    output = alike.with_name("in_w60")
    assert (
        upscale(alike / "3.png", "--width", 60, "--steps", 1, "-o", alike / "alone.png").code == 0
    )
    assert (alike / "alone.png").read_bytes() == (output / "3.png").read_bytes()


def test_results_beside_their_inputs_are_not_enlarged_again(
    batch: Run, upscale: Run, folder: Path
) -> None:
    assert upscale(folder / "a.png", "--steps", 1).code == 0
    ran = batch(folder)
    assert "3 images in" in ran.err and "3 done" in ran.err
    assert ran.err.splitlines()[-1] == "1 other file was left alone: results of resshift 1"
    assert ledger.Ledger(folder.with_name("in_x4")).others == {own.KIND: 1}
    assert "3 proven" in batch(folder, "--verify").err


def test_a_folder_of_results_alone_is_enlarged_again(batch: Run, folder: Path) -> None:
    assert batch(folder).code == 0
    again = batch(folder.with_name("in_x4"), "--scale", 2)
    assert again.code == 0 and "3 done" in again.err
