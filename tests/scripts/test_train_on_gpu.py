"""The ten minutes of a GPU, in a dry run: what is to work there has to work here."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from pictures import made_up_photo
from PIL import Image

from resshift_cli.diffusion.specs import read_spec

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_on_gpu.py"


def test_a_dry_run_ends_with_a_mean_and_samples(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    with (ROOT / "training" / "tiny-x4-photos.csv").open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            Image.fromarray(made_up_photo(number, 400)).save(photos / row["file"])
    words = [sys.executable, str(SCRIPT), "--photos", str(photos), "--out", str(out), "--dry-run"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert read_spec(out / "mean.safetensors").denoiser.noise_channels == 0
    assert read_spec(out / "model.safetensors").denoiser.noise_channels > 0
