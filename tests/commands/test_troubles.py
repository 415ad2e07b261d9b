"""Whatever goes wrong is told on one line, with its exit code, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from command_line import Run, files, make_photo, may_be_denied, posix, raises, start

from resshift_cli.restoration.upscaler import Upscaler


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("photos.png", 3, "no file photos.png. Did you mean photo.png?"),
        ("photo.png none/photo.png", 3, "no file none/photo.png"),
        ("folder", 2, "folder is a folder. `resshift batch folder` enlarges what is in it"),
        ("text.png", 4, "text.png is not an image"),
        ("empty.png", 4, "empty.png is empty (0 bytes)"),
        ("cut.png", 4, "cut.png is cut short or damaged"),
        ("large.png", 4, "large.png is too large: 11000x11000 pixels"),
        ("hdr.dds", 5, "hdr.dds is an HDR image (half floats)"),
        ("photo.png --assume-profile srbg", 3, "Did you mean srgb?"),
        ("photo.png --assume-profile photo.png", 2, "photo.png is no colour profile"),
        ("photo.png --quality 0", 2, "quality"),
        ("photo.png --format xyz", 2, "xyz"),
        ("photo.png --depth 12", 2, "depth"),
        ("photo.png --max-pixels 9", 4, "photo.png is too large: 20x12 pixels"),
        ("photo.png done.png", 6, "done_x4.png exists already. Use --overwrite"),
        ("photo.png -o none/a.png", 6, "there is no folder none"),
        ("photo.png -o folder/a.xyz", 2, "extension .xyz"),
        ("photo.png done.png -o a.png", 2, "can't all go to the file a.png"),
        ("photo.png --model tiny-x5", 2, "no model named 'tiny-x5'. Did you mean 'tiny-x4'?"),
        ("photo.png --weights none.safetensors", 3, "no weight file none.safetensors"),
        ("photo.png --weights cut.safetensors", 7, "not a whole safetensors file"),
        ("photo.png --weights photo.png", 7, "not a whole safetensors file"),
        ("photo.png --tile 7", 2, "A tile of 7 px is smaller than 'tiny.safetensors' can work on"),
        ("photo.png --tile 16 --overlap 16", 2, "An overlap of 16 px does not fit"),
        ("photo.png --tile -8", 2, "'--tile': -8 is not 1 or more"),
        ("photo.png --steps 5", 2, "walks 1 to 4 steps, not 5"),
        ("photo.png --scale nan", 2, "nan is not from 1 to 16"),
        ("photo.png --scale 17", 2, "17.0 is not from 1 to 16"),
        ("photo.png --scale big", 2, "'--scale'"),
        ("photo.png --seed -1", 2, "-1 is not from 0 to 18446744073709551615"),
        ("photo.png --device gpu", 2, "'gpu' is none of auto, cpu, cuda, cuda:N, mps and xpu"),
        ("photo.png --precision int8", 2, "'int8' is none of auto, fp32, bf16 and fp16"),
        ("photo.png --device cuda:99", 8, "'cuda:99' was asked for"),
        ("photo.png -o new/deep/ --device cuda:99", 8, "Use the CPU (--device cpu)"),
        ("--seed 1", 2, "INPUT is missing. See resshift upscale --help."),
        (
            "photo.png --presision fp32",
            2,
            "There is no option --presision. Did you mean --precision?",
        ),
    ],
)
def test_what_can_go_wrong_gives_one_line_its_code_and_leaves_nothing(
    resshift: Run,
    troubles: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(troubles)
    named = "--model" in arguments or "--weights" in arguments
    before = files(troubles)
    ran = resshift("upscale", *arguments.split(), *(() if named else ("--weights", tiny_weights)))
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    assert words in ran.err.splitlines()[-1]
    assert len(ran.err.splitlines()) == 1
    assert files(troubles) == before


@may_be_denied
def test_a_folder_without_write_permission_is_refused_before_the_work(
    upscale: Run, photo: Path
) -> None:
    photo.parent.chmod(0o500)
    try:
        ran = upscale(photo)
    finally:
        photo.parent.chmod(0o700)
    assert ran.code == 6
    assert "Permission denied" in ran.err
    assert list(files(photo.parent)) == ["photo.png"]


@may_be_denied
def test_a_photo_without_read_permission_is_an_input_that_cannot_be_opened(
    upscale: Run, photo: Path
) -> None:
    photo.chmod(0)
    ran = upscale(photo)
    assert ran.code == 3
    assert "photo.png can't be opened: Permission denied." in ran.err


@posix
def test_one_image_that_fails_does_not_keep_the_others_from_being_done(
    tiny_weights: Path, photo: Path
) -> None:
    import resource

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    large = make_photo(photo.with_name("large.png"), 64, 64)
    command = ("upscale", large, photo, "--weights", tiny_weights, "--json")
    process = start(*command, preexec_fn=small_files_only)
    out, err = process.communicate(timeout=120)
    report = json.loads(out)
    assert process.returncode == 6
    assert [result["input"] for result in report["results"]] == [str(photo)]
    assert [error["input"] for error in report["errors"]] == [str(large)]
    assert f"large_x4.png can't be written: {os.strerror(errno.EFBIG)}" in err
    assert sorted(files(photo.parent)) == ["large.png", "photo.png", "photo_x4.png"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
    ids=["Python", "GPU", "CPU"],
)
def test_running_out_of_memory_names_a_way_out(
    upscale: Run, photo: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Upscaler, "stream", raises(error))
    ran = upscale(photo)
    assert ran.code == 1
    assert "error: There is not enough memory. Use a --tile smaller than 64" in ran.err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback_of_any_error(
    resshift: Run, tmp_path: Path, tiny_weights: Path, place: str
) -> None:
    arguments = ["upscale", tmp_path / "none.png", "--weights", tiny_weights]
    arguments.insert(0 if place == "before" else len(arguments), "--debug")
    ran = resshift(*arguments)
    assert ran.code == 3
    assert ran.err.startswith("Traceback")
    assert ran.err.splitlines()[-1].startswith("error: There is no file")


def test_a_bug_says_so_on_one_line(
    upscale: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Upscaler, "stream", raises(ZeroDivisionError("division\nby zero")))
    ran = upscale(photo)
    assert ran.code == 70
    assert ran.err == (
        "error: This is a bug in resshift: ZeroDivisionError: division\\nby zero. "
        "Run again with --debug for the traceback.\n"
    )
