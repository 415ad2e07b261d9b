from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from pictures import made_up_photo

from resshift_cli.training import realistic
from resshift_cli.training.dataset import to_tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from degrade_on_card import jpeg  # noqa: E402


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("full", [False, True])
def test_jpeg_computed_is_near_to_jpeg_encoded(quality: int, full: bool) -> None:
    photo = to_tensor(made_up_photo(0, 96))[..., :93, :90]
    encoded = realistic.jpeg(photo, quality, full_chroma=full)
    computed = jpeg(photo, torch.tensor([quality]), torch.tensor(full).view(1, 1, 1, 1))
    apart, error = ((x - encoded).square().mean().sqrt() * 255 for x in (computed, photo))
    assert apart < 1.8 and apart < error
