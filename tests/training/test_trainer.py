from __future__ import annotations

import signal
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import small_vq_spec
from memory import apart
from pictures import made_up_photo
from tiny_run import (
    CPU,
    RUN,
    VQ_RUN,
    batch,
    changed,
    loss_of,
)
from torch.testing import assert_close

from resshift_cli.diffusion import chain
from resshift_cli.errors import (
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UsageError,
)
from resshift_cli.training import dataset, states
from resshift_cli.training import trainer as trainer_room
from resshift_cli.training.degradation import BicubicSpec
from resshift_cli.training.photos import Pictures
from resshift_cli.training.ranks import Ranks
from resshift_cli.training.recipe import PerceptualSpec, RunSpec
from resshift_cli.training.trainer import Trainer


def test_the_loss_falls_on_a_single_photo() -> None:
    settings = replace(RUN.train, steps=40, warmup=5, learning_rate=5e-3, degrade=BicubicSpec())
    trainer = Trainer(replace(RUN, train=settings), seed=0, device=CPU)
    photo = Pictures([made_up_photo(0, 96)])

    @torch.no_grad()
    def loss() -> float:
        """Mean over draws that stay the same, since it depends on them more than on anything."""
        at, losses = trainer.step, []
        for trainer.step in range(8):
            losses.append(
                loss_of(trainer, dataset.make_batch(photo, trainer.run.data, 0, trainer.step))
            )
        trainer.step = at
        return torch.stack(losses).mean().item()

    before = loss()
    for _ in range(settings.steps):
        trainer.advance(*dataset.make_batch(photo, trainer.run.data, 0, trainer.step))
    assert loss() < 0.9 * before


def test_the_average_follows_the_weights() -> None:
    trainer = Trainer(RUN, seed=0, device=CPU)
    before = trainer.denoiser.network.get_parameter("out.2.weight").clone()
    trainer.advance(*batch())
    after = trainer.denoiser.network.get_parameter("out.2.weight")
    average = trainer.average.network.get_parameter("out.2.weight")
    keep = 2 / 11  # early on, less is kept than `ema` says
    assert not torch.equal(before, after)
    assert_close(average, keep * before + (1 - keep) * after)


def gradients(run: RunSpec, **more: Any) -> dict[str, torch.Tensor]:
    """Of the loss of one batch, in a network that has left its start."""
    trainer = Trainer(run, seed=0, device=CPU, **more)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    loss_of(trainer, batch(run)).backward()  # type: ignore[no-untyped-call]  # torch's own
    return {n: p.grad for n, p in trainer.denoiser.named_parameters() if p.grad is not None}


def after_two_steps(run: RunSpec) -> dict[str, torch.Tensor]:
    trainer = Trainer(run, seed=0, device=CPU)
    for number in range(2):
        trainer.advance(*batch(run, number))
    return dict(trainer.denoiser.state_dict())


def test_recomputed_activations_give_the_very_same_gradients() -> None:
    kept = gradients(RUN)
    recomputed = gradients(changed(checkpointing=True))
    assert kept.keys() == recomputed.keys() and kept
    assert all(torch.equal(recomputed[name], kept[name]) for name in kept)


def test_recomputed_activations_are_not_kept() -> None:
    def saved(run: RunSpec) -> int:
        trainer, kept = Trainer(run, seed=0, device=CPU), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.nbytes), lambda nothing: nothing
        ):
            loss_of(trainer, batch(run))
        return sum(kept)

    assert saved(changed(checkpointing=True)) < 0.6 * saved(RUN)


def test_a_batch_computed_in_parts_leads_to_the_same_weights() -> None:
    whole = after_two_steps(changed(batch=4, amp="off"))
    parts = after_two_steps(changed(batch=4, amp="off", accumulate=2))
    for name in whole:
        assert_close(parts[name], whole[name], rtol=0.0, atol=1e-4)
    start = Trainer(RUN, seed=0, device=CPU).denoiser.state_dict()
    assert any(not torch.allclose(start[name], whole[name], atol=1e-3) for name in whole)


@pytest.mark.parametrize(("amp", "share"), [("bf16", 0.1), ("fp16", 0.02)])
def test_half_precision_gives_nearly_the_same_gradients(amp: str, share: float) -> None:
    exact, half = gradients(changed(amp="off")), gradients(changed(amp=amp))
    apart = sum((half[name] - exact[name]).square().sum() for name in exact)
    size = sum(exact[name].square().sum() for name in exact)
    assert 0 < (apart / size) ** 0.5 < share


def test_a_float16_gradient_that_overflows_is_skipped_and_its_scale_lowered() -> None:
    trainer = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    before = {name: t.clone() for name, t in trainer.denoiser.state_dict().items()}
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    trainer.advance(*batch())
    assert trainer.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[n], t) for n, t in trainer.denoiser.state_dict().items())


def test_a_float16_gradient_that_never_fits_ends_the_run() -> None:
    trainer = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 1.0})
    with torch.no_grad():
        trainer.denoiser.network.get_parameter("out.2.bias").fill_(float("nan"))
    with pytest.raises(ResShiftError, match="gradient of step 1 is not finite"):
        trainer.advance(*batch())


def test_the_scale_of_float16_gradients_is_part_of_the_state(tmp_path: Path) -> None:
    trainer = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    trainer.advance(*batch())
    states.save(trainer, tmp_path / "state.pt")
    again = Trainer(changed(amp="fp16"), seed=0, device=CPU)
    states.restore(again, tmp_path / "state.pt")
    assert again.scaler.get_scale() == 2.0**39 and again.step == 1


def test_automatic_precision_is_the_fastest_that_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_room, "has_fast_bf16", lambda device: True)
    assert trainer_room.amp_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.setattr(trainer_room, "has_fast_bf16", lambda device: False)
    assert trainer_room.amp_dtype("auto", CPU) is None
    assert trainer_room.amp_dtype("auto", torch.device("cuda")) == torch.float16


@pytest.mark.parametrize("ranks", [Ranks(count=3), Ranks(count=2, rank=1)])
def test_a_batch_that_processes_can_t_share_evenly_is_refused(ranks: Ranks) -> None:
    with pytest.raises(UsageError, match=r"batch 2 can't be shared by \d processes") as caught:
        Trainer(changed(accumulate=2), seed=0, device=CPU, ranks=ranks)
    assert "multiple of" in caught.value.hint


class Means(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 2)


def test_the_perceptual_term_adds_the_distance_of_the_decoded_pictures(tmp_path: Path) -> None:
    crops = torch.rand(2, 3, 64, 64)
    torch.export.save(torch.export.export(Means(), (crops,)), tmp_path / "means.pt2")
    run = changed(perceptual=PerceptualSpec(weight=3.0, features="means.pt2"))
    plain = Trainer(RUN, seed=0, device=CPU)
    with_term = Trainer(run, seed=0, device=CPU, features=tmp_path / "means.pt2")
    assert with_term.features is not None
    sharp, blurry = batch()
    t, noise = plain.drawn()
    x0, y0 = (plain.autoencoder.encode(x) for x in (sharp * 2 - 1, plain.enlarged(blurry)))
    with torch.no_grad():
        x_t = chain.shift(x0, y0, noise, plain.schedule, t)
        restored = plain.denoiser(x_t, y0, blurry * 2 - 1, plain.schedule, t)
        pixels = plain.autoencoder.decode(restored) / 2 + 0.5
        distance = with_term.features(pixels, sharp).mean()
        added = with_term.loss(sharp, blurry, t, noise) - plain.loss(sharp, blurry, t, noise)
    assert distance > 0
    assert_close(added, 3 * distance, rtol=0.05, atol=1e-6)


def test_the_last_step_can_go_without_the_perceptual_term(tmp_path: Path) -> None:
    crops = torch.rand(2, 3, 64, 64)
    count = ({0: torch.export.Dim("count", min=1)},)
    exported = torch.export.export(Means(), (crops,), dynamic_shapes=count)
    torch.export.save(exported, tmp_path / "means.pt2")
    run = changed(perceptual=PerceptualSpec(3.0, "means.pt2", but_last=True), amp="off")
    with_term = Trainer(run, seed=0, device=CPU, features=tmp_path / "means.pt2")
    plain = Trainer(changed(amp="off"), seed=0, device=CPU)
    sharp, blurry = batch()
    _, noise = plain.drawn()
    last = plain.schedule.steps
    added = []
    for t in (torch.tensor([last, last]), torch.tensor([last, 1]), torch.tensor([2, 1])):
        losses = [x.loss(sharp, blurry, t, noise).item() for x in (with_term, plain)]
        added.append(losses[0] - losses[1])
    assert added[0] == 0 < added[1] < added[2]


class Says(torch.nn.Module):
    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: object) -> torch.Tensor:
        return self.answer


def test_with_restraint_less_detail_of_damaged_images_is_learned_but_at_the_last_step() -> None:
    trainer = Trainer(changed(restraint=2.0), seed=0, device=CPU)
    sharp, clean = (part[:1].repeat(3, 1, 1, 1) for part in batch(changed(degrade=BicubicSpec())))
    damage = 4 / 255 * torch.where(torch.rand(1, 3, 16, 16) < 0.5, -1, 1)
    blurry = clean + damage * torch.tensor([1, 0, 1]).view(3, 1, 1, 1)
    t, noise = torch.tensor([2, 2, trainer.schedule.steps]), torch.zeros(3, 48, 16, 16)
    x0, mean = trainer.autoencoder.encode(sharp * 2 - 1), torch.rand(48, 16, 16)
    trainer.average = Says(mean[None])  # type: ignore[assignment]
    trainer.replica = Says(torch.stack([mean + 0.2 * (x0[0] - mean), x0[1], x0[2]]))
    assert trainer.loss(sharp, blurry, t, noise).item() == pytest.approx(0, abs=1e-6)
    trainer.replica = Says(x0)
    assert trainer.loss(sharp, blurry, t, noise) > 1e-3


def test_an_autoencoder_can_come_from_the_file_of_a_model_that_holds_it(
    vq_weights: Path, tmp_path: Path
) -> None:
    trainer = Trainer(VQ_RUN, seed=0, device=CPU, autoencoder=vq_weights)
    states.export(trainer, tmp_path / "whole.safetensors")
    again = Trainer(VQ_RUN, seed=1, device=CPU, autoencoder=tmp_path / "whole.safetensors")
    for name, tensor in again.autoencoder.state_dict().items():
        assert torch.equal(tensor, trainer.autoencoder.state_dict()[name].half().float())


def test_a_file_of_another_autoencoder_is_refused_by_name(vq_weights: Path, tmp_path: Path) -> None:
    other = replace(VQ_RUN.model, autoencoder=small_vq_spec(codes=32))
    with pytest.raises(
        ModelUnavailableError, match=r"quantize.embedding.weight of shape \(16, 3\)"
    ):
        Trainer(replace(VQ_RUN, model=other), seed=0, device=CPU, autoencoder=vq_weights)


def test_no_gradient_goes_through_the_encoder(vq_weights: Path) -> None:
    trainer = Trainer(VQ_RUN, seed=0, device=CPU, autoencoder=vq_weights)
    loss_of(trainer, batch(VQ_RUN)).backward()  # type: ignore[no-untyped-call]  # torch's own
    assert all(p.grad is None for p in trainer.autoencoder.parameters())


def most_while_saving(path: Path) -> int:
    trainer = Trainer(RUN, seed=0, device=CPU)
    trainer.advance(*batch())
    tracemalloc.start()
    states.save(trainer, path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_saving_a_state_takes_no_second_copy_of_it(tmp_path: Path) -> None:
    assert apart(most_while_saving, tmp_path / "state.pt") < (
        (tmp_path / "state.pt").stat().st_size / 3
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs Unix limits")
def test_a_state_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    import resource

    trainer, path = Trainer(RUN, seed=0, device=CPU), tmp_path / "state.pt"
    states.save(trainer, path)
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"state\.pt can't be written"):
            states.save(trainer, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.full_size  # compiling takes a minute
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch
def test_a_compiled_network_trains_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain = after_two_steps(changed(amp="off"))
    compiled = after_two_steps(changed(amp="off", compile=True))
    assert compiled.keys() == plain.keys()
    for name in plain:
        assert_close(compiled[name], plain[name], rtol=0.0, atol=1e-4)
