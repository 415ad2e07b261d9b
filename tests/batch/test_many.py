"""A plan of many images takes no more memory than one of few."""

from __future__ import annotations

import os
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from command_line import make_photo
from memory import apart

from resshift_cli.commands import app as cli
from resshift_cli.imaging import folders
from resshift_cli.system import sorting


def filled(folder: Path, count: int) -> Path:
    """A folder of so many images, all of which are one file."""
    folder.mkdir()
    photo = make_photo(folder / "0.png", 9, 9)
    for number in range(1, count):
        os.link(photo, folder / f"{number}.png")
    return folder


def most(few: Path, many: Path, weights: Path) -> int:
    """Bytes that are taken at most while a plan is gone through, after a smaller one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "in_order", partial(sorting.in_order, at_once=100))
        for folder in (few, many):
            tracemalloc.start()
            command = ("batch", folder, "--weights", weights, "--dry-run", "--quiet")
            assert cli.run([*map(str, command)]) == 0
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, tiny_weights: Path) -> None:
    few, some, many = (filled(tmp_path / str(count), count) for count in (3, 130, 400))
    assert apart(most, few, many, tiny_weights) < apart(most, few, some, tiny_weights) + 200_000
