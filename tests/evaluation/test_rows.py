"""Bicubic, and results that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_study import draw, repeating, setup
from PIL import Image

from resshift_cli.errors import InputMissingError, UnsupportedImageError, UsageError
from resshift_cli.evaluation import rows
from resshift_cli.evaluation.book import Book
from resshift_cli.evaluation.comparison import Study
from resshift_cli.evaluation.pairs import Pair, read_pair
from resshift_cli.evaluation.rows import BICUBIC
from resshift_cli.imaging.picture import Pixels


def test_the_bicubic_row_has_the_papers_kernel() -> None:
    """Pillow's bicubic has a = -1/2, as MATLAB's."""
    small = np.random.default_rng(0).random((9, 7, 3), dtype=np.float32)
    large = rows.bicubic(4).enlarge(small)
    for channel in range(3):
        plane = Image.fromarray(small[..., channel])
        expected = np.asarray(plane.resize((28, 36), Image.Resampling.BICUBIC)).clip(0, 1)
        assert np.allclose(large[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize(
    "titles", [[BICUBIC, "a", "a"], ["m, 1 step", "m  1 step"], [BICUBIC, BICUBIC]]
)
def test_rows_that_could_not_be_told_apart_are_refused(titles: list[str]) -> None:
    rows.check_titles(["a, 1 step", "a, 15 steps", BICUBIC])
    with pytest.raises(UsageError, match="twice"):
        rows.check_titles(titles)


# Results that were made elsewhere


def original(tmp_path: Path, name: str = "in/a.png", size: tuple[int, int] = (67, 49)) -> Pair:
    return Pair(name, draw(tmp_path / "hq" / name, size), None)


def restored(tmp_path: Path, pair: Pair, crop: int | None = None) -> Pixels:
    _, partner = read_pair(pair, setup(crop=crop))
    row = rows.results("other", tmp_path / "results", [pair])
    return row.restore(pair, partner, setup(crop=crop))


@pytest.mark.parametrize("name", ["in/a.png", "in/a.webp", "in/a.bmp"])
def test_results_are_found_by_name_whatever_their_extension(tmp_path: Path, name: str) -> None:
    pair = original(tmp_path)
    draw(tmp_path / "results" / name, (67, 49), seed=3)
    draw(tmp_path / "results" / "other.png", (67, 49))
    assert restored(tmp_path, pair).shape == (48, 64, 3)


@pytest.mark.parametrize("size", [(67, 49), (64, 48)])
def test_a_result_is_cut_as_its_original_is(tmp_path: Path, size: tuple[int, int]) -> None:
    pair = original(tmp_path)
    with Image.open(draw(tmp_path / "results" / "in/a.png", size, seed=3)) as image:
        whole = np.asarray(image)
    assert (np.rint(restored(tmp_path, pair) * 255) == whole[:48, :64]).all()
    assert (np.rint(restored(tmp_path, pair, crop=40) * 255) == whole[4:44, 12:52]).all()


def test_a_result_of_what_is_measured_is_taken_as_it_is(tmp_path: Path) -> None:
    pair = original(tmp_path)
    with Image.open(draw(tmp_path / "results" / "in/a.png", (40, 40), seed=3)) as image:
        assert (np.rint(restored(tmp_path, pair, crop=40) * 255) == np.asarray(image)).all()


@pytest.mark.parametrize("size", [(68, 49), (16, 12), (48, 64), (40, 40)])
def test_a_result_of_another_size_is_named_with_both_sizes(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pair = original(tmp_path)
    draw(tmp_path / "results" / "in/a.png", size)
    with pytest.raises(UnsupportedImageError, match=f"{size[0]}x{size[1]}.*67x49") as caught:
        restored(tmp_path, pair)
    assert "64x48" in caught.value.hint


def test_a_missing_result_is_named_and_its_image_left_out_of_all_rows(tmp_path: Path) -> None:
    pairs = [original(tmp_path, name, (64, 48)) for name in ("a.png", "b.png")]
    draw(tmp_path / "results" / "b.jpg")
    study = Study(pairs, setup(), None, {})
    study.measure(repeating())
    study.measure(rows.results("other", tmp_path / "results", pairs))
    assert study.names == ["b.png"]
    assert "other has no a.png" in str(study.left_out["a.png"])


def test_several_files_of_one_name_are_told_apart_by_the_extension_or_not_at_all(
    tmp_path: Path,
) -> None:
    for name in ("in/a.png", "in/a.jpg", "in/b.bmp", "in/b.jpg"):
        draw(tmp_path / "results" / name)
    assert restored(tmp_path, original(tmp_path, size=(64, 48))).shape == (48, 64, 3)
    with pytest.raises(InputMissingError, match="in/b.bmp and in/b.jpg"):
        restored(tmp_path, original(tmp_path, "in/b.png", (64, 48)))


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InputMissingError, match="no images") as caught:
            rows.results("other", folder, [])
        assert "--results" in caught.value.hint


def test_another_result_is_measured_anew(tmp_path: Path) -> None:
    pair = original(tmp_path, "a.png", (64, 48))

    def measured(seed: int) -> dict[str, float]:
        draw(tmp_path / "results" / "a.png", seed=seed)
        (tmp_path / "out").mkdir(exist_ok=True)
        study = Study([pair], setup(), Book(tmp_path / "out"), {})
        study.measure(rows.results("other", tmp_path / "results", [pair]))
        return study.values["other"]["a.png"]

    first = measured(1)
    assert measured(2) != first
    assert measured(1) == first
