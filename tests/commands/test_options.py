"""Options that commands share, and command lines that make no sense."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ran, Run, files, make_photo
from numpy.typing import NDArray
from PIL import Image

from resshift_cli import __version__
from resshift_cli.commands import values
from resshift_cli.imaging import opening

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
    ran, result = enlarged("--max-memory", "1M")
    assert ran.code == 0
    assert ran.err.count("Memory is short: tiles of 8 px instead of 64.\n") == 1
    assert re.search(r"Tiles of 8 px take about \d+ MB in all, which is more than allowed", ran.err)
    by_hand, expected = enlarged("--tile", 8, "--overlap", 2, "--max-memory", "64GiB")
    assert "Memory" not in by_hand.err
    np.testing.assert_array_equal(result, expected)
    assert (enlarged()[1] != result).any()


def test_little_memory_is_not_told_under_quiet(enlarged: Enlarged) -> None:
    ran, _ = enlarged("--max-memory", "1M", "--quiet")
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


def test_a_texture_that_wraps_is_enlarged_as_one_and_its_result_says_so(
    enlarged: Enlarged, tmp_path: Path
) -> None:
    _, result = enlarged("--wrap", "XY")
    assert result.shape == (48, 80, 3) and (result != enlarged()[1]).any()
    enlarged("--wrap", "x")
    written = next((tmp_path / "out").glob("*.png"))
    assert b", wrap x" in written.read_bytes()


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
        ("--wrap z", "'z' is none of none, x, y and xy."),
        ("--consistency nan", "nan is not from 0 to 1."),
        ("--max-memory 4", "'4' is 4 bytes; give a unit, such as 4G or 800M."),
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
    [("3000000", 3000000), ("800M", 800 << 20), ("1.5GiB", 3 << 29), ("2 gb", 2 << 30)],
)
def test_a_size_is_read_as_people_write_it(size: str, count: int) -> None:
    assert values.byte_count(size) == count


def test_what_is_too_large_is_the_same_in_every_room() -> None:
    assert values.MAX_PIXELS == opening.MAX_PIXELS


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


@pytest.mark.parametrize("arguments", [["models", "nothing"], ["nothing"], ["train", "none.toml"]])
def test_commands_that_make_no_sense_are_refused_with_a_pointer_to_the_help(
    resshift: Run, arguments: list[str]
) -> None:
    ran = resshift(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"error: .* See resshift.* --help\.\n", ran.err)
