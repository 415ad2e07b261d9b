"""Files that are to be shown: their names, what they tell, whether they belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import make_photo
from PIL import Image

from resshift_cli.errors import ImageUnreadableError, UsageError
from resshift_cli.imaging.encode import write
from resshift_cli.imaging.files import Handling
from resshift_cli.imaging.picture import Picture
from resshift_cli.imaging.sources import Source
from resshift_cli.viewing import exhibits
from resshift_cli.viewing.exhibits import Exhibit, Reread


def of(*paths: Path) -> list[Exhibit]:
    return exhibits.of_files([Source(path) for path in paths], Handling())


def test_names_are_as_long_as_it_takes_to_tell_files_apart() -> None:
    assert exhibits.titles([Path("a/x.png"), Path("b/y.png")]) == ["x.png", "y.png"]
    assert exhibits.titles([Path("c/a/x.png"), Path("c/b/x.png")]) == ["a/x.png", "b/x.png"]
    assert exhibits.titles([Path("x.png"), Path("x.png")]) == ["1: x.png", "2: x.png"]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "avif"])
def test_a_result_tells_how_it_was_made(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"result.{kind}"
    pixels = np.zeros((4, 6, 3), np.float32)
    write(Picture(pixels, note="resshift: tiny-x4, 4 steps"), path, overwrite=False)
    (one,) = of(path)
    assert one.facts["made by"] == "resshift: tiny-x4, 4 steps"
    assert one.facts["size"] == "6 x 4"
    assert one.facts["file"].startswith({"jpg": "JPEG, ", "tif": "TIFF, "}.get(kind, kind.upper()))


def test_sides_may_differ_by_rounding_alone(tmp_path: Path) -> None:
    small = make_photo(tmp_path / "small.png", 33, 21)
    assert len(of(small, make_photo(tmp_path / "large.png", 67, 43))) == 2
    with pytest.raises(UsageError, match=r"small.png \(33x21\) and tall.png \(33x40\)"):
        of(small, make_photo(tmp_path / "tall.png", 33, 40))


def test_of_an_animation_the_first_frame_is_shown(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (one,) = of(tmp_path / "moving.gif")
    (rows,) = one.rows
    assert rows[0, 0].tolist() == [1, 0, 0]


def test_what_is_read_again_must_be_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exhibits, "KEPT", 0)
    path = make_photo(tmp_path / "photo.png", 9, 7)
    (one,) = of(path)
    assert isinstance(one.rows, Reread)
    assert [rows.shape for rows in one.rows] == [(7, 9, 3)]
    make_photo(path, 10, 7)
    with pytest.raises(ImageUnreadableError, match="changed while"):
        list(one.rows)
