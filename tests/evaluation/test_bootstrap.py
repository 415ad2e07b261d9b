from __future__ import annotations

import numpy as np
import pytest

from resshift_cli.evaluation import bootstrap


def normal(count: int, columns: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, columns))


def test_the_interval_of_a_normal_mean_is_about_two_standard_errors() -> None:
    values = normal(400)
    (estimate,) = bootstrap.means(values, seed=0)
    error = values.std() / 20
    assert estimate.low is not None and estimate.high is not None
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert estimate.low < estimate.mean < estimate.high


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(2).normal(size=(50, 200))
    estimates = bootstrap.means(draws, seed=0)
    held = [e.low is not None and e.high is not None and e.low <= 0 <= e.high for e in estimates]
    assert 0.88 <= np.mean(held) <= 0.99


def test_a_difference_that_all_images_share_has_no_spread() -> None:
    base = normal(30)
    estimates = bootstrap.means(np.concatenate([base, base + 2, 0 * base + 2], axis=1), seed=0)
    assert (estimates[2].low, estimates[2].high) == pytest.approx((2, 2))
    spread = [e.high - e.low for e in estimates[:2] if e.low is not None and e.high is not None]
    assert spread[0] == pytest.approx(spread[1])


def test_the_same_seed_gives_the_same_interval_and_another_seed_another_one() -> None:
    values = normal(20)
    assert bootstrap.means(values, seed=3) == bootstrap.means(values, seed=3)
    assert bootstrap.means(values, seed=3) != bootstrap.means(values, seed=4)


def test_a_single_image_has_a_mean_but_no_interval() -> None:
    assert bootstrap.means(np.array([[3.0]]), seed=0) == [bootstrap.Estimate(3.0, None, None)]
