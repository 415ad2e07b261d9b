"""The command as people and scripts meet it: results, errors, exit codes, and what is left."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Ran, Run, files, make_photo, may_be_denied, on_a_terminal, posix, start
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from resshift_cli import __version__
from resshift_cli.commands import app as cli
from resshift_cli.commands import options
from resshift_cli.imaging import opening, read
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.training.trainer import Trainer


@pytest.fixture
def upscale(resshift: Run, tiny_weights: Path) -> Run:
    def run(*arguments: object) -> Ran:
        return resshift("upscale", "--weights", tiny_weights, *arguments)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return make_photo(tmp_path / "photo.png", 20, 12)


def test_a_photo_becomes_four_times_as_wide_and_high(upscale: Run, photo: Path) -> None:
    ran = upscale(photo)
    result = photo.with_name("photo_x4.png")
    assert (ran.code, ran.out) == (0, f"{result}\n")
    with Image.open(result) as image:
        assert image.size == (80, 48)
    told = re.escape(f"{photo} 20x12 -> {result} 80x48, tiny.safetensors, 4 steps, ")
    assert re.fullmatch(told + r"\S+ (fp32|bf16|fp16), \d+\.\d s", ran.err.splitlines()[-1])


def test_the_bundled_model_needs_no_file(resshift: Run, photo: Path) -> None:
    ran = resshift("upscale", photo, "--steps", 1)
    assert ran.code == 0
    assert "photo_x4.png 80x48, tiny-x4, 1 step, " in ran.err


def test_the_same_command_again_replaces_nothing(upscale: Run, photo: Path) -> None:
    assert upscale(photo).code == 0
    before = files(photo.parent)
    again = upscale(photo)
    assert again.code == 6
    assert "photo_x4.png exists already. Use --overwrite" in again.err
    assert files(photo.parent) == before


def test_with_overwrite_the_same_command_gives_the_same_file(upscale: Run, photo: Path) -> None:
    assert upscale(photo).code == 0
    before = files(photo.parent)
    assert upscale(photo, "--overwrite").code == 0
    assert files(photo.parent) == before


def test_another_seed_gives_another_file(upscale: Run, photo: Path) -> None:
    assert upscale(photo, "--seed", 1, "-o", photo.with_name("a.png")).code == 0
    assert upscale(photo, "--seed", 2, "-o", photo.with_name("b.png")).code == 0
    after = files(photo.parent)
    assert after["a.png"] != after["b.png"]


def test_several_photos_go_to_a_new_folder(upscale: Run, photo: Path) -> None:
    other = make_photo(photo.with_name("other.jpg"), 9, 9)
    ran = upscale(photo, other, "--scale", 1.5, "-o", f"{photo.parent}/new/deep/")
    results = [photo.parent / "new/deep/photo_x1.5.png", photo.parent / "new/deep/other_x1.5.jpg"]
    assert (ran.code, ran.out.splitlines()) == (0, [str(path) for path in results])
    with Image.open(results[0]) as image:
        assert image.size == (30, 18)
    assert "[1/2] photo.png: " in ran.err and "[2/2] other.jpg: " in ran.err


def test_quiet_prints_nothing_when_all_is_well(upscale: Run, photo: Path) -> None:
    assert upscale(photo, "--quiet") == Ran(0, "", "")
    assert photo.with_name("photo_x4.png").exists()


def test_quiet_still_prints_errors(upscale: Run, photo: Path) -> None:
    assert upscale(photo.with_name("none.png"), "--quiet").err.startswith("error: There is no file")


def test_json_is_one_object_that_says_what_was_really_done(upscale: Run, photo: Path) -> None:
    options = ("--steps", 2, "--tile", 30, "--temperature", 0.5, "--device", "cpu")
    ran = upscale(photo, "--json", *options, "--quiet")
    report = json.loads(ran.out)
    [result] = report["results"]
    assert (report["version"], report["model"]) == (__version__, "tiny.safetensors")
    assert report["errors"] == []
    assert result.pop("seconds") > 0
    assert result.pop("precision") in ("fp32", "bf16")
    assert result == {
        "input": str(photo),
        "output": str(photo.with_name("photo_x4.png")),
        "width": 80,
        "height": 48,
        "input_width": 20,
        "input_height": 12,
        "scale": 4.0,
        "steps": 2,
        "seed": 0,
        "tile": 24,
        "overlap": 6,
        "temperature": 0.5,
        "color_fix": "wavelet",
        "consistency": 0.0,
        "device": "cpu",
        "warnings": [],
    }


def test_json_carries_the_error_of_a_job_that_never_started(upscale: Run, photo: Path) -> None:
    missing = photo.with_name("none.png")
    ran = upscale(photo, missing, "--json")
    report = json.loads(ran.out)
    [error] = report["errors"]
    assert (ran.code, report["results"]) == (3, [])
    assert (error["input"], error["exit_code"]) == (str(missing), 3)
    assert ran.err == f"error: {error['message']} {error['hint']}\n"


def test_json_stays_ascii_for_any_name(upscale: Run, photo: Path) -> None:
    photo = photo.rename(photo.with_name("föto\n.png"))
    ran = upscale(photo, "--json")
    assert ran.out.isascii()
    assert json.loads(ran.out)["results"][0]["input"] == str(photo)
    assert "\\n.png 20x12 -> " in ran.err.splitlines()[-1]


@pytest.fixture
def troubles(tmp_path: Path, tiny_weights: Path) -> Path:
    """A folder with a good photo and all that can be wrong with one."""
    photo = make_photo(tmp_path / "photo.png", 20, 12)
    data = photo.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "cut.safetensors").write_bytes(tiny_weights.read_bytes()[:5000])
    Image.new("1", (11_000, 11_000)).save(tmp_path / "large.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    make_photo(tmp_path / "done.png", 4, 4)
    make_photo(tmp_path / "done_x4.png", 4, 4)
    return tmp_path


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("photos.png", 3, "no file photos.png. Did you mean photo.png?"),
        ("photo.png none/photo.png", 3, "no file none/photo.png"),
        ("folder", 2, "folder is a folder. Name the files in it, such as folder/*.png"),
        ("text.png", 4, "text.png is not an image"),
        ("empty.png", 4, "empty.png is empty (0 bytes)"),
        ("cut.png", 4, "cut.png is cut short or damaged"),
        ("large.png", 4, "large.png is too large: 11000x11000 pixels"),
        ("print.jpg", 5, "print.jpg is in CMYK colours without a colour profile"),
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
        ("photo.png --device gpu", 2, "'gpu' is none of auto, cpu, cuda, cuda:N and mps"),
        ("photo.png --precision int8", 2, "'int8' is none of auto, fp32, bf16 and fp16"),
        ("photo.png --device cuda:99", 8, "'cuda:99' was asked for"),
        ("photo.png -o new/deep/ --device cuda:99", 8, "Use --device cpu"),
        ("--seed 1", 2, "Missing argument 'INPUT'. See resshift upscale --help."),
        ("photo.png --presision fp32", 2, "No such option"),
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


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        raise error

    return function


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


STOPS = [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]


def stop_at(line: str, signal_number: int, arguments: Sequence[object]) -> Ran:
    """Start a command, and send it a signal when stderr has a line that starts so."""
    process = start(
        *arguments, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    )
    assert process.stderr is not None
    seen = ""
    for seen in process.stderr:
        if seen.startswith(line):
            process.send_signal(signal_number)
            break
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, seen + err)


# Options of both commands

Enlarged = Callable[..., tuple[Ran, NDArray[Any]]]


@pytest.fixture(params=["upscale", "batch"])
def enlarged(
    request: pytest.FixtureRequest, resshift: Run, tmp_path: Path, tiny_weights: Path
) -> Enlarged:
    """Runs one of the commands for one photo, and reads the result."""
    (tmp_path / "in").mkdir()
    photo = make_photo(tmp_path / "in" / "photo.png", 20, 12)

    def run(*options: object) -> tuple[Ran, NDArray[Any]]:
        where, name = (photo.parent, "photo.png") if request.param == "batch" else (photo, "")
        target = tmp_path / "out" / (name or "photo_x4.png")
        words = ("--weights", tiny_weights, "--steps", 1, "--overwrite", *options)
        ran = resshift(request.param, where, "-o", f"{target.parent}/", *words)
        assert target.exists(), ran
        with Image.open(target) as image:
            return ran, np.asarray(image).astype(int)

    return run


def test_little_memory_is_told_and_worked_with_by_smaller_tiles(enlarged: Enlarged) -> None:
    ran, result = enlarged("--max-memory", "1")
    assert ran.code == 0
    assert ran.err.count("Memory is short: tiles of 8 px instead of 64.\n") == 1
    by_hand, expected = enlarged("--tile", 8, "--overlap", 2, "--max-memory", "64GiB")
    assert "Memory" not in by_hand.err
    np.testing.assert_array_equal(result, expected)
    assert (enlarged()[1] != result).any()


def test_little_memory_is_not_told_under_quiet(enlarged: Enlarged) -> None:
    ran, _ = enlarged("--max-memory", "1K", "--quiet")
    assert ran == Ran(0, "", "")


def test_the_colour_fix_and_the_consistency_reach_the_result(
    enlarged: Enlarged, tmp_path: Path
) -> None:
    results = [enlarged("--color-fix", way)[1] for way in ("none", "wavelet", "adain")]
    assert (results[0] != results[1]).any() and (results[1] != results[2]).any()
    with Image.open(tmp_path / "in" / "photo.png") as image:
        photo = np.asarray(image).astype(int)

    def error(result: NDArray[Any]) -> float:
        reduced = result.reshape(12, 4, 20, 4, 3).mean((1, 3))
        return float(np.abs(reduced - photo).mean())

    assert error(enlarged("--consistency", 1)[1]) < 0.7 * error(results[1])
    np.testing.assert_array_equal(enlarged()[1], results[1])


@pytest.mark.parametrize("command", ["upscale", "batch"])
@pytest.mark.parametrize(
    "words, told",
    [
        ("--max-memory 4X", "'4X' is no size, such as 4G or 800M."),
        ("--max-memory -1", "'-1' is no size"),
        ("--max-memory nan", "'nan' is no size"),
        ("--max-memory 1.5.5G", "is no size"),
        (f"--max-memory {'9' * 400}G", "is no size"),
        ("--color-fix wavelets", "'wavelets' is none of none, wavelet and adain."),
        ("--consistency 1.5", "1.5 is not from 0 to 1."),
        ("--consistency nan", "nan is not from 0 to 1."),
    ],
)
def test_a_wrong_value_is_refused_by_both(
    resshift: Run, photo: Path, command: str, words: str, told: str
) -> None:
    ran = resshift(command, photo.parent if command == "batch" else photo, *words.split())
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert told in ran.err and f"See resshift {command} --help." in ran.err
    assert list(files(photo.parent)) == ["photo.png"]


@pytest.mark.parametrize(
    "size, count",
    [("7", 7), ("800M", 800 << 20), ("1.5GiB", 3 << 29), ("2 gb", 2 << 30), ("1kb", 1024)],
)
def test_a_size_is_read_as_people_write_it(size: str, count: int) -> None:
    assert options._bytes(size) == count


@posix
@pytest.mark.parametrize("signal_number, code, word", STOPS, ids=["Ctrl-C", "SIGTERM"])
def test_stopped_halfway_nothing_is_left(
    tmp_path: Path, tiny_weights: Path, signal_number: int, code: int, word: str
) -> None:
    large = make_photo(tmp_path / "large.png", 480, 320)
    arguments = ("upscale", large, "--weights", tiny_weights, "-o", f"{tmp_path}/new/")
    ran = stop_at("large.png: ", signal_number, arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.splitlines()[-1] == f"{word}; nothing was written."
    assert "Traceback" not in ran.err
    assert list(files(tmp_path)) == ["large.png"]


@posix
def test_stopped_after_the_first_image_what_is_finished_stays_and_is_told(
    photo: Path, tiny_weights: Path
) -> None:
    large = make_photo(photo.with_name("large.png"), 480, 320)
    arguments = ("upscale", photo, large, "--weights", tiny_weights, "--json")
    ran = stop_at("[2/2] large.png: ", signal.SIGINT, arguments)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "Interrupted; 1 of 2 images were finished."
    assert [result["input"] for result in json.loads(ran.out)["results"]] == [str(photo)]
    assert sorted(files(photo.parent)) == ["large.png", "photo.png", "photo_x4.png"]


COLOUR = re.compile(r"\x1b\[[0-9;]*[0-9]m")


@posix
def test_a_terminal_shows_a_bar_with_the_time_left_and_then_a_summary(
    tmp_path: Path, tiny_weights: Path
) -> None:
    photo = make_photo(tmp_path / "photo.png", 200, 200)
    shown = on_a_terminal("upscale", photo, "--weights", tiny_weights)
    assert re.search(r"photo\.png .*━.* \d+% · 0:\d\d gone · about 0:\d\d left", shown)
    assert COLOUR.search(shown)
    last = re.split(r"\x1b\[2K", shown)[-1]  # what remains after the bar is erased
    assert "gone" not in last
    assert "photo_x4.png 800x800, tiny.safetensors, 4 steps" in " ".join(last.split())
    assert last.count("photo_x4.png") == 1  # the path on stdout is for pipes


@posix
def test_a_warning_gets_a_line_of_its_own_above_the_bar(tmp_path: Path, tiny_weights: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 100, 100)
    words = ("upscale", photo, "--weights", tiny_weights, "--steps", 1, "--max-memory", 1)
    shown = COLOUR.sub("", on_a_terminal(*words))
    assert re.search(r"[\nK]Memory is short: tiles of 8 px instead of 64\.\r?\n", shown)


@posix
def test_no_color_is_honoured_by_the_bar_and_by_errors(photo: Path, tiny_weights: Path) -> None:
    plain = {"NO_COLOR": "1"}
    shown = on_a_terminal("upscale", photo, "--weights", tiny_weights, environment=plain)
    assert "photo_x4.png 80x48" in " ".join(shown.split())
    assert not COLOUR.search(shown)
    missing = ("upscale", photo, "--weights", "none")
    assert "\x1b[31merror:" in on_a_terminal(*missing)
    assert on_a_terminal(*missing, environment=plain).startswith("error:")


@posix
def test_a_reader_that_goes_away_ends_the_command_without_a_word() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = start("models", "list", stdout=theirs)
    os.close(theirs)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device to write to")
def test_a_full_disk_behind_stdout_is_a_failed_job() -> None:
    with open("/dev/full", "w") as full:
        process = start("models", "list", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("error: [Errno 28]") and len(err.splitlines()) == 1


def test_sixteen_bits_come_out_as_sixteen_bits(upscale: Run, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 20 * 12).reshape(12, 20).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert upscale(tmp_path / "deep.png").code == 0
    with Image.open(tmp_path / "deep_x4.png") as image:
        assert image.mode == "I;16"
        assert len(np.unique(np.asarray(image))) > 256
    assert upscale(tmp_path / "deep.png", "--depth", "8", "-o", tmp_path / "flat.png").code == 0
    with Image.open(tmp_path / "flat.png") as image:
        assert image.mode == "L"


def test_the_format_of_the_results_can_be_chosen(upscale: Run, photo: Path) -> None:
    options = ("--format", "webp", "--lossless", "--strip-metadata")
    assert upscale(photo, *options).code == 0
    with Image.open(photo.with_name("photo_x4.webp")) as image:
        assert (image.format, image.size) == ("WEBP", (80, 48))
        assert not image.getexif()


def test_still_parts_of_an_animation_stay_still(upscale: Run, tmp_path: Path) -> None:
    still = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    moved = still.copy()
    moved[:, :4] = 255 - moved[:, :4]
    frames = [Image.fromarray(pixels) for pixels in (still, moved, still)]
    path = tmp_path / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=70, lossless=True)
    assert upscale(path, "--lossless").code == 0
    with Image.open(tmp_path / "a_x4.webp") as image:
        assert image.size == (80, 48)
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert len(shown) == 3
    assert np.array_equal(shown[0], shown[2])
    assert upscale(path, "--first-frame", "-o", tmp_path / "first.png").code == 0
    with Image.open(tmp_path / "first.png") as image:
        assert np.array_equal(np.asarray(image), shown[0])


# stdin and stdout


Piped = Callable[..., tuple[int, bytes]]


@pytest.fixture
def piped(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Piped:
    """Runs `upscale` between pipes in this process: exit code and stdout."""

    def run(*arguments: object, content: bytes = b"") -> tuple[int, bytes]:
        out = io.BytesIO()
        words = ("upscale", *arguments, "--weights", tiny_weights, "--steps", 1)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, write_through=True))
            code = cli.run([str(word) for word in words])
            return code, out.getvalue()

    return run


def test_in_a_pipe_only_the_result_goes_to_stdout(
    upscale: Run, photo: Path, tiny_weights: Path
) -> None:
    assert upscale(photo, "--steps", 1).code == 0
    large = photo.with_name("photo_x4.png")
    words = ("upscale", "-", "--weights", tiny_weights, "--steps", 1)
    command = [sys.executable, "-m", "resshift_cli", *map(str, words)]
    ran = subprocess.run(command, input=photo.read_bytes(), capture_output=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (0, large.read_bytes())
    assert b"<stdin> 20x12 -> <stdout> 80x48" in ran.stderr


@pytest.mark.parametrize(
    "source, options, expected",
    [
        ("a.jpg", [], "JPEG"),
        ("a.tif", [], "TIFF"),
        ("a.gif", [], "PNG"),
        ("a.png", ["--format", "webp"], "WEBP"),
    ],
)
def test_a_result_without_a_name_has_the_format_asked_for_or_that_of_the_input(
    tmp_path: Path, piped: Piped, source: str, options: list[str], expected: str
) -> None:
    content = make_photo(tmp_path / source, 8, 8).read_bytes()
    code, out = piped("-", *options, content=content)
    assert code == 0
    with Image.open(io.BytesIO(out)) as image:
        assert (image.format, image.size) == (expected, (32, 32))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_come_through_a_pipe(tmp_path: Path, piped: Piped, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.linspace(0, 65535, 240).reshape(12, 20).astype(np.uint16)).save(path)
    code, out = piped("-", content=path.read_bytes())
    assert code == 0
    with Image.open(io.BytesIO(out)) as image:
        assert len(np.unique(np.asarray(image))) > 256


def test_an_animation_comes_through_a_pipe(tmp_path: Path, piped: Piped) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=70)
    content = (tmp_path / "a.webp").read_bytes()
    code, out = piped("-", "-o", "-", content=content)
    assert code == 0
    with Image.open(io.BytesIO(out)) as image:
        assert (image.format, image.size, image.n_frames) == ("WEBP", (32, 32), 3)  # type: ignore[attr-defined]


def test_what_comes_in_can_go_to_a_file_and_a_file_to_stdout(photo: Path, piped: Piped) -> None:
    large = photo.with_name("large.png")
    assert piped("-", "-o", large, content=photo.read_bytes()) == (0, f"{large}\n".encode())
    assert piped(photo, "-o", "-") == (0, large.read_bytes())


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("- -", 2, "An image from stdin (-) has to be the only input."),
        ("- photo.png", 2, "has to be the only input"),
        ("photo.png done.png -o -", 2, "Several results can't all go to stdout."),
        ("- --json", 2, "The result and --json can't both go to stdout."),
        ("photo.png -o - --json", 2, "Give a file with -o, or leave out --json."),
        ("- -o folder", 2, "no name that its result could be called after. Name the file"),
        ("- -o new/", 2, "-o new/large.png"),
    ],
)
def test_what_can_not_go_through_a_pipe_is_refused_on_one_line(
    upscale: Run,
    troubles: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(troubles)
    before = files(troubles)
    ran = upscale(*arguments.split())
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (code, "", 1)
    assert words in ran.err
    assert files(troubles) == before


@pytest.mark.parametrize(
    "content, words",
    [(b"", "Nothing came in on stdin."), (b"Dear diary", "<stdin> is not an image")],
)
def test_nothing_or_no_image_on_stdin_gives_nothing_on_stdout(
    piped: Piped, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    assert piped("-", content=content) == (4, b"")
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


@posix
def test_an_image_is_neither_typed_nor_looked_at(photo: Path, tiny_weights: Path) -> None:
    assert "stdin is a terminal" in on_a_terminal("upscale", "-", "-o", "a.png")
    shown = on_a_terminal("upscale", photo, "-o", "-", "--weights", tiny_weights)
    assert "stdout is a terminal" in shown and "PNG" not in shown


@posix
def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word(
    photo: Path, tiny_weights: Path
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = ("upscale", photo, "-o", "-", "--weights", tiny_weights, "--quiet")
    process = start(*command, stdout=theirs)
    os.close(theirs)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (141, "")


@posix
@pytest.mark.parametrize("closed, code", [(0, 3), (1, 6)])
def test_a_closed_stdin_or_stdout_is_told(
    photo: Path, tiny_weights: Path, closed: int, code: int
) -> None:
    arguments = ("-", "-o", photo.with_name("a.png")) if closed == 0 else (photo, "-o", "-")
    process = start(
        *("upscale", *arguments, "--weights", tiny_weights),
        preexec_fn=lambda: os.close(closed),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert err.startswith(f"error: std{'out' if closed else 'in'} is closed.")


def test_a_file_that_is_called_like_stdin_can_be_named(
    upscale: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    photo.rename("-")
    assert upscale("./-", "-o", "a.png").code == 0


# Names, changes, damage


@posix
def test_any_name_that_a_file_can_have_is_read_and_written(upscale: Run, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 8, 8).read_bytes()
    odd = [b"new\nline.png", "\U0001f408.png".encode(), b"x" * 248 + b".png", b"\x1b[31m.png"]
    if sys.platform == "linux":
        odd.append(b"caf\xe9.png")  # not UTF-8
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_bytes(photo)
    ran = upscale(*(tmp_path / os.fsdecode(name) for name in odd))
    assert ran.code == 0
    assert {name[:-4] + b"_x4.png" for name in odd} <= set(os.listdir(os.fsencode(tmp_path)))
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())
    full = tmp_path / os.fsdecode(b"y" * 251 + b".png")
    assert upscale(tmp_path / "photo.png", "-o", full).code == 0
    assert full.exists()
    too_long = make_photo(full, 8, 8)
    ran = upscale(too_long)
    assert (ran.code, len(ran.err.splitlines())) == (6, 1)
    assert "too long" in ran.err


def test_a_file_that_changes_while_it_is_read_is_refused(
    upscale: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = read.load

    def slowly(file: opening.Opened, **options: Any) -> Any:
        loaded = load(file, **options)
        make_photo(file.source.path, 5, 5)
        return loaded

    monkeypatch.setattr(read, "load", slowly)
    ran = upscale(photo)
    assert (ran.code, ran.out) == (4, "")
    assert "photo.png changed while it was read" in ran.err
    assert list(files(photo.parent)) == ["photo.png"]


def test_a_truncated_file_is_done_as_far_as_it_goes_if_that_is_allowed(
    upscale: Run, troubles: Path
) -> None:
    cut = troubles / "cut.png"
    refused = upscale(cut)
    assert refused.code == 4 and "--allow-truncated" in refused.err
    ran = upscale(cut, "--allow-truncated", "--json")
    [result] = json.loads(ran.out)["results"]
    [warning] = result["warnings"]
    assert "cut.png is cut short or damaged" in warning
    assert ran.err.splitlines().count(f"warning: {warning}") == 1
    quiet = upscale(cut, "--allow-truncated", "--overwrite", "--quiet")
    assert quiet == Ran(0, "", "")


def test_what_is_too_large_is_the_same_in_every_room() -> None:
    assert options.MAX_PIXELS == opening.MAX_PIXELS


def test_the_help_ends_with_the_exit_codes(resshift: Run) -> None:
    ran = resshift("--help")
    assert (ran.code, ran.err) == (0, "")
    codes = re.findall(r"^ +(\d+) +\S", ran.out.split("Exit codes:")[1], re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "70", "130"]


def test_without_a_command_the_help_is_shown(resshift: Run) -> None:
    assert resshift() == resshift("--help")


def test_the_help_of_upscale_says_what_tiles_and_overlaps_are_counted_in(resshift: Run) -> None:
    text = " ".join(resshift("upscale", "--help").out.split())
    for option in ("--tile PIXELS", "--overlap PIXELS"):
        assert "pixels of the input" in text.split(option)[1].split(" --")[0]


def test_the_version_is_printed(resshift: Run) -> None:
    assert resshift("--version") == Ran(0, f"resshift {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["models"], ["nothing"], ["train", "none.toml"]])
def test_commands_that_make_no_sense_are_refused_with_a_pointer_to_the_help(
    resshift: Run, arguments: list[str]
) -> None:
    ran = resshift(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"error: .* See resshift.* --help\.\n", ran.err)


CONFIG = """
photos = ""

[model]
scale = 4
predict = "residual"
precondition = true
clip_lq = false
temperature = 1.0
tile = { size = 64, overlap = 16 }
schedule = { steps = 4, kappa = 2.0, p = 0.3, min_noise = 0.2, sqrt_eta_end = 0.99 }
autoencoder = { kind = "space-to-depth", factor = 4, latent_scale = 8.0 }

[model.denoiser]
latent_channels = 48
model_channels = 32
channel_mult = [1]
num_res_blocks = 1
swin_levels = []
swin_depth = 2
swin_embed_dim = 32
num_head_channels = 32
window = 8
mlp_ratio = 1
swin = "standard"
lq_ratio = 1
lq_mask = false
noise_channels = 0

[train]
steps = 2
batch = 2
crop = 32
crop_tries = 1
learning_rate = 1e-3
warmup = 1
weight_decay = 0.01
clip_norm = 1.0
ema = 0.9
late_steps = 1.0
last_share = 0.0
save_every = 2
validate_every = 2
degrade = { kind = "mild", share = 0.5, blur = 1.0, noise = 8.0, jpeg = [50, 95] }
"""


@pytest.fixture
def lesson(tmp_path: Path) -> list[object]:
    """Arguments that train a tiny model for two steps."""
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        make_photo(tmp_path / "photos" / name, 256, 256)
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    arguments = [config, "--photos", tmp_path / "photos", "--out", tmp_path / "run"]
    return ["train", *arguments, "--device", "cpu"]


def test_a_trained_model_can_be_used_at_once(
    resshift: Run, lesson: list[object], photo: Path
) -> None:
    weights = photo.parent / "run" / "model.safetensors"
    ran = resshift(*lesson)
    assert (ran.code, ran.out) == (0, f"{weights}\n")
    assert re.search(r"2 steps of training are done, [+-]\d+\.\d\d dB over bicubic", ran.err)
    assert resshift("upscale", photo, "--weights", weights).code == 0


def test_training_starts_from_a_given_weight_file(
    resshift: Run, lesson: list[object], tiny_weights: Path
) -> None:
    ran = resshift(*lesson, "--init", tiny_weights)
    assert ran.code == 0
    assert resshift(*lesson[:-3], "run2", "--init", tiny_weights.parent / "none").code == 3


def test_a_run_that_is_finished_stays_as_it_is(
    resshift: Run, lesson: list[object], tmp_path: Path
) -> None:
    assert resshift(*lesson).code == 0
    before = files(tmp_path)
    assert resshift(*lesson).code == 0
    assert files(tmp_path) == before


def test_interrupted_training_says_how_to_go_on(
    resshift: Run, lesson: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "advance", raises(KeyboardInterrupt()))
    told = "Interrupted; the same command goes on from the last saved step.\n"
    assert resshift(*lesson) == Ran(130, "", told)


@pytest.mark.parametrize(
    "place, value, code, words",
    [
        (1, "none.toml", 3, "There is no file none.toml"),
        (3, "none", 3, "There is no folder none"),
        (7, "cuda:99", 8, "Use --device cpu"),
    ],
)
def test_training_that_cannot_start_leaves_nothing(
    resshift: Run,
    lesson: list[object],
    tmp_path: Path,
    place: int,
    value: str,
    code: int,
    words: str,
) -> None:
    lesson[place] = value
    before = files(tmp_path)
    ran = resshift(*lesson)
    assert ran.code == code
    assert words in ran.err and len(ran.err.splitlines()) == 1
    assert files(tmp_path) == before
