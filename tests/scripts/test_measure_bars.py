"""What the bundled model is held against is measured rightly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from resshift_cli.restoration.resize import enlarge, shrink

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bars() -> Iterator[ModuleType]:
    scripts = str(REPOSITORY / "scripts")
    sys.path.insert(0, scripts)
    import measure_bars

    yield measure_bars
    sys.path.remove(scripts)


@pytest.fixture(scope="module")
def kitten() -> Tensor:
    with Image.open(REPOSITORY / "examples" / "kitten.jpg") as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.array(square.resize((224, 224), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("read", "text", "errors"),
    [
        ("kitten", "kitten", 0),
        ("sitting", "kitten", 3),
        ("", "kitten", 6),
        ("kit ten", "kitten", 1),
        (" two\n\n words \n", "two words", 0),
        ("b", "a b c", 4),
    ],
)
def test_the_character_error_counts_edits_per_character(
    bars: ModuleType, read: str, text: str, errors: int
) -> None:
    assert bars.character_error(read, text) == pytest.approx(errors / len(text))


def test_the_feature_network_sees_a_cat(bars: ModuleType, kitten: Tensor) -> None:
    best = bars.FeatureNetwork().classify(kitten)[0].topk(3).indices.tolist()
    assert all(281 <= number <= 287 for number in best)  # ImageNet's small cats, and the lynx


def test_the_feature_distance_grows_with_blur(bars: ModuleType, kitten: Tensor) -> None:
    network = bars.FeatureNetwork()
    blurred = [enlarge(shrink(kitten, scale), scale).clamp(0, 1) for scale in (2, 4, 8)]
    distances = [network.distance(image, kitten) for image in (kitten, *blurred)]
    assert distances[0] == 0
    assert distances == sorted(distances) and distances[1] > 0.01
