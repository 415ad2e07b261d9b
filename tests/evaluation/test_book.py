"""The folder of an evaluation leads nowhere else, whoever put links in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import posix

from resshift_cli.errors import OutputError
from resshift_cli.evaluation.book import IMAGES, LEDGER, Book

pytestmark = posix


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".bashrc").write_text("precious")
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_no_figures_are_appended_to_what_a_link_leads_to(folder: Path, home: Path) -> None:
    (folder / LEDGER).symlink_to(home / ".bashrc")
    with pytest.raises(OutputError, match="is a link"):
        Book(folder)
    book = Book(folder.with_name("new"))
    book.folder = folder
    with pytest.raises(OutputError, match="is a link"):
        book.append("a.png", "row", "", {"psnr": 1.0})
    assert (home / ".bashrc").read_text() == "precious"


@pytest.mark.parametrize("place", [IMAGES, f"{IMAGES}/row"])
def test_no_image_is_kept_where_a_link_leads_to(folder: Path, home: Path, place: str) -> None:
    (folder / LEDGER).touch()
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).symlink_to(home)
    with pytest.raises(OutputError, match="is a link"):
        Book(folder).save("a.png", "row", np.zeros((4, 4, 3), np.float32))
    assert [path.name for path in home.iterdir()] == [".bashrc"]


def test_an_image_that_is_a_link_is_replaced_itself(folder: Path, home: Path) -> None:
    book = Book(folder)
    path = book.image("a.png", "row")
    path.parent.mkdir(parents=True)
    path.symlink_to(home / ".bashrc")
    book.save("a.png", "row", np.zeros((4, 4, 3), np.float32))
    assert (home / ".bashrc").read_text() == "precious" and not path.is_symlink()
