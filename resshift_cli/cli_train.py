"""`resshift train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resshift_cli import console, jobs
from resshift_cli.errors import InputMissingError
from resshift_cli.options import DebugOption, DeviceOption, SeedOption


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", readable=False, help="TOML file, as training/tiny-x4.toml."
        ),
    ],
    photos: Annotated[
        Path,
        typer.Option(
            metavar="DIR", readable=False, help="The folder of pictures.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The folder of the run: its state, its metrics, and model.safetensors for "
            "--weights. A run that is there already goes on.",
            show_default=False,
        ),
    ],
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors", readable=False, help="A weight file to start from."
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Train a model, or go on where an earlier run was interrupted."""
    for path, kind, there in (
        (config, "file", config.is_file()),
        (photos, "folder", photos.is_dir()),
        (init, "file", init is None or init.is_file()),
    ):
        if not there:
            raise InputMissingError(f"There is no {kind} {path}.", hint="Check its name.")
    with console.waiting("Starting"):
        from resshift_cli import train as training
        from resshift_cli.device import choose_device

        total = training.read_config(config).train.steps
        run_on = choose_device(device)
    steps = training.train(config, photos, out, seed=seed, device=run_on, init=init)
    gain = ""
    try:
        with (
            jobs.memory_limit(f"Lower `batch` or `crop` in {config}."),
            console.progress(out.name, "steps") as advance,
        ):
            for metrics in steps:
                if "gain_db" in metrics:
                    gain = f", {metrics['gain_db']:+.2f} dB over bicubic"
                advance(int(metrics["step"]), total, f"loss {metrics['loss']:.4f}{gain}")
    except KeyboardInterrupt as interrupt:
        interrupt.args = ("the same command goes on from the last saved step",)
        raise
    weights = out / "model.safetensors"
    console.note(f"{total} steps of training are done{gain}: {weights}")
    console.result(weights)
