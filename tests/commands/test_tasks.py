"""What `upscale` leaves alone, what results are called, and how large they are asked to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run, files, make_photo
from PIL import Image


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a wide and a tall photo."""
    monkeypatch.chdir(tmp_path)
    make_photo(Path("a.png"), 20, 12)
    make_photo(Path("b.jpg"), 10, 16)
    return tmp_path


def everything() -> list[Path]:
    return sorted(Path().glob("*.*g"))


def size_of(name: str) -> tuple[int, int]:
    with Image.open(name) as image:
        return image.size


def test_all_images_of_a_folder_twice_does_nothing_twice(upscale: Run, pair: Path) -> None:
    assert upscale(*everything()).code == 0
    before = files(pair)
    ran = upscale(*everything())
    assert (ran.code, ran.out, files(pair)) == (0, "", before)
    assert ran.err.splitlines() == [
        "2 of 4 inputs are results of resshift, and left alone; given alone, such are enlarged "
        "again.",
        "2 images have their results already; --overwrite makes them anew.",
    ]


def test_what_is_new_since_is_done(upscale: Run, pair: Path) -> None:
    assert upscale(*everything()).code == 0
    make_photo(Path("c.png"), 8, 8)
    ran = upscale(*everything(), "--json")
    report = json.loads(ran.out)
    assert [result["output"] for result in report["results"]] == ["c_x4.png"]
    assert report["skipped"][0] == {"input": "a_x4.png", "why": "result"}
    assert report["skipped"][-1] == {"input": "b.jpg", "output": "b_x4.jpg", "why": "exists"}


def test_with_overwrite_results_among_the_inputs_are_made_anew(upscale: Run, pair: Path) -> None:
    assert upscale(*everything()).code == 0
    ran = upscale(*everything(), "--overwrite", "--steps", 1)
    assert (ran.code, ran.out) == (0, "a_x4.png\nb_x4.jpg\n")
    assert upscale("a_x4.png").out == "a_x4_x4.png\n"  # alone, it is meant


def test_existing_results_are_refused_or_skipped_as_is_asked(upscale: Run, pair: Path) -> None:
    assert upscale("a.png", "-o", "big/").code == 0
    refused = upscale("a.png", "b.jpg", "-o", "big/")
    assert refused.code == 6 and "--skip-existing to do what is missing" in refused.err
    ran = upscale("a.png", "b.jpg", "-o", "big/", "--skip-existing")
    assert (ran.code, ran.out) == (0, "big/b_x4.jpg\n")
    assert "1 image has its result already" in ran.err
    assert upscale("a.png", "-o", "new/", "--skip-existing").out == "new/a_x4.png\n"
    both = upscale("a.png", "--skip-existing", "--overwrite")
    assert both.code == 2 and "exclude each other" in both.err


def test_a_suffix_names_results(upscale: Run, pair: Path) -> None:
    assert upscale("a.png", "--suffix", "_large").out == "a_large.png\n"
    assert upscale("a.png", "b.jpg", "--suffix", "", "-o", "big").out == "big/a.png\nbig/b.jpg\n"
    replaced = upscale("a.png", "--suffix", "")
    assert replaced.code == 2 and "would replace the input" in replaced.err
    assert upscale("a.png", "--suffix", "/x").code == 2


@pytest.mark.parametrize(
    "options, names, sizes",
    [
        ("--width 50", ["a_w50.png", "b_w50.jpg"], [(50, 30), (50, 80)]),
        ("--height 48", ["a_h48.png", "b_h48.jpg"], [(80, 48), (30, 48)]),
        ("--long-side 64", ["a_long64.png", "b_long64.jpg"], [(64, 38), (40, 64)]),
        ("--fit 60x60", ["a_long60.png", "b_long60.jpg"], [(60, 36), (38, 60)]),
        ("--fit 30X80", ["a_fit30x80.png", "b_fit30x80.jpg"], [(30, 18), (30, 48)]),
    ],
)
def test_a_size_is_met_by_every_image_on_its_own(
    upscale: Run, pair: Path, options: str, names: list[str], sizes: list[tuple[int, int]]
) -> None:
    ran = upscale("a.png", "b.jpg", "--steps", 1, *options.split(), "--json")
    assert [result["output"] for result in json.loads(ran.out)["results"]] == names
    assert [size_of(name) for name in names] == sizes


@pytest.mark.parametrize(
    "options, told",
    [
        ("--width 10", "a.png is 20x12 already, more than 10 pixels across. Images are only"),
        ("--long-side 9999", "a.png is 20x12, and 9999 pixels is 499.9 times that. At most 16"),
        ("--width 40 --scale 2", "--scale and --width both say how large a result is. Give one"),
        ("--width 40 --height 30", "`--fit 40x30` keeps the proportions within both."),
        ("--fit 40", "'40' is no size, such as 1920x1080."),
        ("--fit 0x40", "'0x40' is no size"),
        ("--width 0", "0 is not 1 or more."),
    ],
)
def test_sizes_that_can_not_be_are_refused_on_one_line(
    upscale: Run, pair: Path, options: str, told: str
) -> None:
    ran = upscale("a.png", *options.split())
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert told in ran.err
    assert len(files(pair)) == 2
