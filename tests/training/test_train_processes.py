"""Training runs that are killed, and runs of several processes: real ones, on the command line."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from command_line import Ran
from tiny_run import write_config
from torch.testing import assert_close

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TRAIN = [sys.executable, "-m", "resshift_cli", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def start(command: list[str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trained(*arguments: object) -> Ran:
    return forked.run("train", *arguments, environment=ENVIRONMENT)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def state(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "state.pt", weights_only=True)
    return loaded


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """All leaves of nested tables and lists, by their place."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in flat(inner, f"{name}.{key}").items()}
    return {name: value}


@pytest.mark.parametrize(
    ("changes", "workers"), [({}, 0), ({"batch": 4, "accumulate": 2, "amp": "bf16"}, 1)]
)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_very_same_weights(
    photos: Path, tmp_path: Path, changes: dict[str, Any], workers: int
) -> None:
    config = write_config(
        tmp_path / "run.toml", steps=8, save_every=2, validate_every=8, samples=0, **changes
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ran = trained(config, "--photos", photos, "--out", whole)
    assert ran.code == 0, ran.err

    command = [config, "--photos", photos, "--out", parts, "--workers", workers]
    metrics = parts / "metrics.jsonl"
    rng = random.Random()  # another moment each time: none may matter
    for _ in range(2 - bool(workers)):
        before = metrics.read_bytes() if metrics.exists() else b""
        process = start(TRAIN, *command)
        while process.poll() is None and (not metrics.exists() or metrics.read_bytes() == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        finish(process)
    ran = trained(*command)
    assert ran.code == 0, ran.err
    assert ran.out.strip() == str(parts / "model.safetensors")

    expected, actual = flat(state(whole)), flat(state(parts))
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        same = torch.equal(actual[name], value) if isinstance(value, torch.Tensor) else None
        assert actual[name] == value if same is None else same, name
    files = [(folder / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert files[0] == files[1]
    told = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds_per_step"}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (whole, parts)
    ]
    assert told[0] == told[1]


def test_two_processes_train_to_the_weights_of_one(photos: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "run.toml", steps=3, batch=4, accumulate=2, amp="off", samples=0
    )
    common = [config, "--photos", photos, "--device", "cpu", "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = trained(*common, one)
    code, out, err = finish(start(TORCHRUN, "-m", "resshift_cli", "train", *common, two))
    assert code == 0, err
    assert out.strip() == str(two / "model.safetensors")  # said by the first process alone
    assert err.count("steps of training are done") == 1
    assert alone.code == 0, alone

    for name, tensor in state(one)["weights"].items():
        # A twentieth of a step: Adam makes as much of tiny gradients as of large ones.
        assert_close(state(two)["weights"][name], tensor, rtol=0.0, atol=1e-4)
    told = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one, two)
    ]
    assert [m["step"] for m in told[1]] == [m["step"] for m in told[0]]
    assert [m["loss"] for m in told[1]] == pytest.approx([m["loss"] for m in told[0]], rel=1e-3)
    (session,) = json.loads((two / "environment.json").read_text())["sessions"]
    assert session["processes"] == 2


def each(config: Path, folders: str, out: Path) -> list[str]:
    """What `torchrun` runs where the folder of pictures has the process' number in its name."""
    command = f'exec "{sys.executable}" -m resshift_cli train "{config}" --device cpu'
    return ["--no-python", "sh", "-c", f'{command} --photos "{folders}$RANK" --out "{out}"']


def test_an_error_in_one_process_ends_all(photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.toml", steps=1000, save_every=1000)
    (tmp_path / "set0").symlink_to(photos)
    (tmp_path / "set1").mkdir()  # it is empty
    code, out, err = finish(start(TORCHRUN, *each(config, f"{tmp_path}/set", tmp_path / "run")))
    assert code != 0 and out == ""
    assert f"{tmp_path}/set1 has too few images" in err
    assert not (tmp_path / "run").exists()


def test_processes_with_different_pictures_do_not_begin(photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.toml", steps=1000, save_every=1000)
    (tmp_path / "set0").symlink_to(photos)
    (tmp_path / "set1").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "set1" / name).symlink_to(photos / name)
    code, _, err = finish(start(TORCHRUN, *each(config, f"{tmp_path}/set", tmp_path / "run")))
    assert code != 0
    assert "processes of this run have different configurations, photos or states" in err
    assert not (tmp_path / "run").exists()
