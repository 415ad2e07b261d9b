"""What tests of batches look at: the results in a folder, and its ledger."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import files as files_of
from PIL import Image

from resshift_cli.batch import ledger

OURS = (ledger.NAME, ledger.LOCK)

CUTTING = """
from resshift_cli import __main__
from resshift_cli.batch import plan
plan.LARGE = 36 * 36
__main__.main()
"""
"""The command, for which images of more than 9x9 pixels are large; workers are told of bands."""


def results(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder of results but what the batch keeps for itself."""
    return {name: content for name, content in files_of(folder).items() if name not in OURS}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The ledger, without what was about to be written."""
    book = folder / ledger.NAME
    found = map(json.loads, book.read_text().splitlines() if book.exists() else ())
    return [line for line in found if line["status"] != "writing"]


def hook(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Have processes run something when they start."""
    place = folder.with_name("hook")
    place.mkdir()
    (place / "sitecustomize.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", f"{place}:{os.getcwd()}")


def make_animation(path: Path, frames: int = 3) -> Path:
    still = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    images = []
    for number in range(frames):
        pixels = still.copy()
        pixels[:, number] = 255
        images.append(Image.fromarray(pixels))
    images[0].save(path, save_all=True, append_images=images[1:], duration=70, loop=0)
    return path
