"""Pictures and rows for studies of a few small images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resshift_cli.evaluation import metrics
from resshift_cli.evaluation.pairs import Pair, Setup
from resshift_cli.evaluation.rows import Row
from resshift_cli.imaging.picture import Pixels


def draw(path: Path, size: tuple[int, int] = (64, 48), seed: int = 0, mode: str = "RGB") -> Path:
    """A picture of smooth random colours, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(path)
    return path


def setup(**changes: Any) -> Setup:
    values: dict[str, Any] = {
        "scale": 4,
        "degrade": "bicubic",
        "seed": 0,
        "crop": None,
        "metrics": [metrics.OWN["psnr-y"], metrics.OWN["sharpness"]],
    }
    return Setup(**{**values, **changes})


def single(path: Path, lq: Path | None = None) -> Pair:
    return Pair(path.name, path, lq)


def repeating(title: str = "repeat", made_by: Mapping[str, Any] | None = None) -> Row:
    """Every pixel becomes a block."""

    def enlarge(pixels: Pixels) -> Pixels:
        return pixels.repeat(4, axis=0).repeat(4, axis=1)

    return Row(title, made_by or {"model": "repeat"}, enlarge)
