"""`resshift bench`: how fast this machine is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resshift_cli.commands import choice, console, defaults, progress, ready
from resshift_cli.commands.groups import Model, Options, Reporting
from resshift_cli.commands.options import (
    DeviceOption,
    ModelsOption,
    OfflineOption,
    PrecisionsOption,
    RegistryOption,
    StepsOption,
    WeightsOption,
)
from resshift_cli.commands.values import DEFAULT_MODEL
from resshift_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from resshift_cli.evaluation.trial import Trial, Way
    from resshift_cli.evaluation.turns import Turns
    from resshift_cli.weights.registry import ModelEntry


def _counts(values: list[int] | None) -> list[int] | None:
    for value in values or ():
        if value < 1:
            raise typer.BadParameter(f"{value} is not 1 or more.")
    return values


@dataclass(frozen=True, slots=True)
class Candidates(Options):
    """The models to be measured."""

    panel = "Which models"

    model: ModelsOption = None
    weights: WeightsOption = None
    random: Annotated[
        bool,
        typer.Option(
            "--random", help="Fetch no weights: random ones in the same networks are as fast."
        ),
    ] = False
    registry: RegistryOption = None
    offline: OfflineOption = False

    def entries(self) -> list[ModelEntry]:
        """Them, or the default one.

        Raises:
            UsageError: options that exclude each other, or as `choice.choose`.
        """
        if self.weights is not None and (self.random or len(self.model or ()) > 1):
            raise UsageError(
                "--weights names one file with one layout.",
                hint="Leave out --random, or a --model.",
            )
        names: Sequence[str | None] = list(dict.fromkeys(self.model or ())) or [None]
        if self.random and names == [None]:
            names = [defaults.default_model() or DEFAULT_MODEL]
        common = Model(weights=self.weights, registry=self.registry, offline=self.offline)
        return [choice.choose(replace(common, model=name)) for name in names]


@dataclass(frozen=True, slots=True)
class Workload(Options):
    """What they are given to compute."""

    panel = "What to compute"

    steps: StepsOption = None
    tile: Annotated[
        list[int] | None,
        typer.Option(
            metavar="PIXELS",
            callback=_counts,
            help="Side of the tiles, in pixels of the input; may be repeated. By default the "
            "model's own, and half of it.",
        ),
    ] = None
    batch: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            callback=_counts,
            help="Tiles per call of a network; may be repeated. By default as many as `upscale` "
            "takes on the device.",
        ),
    ] = None
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=1,
            help="Side of a square image, cut into tiles that overlap as always. By default the "
            "image is one batch of tiles side by side, so that nothing is computed twice.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Kinds(Options):
    """Where it is computed, and in what ways."""

    panel = "Where to compute"

    device: DeviceOption = "auto"
    precision: PrecisionsOption = None
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Measure float32 without anything done for speed too, in turns with the others, "
            "and tell how many times faster they are.",
        ),
    ] = False
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Measure every precision compiled, too, see `upscale`."),
    ] = False


def bench(
    *,
    repeat: Annotated[
        int, typer.Option(metavar="N", min=1, help="Runs that count, after one that does not.")
    ] = 3,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", readable=False, help="What an earlier run with --json printed."
        ),
    ] = None,
    candidates: Candidates,
    workload: Workload,
    kinds: Kinds,
    reporting: Reporting,
) -> None:
    """Measure speed and memory of models on this machine.

    A megapixel is one of output. Medians are shown, with quartiles. Later estimates of time, such
    as `resshift batch --dry-run` gives, go by what was measured. With --json, stdout gets one
    object that holds everything.
    """
    quiet = reporting.quiet
    with console.waiting("Starting", quiet=quiet):
        ready.import_torch()
        from resshift_cli.evaluation import speed
        from resshift_cli.evaluation.turns import Turns
        from resshift_cli.system.device import choose_device

        earlier = None if compare is None else speed.read(compare)
        run_on = choose_device(kinds.device)
    turns = [
        Turns(trials)
        for entry in candidates.entries()
        for trials in _trials(entry, candidates, workload, kinds, quiet=quiet)
    ]
    try:
        _run(turns, repeat, quiet=quiet)
    finally:
        report = speed.document(turns, run_on)
        if earlier is not None:
            speed.compare(report, earlier)
        if reporting.as_json:
            console.document(report)
        else:
            _show(report)
        if not quiet:
            _remark(report, compare)
        _remember(turns)
    for error in report["errors"]:
        console.error(f"{error['task']}: {error['message']}", error["hint"])
    if report["errors"]:
        raise typer.Exit(report["errors"][0]["exit_code"])


def _run(turns: Sequence[Turns], repeat: int, *, quiet: bool) -> None:
    """Measure all of them; what is known stands in them even if this is interrupted."""
    done, total = 0, sum(len(one.trials) for one in turns) * (repeat + 1)
    try:
        with progress.bars(quiet=quiet) as bars:
            bar = bars(total=total, desc="Measuring", unit="run")

            def on_run(trial: Trial) -> None:
                nonlocal done
                done += 1
                bar.set_postfix_str(trial.title)
                bar.update()

            for one in turns:
                one.run(repeat, on_run)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"{done} of {total} runs were done",)
        raise


def _trials(
    entry: ModelEntry, candidates: Candidates, workload: Workload, kinds: Kinds, *, quiet: bool
) -> Iterator[list[Trial]]:
    """A list for each size of tile and of batch: the ways to run it, which take turns."""
    from resshift_cli.evaluation.trial import Load, plan_trial
    from resshift_cli.system.device import choose_device, tiles_at_once
    from resshift_cli.weights import store

    run_on, offline = choose_device(kinds.device), candidates.offline
    if candidates.random:
        files, spec = None, ready.spec_of(entry, offline=offline, quiet=quiet)
    else:
        files = ready.fetch(entry, offline=offline, quiet=quiet)
        spec = store.spec_of(entry, files.weights)
    for tile in workload.tile or _sides(
        spec.tile.size, spec.denoiser.size_multiple * spec.lq_pixels
    ):
        for batch in workload.batch or [tiles_at_once(run_on)]:
            load = Load(tile, batch, workload.size, workload.steps)
            yield [
                plan_trial(entry.name, spec, files, device=run_on, way=way, load=load)
                for way in _ways(kinds)
            ]


def _ways(kinds: Kinds) -> list[Way]:
    """Every precision once; then compiled, and plain, if these are asked for."""
    from resshift_cli.evaluation.trial import Way
    from resshift_cli.system.device import choose_device, choose_dtype, precision_name

    run_on = choose_device(kinds.device)
    asked = kinds.precision or ["fp32", "auto"]
    chosen = dict.fromkeys(precision_name(choose_dtype(name, run_on)) for name in asked)
    ways = [Way(precision) for precision in chosen]
    ways += [Way(precision, compiled=True) for precision in chosen] * kinds.compiled
    return ways + [Way("fp32", plain=True)] * kinds.plain


def _sides(own: int, multiple: int) -> list[int]:
    """About half of a model's own tile, and the whole."""
    return list(dict.fromkeys((max(multiple, own // 2 // multiple * multiple), own)))


def _show(report: dict[str, Any]) -> None:
    """The rows as a table."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "MODEL": lambda row: row["model"],
        "IN": _kind,
        "TILE": lambda row: str(row["tile"]),
        "BATCH": lambda row: str(row["batch"]),
        "S/MPX": lambda row: _number(row["seconds_per_megapixel"]["median"]),
        "QUARTILES": lambda row: "-".join(
            _number(row["seconds_per_megapixel"][end]) for end in ("low", "high")
        ),
        "GFLOP/S": lambda row: f"{row['flops_per_second'] / 1e9:.0f}",
        "OF PEAK": lambda row: f"{row['share_of_peak']:.0%}",
        "MEMORY": lambda row: console.size(row["peak_bytes"] or 0),
        "START": lambda row: f"{row['start']['load'] + row['start']['first_tile']:.1f} s",
        "VS PLAIN": lambda row: _times(row.get("times_plain", {}).get("median")),
        "VS EARLIER": lambda row: _times(row.get("times_earlier")),
    }
    if not any(row["plain"] for row in report["rows"]):
        del columns["VS PLAIN"]
    if "comparison" not in report:
        del columns["VS EARLIER"]
    if report["rows"]:
        rows = [[cell(row) for cell in columns.values()] for row in report["rows"]]
        console.table(list(columns), rows)


def _kind(row: dict[str, Any]) -> str:
    if row["plain"]:
        return "plain"
    precision: str = row["precision"]
    return f"{precision} compiled" if row["compiled"] else precision


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _remark(report: dict[str, Any], compared: Path | None) -> None:
    """What the table has no place for."""
    machine = report["machine"]
    starts = [row["start"]["torch"] for row in report["rows"]]
    if starts:
        threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
        console.note(
            f"{machine['device']} of {machine['cpu']}, {threads}, torch {machine['torch']}. Before "
            f"the start comes that of torch: {max(starts):.1f} s."
        )
    comparison = report.get("comparison")
    if comparison is None:
        return
    for name, (before, now) in comparison["machine"].items():
        console.note(f"{compared} was measured with {name} {before}, this with {now}.")
    for here, there in (
        ("only_now", f"Not in {compared}"),
        ("only_earlier", f"Only in {compared}"),
    ):
        for row in comparison[here]:
            console.note(f"{there}: {', '.join(f'{name} {row[name]}' for name in row)}.")


def _remember(turns: Sequence[Turns]) -> None:
    try:
        for one in turns:
            one.remember()
    except OutputError as error:  # the measurements are told all the same
        console.warning(f"Later estimates won't know of this. {error} {error.hint}")
