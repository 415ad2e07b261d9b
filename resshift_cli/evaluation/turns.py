"""Trials that take turns, one run each.

Whatever else keeps the machine busy so slows all of them alike, and their ratios hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from resshift_cli.errors import ResShiftError
from resshift_cli.evaluation.timing import Measurement
from resshift_cli.evaluation.trial import Trial
from resshift_cli.evaluation.worker import Worker
from resshift_cli.restoration import rates
from resshift_cli.system.device import DTYPES, choose_device


class Turns:
    """Trials that take turns.

    Attributes:
        trials: all of them.
        measured: one measurement per trial, in their order, so far.
        failures: trials that could not be measured, and why.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = tuple(trials)
        self.measured: list[Measurement] = []
        self.failures: list[tuple[Trial, ResShiftError]] = []

    def run(self, repeat: int, on_run: Callable[[Trial], None]) -> None:
        """Measure; what is known stands in `measured` even if this is interrupted.

        Args:
            repeat: runs of each trial; one more, for warming up, is not counted.
            on_run: called whenever a trial was run once.
        """
        workers: list[tuple[Worker, Measurement]] = []
        try:
            for trial in self.trials:
                worker = Worker(trial)
                try:
                    workers.append((worker, Measurement(trial, worker.started())))
                except ResShiftError as error:
                    self.failures.append((trial, error))
                    worker.close()
                on_run(trial)
            self.measured = [measurement for _, measurement in workers]
            for turn in range(repeat):
                # The other way round every second time: no one always follows the same one.
                for worker, measurement in list(workers[:: -1 if turn % 2 else 1]):
                    try:
                        measurement.runs.append(worker.run())
                    except ResShiftError as error:
                        self.failures.append((measurement.trial, error))
                        workers.remove((worker, measurement))
                        worker.close()
                    on_run(measurement.trial)
        finally:
            for worker, _ in workers:
                worker.close()

    def facts(self) -> list[dict[str, Any]]:
        """What --json says of those that were run at least once."""
        plain = next((m for m in self.measured if m.trial.plain), None)
        return [m.facts(None if m.trial.plain else plain) for m in self.measured if m.runs]

    def remember(self) -> None:
        """Have later estimates go by what was measured.

        Raises:
            OutputError: the cache can't be written.
        """
        for measurement in self.measured:
            trial = measurement.trial
            usual = not (trial.plain or trial.compiled)
            if measurement.runs and usual:
                device, dtype = choose_device(trial.device), DTYPES[trial.precision]
                rates.remember(trial.read_spec(), device, dtype, [measurement.rate()])
