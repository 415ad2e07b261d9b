"""A batch without the command line, as a script or a worker of a cluster runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from batch_folder import lines, results
from command_line import Run

SCRIPT = """
import json, sys
from pathlib import Path
from resshift_cli import Upscaler
from resshift_cli.batch import ledger, plan, runner
from resshift_cli.batch.recipe import Recipe
from resshift_cli.imaging import folders
from resshift_cli.imaging.files import Handling
from resshift_cli.system.digests import digest
from resshift_cli.weights import registry, store

folder, output, weights = map(Path, sys.argv[1:])
entry = store.own(weights, None, registry.models().values())
upscaler = Upscaler.load(entry, store.obtain(entry))
settings = upscaler.settings(steps=1)
place = upscaler.device, upscaler.dtype
recipe = Recipe(entry, upscaler.spec, settings, Handling(), *place, digest(weights))
tree = folders.Tree(folder, output)
with ledger.opened(output) as book:
    made = plan.Plan(tree, book, recipe, upscaler.at_once)
    engine = runner.Runner(upscaler, recipe, made.facts(), book)
    engine.run(runner.groups(made, book, print))
print(json.dumps([name for name in ("typer", "rich") if name in sys.modules]))
"""


def test_a_script_gets_the_same_results_without_loading_the_command_line(
    batch: Run, folder: Path, tiny_weights: Path
) -> None:
    output = folder.with_name("out")
    command = [sys.executable, "-c", SCRIPT, folder, output, tiny_weights]
    assert json.loads(subprocess.check_output(list(map(str, command)))) == []
    batch(folder)
    own, by_command = output, folder.with_name("in_x4")
    assert results(own) == results(by_command)
    measured = {"time", "seconds", "peak_bytes"}

    def told(place: Path) -> list[dict[str, object]]:
        return [{k: v for k, v in line.items() if k not in measured} for line in lines(place)]

    assert told(own) == told(by_command)
    assert "3 finished before" in batch(folder, "-o", own).err
