"""Results of ours are known by what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Run, make_photo

from resshift_cli.imaging import encode, files, own
from resshift_cli.imaging.folders import Beside, Selection, Tree
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.picture import Picture


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif", "a.tif"])
def test_results_are_known_in_every_format_that_has_a_place_for_it(
    name: str, tmp_path: Path
) -> None:
    pixels = np.zeros((8, 9, 3), np.float32)
    ours = f"{own.SIGNATURE}1: tiny-x4"
    for note, is_ours in ((ours, True), ("darktable 4", False), ("", False)):
        picture = Picture(pixels, note=note)
        (tmp_path / name).write_bytes(encode.encode(picture, Path(name), options=SaveOptions()))
        assert own.is_result(tmp_path / name) == is_ours


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_large_results_that_are_written_by_rows_are_known(
    name: str, upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE", 10)
    photo, large = make_photo(tmp_path / name, 20, 12), tmp_path / f"large_{name}"
    assert upscale(photo, "--steps", 1, "-o", large).code == 0
    assert own.is_result(large) and not own.is_result(photo)


def test_what_can_not_be_read_is_left_to_whoever_reads_it(troubles: Path) -> None:
    assert not any(own.is_result(path) for path in troubles.iterdir())


def test_results_are_left_out_only_where_there_are_others(upscale: Run, tmp_path: Path) -> None:
    photo, result = make_photo(tmp_path / "a.png", 8, 8), tmp_path / "a_x4.png"
    assert upscale(photo).code == 0
    assert own.among([photo, result]) == [result]
    assert own.among([result]) == own.among([result, result]) == []
    beside, names = Beside(), ["a.png", "a_x4.png"]
    assert list(own.apart_from_results(Tree(tmp_path), names, beside)) == ["a.png"]
    assert beside.others == {own.KIND: 1}
    alone = Tree(tmp_path, selection=Selection(names[1:]))
    assert own.are_all(alone) and not own.are_all(Tree(tmp_path))
