from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens_support import small_vq_spec
from tiny_model import output_and_target, tiny_networks, tiny_spec
from torch import Tensor, nn
from torch.testing import assert_close

from resshift_cli.diffusion import autoencoder, chain
from resshift_cli.diffusion.specs import ModelSpec, ScheduleSpec
from resshift_cli.errors import InputMissingError, ModelUnavailableError
from resshift_cli.restoration import resize as degrade
from resshift_cli.training import objective
from resshift_cli.training.objective import FeatureDistance
from resshift_cli.training.recipe import Objective

CPU = torch.device("cpu")

# Steps of the chain


@pytest.mark.parametrize("power", [0.0, 1.5])
@pytest.mark.parametrize("count", [1, 2, 64])
def test_drawn_steps_stay_within_the_chain(count: int, power: float) -> None:
    rng = np.random.default_rng(0)
    drawn = torch.cat(
        [objective.draw_steps(count, 15, power, 0.0, rng) for _ in range(2000 // count)]
    )
    assert drawn.dtype == torch.int64
    assert set(drawn.tolist()) == set(range(1, 16))


def test_steps_are_drawn_in_proportion_to_a_power_of_their_number() -> None:
    drawn = objective.draw_steps(10_000, 4, 1.0, 0.0, np.random.default_rng(0))
    shares = torch.bincount(drawn, minlength=5)[1:] / len(drawn)
    assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), rtol=0.0, atol=2e-3)


def test_a_share_of_the_crops_can_be_given_the_last_step() -> None:
    drawn = objective.draw_steps(10_000, 4, 1.0, 0.5, np.random.default_rng(0))
    shares = torch.bincount(drawn, minlength=5)[1:] / len(drawn)
    assert_close(shares, torch.tensor([0.05, 0.1, 0.15, 0.7]), rtol=0.0, atol=2e-3)


def test_a_batch_covers_the_chain_evenly() -> None:
    for seed in range(20):
        drawn = objective.draw_steps(15, 15, 0.0, 0.0, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) >= 8
        assert (drawn <= 8).sum() in (7, 8, 9)


# Errors of x_0


def test_the_weights_of_the_bound_are_those_of_the_paper() -> None:
    spec = ScheduleSpec(steps=4, kappa=2.0, p=0.3, min_noise=0.2, sqrt_eta_end=0.99)
    schedule = spec.build()
    eta = np.array([0.0] + [schedule.eta(t) for t in range(1, 5)])
    alpha = np.diff(eta)
    variance = 4.0 * eta[:-1] / eta[1:] * alpha
    variance[0] = variance[1]  # clipped: it is 0
    expected = alpha**2 / (2 * eta[1:] ** 2 * variance)
    assert objective.bound_weights(schedule) == pytest.approx(expected.tolist())


def predicted(spec: ModelSpec) -> dict[str, Any]:
    """What `denoising_loss` takes, for two crops at different steps; and that error."""
    denoiser, _ = tiny_networks(spec)
    schedule = spec.schedule.build()
    torch.manual_seed(0)
    x0, y0, noise = torch.randn(3, 2, 48, 8, 8)
    lq, t = torch.rand(2, 3, 8, 8), torch.tensor([1, 3])
    x_t = chain.shift(x0, y0, noise, schedule, t)
    with torch.no_grad():
        output, target = output_and_target(denoiser, x0, x_t, y0, lq, schedule, t)
        x0_hat = denoiser(x_t, y0, lq, schedule, t)
    found = {"predicted": x0_hat, "x0": x0, "y0": y0, "denoiser": denoiser, "schedule": schedule}
    return found | {"t": t, "error": (output - target).square().mean((1, 2, 3))}


KINDS: list[dict[str, Any]] = [
    {"predict": "x0", "precondition": False},
    {"predict": "residual", "precondition": False},
    {"predict": "residual", "precondition": True},
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_objective_is_the_squared_error_of_the_network_s_output(
    kind: dict[str, Any],
) -> None:
    given = predicted(tiny_spec(**kind))
    expected = given.pop("error")
    assert_close(objective.denoising_loss(**given, kind="plain"), expected, rtol=1e-3, atol=1e-5)


def test_the_absolute_objective_is_over_the_error_that_the_input_has() -> None:
    sharp, enlarged = torch.rand(2, 2, 3, 16, 16)
    gray = torch.tensor([0.5, -0.2]).view(2, 1, 1, 1)
    own = (enlarged - sharp).abs().mean((1, 2, 3)) + 2 / 255
    found = objective.absolute_loss(sharp + gray, sharp, enlarged)
    assert_close(found, torch.tensor([0.5, 0.2]) / own)  # of gray, channels and luma alike
    blue = torch.tensor([0.0, 0.0, 0.3]).view(1, 3, 1, 1)
    found = objective.absolute_loss(sharp + blue, sharp, enlarged)
    assert_close(found, torch.full((2,), (0.1 + 0.3 * 24.966 / 219) / 2) / own)


def test_of_a_crop_with_a_hole_the_hole_alone_counts() -> None:
    sharp, enlarged = torch.rand(2, 2, 3, 16, 16)
    unknown = torch.zeros(2, 1, 16, 16)
    unknown[0, :, 3:5, 4:9] = 1
    found = objective.absolute_loss(sharp + 0.5 * unknown, sharp, enlarged, unknown)
    own = (enlarged - sharp)[0, :, 3:5, 4:9].abs().mean() + 2 / 255
    assert_close(found, torch.stack([0.5 / own, torch.tensor(0.0)]))
    found = objective.absolute_loss(sharp + 0.5 * (1 - unknown), sharp, enlarged, unknown)
    whole = objective.absolute_loss(sharp + 0.5, sharp, enlarged)
    assert_close(found, torch.stack([torch.tensor(0.0), whole[1]]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_weighted_objective_is_the_bound_s_error_of_x_0(kind: dict[str, Any]) -> None:
    given = predicted(tiny_spec(**kind))
    del given["error"]
    weights = objective.bound_weights(given["schedule"])
    error = (given["predicted"] - given["x0"]).square().mean((1, 2, 3))
    expected = error * torch.tensor([weights[0], weights[2]])
    assert_close(objective.denoising_loss(**given, kind="weighted"), expected)


def test_the_balanced_objective_makes_up_for_busy_crops() -> None:
    given = predicted(tiny_spec())
    energy = (given["y0"] - given["x0"]).square().mean((1, 2, 3))
    expected = given.pop("error") / (energy + 0.5)
    loss = objective.denoising_loss(**given, kind="balanced")
    assert_close(loss, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "weighted", "balanced"])
def test_a_prediction_that_is_right_costs_nothing(kind: Objective) -> None:
    given = predicted(tiny_spec())
    del given["error"]
    given["predicted"] = given["x0"]
    assert not objective.denoising_loss(**given, kind=kind).any()


# What is worth learning of a damaged image


def test_all_detail_of_an_undamaged_image_is_worth_learning() -> None:
    sharp = torch.rand(2, 3, 64, 64)
    shares = objective.detail_share(sharp, degrade.shrink(sharp, 4), 1.0)
    assert_close(shares, torch.ones(2))


@pytest.mark.parametrize(("levels", "share"), [(3, 0.5), (6, 0.2), (9, 0.1)])
def test_less_detail_is_worth_learning_the_worse_the_damage(levels: int, share: float) -> None:
    sharp = 0.25 + torch.rand(1, 3, 64, 64) / 2
    sign = torch.where(torch.rand(1, 3, 16, 16) < 0.5, -1, 1)
    damaged = degrade.shrink(sharp, 4) + sign * levels / 255
    found = objective.detail_share(sharp, damaged, 3.0)
    assert_close(found, torch.tensor([share]), rtol=1e-3, atol=0)


def test_a_crop_s_border_is_not_taken_for_damage() -> None:
    large = torch.rand(1, 3, 96, 96)
    crop, partner = large[..., 16:80, 16:80], degrade.shrink(large, 4)[..., 4:20, 4:20]
    assert (degrade.shrink(crop, 4) - partner).abs().max() > 4 / 255
    assert_close(objective.detail_share(crop, partner, 1.0), torch.ones(1))


# Features of the decoded x_0


def test_decoding_for_training_gives_the_same_picture_and_a_gradient() -> None:
    torch.manual_seed(0)
    codec = autoencoder.build(small_vq_spec(codes=16)).requires_grad_(False)
    latent = torch.randn(1, 3, 8, 8, requires_grad=True)
    pixels = objective.decode(codec, latent)
    assert_close(pixels, codec.decode(latent), rtol=1e-4, atol=1e-5)
    pixels.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert latent.grad is not None and latent.grad.any()


@pytest.mark.parametrize("spec", [tiny_spec().autoencoder, small_vq_spec(quantize=False)])
def test_decoding_for_training_is_plain_decoding_where_nothing_is_quantised(spec: Any) -> None:
    codec = autoencoder.build(spec)
    latent = torch.randn(1, codec.channels, 8, 8)
    with torch.no_grad():
        assert torch.equal(objective.decode(codec, latent), codec.decode(latent))


class Edges(nn.Module):
    """Two layers of features: the picture, and half of its differences along rows."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images.diff(dim=3) / 2


def exported(path: Path, *, batch: int = 2) -> Path:
    crops = (torch.rand(batch, 3, 8, 8),)
    torch.export.save(torch.export.export(Edges(), crops), path)
    return path


def test_the_distance_of_features_is_summed_over_layers(tmp_path: Path) -> None:
    distance = FeatureDistance(exported(tmp_path / "edges.pt2"), CPU)
    a, b = torch.rand(2, 2, 3, 8, 8)
    apart = a - b
    expected = apart.square().mean((1, 2, 3)) + (apart.diff(dim=3) / 2).square().mean((1, 2, 3))
    assert_close(distance(a, b), expected)
    assert not distance(a, a).any()


def test_the_distance_pulls_at_the_image_alone(tmp_path: Path) -> None:
    distance = FeatureDistance(exported(tmp_path / "edges.pt2"), CPU)
    a, b = (torch.rand(2, 3, 8, 8, requires_grad=True) for _ in range(2))
    distance(a, b).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert a.grad is not None and a.grad.any()
    assert b.grad is None


def test_a_missing_feature_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"no feature network .*none\.pt2") as caught:
        FeatureDistance(tmp_path / "none.pt2", CPU)
    assert "torch.export" in caught.value.hint


def test_what_is_no_exported_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fake.pt2"
    path.write_text("no network")
    with pytest.raises(ModelUnavailableError, match="holds no network that torch.export saved"):
        FeatureDistance(path, CPU)


def test_crops_that_a_feature_network_does_not_take_are_told(tmp_path: Path) -> None:
    distance = FeatureDistance(exported(tmp_path / "edges.pt2"), CPU)
    with pytest.raises(ModelUnavailableError, match=r"takes no images of \(2, 3, 16, 16\)"):
        distance(*torch.rand(2, 2, 3, 16, 16))
