"""What draws the pictures of docs/method.md."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from tiny_model import tiny_upscaler
from torch.testing import assert_close


@pytest.fixture
def plot_method(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    return importlib.import_module("plot_method")


@torch.no_grad()
def test_the_chain_of_the_pictures_is_that_of_the_upscaler(plot_method: ModuleType) -> None:
    upscaler = tiny_upscaler(temperature=0.8)
    lq = torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    schedule = upscaler.spec.schedule.build()
    *_, last = plot_method.walk(upscaler, lq * 2 - 1, schedule, temperature=0.8, seed=5)
    drawn = (upscaler.autoencoder.decode(last.x0) / 2 + 0.5).clamp(0, 1)
    assert_close(drawn, upscaler(lq, seed=5, color_fix="none"), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_pictures_are_drawn(plot_method: ModuleType, tmp_path: Path) -> None:
    upscaler = tiny_upscaler()
    plot_method.draw_schedules(tmp_path / "schedules.png")
    plot_method.draw_states(tmp_path / "states.png", upscaler, columns=3)
    pair = (torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16))
    curves = plot_method.measure_tradeoff(
        upscaler, [pair, pair], steps=(4, 1), temperatures=(0.5, 1.0), kappas=(1.0, 2.0)
    )
    # What all three vary from is measured alike.
    assert curves["steps"][0].gain == curves["temperature"][1].gain == curves["kappa"][1].gain
    plot_method.draw_tradeoff(tmp_path / "tradeoff.png", curves)
    for name in ("schedules", "states", "tradeoff"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10
