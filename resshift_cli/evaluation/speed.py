"""How fast models run: seconds per megapixel, share of the machine's peak, memory, time of start.

Every measurement has a process of its own, so that its peak of memory and its time of start are its
own. Those of a group take turns, one run each, so that whatever else keeps the machine busy slows
all of them alike, and their ratios hold.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resshift_cli import __version__
from resshift_cli.diffusion import specs
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import InputMissingError, ResShiftError, UsageError, out_of_memory
from resshift_cli.restoration import estimate, rates
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.rates import Machine, Rate
from resshift_cli.restoration.settings import Settings
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system.device import DTYPES, choose_device, peak_memory, synchronize
from resshift_cli.weights import checkpoint
from resshift_cli.weights.store import Files

# What makes two rows the same measurement, on whatever machine.
SAME = (
    *("model", "device", "precision", "plain", "compiled"),
    *("tile", "batch", "width", "height", "steps"),
)

# What a process of its own runs. It imports from where this one does.
_WORKER = """
import sys, time
sys.path[:] = sys.argv[1:]
began = time.perf_counter()
import torch
loaded = time.perf_counter()
from resshift_cli.evaluation import speed as bench
bench.serve(began, loaded)
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to measure: a job as `Upscaler` does it.

    Attributes:
        model: what it is called.
        spec: the model, as `specs.to_json` writes it.
        weights: its file, or None for random numbers.
        autoencoder: likewise.
        device: see `device.choose_device`.
        precision: fp32, bf16 or fp16.
        plain: whether the networks run as they would without anything done for speed, see
            `plain.make_plain`; only with fp32.
        compiled: whether they are compiled.
        tile: side of the tiles, in pixels of the input, as all that follow.
        overlap: of the tiles.
        batch: tiles per call of a network.
        width: of the image.
        height: of the image.
        steps: of the chain.
    """

    model: str
    spec: str
    weights: str | None
    autoencoder: str | None
    device: str
    precision: str
    plain: bool
    compiled: bool
    tile: int
    overlap: int
    batch: int
    width: int
    height: int
    steps: int

    @property
    def title(self) -> str:
        """For people."""
        precision = "plain fp32" if self.plain else self.precision
        if self.compiled:
            precision += ", compiled"
        tiles = "1 tile" if self.batch == 1 else f"{self.batch} tiles"
        return f"{self.model}, {precision}, {tiles} of {self.tile} px"


def task(
    model: str,
    spec: ModelSpec,
    files: Files | None,
    *,
    device: torch.device,
    precision: str,
    plain: bool = False,
    compiled: bool = False,
    tile: int | None,
    batch: int,
    size: int | None,
    steps: int | None,
) -> Task:
    """Fill in what the model says.

    Args:
        model: what it is called.
        spec: the same.
        files: its weights, or None for random ones.
        device: where to compute.
        precision: fp32, bf16 or fp16.
        plain: see `Task`.
        compiled: likewise.
        tile: side of the tiles in pixels of the input, by default as the model says.
        batch: tiles per call of a network.
        size: side of a square image that is cut with the usual overlap, in pixels of the input.
            By default the image is one batch of tiles, side by side, that have nothing in common.
        steps: of the chain, by default as the model says.

    Raises:
        UsageError: what the model can't do.
    """
    settings = plan.settings(spec, name=model, steps=steps, tile=tile, overlap=None if size else 0)
    width, height = (size, size) if size else (settings.tile * batch, settings.tile)
    return Task(
        model=model,
        spec=specs.to_json(spec),
        weights=None if files is None else str(files.weights),
        autoencoder=None if files is None or files.autoencoder is None else str(files.autoencoder),
        device=str(device),
        precision=precision,
        plain=plain,
        compiled=compiled,
        tile=settings.tile,
        overlap=settings.overlap,
        batch=batch,
        width=width,
        height=height,
        steps=settings.steps,
    )


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
    """A task, and what came of it so far."""

    task: Task
    start: Start
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return specs.from_json(self.task.spec, "The task")

    def rate(self) -> Rate:
        """What later estimates go by."""
        work = self._work()
        coding = statistics.median(run.coding for run in self.runs) if work.coding else 0.0
        return Rate(
            self.task.tile,
            self.task.batch,
            work.denoising / (self.seconds - coding),
            work.coding / coding if work.coding else None,
        )

    def facts(self, plain: Measurement | None) -> dict[str, Any]:
        """What --json says of it.

        Args:
            plain: the measurement to compare with, which took turns with this one.
        """
        task, work, spec = self.task, self._work(), self.spec
        megapixels = task.width * task.height * spec.scale**2 / 1e6
        flops = work.denoising + work.coding
        peak = statistics.median(run.peak_flops for run in self.runs)
        memory = [run.bytes for run in self.runs if run.bytes is not None]
        facts = {name: getattr(task, name) for name in (*SAME, "overlap")}
        facts |= {
            "random_weights": task.weights is None,
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
        task, spec = self.task, self.spec
        machine = Machine(torch.device(task.device), DTYPES[task.precision], peak_flops)
        expected = estimate.estimate(
            spec,
            machine,
            _settings(task, spec),
            height=task.height,
            width=task.width,
            batch=task.batch,
        )
        return {"seconds": expected.seconds, "bytes": expected.bytes}

    def _work(self) -> estimate.Parts:
        task, spec = self.task, self.spec
        settings = _settings(task, spec)
        return estimate.work(spec, settings, task.height, task.width)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return dict.fromkeys(("low", "median", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"low": low, "median": median, "high": high}


class Group:
    """Tasks that take turns.

    Attributes:
        tasks: all of them.
        measured: one measurement per task, in their order, so far.
        failures: tasks that could not be measured, and why.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self.measured: list[Measurement] = []
        self.failures: list[tuple[Task, ResShiftError]] = []

    def run(self, repeat: int, tell: Callable[[Task], None]) -> None:
        """Measure; what is known stands in `measured` even if this is interrupted.

        Args:
            repeat: runs of each task; one more, for warming up, is not counted.
            tell: called whenever a task was run once.
        """
        workers: list[tuple[_Worker, Measurement]] = []
        try:
            for task in self.tasks:
                worker = _Worker(task)
                try:
                    workers.append((worker, Measurement(task, Start(**worker.reply()))))
                except ResShiftError as error:
                    self.failures.append((task, error))
                    worker.close()
                tell(task)
            self.measured = [measurement for _, measurement in workers]
            for turn in range(repeat):
                # The other way round every second time: no one always follows the same one.
                for worker, measurement in list(workers[:: -1 if turn % 2 else 1]):
                    worker.go()
                    try:
                        measurement.runs.append(Run(**worker.reply()))
                    except ResShiftError as error:
                        self.failures.append((measurement.task, error))
                        workers.remove((worker, measurement))
                        worker.close()
                    tell(measurement.task)
        finally:
            for worker, _ in workers:
                worker.close()

    def facts(self) -> list[dict[str, Any]]:
        """What --json says of those that were run at least once."""
        plain = next((m for m in self.measured if m.task.plain), None)
        return [m.facts(None if m.task.plain else plain) for m in self.measured if m.runs]

    def remember(self) -> None:
        """Have later estimates go by what was measured.

        Raises:
            OutputError: the cache can't be written.
        """
        for measurement in self.measured:
            usual = not (measurement.task.plain or measurement.task.compiled)
            if measurement.runs and usual:
                task = measurement.task
                dtype = DTYPES[task.precision]
                device = choose_device(task.device)
                rates.remember(measurement.spec, device, dtype, [measurement.rate()])


class _Worker:
    """A process that measures one task, and runs it once whenever it is told to.

    It is no part of this process' group, so that Ctrl-C reaches this process alone.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._say(json.dumps(asdict(task)))
        except BaseException:
            self.close()
            raise

    def go(self) -> None:
        """Have it run."""
        self._say("")

    def reply(self) -> dict[str, Any]:
        """Wait for its answer.

        Raises:
            ResShiftError: it failed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ResShiftError(
                f"The process that measured {self._task.title} ended with status "
                f"{self._process.wait()}.",
                hint="Where memory ran out, use a smaller --tile or --batch.",
            )
        reply: dict[str, Any] = json.loads(line)
        if "message" in reply:
            error = ResShiftError(reply["message"], hint=reply["hint"])
            error.exit_code = reply["exit_code"]
            raise error
        return reply

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; `reply` tells how
            print(line, file=self._process.stdin, flush=True)


def serve(began: float, loaded: float) -> None:
    """Be the process of a `_Worker`: a task comes in on stdin, answers go to stdout.

    Args:
        began: when the import of torch began, in `time.perf_counter()`.
        loaded: when it was done.
    """
    try:
        for answer in _work(Task(**json.loads(sys.stdin.readline())), began, loaded):
            print(json.dumps(asdict(answer)), flush=True)
            if not sys.stdin.readline():
                return
    except Exception as error:
        if out_of_memory(error):
            error = ResShiftError(
                "There is not enough memory.", hint="Use a smaller --tile or --batch."
            )
        if not isinstance(error, ResShiftError):
            raise
        reply = error.facts()
        print(json.dumps(reply), flush=True)


def _work(task: Task, began: float, loaded: float) -> Iterator[Start | Run]:
    """Load a model and warm it up; then run it for every further item that is asked for."""
    spec = specs.from_json(task.spec, "The task")
    torch.manual_seed(0)  # of random weights
    if task.weights is None:
        denoiser, codec = checkpoint.build(spec)
    else:
        inner = None if task.autoencoder is None else Path(task.autoencoder)
        denoiser, codec = checkpoint.load(spec, Path(task.weights), inner)
    upscaler = Upscaler(
        spec,
        denoiser,
        codec,
        name=task.model,
        device=task.device,
        precision=task.precision,
        tile_batch=task.batch,
        compiled=task.compiled,
        tell=_refuse,
    )
    if task.plain:
        from resshift_cli.evaluation.plain import make_plain

        for network in (denoiser, codec):
            make_plain(network)
    watch = _Stopwatch(codec, upscaler.device)
    settings = _settings(task, spec)
    generator = np.random.default_rng(0)
    pixels = generator.random((task.height, task.width, 3), np.float32)

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


def _settings(task: Task, spec: ModelSpec) -> Settings:
    return plan.settings(
        spec, name=task.model, steps=task.steps, tile=task.tile, overlap=task.overlap
    )


def _refuse(sentence: str) -> None:
    """What is done otherwise than the task says must not be measured as if it were the task."""
    raise ResShiftError(
        f"It could not be measured as asked for. {sentence}",
        hint="Use a smaller --tile or --batch, or another --precision.",
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


def document(groups: Sequence[Group], device: torch.device) -> dict[str, Any]:
    """What --json prints: the machine, and a row per measurement."""
    return {
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**rates.describe_machine(), "device": rates.name_of(device)},
        "rows": [facts for group in groups for facts in group.facts()],
        "errors": [
            {
                "task": task.title,
                **error.facts(),
            }
            for group in groups
            for task, error in group.failures
        ],
    }


def read(path: Path) -> dict[str, Any]:
    """A document of an earlier run.

    Raises:
        InputMissingError: there is no such file, or it can't be read.
        UsageError: it is none that `resshift bench --json` has printed.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputMissingError(
            f"{path} can't be read: {error.strerror}.", hint="Check its name."
        ) from error
    except UnicodeDecodeError:
        content = ""
    try:
        earlier: dict[str, Any] = json.loads(content)
        for row in earlier["rows"]:
            _same(row), float(row["seconds_per_megapixel"]["median"])
        dict(earlier["machine"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} holds no result of `resshift bench`.",
            hint="Make one: resshift bench --json > FILE.",
        ) from error
    return earlier


def compare(now: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Add to a document how it compares with an earlier one.

    Every row that both have gets `times_earlier`: above 1 it is faster now. `comparison` says what
    only one of them has, and what differs between their machines.
    """
    before = {_same(row): row for row in earlier["rows"]}
    for row in now["rows"]:
        if same := before.pop(_same(row), None):
            row["times_earlier"] = (
                same["seconds_per_megapixel"]["median"] / row["seconds_per_megapixel"]["median"]
            )
    machine = earlier["machine"]
    now["comparison"] = {
        "date": earlier.get("date"),
        "machine": {
            name: [machine.get(name), value]
            for name, value in now["machine"].items()
            if machine.get(name) != value
        },
        "only_now": [_named(row) for row in now["rows"] if "times_earlier" not in row],
        "only_earlier": [_named(row) for row in before.values()],
    }


def _same(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SAME)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SAME}
