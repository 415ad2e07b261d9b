"""Draw what `resshift bench --json` has measured, as a chart for the README.

resshift bench --model tiny-x4 --json > bench.json
python scripts/plot_bench.py bench.json docs/bench.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer

from resshift_cli.errors import UsageError
from resshift_cli.evaluation import speed

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  # after the choice of what draws

COLOURS = {"plain fp32": "#9a9a9a", "fp32": "#4477aa", "bf16": "#cc6677", "fp16": "#ddaa33"}
WIDTH, DPI = 8.0, 100  # inches, pixels per inch
BAR = 0.3  # inches


def draw(results: Path, chart: Path) -> None:
    """A bar per measurement, with its quartiles, in groups of one model, tile and batch.

    Raises:
        InputMissingError, UsageError: see `speed.read`; or there is nothing to draw.
    """
    report = speed.read(results)
    if not report["rows"]:
        raise UsageError(f"{results} holds no measurement.", hint="Run `resshift bench` again.")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in report["rows"]:
        batch = "" if row["batch"] == 1 else f", {row['batch']} at a time"
        name = f"{row['model']}, {row['steps']} steps\ntiles of {row['tile']} px{batch}"
        groups.setdefault(name, []).append(row)

    height = 1.3 + BAR * (len(report["rows"]) + len(groups))
    figure, axes = pyplot.subplots(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    longest = max(row["seconds_per_megapixel"]["high"] for row in report["rows"])
    place, ticks = 0.0, []
    for rows in groups.values():
        ticks.append(place + (len(rows) - 1) / 2)
        for row in rows:
            kind = "plain fp32" if row["plain"] else row["precision"]
            kind += " compiled" * row["compiled"]
            seconds = row["seconds_per_megapixel"]
            middle = seconds["median"]
            colour = COLOURS[kind.removesuffix(" compiled")]
            quartiles = [[middle - seconds["low"]], [seconds["high"] - middle]]
            axes.barh(place, middle, 0.85, xerr=quartiles, color=colour, ecolor="#333333")
            text = f"{middle:.3g}  {kind}"
            axes.text(seconds["high"] + longest / 80, place, text, va="center", fontsize=9)
            place += 1
        place += 0.7
    axes.set_yticks(ticks, list(groups))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * longest)
    axes.set_xlabel("seconds per megapixel of output (less is faster); lines are quartiles")
    axes.spines[["top", "right", "left"]].set_visible(False)
    machine = report["machine"]
    where = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    threads = f", threads: {machine['threads']}" if machine["device"] == "cpu" else ""
    axes.set_title(f"{where}{threads}, torch {machine['torch']}", loc="left", fontsize=10)
    figure.savefig(chart)
    pyplot.close(figure)


def main(
    results: Annotated[Path, typer.Argument(help="What `resshift bench --json` printed.")],
    chart: Annotated[Path, typer.Argument(help="Where the chart goes.")] = Path("docs/bench.png"),
) -> None:
    """Draw a chart."""
    draw(results, chart)


if __name__ == "__main__":
    typer.run(main)
