"""`resshift upscale`: files in, files out."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Ran, Run, files, make_photo, posix
from PIL import Image, ImageSequence

from resshift_cli import __version__
from resshift_cli.imaging import opening, read


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
    options = ("--steps", 2, "--tile", 30, "--temperature", 0.5, "--tta", "--device", "cpu")
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
        "detail": 1.0,
        "color_fix": "wavelet",
        "consistency": 0.0,
        "keep_hidden": False,
        "wrap": "none",
        "tta": True,
        "device": "cpu",
        "threads": torch.get_num_threads(),
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


def test_a_name_of_another_format_than_the_one_asked_for_is_refused(
    upscale: Run, photo: Path
) -> None:
    ran = upscale(photo, "-o", photo.with_name("large.png"), "--format", "jpg")
    assert ran.code == 2
    assert "Call it large.jpg, or leave the format (--format) out." in ran.err
    assert upscale(photo, "-o", photo.with_name("large.jpeg"), "--format", "jpg").code == 0


def test_half_precision_on_a_cpu_is_told_to_be_slow(upscale: Run, photo: Path) -> None:
    ran = upscale(photo, "--precision", "fp16", "--device", "cpu")
    assert "fp16 is slow on a CPU" in ran.err


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
