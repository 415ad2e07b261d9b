"""What is said of who does a batch, before anybody does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import Run


@pytest.mark.parametrize(
    "options, words",
    [
        (["--address", "auto"], "takes --engine ray"),
        (["--engine", "dask"], "'dask' is not one of"),
        (["--engine", "ray", "--devices", "cpu,cpu"], "--devices are of this machine"),
    ],
)
def test_what_belongs_to_another_engine_is_refused(
    batch: Run, folder: Path, options: list[str], words: str
) -> None:
    ran = batch(folder, *options)
    assert (ran.code, words in ran.err, len(ran.err.splitlines())) == (2, True, 1)
    assert not folder.with_name("in_x4").exists()


def test_without_ray_one_line_says_what_to_install(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = batch(folder, "--engine", "ray")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "pip install 'resshift[ray]'" in ran.err
    assert not folder.with_name("in_x4").exists()
    assert batch(folder).code == 0
