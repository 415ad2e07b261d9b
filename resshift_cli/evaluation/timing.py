"""What came of a trial: how long its process took to start, and each of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from resshift_cli.evaluation.trial import Trial
from resshift_cli.restoration import estimate
from resshift_cli.restoration.rates import Machine, Rate
from resshift_cli.system.device import DTYPES

IDENTITY = (
    *("model", "device", "precision", "plain", "compiled"),
    *("tile", "batch", "width", "height", "steps"),
)
"""What makes two rows the same measurement, on whatever machine."""


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds that a process takes before its work is under way.

    Attributes:
        torch: to import torch.
        load: from then until the model is ready.
        first_tile: from then until the first call of a network is done.
    """

    torch: float
    load: float
    first_tile: float


@dataclass(frozen=True, slots=True)
class Run:
    """One job.

    Attributes:
        seconds: that it took.
        coding: those of them that the autoencoder took.
        peak_flops: floating-point operations per second of matrix products, right after it.
        bytes: peak memory so far: resident memory of the process on a CPU, what torch has
            allocated on a GPU; None where the system does not tell.
    """

    seconds: float
    coding: float
    peak_flops: float
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """A trial, and what came of it so far."""

    trial: Trial
    start: Start
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    def rate(self) -> Rate:
        """What later estimates go by."""
        work = self._work()
        coding = statistics.median(run.coding for run in self.runs) if work.coding else 0.0
        return Rate(
            self.trial.tile,
            self.trial.batch,
            work.denoising / (self.seconds - coding),
            work.coding / coding if work.coding else None,
        )

    def facts(self, plain: Measurement | None) -> dict[str, Any]:
        """What --json says of it.

        Args:
            plain: the measurement to compare with, which took turns with this one.
        """
        trial, work = self.trial, self._work()
        megapixels = trial.width * trial.height * trial.read_spec().scale ** 2 / 1e6
        flops = work.denoising + work.coding
        peak = statistics.median(run.peak_flops for run in self.runs)
        memory = [run.bytes for run in self.runs if run.bytes is not None]
        facts = {name: getattr(trial, name) for name in (*IDENTITY, "overlap")}
        facts |= {
            "random_weights": trial.weights is None,
            "output_megapixels": megapixels,
            "flops": flops,
            "seconds": spread([run.seconds for run in self.runs]),
            "runs": [run.seconds for run in self.runs],
            "autoencoder_seconds": statistics.median(run.coding for run in self.runs),
            "seconds_per_megapixel": spread([run.seconds / megapixels for run in self.runs]),
            "flops_per_second": flops / self.seconds,
            "peak_flops_per_second": peak,
            "share_of_peak": flops / self.seconds / peak,
            "peak_bytes": max(memory, default=None),
            "estimated": self._estimated(peak),
            "start": asdict(self.start),
        }
        if plain is not None and plain.runs:
            pairs = zip(plain.runs, self.runs, strict=False)  # the last turn may be half done
            facts["times_plain"] = spread([slow.seconds / fast.seconds for slow, fast in pairs])
        return facts

    def _estimated(self, peak_flops: float) -> dict[str, float]:
        """What `estimate` says of it by its rules of thumb."""
        trial = self.trial
        machine = Machine(torch.device(trial.device), DTYPES[trial.precision], peak_flops)
        expected = estimate.estimate(
            trial.read_spec(),
            machine,
            trial.settings(),
            height=trial.height,
            width=trial.width,
            batch=trial.batch,
        )
        return {"seconds": expected.seconds, "bytes": expected.bytes}

    def _work(self) -> estimate.Parts:
        trial = self.trial
        return estimate.work(trial.read_spec(), trial.settings(), trial.height, trial.width)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return dict.fromkeys(("low", "median", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"low": low, "median": median, "high": high}
