"""Realism in a comparison: one figure of all images of a row."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_study import draw, repeating, setup, single
from numpy.typing import NDArray

from resshift_cli.evaluation import comparison, metrics, rows
from resshift_cli.evaluation.book import Book
from resshift_cli.evaluation.comparison import Study
from resshift_cli.evaluation.pairs import read_image
from resshift_cli.evaluation.rows import BICUBIC
from resshift_cli.restoration import features
from resshift_cli.restoration.features import FeatureNetwork

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(features.PACKAGE) is None, reason="needs the extra `realism`"
)
CPU = torch.device("cpu")


def study(tmp_path: Path, sizes: list[tuple[int, int]], book: bool = False) -> Study:
    """Bicubic and blocks, of pictures of these sizes."""
    pairs = [single(draw(tmp_path / f"{n}.png", size, seed=n)) for n, size in enumerate(sizes)]
    asked = setup(metrics=[metrics.OWN["psnr-y"], metrics.find("realism", CPU)])
    if book:
        (tmp_path / "out").mkdir(exist_ok=True)
    made = Study(pairs, asked, Book(tmp_path / "out") if book else None, {})
    made.measure(rows.bicubic(4))
    made.measure(repeating())
    return made


def test_it_is_the_kernel_distance_between_patches_of_results_and_originals(
    tmp_path: Path,
) -> None:
    """Written out in its simplest form, on the files that were kept."""
    made = study(tmp_path, [(192, 128), (140, 200), (64, 64)], book=True)
    network = FeatureNetwork()

    def described(paths: list[Path]) -> list[NDArray[np.float64]]:
        patches = []
        for path in paths:
            pixels = read_image(path)
            for top in range(0, len(pixels) - 63, 64):
                for left in range(0, pixels.shape[1] - 63, 64):
                    patches.append(pixels[top : top + 64, left : left + 64].transpose(2, 0, 1))
        with torch.inference_mode():
            maps = network(torch.from_numpy(np.stack(patches)))[:3]
        return [torch.cat([m.mean((2, 3)), m.std((2, 3))], 1).double().numpy() for m in maps]

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        mean, deviation = y.mean(0), y.std(0, ddof=1) + 1e-6
        x, y = (x - mean) / deviation, (y - mean) / deviation
        n = len(x)
        others = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(x, x), kernel(y, y)))
        return float(others - 2 * kernel(x, y).mean())

    originals = described([pair.hq for pair in made.pairs])
    for row in made.summary():
        kept = described([Book(tmp_path / "out").image(p.name, row["name"]) for p in made.pairs])
        expected = sum(map(distance, kept, originals))
        figures = row["metrics"]["realism"]
        assert figures["mean"] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert (figures["images"], figures["patches"]) == (3, 6 + 6 + 1)


def test_it_has_no_interval_and_is_compared_with_the_first_row(tmp_path: Path) -> None:
    first, blocks = (row["metrics"]["realism"] for row in study(tmp_path, [(128, 128)]).summary())
    assert first["difference"] is None and first["interval"] is None
    assert blocks["difference"] == pytest.approx(blocks["mean"] - first["mean"])
    assert blocks["interval"] is None and blocks["difference_interval"] is None


def test_it_has_no_column_in_the_table_of_images(tmp_path: Path) -> None:
    assert study(tmp_path, [(64, 64)]).table().splitlines()[0] == "image,row,psnr-y"


def test_images_without_a_patch_do_not_count_and_one_patch_is_none(tmp_path: Path) -> None:
    for sizes, expected in (([(60, 200), (128, 64)], (1, 2)), ([(60, 200), (64, 64)], (1, 1))):
        figures = study(tmp_path, sizes).summary()[1]["metrics"]["realism"]
        assert (figures["images"], figures["patches"]) == expected
        assert (figures["mean"] is None) == (expected[1] < 2)


def test_of_many_patches_as_many_of_every_image_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MOST_PATCHES", 11)
    figures = study(tmp_path, [(256, 128), (128, 128)]).summary()[0]["metrics"]["realism"]
    assert figures["patches"] == 5 + 4


def test_an_image_that_a_later_row_leaves_out_does_not_count(tmp_path: Path) -> None:
    made = study(tmp_path, [(128, 64), (128, 128)])
    draw(tmp_path / "results" / "1.png", (128, 128), seed=5)
    made.measure(rows.results("other", tmp_path / "results", made.pairs))
    counted = [row["metrics"]["realism"]["patches"] for row in made.summary()]
    assert counted == [4, 4, 4]


def test_what_was_kept_is_measured_without_being_made_again(tmp_path: Path) -> None:
    made = study(tmp_path, [(128, 128)], book=True)
    again = Study(made.pairs, made.setup, Book(tmp_path / "out"), {})
    again.measure(rows.bicubic(4))
    assert again.summary()[0] == made.summary()[0]
    assert [row["name"] for row in again.summary()] == [BICUBIC]
