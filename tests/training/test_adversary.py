from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_model import load_model
from tiny_run import CPU, RUN, Start, batch, changed, weights_of, write_config
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.errors import ModelUnavailableError, UsageError
from resshift_cli.restoration import features
from resshift_cli.restoration.resize import enlarge, reduced
from resshift_cli.training import train
from resshift_cli.training.adversary import Adversary, Judged, PatchJudge, unevenness
from resshift_cli.training.recipe import AdversarySpec
from resshift_cli.training.trainer import Trainer

pytestmark = pytest.mark.skipif(
    find_spec(features.PACKAGE) is None, reason="needs resshift[realism]"
)
SPEC = AdversarySpec(
    weight=2.0, learning_rate=1e-3, features=0.3, reduction=2.0, restraint=4.0, shift=4
)


def adversary(spec: AdversarySpec = SPEC) -> Adversary:
    torch.manual_seed(0)
    return Adversary(spec, device=CPU)


def crops(count: int = 2, side: int = 64) -> Judged:
    """Noise as originals, and what bicubic makes of them."""
    sharp = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    blurry = enlarge(reduced(sharp, 4), 4)
    return Judged(blurry.clone(), sharp, blurry, torch.ones(count), 4)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# What reaches the restored crops


def test_each_gradient_is_scaled_to_the_norm_of_the_first_before_its_weight() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    along = [torch.randn_like(x) for _ in range(3)]
    sizes, weights = (5, 1e-3, 100), (1.0, 0.5, 2.0)
    losses = [size * (x * way).sum() for size, way in zip(sizes, along, strict=True)]
    terms = list(zip(losses, weights, strict=True))
    total = adversary().balanced(x, terms, torch.ones(2))
    units = [way / way.norm() for way in along]
    length = 5 * along[0].norm()
    assert_close(total, length * (units[0] + 0.5 * units[1] + 2 * units[2]))


def test_of_the_last_gradient_each_crop_gets_its_share() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    along, judging = torch.randn_like(x), adversary()
    whole, less = (
        judging.balanced(x, [(x.sum(), 1.0), ((x * along).sum(), 1.0)], torch.tensor([1.0, share]))
        for share in (1.0, 0.25)
    )
    assert torch.equal(whole[0], less[0])
    assert_close(less[1] - 1, 0.25 * (whole[1] - 1))


def test_of_a_model_that_fills_holes_only_these_are_judged() -> None:
    unknown = torch.zeros(2, 1, 64, 64)
    unknown[:, :, 20:40, 24:44] = 1
    given = replace(crops(), unknown=unknown)
    spec = AdversarySpec(weight=2.0, learning_rate=1e-3, features=0.3, shift=4)
    judged, judging = adversary(spec), adversary(spec)
    gradient, terms = judged.contest(given, rng(), step=0, rate=1e-3)
    alone = replace(given, restored=given.restored.requires_grad_())
    (fidelity,) = torch.autograd.grad(judging.fidelity(alone), alone.restored)
    apart = gradient - fidelity
    assert (apart * (1 - unknown)).abs().max() == 0
    assert (apart * unknown).norm() > 0.5 * fidelity.norm()
    elsewhere = torch.rand_like(given.sharp)
    spoiled = replace(given, restored=given.restored.detach().where(unknown > 0, elsewhere))
    again, others = adversary(spec).contest(spoiled, rng(), step=0, rate=1e-3)
    assert others["adversary"] == terms["adversary"]


def test_a_term_of_no_weight_costs_nothing_and_adds_nothing() -> None:
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    unrelated = torch.randn(1, requires_grad=True)
    total = adversary().balanced(x, [(x.sum(), 1.0), (unrelated.sum(), 0.0)], torch.ones(1))
    assert torch.equal(total, torch.ones_like(x))


def test_a_gradient_of_nothing_but_zeros_stays_so() -> None:
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    total = adversary().balanced(x, [(x.sum(), 1.0), ((x * 0).sum(), 2.0)], torch.ones(1))
    assert torch.equal(total, torch.ones_like(x))


def test_damaged_crops_hear_less_of_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(changed(adversary=SPEC), seed=0, device=CPU)
    assert trainer.adversary is not None
    contest, given = trainer.adversary.contest, []

    def listening(judged: Judged, *rest: Any, **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
        given.append(judged.share)
        return contest(judged, *rest, **more)

    monkeypatch.setattr(trainer.adversary, "contest", listening)
    sharp, _ = batch()
    small = reduced(sharp, 4).clamp(0, 1)
    levels = torch.tensor([0.0, 4.0]).view(2, 1, 1, 1) / 255
    trainer.advance(sharp, small + levels * torch.where(torch.rand_like(small) < 0.5, -1, 1))
    assert_close(given[0], torch.tensor([1.0, 0.5]), rtol=0.0, atol=0.02)


def test_clean_crops_can_be_told_less_of_the_judges() -> None:
    sharp, _ = batch()
    small = reduced(sharp, 4)
    levels = torch.tensor([0.0, 16.0]).view(2, 1, 1, 1) / 255
    damaged = small + levels * torch.where(torch.rand_like(small) < 0.5, -1, 1)
    judging = adversary(replace(SPEC, restraint=0.0, clean=0.25))
    shares = judging.share(sharp, damaged)
    assert_close(shares, torch.tensor([0.25, 1 - 0.75 / 17]), rtol=0.0, atol=0.01)


def test_crops_that_judges_are_sure_of_can_be_told_as_much_as_others() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    faint = torch.ones_like(x) * torch.tensor([3.0, 1.0]).view(2, 1, 1, 1)
    for even, ratio in ((0.0, 3.0), (0.5, 3**0.5), (1.0, 1.0)):
        judging = adversary(replace(SPEC, even=even))
        terms = [(x.sum(), 1.0), ((x * faint).sum(), 1.0)]
        heard = judging.balanced(x, terms, torch.ones(2)) - 1
        norms = heard.square().sum((1, 2, 3)).sqrt()
        assert float(norms[0] / norms[1]) == pytest.approx(ratio)
        assert float(heard.norm()) == pytest.approx(x.numel() ** 0.5)


def test_fidelity_counts_the_error_of_the_reduction_too() -> None:
    some = replace(crops(), restored=torch.zeros(2, 3, 64, 64))
    alone, both = (adversary(replace(SPEC, reduction=r)).fidelity(some) for r in (0.0, 2.0))
    assert_close(alone, some.sharp.mean())
    assert_close(both - alone, 2 * reduced(some.sharp, 4).abs().mean())


def test_a_mesh_counts_for_more_than_noise_of_its_size() -> None:
    some = crops()
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(32, 32).expand(2, 3, 64, 64) / 50
    noise = sign * (torch.rand(2, 1, 64, 64) - 0.5).sign()
    mesh, grain = (replace(some, restored=some.sharp + x) for x in (sign, noise))
    without, judging = (adversary(replace(SPEC, reduction=0.0, grid=g)) for g in (0.0, 4.0))
    assert_close(without.fidelity(mesh), without.fidelity(grain))
    lost = [
        float(judging.fidelity(x)) - 4 * float(unevenness(x.restored, 4)) for x in (mesh, grain)
    ]
    assert lost[0] == pytest.approx(5 / 50)
    assert lost[1] < 2 / 50


def test_texture_on_some_pixels_of_each_position_counts_and_that_on_all_does_not() -> None:
    torch.manual_seed(0)
    grain = torch.randn(2, 3, 64, 64) / 50
    on_some = torch.zeros(1, 1, 64, 64)
    on_some[..., ::4, 1::4] = 4.0
    flat = torch.full((2, 3, 64, 64), 0.5)
    even, uneven = (float(unevenness(flat + x, 4)) for x in (grain, grain * on_some))
    assert even < 0.1 / 50 < 0.3 / 50 < uneven
    assert float(unevenness(flat, 4)) == 0


def test_steps_between_positions_count_and_those_anywhere_do_not() -> None:
    slope = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64)
    blocks = slope.reshape(1, 3, 64, 16, 4).mean(4).repeat_interleave(4, 3)
    assert float(unevenness(slope, 4)) < 0.1 / 64
    for picture in (blocks, blocks.transpose(2, 3)):
        assert float(unevenness(picture, 4)) > 0.5 / 64


def test_the_judges_weight_rises_along_the_ramp() -> None:
    spec = replace(SPEC, features=0.0, ramp=10, learning_rate=0.0, restraint=0.0)
    early, late = (
        adversary(spec).contest(crops(), rng(), step=step, rate=0.0)[0] for step in (0, 9)
    )
    alone = torch.autograd.grad(
        adversary(spec).fidelity(x := replace(crops(), restored=crops().restored.requires_grad_())),
        x.restored,
    )[0]
    assert_close(early - alone, (late - alone) / 10, rtol=1e-3, atol=1e-9)


# Judges


def test_judges_learn_to_tell_restored_crops_from_real_ones() -> None:
    judging = adversary(replace(SPEC, shift=0))
    lost = [judging.contest(crops(), rng(), step=n, rate=2e-3)[1]["judges"] for n in range(25)]
    assert lost[0] == pytest.approx(8.0, abs=0.5)  # two for each of four that know nothing
    assert lost[-1] < 0.6 * lost[0]


def test_what_judges_see_is_frozen_and_they_do_not_learn_from_the_model_s_turn() -> None:
    judging = adversary()
    before = {name: x.clone() for name, x in judging.features.state_dict().items()}
    judging.contest(crops(), rng(), step=0, rate=0.0)
    assert all(torch.equal(before[name], x) for name, x in judging.features.state_dict().items())
    assert all(x.requires_grad for x in judging.judges.parameters())


def test_following_the_judges_takes_restored_crops_towards_real() -> None:
    judging = adversary(replace(SPEC, shift=0, weight=1.0, features=0.0))
    some = crops()
    for step in range(15):
        gradient, _ = judging.contest(some, rng(), step=step, rate=2e-3)
    moved = replace(some, restored=some.restored - 0.5 * gradient / gradient.abs().mean() / 255)
    doubts = [judging.contest(x, rng(), step=15, rate=0.0)[1]["adversary"] for x in (some, moved)]
    assert doubts[1] < doubts[0]


def test_the_patch_judge_sees_the_enlarged_input() -> None:
    judge, some = PatchJudge(), crops()
    with torch.no_grad():
        own, other = (judge(some.sharp, x) for x in (some.enlarged, some.enlarged.flip(0)))
    assert own.shape == (2, 1, 8, 8) and not torch.allclose(own, other)


def test_crops_are_judged_at_a_random_offset() -> None:
    some = crops()
    cut = some.cut(1, 3, 4)
    for whole, part in (
        (some.restored, cut.restored),
        (some.sharp, cut.sharp),
        (some.enlarged, cut.enlarged),
    ):
        assert torch.equal(part, whole[..., 1:61, 3:63])


def test_the_penalty_is_of_verdicts_that_change_under_faint_noise() -> None:
    def weights(penalty: float) -> Sequence[Tensor]:
        judging = adversary(replace(SPEC, penalty=penalty))
        judging.contest(crops(), rng(), step=0, rate=1e-2)
        return list(judging.judges.patches.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(5.0), weights(5.0), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(weights(0.0), weights(5.0), strict=True))


def test_features_are_compared_by_direction() -> None:
    from resshift_cli.training.objective import feature_distance

    a, b = torch.rand(2, 8, 4, 4), torch.rand(2, 8, 4, 4)
    assert feature_distance([a], [3 * a]) == pytest.approx(0.0, abs=1e-6)
    cosine = F.cosine_similarity(a, b)
    assert_close(feature_distance([a, a], [b, b]), 2 * (2 - 2 * cosine).mean())


# Runs


TABLE = asdict(SPEC) | {"penalty": 1.0}


def test_an_interrupted_contest_goes_on_to_the_very_same_weights(
    start: Start, tmp_path: Path
) -> None:
    for _ in start("whole", steps=4, adversary=TABLE):
        pass
    interrupted = start("parts", steps=4, adversary=TABLE)
    while next(interrupted)["step"] < 2:
        pass
    interrupted.close()  # type: ignore[attr-defined]  # a generator
    list(start("parts", steps=4, adversary=TABLE))
    whole, parts = (weights_of(tmp_path / name / "state.pt") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any(name.startswith("judges") for name in whole)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_a_run_with_an_adversary_tells_its_terms_and_how_real_results_look(start: Start) -> None:
    first, second = start("run", steps=2, validate_every=2, save_every=1, adversary=TABLE)
    assert first["loss"] == first["fidelity"] and first["judges"] > 0
    assert {"features", "adversary"} < set(first)
    assert second["realism"] > 0 and second["damaged_realism"] > 0
    assert second["damaged_gain_db"] != second["gain_db"]


def test_a_state_without_judges_is_of_another_run(start: Start) -> None:
    list(start("run", steps=1))
    with pytest.raises(ModelUnavailableError, match="was saved by a run of another model"):
        next(start("run", steps=2, adversary=TABLE))


def test_the_weights_of_the_mean_are_kept_beside_those_of_samples(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    table = TABLE | {"keep_mean": True}
    config = write_config(tmp_path / "run.toml", steps=1, adversary=table)
    with pytest.raises(UsageError, match="starts from none") as caught:
        next(train.train(config, [photos], tmp_path / "run"))
    assert "--init" in caught.value.hint
    list(train.train(config, [photos], tmp_path / "run", init=tiny_weights))
    mean, samples = (tmp_path / "run" / f"{name}.safetensors" for name in ("mean", "model"))
    assert mean.read_bytes() == tiny_weights.read_bytes()
    spec, denoiser, _ = load_model(samples)
    assert spec.mean and denoiser.mean is not None
    kept = load_model(mean)[1].network.state_dict()
    assert all(torch.equal(kept[name], x) for name, x in denoiser.mean.state_dict().items())
    assert not torch.equal(kept["out.2.weight"], denoiser.network.state_dict()["out.2.weight"])


def test_of_a_model_with_both_the_mean_stays_the_mean(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.toml", steps=1, adversary=TABLE | {"keep_mean": True})
    first, second = tmp_path / "first", tmp_path / "second"
    list(train.train(config, [photos], first, init=tiny_weights))
    list(train.train(config, [photos], second, init=first / "model.safetensors"))
    assert (second / "mean.safetensors").read_bytes() == tiny_weights.read_bytes()


def test_half_precision_of_the_network_leaves_the_judges_whole() -> None:
    trainer = Trainer(changed(adversary=SPEC, amp="fp16"), seed=0, device=CPU)
    trainer.advance(*batch(RUN))
    assert trainer.adversary is not None and trainer.adversary.dtype is None
    assert all(x.isfinite().all() for x in trainer.denoiser.state_dict().values())
