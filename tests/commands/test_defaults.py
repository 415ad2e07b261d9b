"""Defaults of one's own, from a file and from variables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Run

Configure = Callable[[str], Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes the configuration file."""
    file = tmp_path / "resshift.toml"
    monkeypatch.setenv("RESSHIFT_CONFIG", str(file))

    def write(text: str) -> Path:
        file.write_text(text)
        return file

    return write


def settings_of(ran_out: str) -> tuple[int, float]:
    (result,) = json.loads(ran_out)["results"]
    return result["steps"], result["scale"]


def test_line_variable_table_and_file_count_in_that_order(
    resshift: Run, photo: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("upscale", photo, "--model", "chain-x4", "--overwrite", "--json")
    configure("steps = 1\nscale = 2\n[upscale]\nscale = 3\n[batch]\nscale = 5\n")
    assert settings_of(resshift(*command).out) == (1, 3.0)
    monkeypatch.setenv("RESSHIFT_STEPS", "2")
    assert settings_of(resshift(*command).out) == (2, 3.0)
    assert settings_of(resshift(*command, "--steps", 3).out) == (3, 3.0)


def test_a_model_of_the_file_is_the_default_one_and_no_more(
    resshift: Run,
    photo: Path,
    tiny_weights: Path,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RESSHIFT_MODEL")
    configure("model = 'tiny-x4'\nsteps = 1\n")
    assert "tiny-x4, 1 step" in resshift("upscale", photo).err
    ran = resshift("upscale", photo, "--weights", tiny_weights, "--overwrite")
    assert "tiny.safetensors, 1 step" in ran.err


@pytest.mark.parametrize(
    "text, told",
    [
        ("stepz = 1", "has an unknown option 'stepz'. Did you mean 'steps'?"),
        ("[upscael]\nsteps = 1", "has an unknown table [upscael]. Did you mean 'upscale'?"),
        ("[upscale]\nmodel = 'tiny-x4'", "has a model in [upscale]. It stands above the tables"),
        (
            "[batch]\nfromat = 'png'",
            "unknown option 'fromat' in [batch]. Did you mean 'format'?",
        ),
        ("steps = ", "is no TOML"),
        ("steps = 'x'", "'x' is no whole number. It comes from"),
        ("device = 'gpu'", "'gpu' is none of auto, cpu, cuda, cuda:N, mps and xpu. It comes from"),
    ],
)
def test_mistakes_in_the_file_are_told_with_its_name(
    resshift: Run, photo: Path, configure: Configure, text: str, told: str
) -> None:
    file = configure(text)
    ran = resshift("upscale", photo)
    assert ran.code == 2
    assert told in ran.err and str(file) in ran.err
    assert resshift("upscale", "--help").code == 0


def test_doctor_tells_what_is_set_and_finds_what_is_misspelt(
    resshift: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("stepz = 1")
    monkeypatch.setenv("RESSHIFT_MODLE", "tiny-x4")
    monkeypatch.setenv("RESSHIFT_RELEASES", "https://me:secret@mirror.example")
    ran = resshift("doctor", "--offline", "--json")
    told = json.loads(ran.out)
    assert ran.code == 1
    assert any("'stepz'" in finding for finding in told["found"])
    assert any("RESSHIFT_MODLE" in finding for finding in told["found"])
    assert "secret" not in ran.out + ran.err


def test_doctor_tells_what_a_report_needs(resshift: Run, configure: Configure) -> None:
    ran = resshift("doctor", "--offline")
    for fact in ("resshift", "python", "torch", "device", "cache", "models here", "network"):
        assert f"\n{fact} " in f"\n{ran.out}"
    assert (ran.code, ran.err) == (0, "Nothing is found that should be mended.\n")


def test_a_size_on_the_command_line_silences_a_scale_of_the_file(
    resshift: Run, photo: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("steps = 1\nscale = 2\noverwrite = true\n[upscale]\nfit = '40x40'\n")
    command = ("upscale", photo, "--json")
    assert settings_of(resshift(*command).out) == (1, 2.0)  # by the box
    assert settings_of(resshift(*command, "--width=60").out) == (1, 3.0)
    monkeypatch.setenv("RESSHIFT_HEIGHT", "60")
    assert settings_of(resshift(*command).out) == (1, 5.0)
    assert resshift(*command, "--height", 60, "--skip-existing").code == 0
