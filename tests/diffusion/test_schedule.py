from __future__ import annotations

import json
from typing import Any

import pytest
from goldens_support import BUNDLED

from resshift_cli.diffusion.schedule import ShiftSchedule

GOLDENS: dict[str, dict[str, Any]] = json.loads((BUNDLED / "schedules.json").read_text("utf-8"))
DEFAULT = ShiftSchedule.geometric(steps=15, kappa=2.0, p=0.3, min_noise=0.04, sqrt_eta_end=0.99)


def build(golden: dict[str, Any]) -> ShiftSchedule:
    schedule = ShiftSchedule.geometric(
        steps=golden["steps"],
        kappa=golden["kappa"],
        p=golden["power"],
        min_noise=golden["min_noise_level"],
        sqrt_eta_end=golden["etas_end"],
    )
    return schedule.keep(tuple(i + 1 for i in golden["timesteps_told_to_network"]))


@pytest.mark.parametrize("name", GOLDENS)
def test_schedules_agree_with_the_reference_in_double_precision(name: str) -> None:
    golden = GOLDENS[name]
    schedule = build(golden)
    steps = range(1, schedule.steps + 1)
    posterior = [schedule.posterior(t) for t in steps]
    expect = {
        "sqrt_etas": list(schedule.sqrt_eta),
        "posterior_mean_coef1_times_x_t": [keep for keep, _, _ in posterior],
        "posterior_mean_coef2_times_x_0": [weight for _, weight, _ in posterior],
        "posterior_variance": [std**2 for _, _, std in posterior],
        "input_scale_factor": [schedule.input_scale(t) for t in steps],
    }
    for key, values in expect.items():
        assert values == pytest.approx(golden[key], rel=1e-12, abs=1e-15), key
    last = golden["prior_noise_std_kappa_sqrt_eta_last"]
    assert schedule.noise_std(schedule.steps) == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize("count", range(1, 16))
def test_fewer_steps_always_keep_the_last_one(count: int) -> None:
    schedule = DEFAULT.respaced(count)
    assert schedule.steps == count
    assert schedule.timesteps[-1] == 14
    assert schedule.sqrt_eta[-1] == DEFAULT.sqrt_eta[-1]
    assert list(schedule.timesteps) == sorted(set(schedule.timesteps))


def test_all_steps_are_the_schedule_itself() -> None:
    assert DEFAULT.respaced(15) == DEFAULT


def test_the_last_step_takes_the_prediction_as_it_is() -> None:
    assert DEFAULT.posterior(1) == (0.0, 1.0, 0.0)
    assert DEFAULT.respaced(1).posterior(1) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("count", [0, -1, 16])
def test_counts_outside_the_schedule_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="1..15"):
        DEFAULT.respaced(count)


@pytest.mark.parametrize("steps", [(), (3, 2), (2, 2), (0, 1), (1, 16)])
def test_steps_that_do_not_rise_within_the_schedule_are_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        DEFAULT.keep(steps)


@pytest.mark.parametrize("change", [{"steps": 1}, {"min_noise": 0.0}, {"sqrt_eta_end": 1.0}])
def test_numbers_that_give_no_rising_schedule_are_refused(change: dict[str, Any]) -> None:
    numbers: dict[str, Any] = {"steps": 15, "min_noise": 0.04, "sqrt_eta_end": 0.99} | change
    with pytest.raises(ValueError, match="a schedule needs"):
        ShiftSchedule.geometric(kappa=2.0, p=0.3, **numbers)
