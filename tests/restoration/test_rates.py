"""What is remembered of measurements."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_spec

from resshift_cli.errors import OutputError
from resshift_cli.restoration import rates
from resshift_cli.restoration.rates import Rate

CPU = torch.device("cpu")
SPEC = tiny_spec()
WIDER = tiny_spec(denoiser=replace(SPEC.denoiser, model_channels=64))
LAYOUT = rates.layout(SPEC)
ONE, TWO = Rate(64, 1, 2e9, None), Rate(128, 1, 3e9, 4e9)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESSHIFT_CACHE", str(tmp_path))
    return tmp_path


def remember(*measured: Rate, dtype: torch.dtype = torch.float32) -> None:
    rates.remember(SPEC, CPU, dtype, measured)


def test_nothing_is_known_of_a_machine_that_was_never_measured() -> None:
    assert rates.known(CPU, torch.float32) == {}


def test_what_is_remembered_is_known_later() -> None:
    remember(TWO)
    remember(ONE)
    assert rates.known(CPU, torch.float32) == {LAYOUT: (ONE, TWO)}


def test_a_later_measurement_takes_the_place_of_the_same_tile_and_batch() -> None:
    remember(ONE, TWO)
    again, batch = replace(ONE, denoising=5e9), replace(ONE, batch=4)
    remember(again, batch)
    assert rates.known(CPU, torch.float32) == {LAYOUT: (again, batch, TWO)}


def test_precisions_layouts_and_machines_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(ONE)
    remember(TWO, dtype=torch.bfloat16)
    rates.remember(WIDER, CPU, torch.float32, [TWO])
    assert rates.known(CPU, torch.float32)[LAYOUT] == (ONE,)
    assert rates.known(CPU, torch.bfloat16) == {LAYOUT: (TWO,)}
    monkeypatch.setattr(rates, "describe_machine", lambda: {"cpu": "another"})
    assert rates.known(CPU, torch.float32) == {}


def test_models_that_differ_in_their_chain_alone_share_a_layout() -> None:
    fewer = tiny_spec(schedule=replace(SPEC.schedule, steps=2), temperature=0.5)
    assert rates.layout(fewer) == LAYOUT
    assert rates.layout(WIDER) != LAYOUT


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "no JSON",
        lambda text: "[]",
        lambda text: text.replace('"tile": 64', '"tile": 0'),
        lambda text: text.replace('"tile": 64', '"tile": "64"'),
        lambda text: text.replace('"tile"', '"side"'),
    ],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(
    folder: Path, change: Callable[[str], str]
) -> None:
    remember(ONE)
    file = folder / "rates.json"
    file.write_text(change(file.read_text()))
    assert rates.known(CPU, torch.float32) == {}
    remember(TWO)
    assert rates.known(CPU, torch.float32) == {LAYOUT: (TWO,)}


def test_a_cache_that_can_t_be_written_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("RESSHIFT_CACHE", str(folder / "file"))
    with pytest.raises(OutputError):
        remember(ONE)


def test_the_machine_says_what_decides_how_fast_it_computes() -> None:
    machine = rates.describe_machine()
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__
    json.dumps(machine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_machine_is_measured_in_the_type_asked_for(dtype: torch.dtype) -> None:
    machine = rates.measure(CPU, dtype)
    assert (machine.device, machine.dtype) == (CPU, dtype)
    assert machine.flops > 1e8


def test_measuring_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    rates.measure(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
