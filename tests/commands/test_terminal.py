"""What a terminal shows, and a reader that goes away."""

from __future__ import annotations

import os
import re
from pathlib import Path

from command_line import make_photo, on_a_terminal, posix, start

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
    words = ("upscale", photo, "--weights", tiny_weights, "--steps", 1, "--max-memory", "1M")
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
