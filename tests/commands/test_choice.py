"""Which model does the work, and what is told of its time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import Run, make_photo

from resshift_cli.commands import choice
from resshift_cli.commands.groups import Computation, Machine, Model
from resshift_cli.weights import registry, store

ON_A_CPU = Machine(device="cpu", precision="fp32")
TWELVE_MEGAPIXELS = choice.Job({(3000, 4000): 1}, Computation(steps=4), ON_A_CPU)


@pytest.fixture
def nobody_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is named, and the network must not be asked for the default one."""
    monkeypatch.delenv("RESSHIFT_MODEL")
    monkeypatch.setattr(store, "reachable", lambda entry, within: pytest.fail("it was asked for"))


@pytest.mark.usefixtures("nobody_named_one")
def test_nobody_is_made_to_fetch_and_wait_for_what_he_did_not_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    which, bundled = Model(), registry.find("chain-x4")
    assert choice.settle(choice.candidate(which), which, TWELVE_MEGAPIXELS) == bundled
    said = capsys.readouterr().err
    assert "using chain-x4, which is bundled" in said
    for fact in (
        "realsr-x4-v2",
        "699 MB",
        "no commercial use",
        " h here",
        "models pull",
        "--model",
    ):
        assert fact in said


@pytest.mark.usefixtures("nobody_named_one")
def test_the_best_bundled_model_does_it_unless_more_steps_are_asked_for_than_it_has() -> None:
    which, job = Model(), choice.Job({(3000, 4000): 1}, Computation(), ON_A_CPU)
    assert choice.settle(choice.candidate(which), which, job) == registry.find("tiny-x4")
    assert choice.choose(Model(offline=True)).name == "tiny-x4"
    assert choice.choose(Model(offline=True), steps=4).name == "chain-x4"


def test_a_model_that_was_named_is_never_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    which = Model(model="realsr-x4-v2")
    assert choice.settle(choice.candidate(which), which, TWELVE_MEGAPIXELS).name == which.model
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("nobody_named_one")
def test_files_are_looked_at_before_the_network_is_asked(resshift: Run, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    assert resshift("upscale", tmp_path / "text.png").code == 4


def test_long_work_is_told_with_what_is_faster_for_every_model(
    resshift: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "QUICK", 0)
    monkeypatch.setattr(choice, "LONG", 0.001)
    photo = make_photo(tmp_path / "photo.png", 40, 30)
    ran = resshift("upscale", photo, "--model", "chain-x4", "--steps", 5, "--scale", 6)
    (line,) = [line for line in ran.err.splitlines() if "will take" in line]
    told = r"This will take about .+ on this machine\. Faster: --steps 1 \(about .+\); --scale 4 \("
    assert re.match(told, line)
