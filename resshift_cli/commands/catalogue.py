"""What is told of models: the list of them, and everything about one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from resshift_cli.commands import choice, console, ready
from resshift_cli.commands.values import WORKS
from resshift_cli.errors import UsageError

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.restoration.rates import Machine
    from resshift_cli.weights.registry import ModelEntry, WeightFile

EXAMPLE_SIDE = 512  # pixels, of the photo whose time and memory are estimated


def grouped(task: str | None, registry_file: Path | None) -> list[ModelEntry]:
    """The models for a task or a command, those of the same command beside each other.

    Raises:
        UsageError: there is no such task.
    """
    from resshift_cli.weights import registry

    tasks = dict.fromkeys(t for some in registry.RUN_BY.values() for t in some)
    order = [*tasks, *(t for t in get_args(registry.Task) if t not in tasks)]
    if task is not None and task not in (*order, *registry.RUN_BY):
        raise UsageError(
            f"There is no task '{task}'.", hint=f"Use {', '.join((*registry.RUN_BY, *order))}."
        )
    wanted = order if task is None else registry.RUN_BY.get(task, (task,))
    known = [e for e in registry.models(registry_file).values() if e.task in wanted]
    return sorted(known, key=lambda entry: order.index(entry.task))


def row(entry: ModelEntry, machine: Machine | None) -> tuple[str | console.Cell, ...]:
    """What a line of the list says of a model; its speed, if the machine was measured."""
    from resshift_cli.weights import store

    spec = ready.known_spec(entry)
    takes = []
    if machine is not None:
        takes = [console.duration(forecast(spec, machine)["seconds"]) if spec else "?"]
    return (
        entry.name,
        _purpose(entry),
        f"x{spec.scale}" if spec else "?",
        str(spec.steps) if spec else "?",
        console.size(_bytes(entry)),
        *takes,
        console.Cell("yes" if entry.commercial else "no", alarming=not entry.commercial),
        _whereabouts(entry) if store.located(entry) else "no",
    )


def works_of(entry: ModelEntry) -> dict[str, bool]:
    """The commands that run a model, and whether they do so unless told otherwise."""
    works = (work for work in WORKS if entry.task in work.tasks)
    return {work.command: choice.usual(work) == entry.name for work in works}


def _purpose(entry: ModelEntry) -> str:
    """What `works_of` says, in a cell of the list."""
    works = works_of(entry).items()
    return "; ".join(f"{command}, default" if usual else command for command, usual in works)


def _bytes(entry: ModelEntry) -> int:
    """Size of its files: of those that are here as they are, of the others as registered."""
    from resshift_cli.weights import store

    paths = [store.locate(file) for file in entry.files]
    sizes = [
        file.bytes if path is None else path.stat().st_size
        for file, path in zip(entry.files, paths, strict=True)
    ]
    return sum(sizes) if all(sizes) else 0


def _whereabouts(entry: ModelEntry) -> str:
    return "bundled" if entry.weights.sources[0].kind == "bundled" else "yes"


def facts(entry: ModelEntry) -> dict[str, Any]:
    """What --json says of a model."""
    spec, works = ready.known_spec(entry), works_of(entry)
    return {
        "name": entry.name,
        "description": entry.description,
        "task": entry.task,
        "for": list(works)[-1],
        "run_by": list(works),
        "default": any(works.values()),
        "scale": None if spec is None else spec.scale,
        "steps": None if spec is None else spec.steps,
        "commercial": entry.commercial,
        "licences": [asdict(licence) for licence in dict.fromkeys(entry.licences)],
        "homepage": entry.homepage,
        "citation": entry.citation,
        "bytes": _bytes(entry) or None,
        "files": [_file_facts(file) for file in entry.files],
    }


def for_people(entry: ModelEntry, facts: dict[str, Any]) -> dict[str, object]:
    """The same as names and values to be read."""
    shown: dict[str, object] = {
        **{name: facts[name] for name in ("name", "description", "task", "homepage", "citation")},
        "enlarges by": facts["scale"] or "?",
        "steps": facts["steps"] or "?",
        "size": console.size(facts["bytes"] or 0),
        "commercial use": console.Cell(
            "yes" if entry.commercial else "no", alarming=not entry.commercial
        ),
    }
    for licence in facts["licences"]:
        shown[f"licence {licence['id']}"] = f"{licence['title']} {licence['url']}".rstrip()
    for file in facts["files"]:
        shown[file["name"]] = [*file["sources"], file["path"] or "not here"]
    if forecast := facts.get("on_this_machine"):
        shown["on this machine"] = (
            f"{EXAMPLE_SIDE}x{EXAMPLE_SIDE} pixels take about "
            f"{console.duration(forecast['seconds'])} and {console.size(forecast['bytes'])} of "
            f"memory, on {forecast['device']} in {forecast['precision']}"
        )
    return shown


def _file_facts(file: WeightFile) -> dict[str, Any]:
    from resshift_cli.weights import store

    path = store.locate(file)
    return {
        "name": file.name,
        "sources": [source.address for source in file.sources],
        "sha256": file.sha256 or None,
        "path": None if path is None else str(path),
    }


def measured() -> Machine:
    """How fast this machine is."""
    with console.waiting("Measuring this machine"):
        ready.import_torch()
        from resshift_cli.restoration import rates
        from resshift_cli.system.device import choose_device, choose_dtype

        device = choose_device()
        return rates.measure(device, choose_dtype("auto", device))


def forecast(spec: ModelSpec, machine: Machine) -> dict[str, Any]:
    """What a photo of that side will take here."""
    from resshift_cli.restoration import estimate
    from resshift_cli.restoration import settings as plan
    from resshift_cli.system.device import DTYPES

    side = EXAMPLE_SIDE
    settings = plan.settings(spec, name="the model")
    expected = estimate.estimate(spec, machine, settings, height=side, width=side)
    precision = next(name for name, dtype in DTYPES.items() if dtype == machine.dtype)
    return {
        "device": str(machine.device),
        "precision": precision,
        "pixels": [side, side],
        "seconds": round(expected.seconds, 1),
        "bytes": expected.bytes,
    }
