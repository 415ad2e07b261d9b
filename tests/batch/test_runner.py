"""A folder of images becomes a folder of results, as `upscale` makes them."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_folder import lines, make_animation, results
from command_line import Run, make_photo, posix
from PIL import Image

from resshift_cli.batch import worker
from resshift_cli.commands import app as cli
from resshift_cli.imaging import read, targets
from resshift_cli.imaging.opening import Header, Opened, read_header
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system import digests


def test_a_folder_becomes_one_beside_it_with_the_same_names(batch: Run, folder: Path) -> None:
    ran = batch(folder)
    output = folder.with_name("in_x4")
    assert ran.code == 0
    assert ran.out.splitlines() == [str(output / n) for n in ("a.png", "b.jpg", "sub/c.png")]
    assert ran.err.splitlines()[-1].startswith(
        f"3 images in {folder}: 3 done, 0 finished before, 0 failed."
    )
    assert set(results(output)) == {"a.png", "b.jpg", "sub", "sub/c.png"}
    with Image.open(output / "sub" / "c.png") as image:
        assert image.size == (32, 32)


def test_one_image_is_told_of_as_one(batch: Run, folder: Path) -> None:
    ran = batch(folder, "--include", "a.png")
    assert f"1 image in {folder}: 1 done, " in ran.err


def test_results_are_those_of_upscale(batch: Run, folder: Path, tiny_weights: Path) -> None:
    batch(folder)
    single = folder.with_name("single.png")
    words = ["upscale", folder / "a.png", "-o", single, "--weights", tiny_weights, "--steps", 1]
    assert cli.run([str(word) for word in words]) == 0
    assert single.read_bytes() == (folder.with_name("in_x4") / "a.png").read_bytes()


def test_results_are_encoded_as_asked_for_and_as_upscale_does(
    batch: Run, folder: Path, tiny_weights: Path
) -> None:
    options = ["--format", "webp", "--lossless", "--strip-metadata"]
    assert batch(folder, *options).code == 0
    output = folder.with_name("in_x4")
    assert set(results(output)) == {"a.png.webp", "b.jpg.webp", "sub", "sub/c.png.webp"}
    single = folder.with_name("single.webp")
    words = ["upscale", folder / "a.png", "-o", single, "--weights", tiny_weights, "--steps", 1]
    assert cli.run([str(word) for word in (*words, *options)]) == 0
    assert single.read_bytes() == (output / "a.png.webp").read_bytes()
    line = lines(output)[0]
    assert (line["format"], line["lossless"], line["strip_metadata"]) == ("webp", True, True)


def test_animations_are_enlarged_frame_by_frame_as_upscale_does(
    batch: Run, folder: Path, tiny_weights: Path
) -> None:
    make_animation(folder / "m.gif")
    assert batch(folder, "--tile", 16).code == 0
    output = folder.with_name("in_x4")
    with Image.open(output / "m.gif.png") as image:
        assert (image.size, image.n_frames) == ((64, 48), 3)  # type: ignore[attr-defined]
    single = folder.with_name("single.png")
    words = ["upscale", folder / "m.gif", "-o", single, "--weights", tiny_weights]
    words += ["--steps", 1, "--tile", 16]
    assert cli.run([str(word) for word in words]) == 0
    assert single.read_bytes() == (output / "m.gif.png").read_bytes()
    assert "4 finished before" in batch(folder, "--tile", 16).err


def test_only_the_first_frame_is_taken_where_that_was_asked_for(batch: Run, folder: Path) -> None:
    make_animation(folder / "m.gif")
    refused = batch(folder, "--format", "jpg")
    assert refused.code == 1
    assert "without animation" in refused.err and "3 done" in refused.err
    ran = batch(folder, "--format", "jpg", "--first-frame", "--overwrite")
    assert (ran.code, "4 done" in ran.err) == (0, True)
    assert read_header(folder / "m.gif") == Header(12, 16, False, 3)
    assert read_header(folder / "m.gif", first_frame=True) == Header(12, 16, False, 1)


def test_too_many_pixels_are_refused_where_that_was_asked_for(batch: Run, folder: Path) -> None:
    ran = batch(folder, "--max-pixels", 100)
    assert ran.code == 1
    assert ran.err.count("is too large") == 2 and "1 done" in ran.err


def test_the_ledger_says_what_was_made_of_what_and_how(batch: Run, folder: Path) -> None:
    batch(folder, "--seed", 7, "--tile", 16)
    output = folder.with_name("in_x4")
    line = lines(output)[0]
    assert (line["status"], line["input"], line["output"]) == ("done", "a.png", "a.png")
    assert line["input_sha256"] == digests.digest(folder / "a.png")
    assert line["output_sha256"] == digests.digest(output / "a.png")
    assert (line["output_bytes"], line["width"]) == ((output / "a.png").stat().st_size, 48)
    assert (line["model"], line["seed"], line["steps"], line["tile"]) == (
        "tiny.safetensors",
        7,
        1,
        16,
    )
    assert {"seconds", "peak_bytes", "weights", "precision", "version", "time"} <= line.keys()
    assert line["threads"] == torch.get_num_threads()


def test_reading_the_next_image_and_writing_the_last_one_overlap_with_the_work(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, stream, save = read.load, Upscaler.stream, targets.save_below
    second_is_read, second_is_begun = threading.Event(), threading.Event()

    def reading(file: Opened, **options: Any) -> Any:
        if file.source.path.name == "b.jpg":
            second_is_read.set()
        return load(file, **options)

    def working(self: Upscaler, rows: Any, shape: tuple[int, int, int], *rest: Any) -> Any:
        if shape[0] == 9:
            assert second_is_read.wait(20)
        else:
            second_is_begun.set()
        return stream(self, rows, shape, *rest)

    def writing(*given: Any, **options: Any) -> None:
        assert second_is_begun.wait(20)
        save(*given, **options)

    monkeypatch.setattr(read, "load", reading)
    monkeypatch.setattr(Upscaler, "stream", working)
    monkeypatch.setattr(targets, "save_below", writing)
    assert batch(folder).code == 0


@posix
def test_any_name_that_a_file_can_have_is_handled(batch: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo = make_photo(tmp_path / "photo.png", 8, 8).read_bytes()
    odd = [b"new\nline.png", "\U0001f408.png".encode(), b"x" * 251 + b".png", b"-o.png"]
    if sys.platform == "linux":
        odd.append(b"caf\xe9.png")  # not UTF-8
    for name in odd:
        (folder / os.fsdecode(name)).write_bytes(photo)
    assert batch(folder).code == 0
    output = os.fsencode(tmp_path / "in_x4")
    assert set(odd) <= set(os.listdir(output))
    assert f"{len(odd)} finished before" in batch(folder).err


def test_the_peak_of_memory_is_that_of_the_image_and_not_of_the_next_one(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, peak, last_is_begun = Upscaler.stream, [0], threading.Event()

    def working(self: Upscaler, rows: Any, shape: tuple[int, int, int], *rest: Any) -> Any:
        peak[0] = max(peak[0], shape[0] * shape[1])
        if shape[:2] == (8, 8):
            last_is_begun.set()
        return stream(self, rows, shape, *rest)

    def measured(device: object) -> int:
        if threading.current_thread() is not threading.main_thread():
            assert last_is_begun.wait(20)  # where it is too late
        return peak[0]

    monkeypatch.setattr(worker, "forget_peak", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(worker, "peak_memory", measured)
    monkeypatch.setattr(Upscaler, "stream", working)
    assert batch(folder, "--exclude", "a.png").code == 0
    done = lines(folder.with_name("in_x4"))
    assert [line["peak_bytes"] for line in done] == [9 * 12, 8 * 8]
