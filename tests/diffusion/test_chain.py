from __future__ import annotations

from functools import cache, partial
from typing import Literal

import pytest
import torch
from goldens_support import (
    BUNDLED,
    COMPLETE,
    DECODED,
    NETWORK,
    assert_parity,
    golden_unet,
    golden_vq,
    needs_complete,
)
from safetensors.torch import load_file
from tiny_model import output_and_target
from torch import Tensor

from resshift_cli.diffusion import chain
from resshift_cli.diffusion.chain import ChainState
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.restoration.resize import enlarge

T15 = ShiftSchedule.geometric(steps=15, kappa=2.0, p=0.3, min_noise=0.04, sqrt_eta_end=0.99)
T4 = ShiftSchedule.geometric(steps=4, kappa=2.0, p=0.3, min_noise=0.2, sqrt_eta_end=0.99)
OFFICIAL_5 = T15.keep((1, 4, 7, 10, 13))

ROUNDING = 1e-6
ONE_STEP = 1e-4
FREE_RUNNING = {"chain15": 1e-3, "chain15_respace5": 3e-4, "chain4": 2e-4, "chain4_inpaint": 2e-4}


def denoiser_of(name: str) -> Denoiser:
    manifest = "unet_small_mask" if name == "chain4_inpaint" else "unet_small"
    return Denoiser(golden_unet(manifest), predict="x0", precondition=False)


@cache
def replay(name: str, complete: bool) -> tuple[dict[str, Tensor], list[ChainState[Tensor, Tensor]]]:
    """Run a whole chain with the stored noise, from the low-quality image on."""
    folder = COMPLETE if complete else BUNDLED
    assert folder is not None
    golden = load_file(folder / f"{name}.safetensors")
    schedule = {"chain15": T15, "chain15_respace5": OFFICIAL_5}.get(name, T4)
    steps = golden["noise_steps"]
    lq = golden["y"]
    image = lq if name == "chain4_inpaint" else enlarge(lq, 4)
    if name == "chain4_inpaint":
        lq = torch.cat([lq, golden["mask"]], dim=1)

    denoiser = denoiser_of(name)
    with torch.inference_mode():
        y0 = golden_vq("vq_small").encode(image)
        states = chain.walk(
            chain.prior(y0, golden["noise_init"], schedule),
            lambda x_t, t: denoiser(x_t, y0, lq, schedule, torch.tensor([t])),
            partial(chain.Ancestral(schedule).step, noise=lambda t: steps[schedule.steps - t]),
            schedule.steps,
        )
        return golden, list(states)


WITH_IMAGE = [
    pytest.param("chain15", False, id="chain15"),
    *(
        pytest.param(name, True, id=f"complete-{name}", marks=needs_complete)
        for name in FREE_RUNNING
    ),
]
CHAINS = [
    *(pytest.param(name, False, id=name) for name in ("chain15_respace5", "chain4")),
    *WITH_IMAGE,
]


@pytest.mark.parametrize(("name", "complete"), CHAINS)
def test_every_intermediate_latent_of_the_chain_agrees_with_the_reference(
    name: str, complete: bool
) -> None:
    golden, states = replay(name, complete)
    assert len(states) == len(golden["x_t"])
    for state, x_t in zip(states, golden["x_t"], strict=True):
        assert_parity(state.x_t, x_t, FREE_RUNNING[name])
    assert_parity(states[-1].x0, golden["final_latent"], FREE_RUNNING[name])


@pytest.mark.parametrize(("name", "complete"), CHAINS)
def test_the_chain_starts_at_the_reference_s_prior(name: str, complete: bool) -> None:
    golden, states = replay(name, complete)
    assert_parity(states[0].x_t, golden["x_t"][0], NETWORK)


@pytest.mark.parametrize(("name", "complete"), WITH_IMAGE)
def test_the_final_image_decodes_from_the_chain_s_codes(name: str, complete: bool) -> None:
    golden, _ = replay(name, complete)
    decoder = golden_vq("vq_small", quantize=False)
    with torch.inference_mode():
        decoded = decoder.decode(golden["z_q"])
    assert_parity(decoded, golden["decoded"], 1e-3)


@needs_complete
@pytest.mark.parametrize("name", FREE_RUNNING)
def test_a_single_step_from_the_reference_s_latent_predicts_its_x0(name: str) -> None:
    golden, _ = replay(name, True)
    denoiser = denoiser_of(name)
    schedule = {"chain15": T15, "chain15_respace5": OFFICIAL_5}.get(name, T4)
    lq = golden["y"]
    if name == "chain4_inpaint":
        lq = torch.cat([lq, golden["mask"]], dim=1)
    for i, x_t in enumerate(golden["x_t"]):
        with torch.inference_mode():
            t = torch.tensor([schedule.steps - i])
            x0 = denoiser(x_t, golden["z_y"], lq, schedule, t)
        assert_parity(x0, golden["pred_x0"][i], ONE_STEP)


@needs_complete
@pytest.mark.parametrize("name", ["chain15", "chain4"])
def test_the_unquantised_image_agrees_after_the_whole_chain(name: str) -> None:
    golden, states = replay(name, True)
    decoder = golden_vq("vq_small", quantize=False)
    with torch.inference_mode():
        exact = decoder.decode(golden["final_latent"])
        free = decoder.decode(states[-1].x0)
    assert_parity(exact, golden["decoded_noquant"], DECODED)
    assert_parity(free, golden["decoded_noquant"], 1e-2)


def test_the_forward_process_agrees_with_the_reference() -> None:
    golden = load_file(BUNDLED / "forward.safetensors")
    t = golden["q.t"] + 1
    x_t = chain.shift(golden["q.x0"], golden["q.y"], golden["q.noise"], T15, t)
    assert_parity(x_t, golden["q.x_t"], ROUNDING)
    for i, step in enumerate(t.tolist()):
        scaled = x_t[i] * T15.input_scale(step)
        assert_parity(scaled, golden["q.scaled_x_t"][i], ROUNDING)
        keep, weight, std = T15.posterior(step)
        mean = keep * x_t[i] + weight * golden["q.x0"][i]
        assert_parity(mean, golden["post.mean"][i], ROUNDING)
        assert std**2 == pytest.approx(golden["post.variance"][i].item(), rel=1e-6)
    assert_parity(chain.prior(golden["q.y"], golden["q.noise"], T15), golden["prior.x_T"], ROUNDING)


def test_students_start_at_the_full_strength_of_the_noise() -> None:
    golden = load_file(BUNDLED / "student_small.safetensors")
    start = chain.prior(golden["z_y"], golden["zT_noise"], T15, "kappa")
    assert_parity(start, golden["z_T"], ROUNDING)


@needs_complete
@pytest.mark.parametrize(("predict", "name"), [("x0", "xstart"), ("residual", "residual")])
def test_predictions_and_their_errors_in_training_agree_with_the_reference(
    predict: Literal["x0", "residual"], name: str
) -> None:
    assert COMPLETE is not None
    golden = load_file(COMPLETE / "forward.safetensors")
    codec = golden_vq("vq_small")
    denoiser = Denoiser(golden_unet("unet_small"), predict=predict, precondition=False)
    t = golden["train.t"] + 1
    with torch.inference_mode():
        x0 = codec.encode(golden["train.hr"])
        y0 = codec.encode(enlarge(golden["train.lr"], 4))
        x_t = chain.shift(x0, y0, golden["train.noise"], T15, t)
        predicted = denoiser(x_t, y0, golden["train.lr"], T15, t)
        output, target = output_and_target(denoiser, x0, x_t, y0, golden["train.lr"], T15, t)
    assert_parity(x_t, golden["train.z_t"], NETWORK)
    assert_parity(predicted, golden[f"train.{name}.pred_z0"], NETWORK)
    error = (output - target).square().mean((1, 2, 3))
    assert error.tolist() == pytest.approx(golden[f"train.{name}.mse"].tolist(), rel=1e-5)


def test_a_network_that_knows_the_answer_leads_the_chain_to_it() -> None:
    torch.manual_seed(0)
    x0, y0 = torch.randn(2, 1, 3, 8, 8).unbind()
    start = chain.prior(y0, torch.randn_like(y0), T15)
    step = partial(chain.Ancestral(T15).step, noise=lambda t: torch.randn_like(y0))
    states = chain.walk(start, lambda x_t, t: x0, step, T15.steps)
    assert torch.equal(list(states)[-1].x0, x0)


@pytest.mark.parametrize("steps", [1, 2, 15])
def test_every_step_but_the_last_draws_noise(steps: int) -> None:
    drawn = []

    def noise(t: int) -> Tensor:
        drawn.append(t)
        return torch.zeros(1, 3, 8, 8)

    step = partial(chain.Ancestral(T15.respaced(steps)).step, noise=noise)
    list(chain.walk(torch.zeros(1, 3, 8, 8), lambda x_t, t: x_t, step, steps))
    assert drawn == list(range(steps, 1, -1))
