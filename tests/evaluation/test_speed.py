"""`resshift bench`: every measurement is real, in processes of its own, of a small model."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from command_line import Run
from PIL import Image
from safetensors.torch import save_file
from tiny_model import tiny_networks, tiny_spec

from resshift_cli.commands import app as cli
from resshift_cli.commands import choice, exits, progress
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import InputMissingError, ResShiftError, UsageError
from resshift_cli.evaluation import speed, worker
from resshift_cli.evaluation.trial import Load, Trial, Way, plan_trial
from resshift_cli.evaluation.turns import Turns
from resshift_cli.restoration import counting, estimate, rates
from resshift_cli.restoration import settings as plan
from resshift_cli.system.progress import calling
from resshift_cli.weights import checkpoint, registry

CPU = torch.device("cpu")
SPEC = tiny_spec()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RESSHIFT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def report(tiny_weights: Path, cache: Path) -> dict[str, Any]:
    """What one run of the command printed, while this process held more memory than it took."""
    ballast = np.ones(1 << 27)  # a GiB, touched
    options = "--precision fp32 --precision bf16 --plain --tile 16 --batch 2 --steps 2 --repeat 2"
    with redirect_stdout(io.StringIO()) as printed:
        code = cli.run(["bench", "--weights", str(tiny_weights), "--json", *options.split()])
    assert code == 0 and ballast.any()
    document: dict[str, Any] = json.loads(printed.getvalue())
    return document


def make(size: int | None = None) -> Trial:
    load = Load(tile=16, batch=1, size=size, steps=1)
    return plan_trial("tiny", SPEC, None, device=CPU, way=Way("fp32"), load=load)


def rows(report: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple(report["rows"])


def test_every_precision_is_measured_and_the_plain_path_after_them(report: dict[str, Any]) -> None:
    named = [(row["precision"], row["plain"]) for row in rows(report)]
    assert named == [("fp32", False), ("bf16", False), ("fp32", True)]
    assert report["errors"] == []


def test_the_image_is_one_batch_of_tiles_without_overlap(report: dict[str, Any]) -> None:
    for row in rows(report):
        assert (row["width"], row["height"], row["overlap"]) == (32, 16, 0)
        assert row["output_megapixels"] == 32 * 16 * 16 / 1e6
        assert row["flops"] == 2 * 2 * counting.denoiser(SPEC.denoiser).call.of(16 * 16)


def test_numbers_of_a_row_agree_with_each_other(report: dict[str, Any]) -> None:
    for row in rows(report):
        low, median, high = (row["seconds"][name] for name in ("low", "median", "high"))
        assert 0 < min(row["runs"]) <= low <= median <= high <= max(row["runs"])
        assert median == pytest.approx(row["seconds_per_megapixel"]["median"] * 32 * 16 * 16 / 1e6)
        assert row["flops_per_second"] == pytest.approx(row["flops"] / median)
        share = row["flops_per_second"] / row["peak_flops_per_second"]
        assert row["share_of_peak"] == pytest.approx(share)
        assert len(row["runs"]) == 2
        assert all(seconds > 0 for seconds in row["start"].values())


def test_memory_is_that_of_the_measured_process_alone(report: dict[str, Any]) -> None:
    for row in rows(report):
        assert 100 << 20 < row["peak_bytes"] < 800 << 20


def test_ratios_are_of_runs_that_took_turns(report: dict[str, Any]) -> None:
    fast, half, plain = rows(report)
    assert "times_plain" not in plain
    for row in (fast, half):
        pairs = [slow / quick for slow, quick in zip(plain["runs"], row["runs"], strict=True)]
        assert row["times_plain"]["median"] == pytest.approx(sum(pairs) / 2)


def test_later_estimates_go_by_what_was_measured(report: dict[str, Any], cache: Path) -> None:
    machine = rates.measure(CPU, torch.float32)
    settings = plan.settings(SPEC, name="tiny", steps=2, tile=16, overlap=0)
    expected = estimate.estimate(SPEC, machine, settings, height=16, width=32, batch=2)
    assert expected.seconds == pytest.approx(report["rows"][0]["seconds"]["median"], rel=0.01)
    assert [rate.tile for rate in machine.rates[rates.layout(SPEC)]] == [16]


def test_the_machine_and_the_day_are_told(report: dict[str, Any]) -> None:
    assert report["machine"] == rates.describe_machine() | {"device": "cpu"}
    assert report["date"].startswith("20")


# Comparing


def test_the_same_rows_are_compared(report: dict[str, Any]) -> None:
    now, earlier = copy.deepcopy(report), copy.deepcopy(report)
    earlier["rows"][1]["seconds_per_megapixel"]["median"] *= 2
    speed.compare(now, earlier)
    assert [row["times_earlier"] for row in rows(now)] == pytest.approx([1, 2, 1])
    difference = now["comparison"]
    assert not difference["machine"] and not difference["only_now"] + difference["only_earlier"]


def test_what_does_not_match_is_named(report: dict[str, Any]) -> None:
    now, earlier = copy.deepcopy(report), copy.deepcopy(report)
    now["rows"][0]["tile"], earlier["rows"][2]["steps"] = 32, 1
    earlier["machine"]["cpu"] = "abacus"
    speed.compare(now, earlier)
    assert ["times_earlier" in row for row in rows(now)] == [False, True, False]
    difference = now["comparison"]
    assert [row["tile"] for row in difference["only_now"]] == [32, 16]
    assert [row["tile"] for row in difference["only_earlier"]] == [16, 16]
    assert difference["machine"] == {"cpu": ["abacus", report["machine"]["cpu"]]}


def test_people_read_a_table_and_how_it_compares(
    report: dict[str, Any], tmp_path: Path, resshift: Run
) -> None:
    earlier = copy.deepcopy(report)
    earlier["machine"]["cpu"] = "abacus"
    earlier["rows"][0] |= {"model": "tiny-x4", "tile": 32, "batch": 1, "width": 32, "height": 32}
    earlier["rows"][0]["steps"] = 1
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps(earlier))
    options = "--model tiny-x4 --precision fp32 --tile 32 --steps 1 --repeat 1"
    ran = resshift("bench", "--compare", file, *options.split())
    assert ran.code == 0
    header, row = ran.out.splitlines()
    assert header.split()[:4] == ["MODEL", "IN", "TILE", "BATCH"]
    assert row.split()[:4] == ["tiny-x4", "fp32", "32", "1"] and row.endswith("x")
    assert "measured with cpu abacus" in ran.err
    assert ran.err.count(f"Only in {file}") == 2


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"rows": [{}]}', "{}"])
def test_another_file_is_not_compared_with(tmp_path: Path, text: str, resshift: Run) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    ran = resshift("bench", "--compare", file)
    assert ran.code == UsageError.exit_code and "no result of" in ran.err


def test_a_missing_file_is_not_compared_with(tmp_path: Path, resshift: Run) -> None:
    ran = resshift("bench", "--compare", tmp_path / "none.json")
    assert ran.code == InputMissingError.exit_code and "none.json" in ran.err


# What can go wrong


@pytest.mark.parametrize(
    "options, words",
    [
        ("--model none-x4", "no model named"),
        ("--model inpaint-face", "inpainting"),
        ("--precision fp8", "'fp8'"),
        ("--device gpu", "'gpu'"),
        ("--model chain-x4 --tile 8", "tile of 8 px"),
        ("--tile 0", "0 is not 1 or more"),
        ("--batch 0", "0 is not 1 or more"),
        ("--steps 99", "not 99"),
        ("--repeat 0", "repeat"),
        ("--weights mine.safetensors --random", "--random"),
        ("--weights mine.safetensors --model tiny-x4 --model face", "--model"),
    ],
)
def test_what_can_t_be_measured_is_refused_at_once(options: str, words: str, resshift: Run) -> None:
    ran = resshift("bench", *options.split())
    assert ran.code == UsageError.exit_code
    assert words in ran.err and ran.out == ""


def test_a_larger_image_is_cut_with_the_usual_overlap() -> None:
    trial = make(size=100)
    assert (trial.width, trial.height) == (100, 100)
    assert trial.overlap == 4


def test_one_trial_that_fails_leaves_the_others(tmp_path: Path) -> None:
    gone = replace(make(), weights=str(tmp_path / "gone.safetensors"))
    turns, told = Turns([gone, make()]), list[Trial]()
    turns.run(1, told.append)
    (row,) = turns.facts()
    assert row["random_weights"]
    ((failed, error),) = turns.failures
    assert failed is gone
    assert isinstance(error, ResShiftError) and error.exit_code == InputMissingError.exit_code
    assert "gone.safetensors" in str(error) and error.hint


def test_a_process_that_dies_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PROGRAM", "import os; os.kill(os.getpid(), 9)")
    turns = Turns([make()])
    turns.run(1, lambda trial: None)
    ((_, error),) = turns.failures
    assert "status -9" in str(error) and "--tile" in error.hint
    assert turns.facts() == []


def test_a_job_that_could_only_be_done_otherwise_is_no_measurement(tmp_path: Path) -> None:
    denoiser, _ = tiny_networks(SPEC)
    denoiser.network.get_parameter("out.2.weight").data *= 1e9
    file = tmp_path / "large.safetensors"
    checkpoint.save_model(file, SPEC, denoiser.network)
    turns = Turns([replace(make(), weights=str(file), precision="fp16")])
    turns.run(1, lambda trial: None)
    ((_, error),) = turns.failures
    assert "not finite" in str(error) and turns.facts() == []


def test_interrupted_it_prints_what_is_known_and_leaves_no_process(
    resshift: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(done: int, total: int) -> None:
        if done == 3:  # the warm-up, and two of five runs
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "silent", calling(interrupted))
    options = "--model tiny-x4 --precision fp32 --tile 32 --steps 1 --repeat 5 --json -q"
    before = psutil.Process().children()
    ran = resshift("bench", *options.split())
    assert ran.code == exits.INTERRUPTED
    assert len(json.loads(ran.out)["rows"][0]["runs"]) == 2
    assert ran.err.splitlines()[-1] == "Interrupted; 3 of 6 runs were done."
    assert psutil.Process().children() == before


def test_the_network_is_measured_that_the_files_header_tells(
    resshift: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def student(planes: int) -> ModelSpec:
        inner = replace(SPEC.denoiser, noise_channels=planes)
        return tiny_spec(denoiser=inner, precondition=False, max_steps=1)

    denoiser, _ = tiny_networks(student(2))
    file = tmp_path / "student.safetensors"
    save_file(dict(denoiser.network.state_dict()), file, {"noise_channels": "2"})
    table = replace(registry.find("tiny-x4"), spec=student(1))
    entry = registry.of_file(file, table)
    monkeypatch.setattr(choice, "choose", lambda which: entry)
    options = "--precision fp32 --tile 16 --steps 1 --repeat 1 --json"
    ran = resshift("bench", *options.split())
    assert ran.code == 0
    (row,) = json.loads(ran.out)["rows"]
    assert row["flops"] == counting.denoiser(student(2).denoiser).call.of(16 * 16)


# The chart


def test_a_chart_is_drawn_of_what_was_printed(report: dict[str, Any], tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "plot_bench.py"
    spec = importlib.util.spec_from_file_location("plot_bench", script)
    assert spec is not None and spec.loader is not None
    plot_bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plot_bench)
    (tmp_path / "bench.json").write_text(json.dumps(report))
    plot_bench.draw(tmp_path / "bench.json", tmp_path / "bench.png")
    with Image.open(tmp_path / "bench.png") as chart:
        assert chart.width == 800
        assert len(chart.convert("RGB").getcolors(1 << 20) or []) > 10
