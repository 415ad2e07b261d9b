"""Train a model of one step in ten minutes of a GPU: the mean, then samples.

    python scripts/train_on_gpu.py --photos DIR [--photos MORE] --out RUN     # on a card
    python scripts/train_on_gpu.py --photos DIR --out RUN --dry-run     # 20 steps: does it work?

Photos are decoded once to the card, cut and degraded there. Held-out photos are measured every
minute, and the best weights so far are written each time: RUN/mean.safetensors, then
RUN/model.safetensors. With `--check` the time that is left goes to the tests of CUDA's paths and to
scripts/measure_gpu.py, so that one call answers everything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from degrade_on_card import Photos, load
from torch import Tensor

from resshift_cli.system.device import choose_device
from resshift_cli.training import dataset, objective, photos, recipe, states, validation
from resshift_cli.training.photos import PhotoFiles, Pictures
from resshift_cli.training.recipe import Amp, RunSpec
from resshift_cli.training.trainer import Pair, Trainer, noise_shape

ROOT = Path(__file__).parents[1]
MEAN, SAMPLES = (ROOT / "training" / f"tiny-x4-{half}.toml" for half in ("mean", "samples"))
MINUTE = 60.0
STEADY = 20  # steps after which their time is known
FLOORS = (0.6, 0.3)  # dB over bicubic that samples have to keep, clean and damaged
CHECKS = (
    [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/system", "tests/diffusion"],
    [sys.executable, "scripts/measure_gpu.py"],
)


Held = tuple[list[Pair], list[Pair]]
"""Held-out pictures, clean and damaged."""


class OnCard(Trainer):
    """A trainer that draws noise where it computes."""

    def drawn(self) -> tuple[Tensor, Tensor]:
        """See `Trainer.drawn`."""
        train = self.run.train
        rng = torch.Generator(self.device).manual_seed(self.seed + self.step)
        numbers = np.random.default_rng([self.seed, self.step, 1])
        noise = torch.randn(noise_shape(self.run), generator=rng, device=self.device)
        t = objective.draw_steps(
            train.batch, self.schedule.steps, train.late_steps, train.last_share, numbers
        )
        return t, noise


@dataclass(frozen=True)
class Limits:
    """How long a half may take: minutes, or steps in a dry run."""

    minutes: float
    steps: int | None = None

    def over(self, started: float, done: int) -> bool:
        """Whether it is time to stop."""
        if self.steps is not None:
            return done >= self.steps
        return time.monotonic() - started >= self.minutes * MINUTE

    def whole(self, started: float, done: int) -> int:
        """About how many steps there will be in all."""
        if self.steps is not None:
            return self.steps
        share = (time.monotonic() - started) / (self.minutes * MINUTE)
        return max(round(done / max(share, 1e-3)), done + 1)


def score(found: dict[str, float]) -> tuple[bool, float]:
    """What makes weights better: gains of a mean, realism of samples that keep the floors."""
    gains = (found["gain_db"], found["damaged_gain_db"])
    if "realism" not in found:
        return True, sum(gains)
    kept = all(gain >= floor for gain, floor in zip(gains, FLOORS, strict=True))
    return kept, -(found["realism"] + found["damaged_realism"])


def half(trainer: Trainer, source: Photos, held_out: Held, limits: Limits, best: Path) -> None:
    """Train until the time is up, measuring every minute, and keep the best weights in a file."""
    started, measured = time.monotonic(), time.monotonic()
    first, so_far = trainer.step, (False, float("-inf"))
    over = False
    while not over:
        loss = trainer.advance(*source.batch())
        done = trainer.step - first
        over = limits.over(started, done)
        if done % STEADY == 0:
            train = replace(trainer.run.train, steps=limits.whole(started, done))
            trainer.run = replace(trainer.run, train=train)
        if over or time.monotonic() - measured >= MINUTE:
            found = measure(trainer, held_out)
            report = {"step": trainer.step, "loss": float(loss), **found}
            report["seconds"] = time.monotonic() - started
            print(json.dumps(report), flush=True)
            if score(found) > so_far:
                so_far = score(found)
                states.export(trainer, best)
            measured = time.monotonic()


def measure(trainer: Trainer, held_out: Held) -> dict[str, float]:
    """Of clean pictures, and of damaged ones."""
    clean, damaged = (validation.measure(trainer, pairs) for pairs in held_out)
    return clean | {f"damaged_{name}": value for name, value in damaged.items()}


def checks(seconds: Callable[[], float]) -> None:
    """Run what tries CUDA's paths, as far as the time goes."""
    for command in CHECKS:
        print("$", *command[1:], flush=True)
        try:
            subprocess.run(command, cwd=ROOT, timeout=max(seconds(), 1.0), check=False)
        except subprocess.TimeoutExpired:
            print("out of time", flush=True)


def read(config: Path, batch: int, on: torch.device) -> RunSpec:
    """A recipe for this device."""
    run = recipe.read(config)
    amp: Amp = "off" if on.type == "cpu" else "bf16"
    return replace(run, train=replace(run.train, batch=batch, amp=amp))


def main(
    folders: Annotated[list[Path], typer.Option("--photos", help="As for `resshift train`.")],
    out: Annotated[Path, typer.Option(help="Where weights are written.")],
    minutes: Annotated[float, typer.Option(help="Of training.")] = 7.0,
    share: Annotated[float, typer.Option(help="Of them, for the mean.")] = 0.6,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 64,
    check: Annotated[bool, typer.Option("--check", help="Then try CUDA's paths.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="20 steps on the CPU.")] = False,
) -> None:
    """Train both halves."""
    started = time.monotonic()
    on = torch.device("cpu") if dry_run else choose_device("auto")
    batch = 2 if dry_run else batch
    out.mkdir(parents=True, exist_ok=True)
    first = read(MEAN, batch, on)
    kept, held_out = photos.split(folders, ROOT / "training" / first.photos, paired=False)
    few = 2 if dry_run else first.train.validate_on
    measured = Pictures(PhotoFiles(held_out[:few]))
    pairs = (
        dataset.validation_pairs(measured, first.data),
        dataset.validation_pairs(measured, first.data, damaged=True),
    )
    pictures = load(kept[:8] if dry_run else kept, on)
    mean, best = out / "mean.safetensors", out / "model.safetensors"
    for config, part, file in ((MEAN, share, mean), (SAMPLES, 1 - share, best)):
        run = read(config, batch, on)
        source = Photos(pictures, run.data, on)
        trainer = OnCard(run, seed=0, device=on)
        if file is best:
            states.start_from(trainer, mean)
        seconds = time.monotonic() - started
        print(f"{file.name}: {len(source.pictures)} photos, {seconds:.0f} s after the start")
        half(trainer, source, pairs, Limits(part * minutes, 10 if dry_run else None), file)
    if check:
        checks(lambda: 9.5 * MINUTE - (time.monotonic() - started))


if __name__ == "__main__":
    typer.run(main)
