"""The kernel distance is what its formula says, and sees what blur takes away."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor

from resshift_cli.restoration import features, realism
from resshift_cli.restoration.features import FeatureNetwork
from resshift_cli.restoration.resize import enlarge, shrink

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(features.PACKAGE) is None, reason="needs the extra `realism`"
)


def images(count: int, seed: int = 0) -> Tensor:
    """Noise that neighbours share, so that there are edges."""
    drawn = torch.rand(count, 3, 33, 48, generator=torch.Generator().manual_seed(seed))
    levels = (enlarge(drawn, 4).clamp(0, 1) * 255).round()
    return levels / 255


def test_patches_are_whole_and_side_by_side() -> None:
    x = torch.rand(2, 3, 130, 200)
    patches = realism.cut(x)
    assert patches.shape == (2 * 2 * 3, 3, 64, 64)
    assert torch.equal(patches[4], x[0, :, 64:128, 64:128])
    assert torch.equal(patches[6 + 2], x[1, :, :64, 128:192])
    assert len(realism.cut(x[..., :63])) == 0


def simplest(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair."""
    mean, deviation = y.mean(0), y.std(0, ddof=1) + 1e-6
    x, y = (x - mean) / deviation, (y - mean) / deviation

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def others(z: np.ndarray) -> float:
        pairs = [(a, b) for a in range(len(z)) for b in range(len(z)) if a != b]
        return float(np.mean([kernel(z[a], z[b]) for a, b in pairs]))

    return others(x) + others(y) - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


def test_the_distance_is_that_of_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "_ROWS", 3)
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(1, 2, (7, 4)), rng.normal(0, 1, (5, 4))) for _ in range(2)]
    results, originals = ([torch.from_numpy(p[i]) for p in pairs] for i in (0, 1))
    expected = sum(simplest(x, y) for x, y in pairs)
    assert realism.distance(results, originals) == pytest.approx(expected, abs=1e-9)


def test_populations_that_are_alike_are_near_nought() -> None:
    drawn = torch.randn(2, 400, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert abs(realism.distance([drawn[0]], [drawn[1]])) < 0.1
    assert realism.distance([drawn[0] + 1], [drawn[1]]) > 1


@needs_weights
def test_features_of_patches_are_means_and_deviations_of_channels() -> None:
    network, patches = FeatureNetwork(), realism.cut(images(2))
    maps = network(patches)
    found = realism.describe(network, patches)
    assert [tuple(x.shape) for x in found] == [(12, 32), (12, 48), (12, 80)]
    for x, of in zip(found, maps, strict=False):
        torch.testing.assert_close(x[:, : of.shape[1]], of.mean((2, 3)).double())
        torch.testing.assert_close(x[:, of.shape[1] :], of.std((2, 3)).double())
    joined = realism.join([realism.describe(network, part) for part in torch.split(patches, 5)])
    torch.testing.assert_close(joined, found)


@needs_weights
def test_blur_is_further_off_than_other_pictures_of_the_kind() -> None:
    network = FeatureNetwork()

    def described(pictures: Tensor) -> realism.Patches:
        return realism.describe(network, realism.cut(pictures))

    original = described(images(4))
    others = realism.distance(described(images(4, seed=1)), original)
    blurred = enlarge(shrink(images(4, seed=1), 4), 4).clamp(0, 1)
    assert realism.distance(described(blurred), original) > 10 * abs(others)
