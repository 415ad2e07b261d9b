from __future__ import annotations

import copy

import pytest
import torch
from tiny_run import (
    CPU,
    batch,
    changed,
    needs_muon,
)
from torch.testing import assert_close

from resshift_cli.errors import (
    UsageError,
)
from resshift_cli.training.muon import Muon32, orthogonal
from resshift_cli.training.trainer import Trainer


@needs_muon
def test_muon_changes_all_directions_of_an_inner_matrix_alike() -> None:
    changes = {}
    for optimiser in ("adamw", "muon"):
        run = changed(optimiser=optimiser, amp="off", learning_rate=1e-3, warmup=0, weight_decay=0)
        trainer = Trainer(run, seed=0, device=CPU)
        with torch.no_grad():  # past the residual branches that start at zero
            for parameter in trainer.denoiser.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        before = copy.deepcopy(trainer.denoiser.network.state_dict())
        trainer.advance(*batch(run))
        after = trainer.denoiser.network.state_dict()
        changes[optimiser] = {name: after[name] - before[name] for name in after}

    def spread(change: torch.Tensor) -> float:
        """The largest singular value over the median."""
        values = torch.linalg.svdvals(change.flatten(1))
        return (values.max() / values.median()).item()

    inner = "input_blocks.1.0.in_layers.2.weight"
    assert spread(changes["muon"][inner]) < 1.5 < 2 < spread(changes["adamw"][inner])
    for name in ("input_blocks.0.0.weight", "out.2.weight", "out.2.bias"):
        assert torch.equal(changes["muon"][name], changes["adamw"][name]), name
    sizes = [changes[name][inner].square().mean().sqrt() for name in ("muon", "adamw")]
    assert 0.1 < sizes[0] / sizes[1] < 1, "one learning rate is for both"


@needs_muon
def test_no_part_of_the_optimiser_follows_a_gradient_that_overflows() -> None:
    trainer = Trainer(changed(amp="fp16", optimiser="muon"), seed=0, device=CPU)
    before = copy.deepcopy(trainer.denoiser.state_dict())
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    trainer.advance(*batch())
    assert trainer.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[n], t) for n, t in trainer.denoiser.state_dict().items())
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**10})
    trainer.advance(*batch())
    after = trainer.denoiser.state_dict()
    assert all(t.isfinite().all() for t in after.values())
    assert not torch.equal(before["network.out.2.weight"], after["network.out.2.weight"])


def test_muon_is_refused_where_torch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UsageError, match="muon.* needs torch 2.9"):
        Trainer(changed(optimiser="muon"), seed=0, device=CPU)


def test_orthogonal_matrices_have_singular_values_near_1() -> None:
    for shape in ((3, 16, 40), (2, 40, 16)):
        found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        values = torch.linalg.svdvals(found)
        assert found.shape == shape and values.min() > 0.6 and values.max() < 1.3
    assert not orthogonal(torch.zeros(1, 4, 4)).any()


@needs_muon
def test_muon_in_float32_follows_that_of_torch() -> None:
    """Rounding in bfloat16 apart."""
    drawn = torch.randn(5, 32, 24, generator=torch.Generator().manual_seed(0))
    moved = []
    for kind in ("muon", "muon32"):
        weights = [torch.nn.Parameter(x.clone()) for x in drawn[:2]]
        optimiser = (
            Muon32(weights, 1e-2, 0.1)
            if kind == "muon32"
            else torch.optim.Muon(weights, 1e-2, 0.1, adjust_lr_fn="match_rms_adamw")
        )
        for gradient in drawn[2:]:
            for weight in weights:
                weight.grad = gradient.clone()
            optimiser.step()
        moved.append(torch.stack([w.detach() for w in weights]) - drawn[:2])
    assert_close(moved[1], moved[0], rtol=0.0, atol=1e-3)
    assert moved[0].abs().max() > 0.015
