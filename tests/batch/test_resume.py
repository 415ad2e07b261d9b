"""What is finished is not done again, and what is not ours not replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_folder import results
from command_line import Run, make_photo, posix
from command_line import files as files_of

from resshift_cli.batch import ledger
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.restoration.upscaler import Upscaler


def test_the_same_command_again_does_nothing(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch(folder)
    before = files_of(folder.with_name("in_x4"))
    monkeypatch.setattr(Upscaler, "load", None)  # the model is not even loaded
    ran = batch(folder)
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
    batch: Run, folder: Path, event: Callable[[Path, Path], None], done: int
) -> None:
    batch(folder)
    event(folder, folder.with_name("in_x4"))
    ran = batch(folder)
    assert ran.code == 0
    assert f"{done} done, {3 - done} finished before" in ran.err


@pytest.mark.parametrize("event", [cut, change])
def test_a_result_that_is_not_as_it_was_written_is_replaced_only_when_asked(
    batch: Run, folder: Path, event: Callable[[Path, Path], None]
) -> None:
    batch(folder)
    output = folder.with_name("in_x4")
    event(folder, output)
    (output / "a.png").write_bytes(b"edited")
    refused = batch(folder)
    assert (refused.code, (output / "a.png").read_bytes()) == (1, b"edited")
    assert "a.png was changed since it was made. Use --overwrite" in refused.err
    assert batch(folder, "--overwrite").code == 0
    assert (output / "a.png").read_bytes() != b"edited"


def test_files_of_another_origin_are_not_replaced(batch: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    output.mkdir()
    (output / "a.png").write_bytes(b"precious")
    ran = batch(folder)
    assert (ran.code, (output / "a.png").read_bytes()) == (1, b"precious")
    assert "2 done, 0 finished before, 1 failed" in ran.err


def test_results_of_another_folder_are_not_replaced(
    batch: Run, folder: Path, tmp_path: Path
) -> None:
    batch(folder, "-o", tmp_path / "out")
    before = results(tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    make_photo(other / "a.png", 30, 30)
    assert batch(other, "-o", tmp_path / "out").code == 1
    assert results(tmp_path / "out") == before


def test_a_folder_that_was_moved_is_known_by_its_content(batch: Run, folder: Path) -> None:
    batch(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert "3 finished before, 0 failed" in batch(moved, "-o", folder.with_name("in_x4")).err


@posix
def test_an_input_is_never_replaced_even_by_way_of_a_link(batch: Run, folder: Path) -> None:
    output = folder.with_name("in_x4")
    output.mkdir()
    photo = (folder / "a.png").rename(output / "a.png")
    (folder / "a.png").symlink_to(photo)
    before = photo.read_bytes()
    ran = batch(folder, "--overwrite")
    assert (ran.code, photo.read_bytes()) == (1, before)
    assert "would replace it" in ran.err


def test_results_with_other_settings_are_replaced_only_when_asked(batch: Run, folder: Path) -> None:
    batch(folder)
    output = folder.with_name("in_x4")
    before = files_of(output)
    refused = batch(folder, "--seed", 1)
    assert refused.code == 6
    assert "in_x4 holds results that were made otherwise: seed 0, not 1." in refused.err
    assert files_of(output) == before
    assert batch(folder, "--seed", 1, "--overwrite").code == 0
    assert all(results(output)[name] != before[name] for name in ("a.png", "b.jpg", "sub/c.png"))
    assert "3 finished before" in batch(folder, "--seed", 1, "--overwrite").err


def test_results_of_another_precision_are_not_finished(batch: Run, folder: Path) -> None:
    batch(folder)
    book = folder.with_name("in_x4") / ledger.NAME
    lines = [json.loads(line) | {"precision": "fp16"} for line in book.read_text().splitlines()]
    book.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    refused = batch(folder)
    assert refused.code == 6 and "made otherwise: precision fp16, not " in refused.err


@pytest.mark.parametrize(
    "option, told",
    [
        (["--quality", 50], "quality by default, not 50"),
        (["--strip-metadata"], "strip metadata False, not True"),
        (["--depth", 8], "depth by default, not 8"),
    ],
)
def test_results_that_were_encoded_otherwise_are_not_finished(
    batch: Run, folder: Path, option: list[object], told: str
) -> None:
    batch(folder)
    before = files_of(folder.with_name("in_x4"))
    refused = batch(folder, *option)
    assert (refused.code, told in refused.err) == (6, True)
    assert files_of(folder.with_name("in_x4")) == before
    assert "3 done, 0 finished before" in batch(folder, *option, "--overwrite").err
    assert "0 done, 3 finished before" in batch(folder, *option).err


def test_a_ledger_of_before_there_were_such_options_still_holds(batch: Run, folder: Path) -> None:
    batch(folder)
    book = folder.with_name("in_x4") / ledger.NAME
    options = {*SaveOptions.__dataclass_fields__, "first_frame"}
    old = [
        {name: value for name, value in json.loads(line).items() if name not in options}
        for line in book.read_text().splitlines()
    ]
    book.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    assert "0 done, 3 finished before" in batch(folder).err


def test_limits_on_what_is_read_do_not_undo_what_is_finished(batch: Run, folder: Path) -> None:
    batch(folder)
    ran = batch(folder, "--max-pixels", 1, "--allow-truncated")
    assert "0 done, 3 finished before, 0 failed" in ran.err


def test_results_of_a_later_version_are_not_taken_for_finished(batch: Run, folder: Path) -> None:
    batch(folder)
    book = folder.with_name("in_x4") / ledger.NAME
    later = [
        json.loads(line) | {"glow": 1, "version": "9"}
        for line in book.read_text().splitlines(keepends=True)
    ]
    book.write_text("".join(f"{json.dumps(line)}\n" for line in later))
    before = results(book.parent)
    refused = batch(folder)
    assert (refused.code, results(book.parent)) == (6, before)
    assert "made otherwise: by a later version of resshift (9), which says glow." in refused.err
    assert "3 done" in batch(folder, "--overwrite").err


def test_what_was_put_where_a_killed_batch_was_about_to_write_is_not_replaced(
    batch: Run, folder: Path
) -> None:
    batch(folder)
    output = folder.with_name("in_x4")
    book = output / ledger.NAME
    book.write_text(
        "".join(line for line in book.read_text().splitlines(keepends=True) if '"done"' not in line)
    )
    (output / "a.png").write_bytes(b"precious")
    ran = batch(folder)
    assert (ran.code, (output / "a.png").read_bytes()) == (1, b"precious")
    assert "a.png exists already" in ran.err and "2 done" in ran.err
