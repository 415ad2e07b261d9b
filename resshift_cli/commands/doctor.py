"""`resshift doctor`: what a report of a bug needs, and the usual mistakes."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from resshift_cli import __version__
from resshift_cli.commands import choice, console, defaults, ready
from resshift_cli.commands.groups import Placement, Reporting
from resshift_cli.commands.options import OfflineOption
from resshift_cli.commands.values import DEFAULT_MODEL
from resshift_cli.errors import OutputError, ResShiftError, UsageError

LITTLE_DISK = 2 * 10**9  # bytes; a model and its converted copy
EXTRAS = {
    "face": "cv2",
    "heic": "pillow_heif",
    "jxl": "pillow_jxl",
    "metrics": "pyiqa",
    "ray": "ray",
    "train": "tensorboard",
}
SECRET = frozenset({"HF_TOKEN", "RESSHIFT_RELEASES"})  # which may hold a password


def doctor(*, offline: OfflineOption = False, placement: Placement, reporting: Reporting) -> None:
    """Tell what a bug report needs, and find the usual mistakes.

    The exit code is 1 if something is found that should be mended.
    """
    found: list[str] = []
    facts: dict[str, Any] = {
        "resshift": f"{__version__} in {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": f"{platform.platform()}",
    }
    with console.waiting("Looking at this machine", quiet=reporting.quiet):
        facts |= _computing(placement, found)
        facts |= _files(found)
        facts |= _settings(found)
        facts |= _models(found, offline=offline)
    if reporting.as_json:
        console.document({**facts, "found": found})
    else:
        console.facts(facts)
    for finding in found:
        console.warning(finding)
    if not (found or reporting.quiet):
        console.note("Nothing is found that should be mended.")
    if found:
        raise typer.Exit(ResShiftError.exit_code)


def _computing(placement: Placement, found: list[str]) -> dict[str, Any]:
    """torch, the device, and what it computes in."""
    ready.import_torch()
    import torch

    from resshift_cli.restoration import rates
    from resshift_cli.system import memory
    from resshift_cli.system.device import choose_device, choose_dtype, precision_name

    machine = rates.describe_machine()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    build = f"ROCm {torch.version.hip}" if torch.version.hip else build
    build = f"XPU {torch.version.xpu}" if torch.version.xpu else build
    facts = {
        "torch": f"{machine['torch']} ({build})",
        "processor": f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads",
        "memory free": console.size(memory.free()),
    }
    if not torch.cuda.is_available() and _has_nvidia_card():
        found.append(
            "There is an NVIDIA card that torch does not use: install a driver and torch's build "
            "for CUDA, as https://pytorch.org/get-started/locally says."
        )
    try:
        device = choose_device(placement.device)
        dtype = choose_dtype(placement.precision, device)
        speed = rates.measure(device, dtype).flops
    except ResShiftError as error:
        found.append(f"{error} {error.hint}")
        return {**facts, "device": "none"}
    facts["device"] = f"{rates.name_of(device)}, {precision_name(dtype)}, {speed / 1e9:.0f} GFLOP/s"
    return facts


def _has_nvidia_card() -> bool:
    return shutil.which("nvidia-smi") is not None or os.path.exists("/dev/nvidia0")


def _files(found: list[str]) -> dict[str, Any]:
    """Folders that are written to, and what is free there."""
    from resshift_cli.system import atomic, cache
    from resshift_cli.weights import hub, registry

    facts: dict[str, Any] = {}
    for name, folder in (("cache", cache.folder()), ("cache of the Hub", hub.cache_folder())):
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        facts[name] = f"{folder}, {console.size(free)} free"
        if free < LITTLE_DISK:
            found.append(f"{folder} has {console.size(free)} free, too little for a large model.")
    try:
        atomic.make_folder(cache.folder())
        if not os.access(cache.folder(), os.W_OK):
            found.append(f"{cache.folder()} can't be written to. Set RESSHIFT_CACHE to another.")
    except OutputError as error:
        found.append(f"{error} {error.hint}")
    own = registry.own_registry()
    facts["models of your own"] = f"{own}{'' if own.exists() else ' (none yet)'}"
    facts["extras"] = ", ".join(name for name, room in EXTRAS.items() if find_spec(room)) or "none"
    return facts


def _settings(found: list[str]) -> dict[str, Any]:
    """The configuration file, and variables."""
    from resshift_cli.commands.app import commands

    file, said = defaults.path(), list[str]()
    try:
        said += [f"{key} = {value!r}" for key, value in defaults.read().items()]
        defaults.of_commands(commands)
    except UsageError as error:
        found.append(f"{error} {error.hint}")
    found.extend(_misspelt(commands()))
    return {
        "configuration": [f"{file}{'' if file.exists() else ' (none)'}", *said],
        "variables": [
            f"{name}={'(set)' if name in SECRET else value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(("RESSHIFT_", "HF_", "CUDA_VISIBLE", "OMP_NUM"))
        ]
        or "none",
    }


def _misspelt(commands: Mapping[str, Any]) -> Iterator[str]:
    """Variables that nothing reads."""
    known = set(defaults.OTHERS) | {
        defaults.PREFIX + option.upper().replace("-", "_")
        for command in commands.values()
        for option in defaults.options(command)
    }
    for name in sorted(os.environ):
        if name.startswith(defaults.PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            yield f"Nothing reads {name}.{f' Did you mean {near[0]}?' if near else ''}"


def _models(found: list[str], *, offline: bool) -> dict[str, Any]:
    """Models that are here, and whether the default one could be fetched."""
    from resshift_cli.weights import hub, registry, store

    try:
        here = [entry.name for entry in registry.models().values() if store.located(entry)]
        name = defaults.default_model() or DEFAULT_MODEL
        entry = registry.find(name)
    except ResShiftError as error:
        found.append(f"{error} {error.hint}")
        return {"models here": "?"}
    if offline or hub.is_offline():
        network = "not asked"
    elif store.located(entry):
        network = "not needed for the default model"
    else:
        answers = store.reachable(entry, within=choice.REACHABLE_WITHIN)
        network = f"the sources of {name} {'answer' if answers else 'do not answer'}"
        if not answers:
            found.append(f"{name} is not here, and its sources do not answer: check the network.")
    return {"models here": ", ".join(here), "default model": name, "network": network}
