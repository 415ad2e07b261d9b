"""A folder of images: nothing is lost, nothing done twice, and any end can be gone on from."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ran, Run
from memory import needs_proc, peak_over
from PIL import Image
from test_cli import files as files_of
from test_cli import make_photo, may_be_denied, on_a_terminal, posix, start

from resshift_cli.batch import ledger
from resshift_cli.batch import runner as batch
from resshift_cli.commands import app as cli
from resshift_cli.commands import batch as cli_batch
from resshift_cli.errors import OutputError
from resshift_cli.imaging import files, opening, read, targets
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.sources import Source
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system import digests

OURS = (ledger.NAME, ledger.LOCK)


@pytest.fixture
def run(resshift: Run, tiny_weights: Path) -> Run:
    """Runs `resshift batch` in this process."""
    return partial(resshift, "batch", "--weights", tiny_weights, "--steps", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    make_photo(folder / "a.png", 12, 9)
    make_photo(folder / "b.jpg", 9, 12)
    make_photo(folder / "sub" / "c.png", 8, 8)
    return folder


def results(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder of results but what the batch keeps for itself."""
    return {name: content for name, content in files_of(folder).items() if name not in OURS}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The ledger, without what was about to be written."""
    found = map(json.loads, (folder / ledger.NAME).read_text().splitlines())
    return [line for line in found if line["status"] != "writing"]


def names(folder: Path, **options: Any) -> list[str]:
    return batch.find(folder, folder / "none", **options).images


# What is found, and what results are called


def test_images_are_found_folder_by_folder_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "notes.txt").touch()
    (folder / "B.JPG").touch()
    assert names(folder) == ["B.JPG", "a.png", "b.jpg", "sub/c.png"]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"include": ["*.PNG"]}, ["a.png", "sub/c.png"]),
        ({"include": ["*.png", "*.jpg"], "exclude": ["a.*"]}, ["b.jpg", "sub/c.png"]),
        ({"include": ["sub/*"]}, ["sub/c.png"]),
        ({"exclude": ["sub"]}, ["a.png", "b.jpg"]),
        ({"exclude": ["sub/c.*", "*.jpg"]}, ["a.png"]),
        ({"include": ["*"], "exclude": ["*"]}, []),
    ],
)
def test_patterns_take_and_leave_out(
    folder: Path, options: dict[str, list[str]], expected: list[str]
) -> None:
    assert names(folder, **options) == expected


def test_hidden_files_and_folders_are_taken_only_when_asked_for(folder: Path) -> None:
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "t.png").touch()
    (folder / ".h.png").touch()
    assert names(folder) == ["a.png", "b.jpg", "sub/c.png"]
    found = names(folder, hidden=True)
    assert found == [".h.png", "a.png", "b.jpg", ".thumbnails/t.png", "sub/c.png"]


@posix
def test_links_in_circles_end_and_no_folder_is_entered_twice(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "e.png").touch()
    (elsewhere / "up").symlink_to(tmp_path)
    (folder / "again").symlink_to("sub")
    (folder / "loop").symlink_to(".")
    (folder / "self").symlink_to("self")
    (folder / "x1").symlink_to(elsewhere)
    (folder / "x2").symlink_to(elsewhere)
    assert names(folder) == ["a.png", "b.jpg", "sub/c.png", "x1/e.png"]


def test_results_within_the_folder_are_not_taken_for_inputs(run: Run, folder: Path) -> None:
    assert run(folder, "-o", folder / "large").code == 0
    before = files_of(folder)
    again = run(folder, "-o", folder / "large")
    assert "3 images" in again.err and "3 finished before" in again.err
    assert files_of(folder) == before


@pytest.mark.parametrize(
    "inputs, expected",
    [
        (["a.gif", "a.png", "a.jpg"], ["a.gif.png", "a.png", "a.jpg"]),
        (["a.gif"], ["a.gif.png"]),
        (["a.gif", "a.gif.png"], ["a.gif.png.png", "a.gif.png"]),
        (["d/a.gif", "a.gif"], ["d/a.gif.png", "a.gif.png"]),
        (["A.PNG", "a.png"], ["A.PNG", "a.png"]),
        (["plain"], ["plain.png"]),
    ],
)
def test_no_two_results_have_one_name(inputs: list[str], expected: list[str]) -> None:
    assert list(map(batch.name_outputs(inputs, scale=4).__getitem__, inputs)) == expected


@pytest.mark.parametrize(
    "inputs, expected",
    [
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["a.gif", "A.PNG"], ["a.gif.png", "A.PNG"]),
        (["a.jpg", "a.jpg.png"], ["a.jpg.png.png", "a.jpg.png"]),
    ],
)
def test_a_format_that_was_asked_for_names_the_results(
    inputs: list[str], expected: list[str]
) -> None:
    outputs = batch.name_outputs(inputs, scale=4, options=SaveOptions(format="png"))
    assert [outputs[name] for name in inputs] == expected
    kept = batch.name_outputs(["a.jpeg"], scale=4, options=SaveOptions(format="jpg"))
    assert kept == {"a.jpeg": "a.jpeg"}


def test_names_that_would_become_too_long_are_cut_and_still_differ() -> None:
    inputs = [f"d/{'é' * 124}{i}.gif" for i in range(4)]
    outputs = batch.name_outputs(inputs, scale=4).values()
    assert len(set(outputs)) == 4
    assert all(name.startswith("d/éé") and name.endswith(".png") for name in outputs)
    assert all(len(os.fsencode(name.removeprefix("d/"))) <= 255 for name in outputs)


# A run


def test_a_folder_becomes_one_beside_it_with_the_same_names(run: Run, folder: Path) -> None:
    ran = run(folder)
    output = folder.with_name("in_x4")
    assert ran.code == 0
    assert ran.out.splitlines() == [str(output / n) for n in ("a.png", "b.jpg", "sub/c.png")]
    assert ran.err.splitlines()[-1].startswith(
        f"3 images in {folder}: 3 done, 0 finished before, 0 failed."
    )
    assert set(results(output)) == {"a.png", "b.jpg", "sub", "sub/c.png"}
    with Image.open(output / "sub" / "c.png") as image:
        assert image.size == (32, 32)


def test_results_are_those_of_upscale(run: Run, folder: Path, tiny_weights: Path) -> None:
    run(folder)
    single = folder.with_name("single.png")
    words = ["upscale", folder / "a.png", "-o", single, "--weights", tiny_weights, "--steps", 1]
    assert cli.run([str(word) for word in words]) == 0
    assert single.read_bytes() == (folder.with_name("in_x4") / "a.png").read_bytes()


def test_results_are_encoded_as_asked_for_and_as_upscale_does(
    run: Run, folder: Path, tiny_weights: Path
) -> None:
    options = ["--format", "webp", "--lossless", "--strip-metadata"]
    assert run(folder, *options).code == 0
    output = folder.with_name("in_x4")
    assert set(results(output)) == {"a.png.webp", "b.jpg.webp", "sub", "sub/c.png.webp"}
    single = folder.with_name("single.webp")
    words = ["upscale", folder / "a.png", "-o", single, "--weights", tiny_weights, "--steps", 1]
    assert cli.run([str(word) for word in (*words, *options)]) == 0
    assert single.read_bytes() == (output / "a.png.webp").read_bytes()
    line = lines(output)[0]
    assert (line["format"], line["lossless"], line["strip_metadata"]) == ("webp", True, True)


def make_animation(path: Path, frames: int = 3) -> Path:
    still = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    images = []
    for number in range(frames):
        pixels = still.copy()
        pixels[:, number] = 255
        images.append(Image.fromarray(pixels))
    images[0].save(path, save_all=True, append_images=images[1:], duration=70, loop=0)
    return path


def test_animations_are_enlarged_frame_by_frame_as_upscale_does(
    run: Run, folder: Path, tiny_weights: Path
) -> None:
    make_animation(folder / "m.gif")
    assert run(folder, "--tile", 16).code == 0
    output = folder.with_name("in_x4")
    with Image.open(output / "m.gif.png") as image:
        assert (image.size, image.n_frames) == ((64, 48), 3)  # type: ignore[attr-defined]
    single = folder.with_name("single.png")
    words = ["upscale", folder / "m.gif", "-o", single, "--weights", tiny_weights]
    words += ["--steps", 1, "--tile", 16]
    assert cli.run([str(word) for word in words]) == 0
    assert single.read_bytes() == (output / "m.gif.png").read_bytes()
    assert "4 finished before" in run(folder, "--tile", 16).err


def test_only_the_first_frame_is_taken_where_that_was_asked_for(run: Run, folder: Path) -> None:
    make_animation(folder / "m.gif")
    refused = run(folder, "--format", "jpg")
    assert refused.code == 1
    assert "without animation" in refused.err and "3 done" in refused.err
    ran = run(folder, "--format", "jpg", "--first-frame", "--overwrite")
    assert (ran.code, "4 done" in ran.err) == (0, True)
    assert opening.read_header(folder / "m.gif") == opening.Header(12, 16, False, 3)
    assert opening.read_header(folder / "m.gif", first_frame=True) == opening.Header(
        12, 16, False, 1
    )


@needs_proc
def test_an_animation_of_hundreds_of_frames_is_not_held_as_floats(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.effect_noise((200, 200), 99) for _ in range(120)]
    path = folder / "m.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=70, quality=1)
    loaded = files.load(Source(path), files.Handling())
    as_floats = 120 * 200 * 200 * 3 * 4

    def work() -> None:
        result = files.enlarge(
            loaded,
            lambda rows, shape, told: iter(rows),
            lambda done, total: None,
            size=loaded.size,
            note="",
            target=Path("a.webp"),
            options=SaveOptions(quality=1),
        )
        content = result.content()
        assert not callable(content) and len(content) > 1000

    work()
    assert peak_over(work) < 2 * as_floats / 3


def test_too_many_pixels_are_refused_where_that_was_asked_for(run: Run, folder: Path) -> None:
    ran = run(folder, "--max-pixels", 100)
    assert ran.code == 1
    assert ran.err.count("is too large") == 2 and "1 done" in ran.err


def test_the_ledger_says_what_was_made_of_what_and_how(run: Run, folder: Path) -> None:
    run(folder, "--seed", 7, "--tile", 16)
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


def test_reading_the_next_image_and_writing_the_last_one_overlap_with_the_work(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, stream, save = read.load, Upscaler.stream, targets.save
    second_is_read, second_is_begun = threading.Event(), threading.Event()

    def reading(file: opening.Opened, **options: Any) -> Any:
        if file.source.path.name == "b.jpg":
            second_is_read.set()
        return load(file, **options)

    def working(self: Upscaler, rows: Any, shape: tuple[int, int, int], *rest: Any) -> Any:
        if shape[0] == 9:
            assert second_is_read.wait(20)
        else:
            second_is_begun.set()
        return stream(self, rows, shape, *rest)

    def writing(encoded: bytes, path: Path, **options: Any) -> None:
        assert second_is_begun.wait(20)
        save(encoded, path, **options)

    monkeypatch.setattr(read, "load", reading)
    monkeypatch.setattr(Upscaler, "stream", working)
    monkeypatch.setattr(targets, "save", writing)
    assert run(folder).code == 0


@posix
def test_any_name_that_a_file_can_have_is_handled(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo = make_photo(tmp_path / "photo.png", 8, 8).read_bytes()
    odd = [b"new\nline.png", "\U0001f408.png".encode(), b"x" * 251 + b".png", b"-o.png"]
    if sys.platform == "linux":
        odd.append(b"caf\xe9.png")  # not UTF-8
    for name in odd:
        (folder / os.fsdecode(name)).write_bytes(photo)
    assert run(folder).code == 0
    output = os.fsencode(tmp_path / "in_x4")
    assert set(odd) <= set(os.listdir(output))
    assert f"{len(odd)} finished before" in run(folder).err


# What is finished is not done again


def test_the_same_command_again_does_nothing(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder)
    before = files_of(folder.with_name("in_x4"))
    monkeypatch.setattr(Upscaler, "load", None)  # the model is not even loaded
    ran = run(folder)
    assert (ran.code, ran.out) == (0, "")
    assert "0 done, 3 finished before, 0 failed" in ran.err
    assert files_of(folder.with_name("in_x4")) == before


def change(folder: Path, output: Path) -> None:
    make_photo(folder / "a.png", 10, 10)


def touch(folder: Path, output: Path) -> None:
    os.utime(folder / "a.png", (1, 1))


def remove(folder: Path, output: Path) -> None:
    (output / "a.png").unlink()


def cut(folder: Path, output: Path) -> None:
    os.truncate(output / "a.png", 10)


def rename(folder: Path, output: Path) -> None:
    (folder / "a.png").rename(folder / "d.png")


@pytest.mark.parametrize(
    "event, done", [(change, 1), (touch, 0), (remove, 1), (rename, 1)], ids=lambda x: str(x)[:16]
)
def test_what_changed_is_done_again_and_nothing_else(
    run: Run, folder: Path, event: Callable[[Path, Path], None], done: int
) -> None:
    run(folder)
    event(folder, folder.with_name("in_x4"))
    ran = run(folder)
    assert ran.code == 0
    assert f"{done} done, {3 - done} finished before" in ran.err


@pytest.mark.parametrize("event", [cut, change])
def test_a_result_that_is_not_as_it_was_written_is_replaced_only_when_asked(
    run: Run, folder: Path, event: Callable[[Path, Path], None]
) -> None:
    run(folder)
    output = folder.with_name("in_x4")
    event(folder, output)
    (output / "a.png").write_bytes(b"edited")
    refused = run(folder)
    assert (refused.code, (output / "a.png").read_bytes()) == (1, b"edited")
    assert "a.png exists already. Use --overwrite" in refused.err
    assert run(folder, "--overwrite").code == 0
    assert (output / "a.png").read_bytes() != b"edited"


def test_files_of_another_origin_are_not_replaced(run: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    output.mkdir()
    (output / "a.png").write_bytes(b"precious")
    ran = run(folder)
    assert (ran.code, (output / "a.png").read_bytes()) == (1, b"precious")
    assert "2 done, 0 finished before, 1 failed" in ran.err


def test_results_of_another_folder_are_not_replaced(run: Run, folder: Path, tmp_path: Path) -> None:
    run(folder, "-o", tmp_path / "out")
    before = results(tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    make_photo(other / "a.png", 30, 30)
    assert run(other, "-o", tmp_path / "out").code == 1
    assert results(tmp_path / "out") == before


def test_a_folder_that_was_moved_is_known_by_its_content(run: Run, folder: Path) -> None:
    run(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert "3 finished before, 0 failed" in run(moved, "-o", folder.with_name("in_x4")).err


@posix
def test_an_input_is_never_replaced_even_by_way_of_a_link(run: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    output.mkdir()
    photo = (folder / "a.png").rename(output / "a.png")
    (folder / "a.png").symlink_to(photo)
    before = photo.read_bytes()
    ran = run(folder, "--overwrite")
    assert (ran.code, photo.read_bytes()) == (1, before)
    assert "would replace it" in ran.err


def test_results_with_other_settings_are_replaced_only_when_asked(run: Run, folder: Path) -> None:
    run(folder)
    output = folder.with_name("in_x4")
    before = files_of(output)
    refused = run(folder, "--seed", 1)
    assert refused.code == 6
    assert "in_x4 holds results that were made otherwise: seed 0, not 1." in refused.err
    assert files_of(output) == before
    assert run(folder, "--seed", 1, "--overwrite").code == 0
    assert all(results(output)[name] != before[name] for name in ("a.png", "b.jpg", "sub/c.png"))
    assert "3 finished before" in run(folder, "--seed", 1, "--overwrite").err


@pytest.mark.parametrize(
    "option, told",
    [
        (["--quality", 50], "quality by default, not 50"),
        (["--strip-metadata"], "strip metadata False, not True"),
        (["--depth", 8], "depth by default, not 8"),
    ],
)
def test_results_that_were_encoded_otherwise_are_not_finished(
    run: Run, folder: Path, option: list[object], told: str
) -> None:
    run(folder)
    before = files_of(folder.with_name("in_x4"))
    refused = run(folder, *option)
    assert (refused.code, told in refused.err) == (6, True)
    assert files_of(folder.with_name("in_x4")) == before
    assert "3 done, 0 finished before" in run(folder, *option, "--overwrite").err
    assert "0 done, 3 finished before" in run(folder, *option).err


def test_a_ledger_of_before_there_were_such_options_still_holds(run: Run, folder: Path) -> None:
    run(folder)
    book = folder.with_name("in_x4") / ledger.NAME
    options = {*SaveOptions.__dataclass_fields__, "first_frame"}
    old = [
        {name: value for name, value in json.loads(line).items() if name not in options}
        for line in book.read_text().splitlines()
    ]
    book.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    assert "0 done, 3 finished before" in run(folder).err


def test_limits_on_what_is_read_do_not_undo_what_is_finished(run: Run, folder: Path) -> None:
    run(folder)
    ran = run(folder, "--max-pixels", 1, "--allow-truncated")
    assert "0 done, 3 finished before, 0 failed" in ran.err


# Small images at a time


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Ten images that are padded to 24x32, two of another size, and one with alpha."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(10):
        make_photo(folder / f"{number}.png", 17 + number % 8, 25 + number % 5)
    make_photo(folder / "0a.png", 40, 40)
    make_photo(folder / "3a.png", 40, 40)
    veil = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(veil).save(folder / "4a.png")
    return folder


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many images were given to the networks at a time, and for how many results."""
    seen: list[tuple[int, int]] = []
    together = Upscaler.together

    def counted(self: Upscaler, images: Any, settings: Any, count: int, *rest: Any) -> Any:
        seen.append((count, len(images)))
        return together(self, images, settings, count, *rest)

    monkeypatch.setattr(Upscaler, "together", counted)
    return seen


def test_small_images_of_one_padded_size_are_computed_at_a_time(
    run: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    ran = run(alike)
    assert (ran.code, sizes) == (0, [(4, 4), (4, 4)])
    done = [Path(name).stem for name in ran.out.splitlines()]
    assert done == ["0", "1", "2", "3", "0a", "3a", "4", "5", "6", "7", "4a", "8", "9"]
    output = alike.with_name("in_x4")
    for number in range(10):
        with Image.open(output / f"{number}.png") as image:
            assert image.size == (4 * (17 + number % 8), 4 * (25 + number % 5))
    assert all(line["seconds"] > 0 for line in lines(output))


def test_groups_do_not_depend_on_what_was_finished_before(
    run: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    run(alike)
    output = alike.with_name("in_x4")
    before = results(output)
    for name in ("1.png", "2.png", "7.png", "8.png"):
        (output / name).unlink()
    sizes.clear()
    assert "4 done, 9 finished before" in run(alike).err
    assert sizes == [(4, 2), (4, 1)]
    assert results(output) == before


def test_an_image_that_can_not_be_read_leaves_its_group_as_it_is(
    run: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    run(alike)
    whole = results(alike.with_name("in_x4"))
    data = (alike / "2.png").read_bytes()
    (alike / "2.png").write_bytes(data[: len(data) // 2])
    sizes.clear()
    ran = run(alike, "-o", alike.with_name("other"))
    assert (ran.code, sizes) == (1, [(4, 3), (4, 4)])
    del whole["2.png"]
    assert results(alike.with_name("other")) == whole


def test_a_file_that_is_turned_is_done_by_itself(
    run: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    with Image.open(alike / "1.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6  # its rows are the image's columns
        image.save(alike / "1.png", exif=exif)
    ran = run(alike)
    assert (ran.code, sizes[0]) == (0, (4, 3))


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("division by zero")])
def test_a_group_that_fails_is_done_one_by_one(
    run: Run, alike: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Upscaler, "together", fail)
    ran = run(alike)
    assert ran.code == 0 and "13 done" in ran.err
    assert ran.err.count("4 images could not be computed at a time: going on one by one.") == 2


def test_fail_fast_stops_within_a_group(run: Run, alike: Path) -> None:
    data = (alike / "2.png").read_bytes()
    (alike / "2.png").write_bytes(data[: len(data) // 2])
    ran = run(alike, "--fail-fast")
    assert ran.code == 1
    assert set(results(alike.with_name("in_x4"))) == {"0.png", "1.png"}


def test_progress_goes_through_the_images_of_a_group(
    run: Run, alike: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_batch, "PLAIN_EVERY", 0)
    told = [line for line in run(alike, "--steps", 2).err.splitlines() if line[0] == "["]
    assert re.match(r"\[3/13\] 2\.png: 0%, ", told[0])
    assert re.match(r"\[4/13\] 3\.png: 100%, ", told[1])
    assert re.match(r"\[13/13\] 9\.png: 100%, all 100%", told[-1])


# Failures


def test_images_that_fail_do_not_keep_the_others_from_being_done(run: Run, folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    (folder / "aa.png").write_bytes(data[: len(data) // 2])
    for number in range(11):
        (folder / f"bad{number}.png").touch()
    ran = run(folder)
    told = ran.err.splitlines()
    assert ran.code == 1
    assert "14 images" not in told[0] and "15 images" in told[0]
    assert "3 done, 0 finished before, 12 failed" in told[0]
    assert "aa.png is cut short or damaged" in told[1]
    assert len(told) == 12
    assert told[-1] == f"and 2 more, see {folder.with_name('in_x4') / ledger.NAME}"
    failed = [line for line in lines(folder.with_name("in_x4")) if line["status"] == "failed"]
    assert [line["exit_code"] for line in failed] == [4] * 12


def test_damaged_images_are_done_as_far_as_they_go_if_that_is_allowed(
    run: Run, folder: Path
) -> None:
    data = (folder / "a.png").read_bytes()
    (folder / "aa.png").write_bytes(data[: len(data) // 2])
    (folder / "ab.webp").write_bytes(b"RIFF\x40\0\0\0WEBPVP8 ")
    ran = run(folder, "--allow-truncated")
    assert ran.code == 1
    assert "4 done, 0 finished before, 1 failed" in ran.err
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "aa.png is cut short or damaged" in warnings[0]
    (line,) = (line for line in lines(folder.with_name("in_x4")) if "warnings" in line)
    assert line["input"] == "aa.png"
    assert [f"warning: {warning}" for warning in line["warnings"]] == warnings
    report = json.loads(run(folder, "--allow-truncated", "--overwrite", "--json", "-q").out)
    assert report["counts"]["skipped"] == 4


def test_what_failed_is_tried_again(run: Run, folder: Path) -> None:
    (folder / "aa.png").write_bytes(b"not yet copied")
    assert run(folder).code == 1
    make_photo(folder / "aa.png", 9, 9)
    ran = run(folder)
    assert (ran.code, "1 done, 3 finished before, 0 failed" in ran.err) == (0, True)


def test_fail_fast_stops_at_the_first_failure(run: Run, folder: Path) -> None:
    (folder / "aa.png").touch()
    ran = run(folder, "--fail-fast")
    assert ran.code == 1
    assert set(results(folder.with_name("in_x4"))) == {"a.png"}


def test_a_bug_fails_an_image_and_not_the_night(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Upscaler.stream

    def sometimes(self: Upscaler, rows: Any, shape: Any, *rest: Any) -> Any:
        if shape[0] == 12:
            raise ZeroDivisionError("division by zero")
        return stream(self, rows, shape, *rest)

    monkeypatch.setattr(Upscaler, "stream", sometimes)
    ran = run(folder)
    assert ran.code == 1
    assert "2 done, 0 finished before, 1 failed" in ran.err
    assert "a bug in resshift: ZeroDivisionError" in ran.err
    assert lines(folder.with_name("in_x4"))[1]["exit_code"] == 70


@may_be_denied
def test_a_folder_that_can_not_be_read_is_a_failure(run: Run, folder: Path) -> None:
    (folder / "sub").chmod(0)
    try:
        ran = run(folder)
    finally:
        (folder / "sub").chmod(0o700)
    assert ran.code == 1
    assert "sub can't be read: Permission denied" in ran.err
    assert "2 done, 0 finished before, 1 failed" in ran.err


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("none", 3, "There is no folder none."),
        ("in/a.png", 2, "in/a.png is not a folder. `resshift upscale in/a.png`"),
        ("in -o in", 2, "would fall among the inputs"),
        ("in/sub -o in", 2, "would fall among the inputs"),
        ("in -o in/a.png", 6, "in/a.png can't be made"),
        ("in --tile 7", 2, "A tile of 7 px is smaller"),
        ("in --device cuda:99", 8, "'cuda:99' was asked for"),
        ("in --exclude", 2, "requires an argument"),
    ],
)
def test_what_can_not_be_done_is_refused_on_one_line_and_leaves_nothing(
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    before = files_of(folder.parent)
    ran = run(*arguments.split())
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (code, "", 1)
    assert words in ran.err
    assert files_of(folder.parent) == before


def test_a_folder_without_images_is_no_failure(run: Run, tmp_path: Path) -> None:
    ran = run(tmp_path)
    assert (ran.code, ran.err) == (0, f"There are no images in {tmp_path}.\n")
    assert not list(tmp_path.parent.glob("*_x4"))


def test_a_second_batch_on_the_same_results_is_refused(run: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    output.mkdir()
    with ledger.locked(output):
        ran = run(folder)
    assert ran.code == 6
    assert "Another batch is at work in" in ran.err
    assert results(output) == {}


# Room


def test_the_work_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = iter([10**9, 10**9, *[10**6] * 9])  # before the work, the first image, the others
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, next(free)))
        ran = run(folder)
    output = folder.with_name("in_x4")
    assert ran.code == 6
    assert "There is no room for" in ran.err and "it goes on from here" in ran.err
    assert set(results(output)) == {"a.png"}
    assert [line["status"] for line in lines(output)] == ["done"]
    assert "2 done, 1 finished before" in run(folder).err


def test_a_disk_that_fills_up_ends_the_batch_and_is_no_image_s_fault(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OutputError("It can't be written.", hint="Make room.") from error

    monkeypatch.setattr(targets, "save", full)
    ran = run(folder)
    assert ran.code == 6
    assert ran.err.count("There is no room for") == 1
    assert lines(folder.with_name("in_x4")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems may not be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("room", [batch.LEAST_ROOM, -(10**9)], ids=["foreseen", "met"])
def test_on_a_small_disk_only_whole_results_are_found(
    run: Run, folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    for number in range(9):
        make_photo(folder / f"a{number}.png", 30, 30)
    monkeypatch.setattr(batch, "LEAST_ROOM", room)
    ran = run(folder, "-o", small_disk / "out")
    assert ran.code == 6
    assert "Make room, then run the same command again" in ran.err
    made = results(small_disk / "out")
    done = ledger.Ledger(small_disk / "out").results
    assert len(made) - len(done) in (0, 1)  # where not even a line about it found room
    assert bool(made) == (room < 0)
    for name in made:
        with Image.open(small_disk / "out" / name) as image:
            image.load()


def test_a_dry_run_tells_what_it_would_take_and_writes_nothing(run: Run, folder: Path) -> None:
    before = files_of(folder.parent)
    ran = run(folder, "--dry-run")
    assert (ran.code, ran.out) == (0, "")
    assert "3 to do, 0 finished before" in ran.err
    told = r"About \d+ \w+ on \w+ in \w+, \d+ MB of memory at the peak, and up to about .* free"
    assert re.search(told, ran.err)
    assert files_of(folder.parent) == before


def test_a_dry_run_knows_what_is_finished_and_what_would_be_refused(run: Run, folder: Path) -> None:
    run(folder)
    output = folder.with_name("in_x4")
    (output / "b.jpg").write_bytes(b"edited")
    make_photo(folder / "d.png", 9, 9)
    before = files_of(output)
    report = json.loads(run(folder, "--dry-run", "--json").out)
    assert report["counts"]["skipped"] == 2
    assert report["dry_run"]["images"] == 1
    assert [refused["input"] for refused in report["dry_run"]["refused"]] == ["b.jpg"]
    assert report["dry_run"]["disk_bytes"] == 16 * (folder / "d.png").stat().st_size
    assert files_of(output) == before


# What is printed


def test_json_is_one_object_with_counts_and_results(run: Run, folder: Path) -> None:
    (folder / "bad.png").touch()
    ran = run(folder, "--json", "--quiet")
    report = json.loads(ran.out)
    assert ran.code == 1
    assert report["counts"] == {"found": 4, "done": 3, "skipped": 0, "failed": 1, "left": 0}
    assert [result["output"] for result in report["results"]] == ["a.png", "b.jpg", "sub/c.png"]
    assert [failure["input"] for failure in report["failures"]] == ["bad.png"]
    assert (report["settings"]["steps"], report["errors"]) == (1, [])


def test_quiet_prints_nothing_when_all_is_well(run: Run, folder: Path) -> None:
    assert run(folder, "-q") == Ran(0, "", "")


def test_where_there_is_no_terminal_a_line_now_and_then_tells_how_far_it_is(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_batch, "PLAIN_EVERY", 0)
    told = run(folder).err.splitlines()
    assert re.fullmatch(r"\[1/3\] a\.png: 100%, all \d\d%, \S+ gone, about \S+ left", told[0])
    assert re.fullmatch(r"\[3/3\] sub/c\.png: 100%, all 100%, \S+ gone, about 0:00 left", told[2])


@posix
def test_a_terminal_shows_images_and_the_work_on_one(folder: Path, tiny_weights: Path) -> None:
    make_photo(folder / "big.png", 160, 160)
    shown = on_a_terminal("batch", folder, "--weights", tiny_weights)
    assert re.search(r"\d/4 images .*━.* \d+%.* about 0:\d\d left", shown)
    assert re.search(r"big\.png .*━.* \d+%", shown)
    assert "4 images in" in shown.split("\x1b[2K")[-1]


# Ends of every kind


@pytest.fixture
def dozen(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        make_photo(folder / f"{number:02}.png", 20 + number, 30)
    return folder


def started(folder: Path, weights: Path) -> subprocess.Popen[str]:
    return start(
        *("batch", folder, "-o", folder.with_name("out"), "--weights", weights, "--steps", 1),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@posix
def test_killed_again_and_again_it_gets_to_the_same_results(
    run: Run, dozen: Path, tiny_weights: Path
) -> None:
    chance = random.Random(5)
    output = dozen.with_name("out")
    for _ in range(4):
        process = started(dozen, tiny_weights)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 3)):
            process.stdout.readline()
        try:
            process.wait(chance.uniform(0, 0.15))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        for record in ledger.Ledger(output).results.values():
            assert digests.digest(output / record.output) == record.output_sha256
    ran = run(dozen, "-o", output)
    assert ran.code == 0
    assert int(re.findall(r"(\d+) finished before", ran.err)[0]) >= 4
    run(dozen, "-o", dozen.with_name("whole"))
    assert results(output) == results(dozen.with_name("whole"))


@posix
def test_ctrl_c_finishes_what_is_being_written_and_says_how_to_go_on(
    run: Run, dozen: Path, tiny_weights: Path
) -> None:
    process = started(dozen, tiny_weights)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    done = len(lines(dozen.with_name("out")))
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        f"Interrupted; {done} of 12 images are finished, and the same command goes on from there."
    )
    assert len(results(dozen.with_name("out"))) == done
    assert f"{12 - done} done, {done} finished before" in run(dozen, "-o", dozen / "../out").err


def test_a_result_that_no_line_speaks_of_because_the_power_went_is_made_again(
    run: Run, folder: Path
) -> None:
    run(folder)
    output = folder.with_name("in_x4")
    before = results(output)
    book = output / ledger.NAME
    book.write_bytes(b"".join(book.read_bytes().splitlines(keepends=True)[:-1]))
    ran = run(folder)
    assert (ran.code, "1 done, 2 finished before" in ran.err) == (0, True)
    assert results(output) == before


def test_what_was_left_half_written_is_removed_and_nothing_else(run: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    (output / "sub").mkdir(parents=True)
    stale = [output / ".a.png.0123abcd.tmp", output / "sub" / ".c.png.ffffffff.tmp"]
    kept = [
        output / name
        for name in (".a.png.tmp", ".a.png.0123abcX.tmp", ".other.0123abcd.tmp", "a.tmp")
    ]
    for path in (*stale, *kept):
        path.write_bytes(b"half")
    assert run(folder).code == 0
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


def test_an_input_that_changes_while_it_is_read_is_a_failure(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = read.load

    def slowly(file: opening.Opened, **options: Any) -> Any:
        loaded = load(file, **options)
        if file.source.path.name == "a.png":
            make_photo(file.source.path, 5, 5)
        return loaded

    monkeypatch.setattr(read, "load", slowly)
    ran = run(folder)
    assert ran.code == 1
    assert "a.png changed while it was read" in ran.err
