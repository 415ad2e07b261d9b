"""What cutting a large image into bands costs, by steps of the chain: `docs/scale.md` has figures.

    python scripts/measure_halo.py 80000 chain-x4 realsr-x4-v1

computes it, for a square image of so many input pixels a side, by the geometry that does the work.
"""

from __future__ import annotations

import argparse

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration.cuts import Part, cuts, even
from resshift_cli.restoration.settings import Settings, settings
from resshift_cli.weights import registry, store

COUNTS = (4, 16, 64)
STEPS = (1, 2, 4, 8, 15)


def main() -> None:
    """Print a table of each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", type=int)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    size = (options.side, options.side)
    for name in options.models:
        entry = registry.find(name)
        spec = entry.spec or store.spec_of(entry, store.obtain(entry, offline=True).weights)
        print(f"\n{name}, {size[0]}x{size[1]}, tiles of {spec.tile.size} px")
        heads = [f"{count} bands" for count in COUNTS]
        print("| steps | px above and below | " + " | ".join(heads) + " | bands |")
        print("|---" * (len(heads) + 3) + "|")
        for steps in STEPS:
            if steps <= spec.steps:
                print("| " + " | ".join(row(spec, size, steps)) + " |")


def row(spec: ModelSpec, size: tuple[int, int], steps: int) -> list[str]:
    """A line of the table."""
    how = settings(spec, name="", steps=steps)
    middle = Part(spec, how, size, even(size[0], 3)[1])
    around = middle.rows.start - middle.source.start
    shares = [f"{work(spec, size, how, even(size[0], count)) - 1:.0%}" for count in COUNTS]
    return [str(steps), str(around), *shares, str(len(cuts(spec, size, how)))]


def work(spec: ModelSpec, size: tuple[int, int], how: Settings, bands: list[range]) -> float:
    """What bands take, in that of the whole image."""
    whole = Part(spec, how, size, range(size[0])).units
    return sum(Part(spec, how, size, rows).units for rows in bands) / whole


if __name__ == "__main__":
    main()
