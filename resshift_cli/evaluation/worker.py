"""A process of its own for each trial, so that its peak of memory and its start are its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.errors import ResShiftError, out_of_memory
from resshift_cli.evaluation.timing import Run, Start
from resshift_cli.evaluation.trial import Trial
from resshift_cli.restoration import rates
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system.device import peak_memory, synchronize
from resshift_cli.weights import checkpoint

# What the process runs. It imports from where this one does.
_PROGRAM = """
import sys, time
sys.path[:] = sys.argv[1:]
began = time.perf_counter()
import torch
loaded = time.perf_counter()
from resshift_cli.evaluation import worker
worker.serve(began, loaded)
"""
_SMALLER = "Take smaller tiles (--tile), or fewer at a time (--batch)."


class Worker:
    """A process that measures one trial, and runs it once whenever it is told to.

    It is no part of this process' group, so that Ctrl-C reaches this process alone.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._say(json.dumps(asdict(trial)))
        except BaseException:
            self.close()
            raise

    def started(self) -> Start:
        """Wait until it is ready.

        Raises:
            ResShiftError: it failed.
        """
        return Start(**self._reply())

    def run(self) -> Run:
        """Have it run once.

        Raises:
            ResShiftError: it failed.
        """
        self._say("")
        return Run(**self._reply())

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ResShiftError(
                f"The process that measured {self._trial.title} ended with status "
                f"{self._process.wait()}.",
                hint=f"Where memory ran out: {_SMALLER}",
            )
        reply: dict[str, Any] = json.loads(line)
        if "message" in reply:
            error = ResShiftError(reply["message"], hint=reply["hint"])
            error.exit_code = reply["exit_code"]
            raise error
        return reply

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; `_reply` tells how
            print(line, file=self._process.stdin, flush=True)


def serve(began: float, loaded: float) -> None:
    """Be the process of a `Worker`: a trial comes in on stdin, answers go to stdout.

    Args:
        began: when the import of torch began, in `time.perf_counter()`.
        loaded: when it was done.
    """
    try:
        for answer in _measured(Trial(**json.loads(sys.stdin.readline())), began, loaded):
            print(json.dumps(asdict(answer)), flush=True)
            if not sys.stdin.readline():
                return
    except Exception as error:
        if out_of_memory(error):
            error = ResShiftError("There is not enough memory.", hint=_SMALLER)
        if not isinstance(error, ResShiftError):
            raise
        print(json.dumps(error.facts()), flush=True)


def _measured(trial: Trial, began: float, loaded: float) -> Iterator[Start | Run]:
    """Load a model and warm it up; then run it for every further item that is asked for."""
    upscaler, watch = _load(trial)
    settings = trial.settings()
    generator = np.random.default_rng(0)
    pixels = generator.random((trial.height, trial.width, 3), np.float32)

    ready = time.perf_counter()
    first: list[float] = []
    upscaler.enlarge(pixels, settings, lambda done, total: first.append(time.perf_counter()))
    yield Start(loaded - began, ready - loaded, first[0] - ready)
    while True:
        watch.seconds = 0.0
        started = time.perf_counter()
        upscaler.enlarge(pixels, settings)
        seconds = time.perf_counter() - started
        memory = peak_memory(upscaler.device)
        machine = rates.measure(upscaler.device, upscaler.dtype)
        yield Run(seconds, watch.seconds, machine.flops, memory)


def _load(trial: Trial) -> tuple[Upscaler, _Stopwatch]:
    """The model, run in the trial's way, and a watch over its autoencoder."""
    spec = trial.read_spec()
    torch.manual_seed(0)  # of random weights
    if trial.weights is None:
        denoiser, codec = checkpoint.build(spec)
    else:
        inner = None if trial.autoencoder is None else Path(trial.autoencoder)
        denoiser, codec = checkpoint.load(spec, Path(trial.weights), inner)
    upscaler = Upscaler(
        spec,
        denoiser,
        codec,
        name=trial.model,
        device=trial.device,
        precision=trial.precision,
        tile_batch=trial.batch,
        compiled=trial.compiled,
        tell=_refuse,
    )
    if trial.plain:
        from resshift_cli.evaluation.unoptimised import unoptimise

        for network in (denoiser, codec):
            unoptimise(network)
    return upscaler, _Stopwatch(codec, upscaler.device)


def _refuse(sentence: str) -> None:
    """What is done otherwise than the trial says must not be measured as if it were the trial."""
    raise ResShiftError(
        f"It could not be measured as asked for. {sentence}",
        hint="Take smaller tiles (--tile), fewer at a time (--batch), or another --precision.",
    )


class _Stopwatch:
    """Time spent in an autoencoder.

    Attributes:
        seconds: so far.
    """

    def __init__(self, codec: Autoencoder, device: torch.device) -> None:
        self.seconds = 0.0

        def timed(run: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
            def call(given: torch.Tensor) -> torch.Tensor:
                synchronize(device)
                started = time.perf_counter()
                result = run(given)
                synchronize(device)
                self.seconds += time.perf_counter() - started
                return result

            return call

        codec.encode = timed(codec.encode)  # type: ignore[method-assign]  # of this one alone
        codec.decode = timed(codec.decode)  # type: ignore[method-assign]
