"""The images of a folder are found, each once, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import posix

from resshift_cli.imaging import folders
from resshift_cli.imaging.folders import Selection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        (folder / name).touch()
    return folder


def names(folder: Path, **options: Any) -> list[str]:
    return folders.find(folder, None, Selection(**options)).images


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
