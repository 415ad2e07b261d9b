from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import made_up_photo
from tiny_run import (
    CPU,
    RUN,
    held_out,
)

from resshift_cli.training import validation
from resshift_cli.training.dataset import to_tensor
from resshift_cli.training.trainer import Trainer


def test_the_gain_is_that_of_the_averaged_network_over_bicubic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    image = np.random.default_rng(0).integers(80, 176, (256, 256, 3), np.uint8)
    sharp = trainer.autoencoder.encode(to_tensor(image) * 2 - 1)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: y0)
    assert validation.measure(trainer, held_out(image))["gain_db"] == pytest.approx(0.0, abs=0.01)
    monkeypatch.setattr(trainer, "average", lambda x_t, y0, *others: sharp.lerp(y0, 0.1))
    assert validation.measure(trainer, held_out(image))["gain_db"] == pytest.approx(20.0, abs=2.0)


def test_validation_averages_over_the_middles_of_the_photos() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    image = made_up_photo(0, 256)
    larger = np.pad(image, ((10, 10), (20, 20), (0, 0)))
    gains = [
        validation.measure(trainer, held_out(photo))
        for photo in (image, larger, made_up_photo(1, 256))
    ]
    assert gains[0] == gains[1]  # the middle is what counts
    both = validation.measure(trainer, held_out(image, made_up_photo(1, 256)))
    assert both["gain_db"] == pytest.approx((gains[0]["gain_db"] + gains[2]["gain_db"]) / 2)
    assert both["worst_db"] == min(gains[0]["worst_db"], gains[2]["worst_db"])


def test_samples_end_with_the_original_and_begin_with_what_it_became() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    photo = made_up_photo(0, 300)
    ((degraded, mean, walked, sharp),) = validation.samples(trainer, held_out(photo))
    assert degraded.shape == (3, 64, 64)
    assert torch.equal(sharp, to_tensor(photo[22:278, 22:278])[0])
    for restored in (mean, walked):  # by a network that knows nothing yet
        assert restored.shape == sharp.shape
    assert not torch.equal(mean, walked)
