"""The folder of a training run: what was asked for, where it ran, and what was measured."""

from __future__ import annotations

import importlib
import json
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resshift_cli import __version__
from resshift_cli.errors import ModelUnavailableError, printable
from resshift_cli.system import atomic, locks
from resshift_cli.system.journal import Journal

STATE, WEIGHTS, CARD, METRICS = "state.pt", "model.safetensors", "README.md", "metrics.jsonl"
CONFIG, ENVIRONMENT, SAMPLES = "config.toml", "environment.json", "samples"
LOCK = ".lock"
MEAN = "mean.safetensors"  # what a run with an adversary started from
_FILES = (STATE, WEIGHTS, MEAN, CARD, METRICS, CONFIG, ENVIRONMENT)
_PACKAGES = ("torch", "numpy", "PIL", "safetensors")


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Have the folder of a run for this process alone, and clear away what a killed one left.

    Raises:
        OutputError: the folder can't be made or written to, or another process has it.
    """
    atomic.make_folder(out)
    with locks.at_once(
        out / LOCK,
        busy=f"Another process trains in {printable(out)}.",
        hint="Give another folder with --out.",
    ):
        atomic.remove_temporaries(out / name for name in _FILES)
        yield


def keep_config(out: Path, config: Path, listed: Path | None, step: int) -> None:
    """Copy a configuration, and its list of photos, into the folder of its run.

    If the run was begun with another one, that is kept as `config-until-STEP.toml`.

    Args:
        out: the folder.
        config: the file.
        listed: CSV of photos that it names.
        step: how far the run is.

    Raises:
        OutputError: it can't be written.
    """
    kept = out / CONFIG
    content = config.read_bytes()
    before = kept.read_bytes() if kept.exists() else content
    if before != content:
        atomic.write(out / f"config-until-{step:06}.toml", before)
    atomic.write(kept, content)
    if listed is not None:
        atomic.write(out / listed.name, listed.read_bytes())


def note_session(out: Path, facts: Mapping[str, object]) -> None:
    """Add a start, or a resumption, to `environment.json`.

    Args:
        out: the folder of the run.
        facts: what else there is to know than time and versions.

    Raises:
        OutputError: it can't be written.
        ModelUnavailableError: the file is damaged.
    """
    path = out / ENVIRONMENT
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.exists() else []
        sessions.append(
            {
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                **facts,
                "platform": platform.platform(),
                "versions": {"resshift": __version__, "python": platform.python_version()}
                | {name: str(importlib.import_module(name).__version__) for name in _PACKAGES},
            }
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelUnavailableError(
            f"{printable(path)} is damaged.",
            hint="Delete it; the run goes on without its earlier entries.",
        ) from error
    atomic.write(path, json.dumps({"sessions": sessions}, indent=2).encode() + b"\n")


def measured(out: Path) -> list[dict[str, float]]:
    """The whole lines of `metrics.jsonl`.

    Raises:
        OutputError: it is there but can't be read.
    """
    return [entry for entry in _metrics(out).lines() if "step" in entry]


@contextmanager
def log(out: Path, step: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Have measurements written as JSON lines and, if the package is there, for TensorBoard.

    Args:
        out: the folder of the run.
        step: of the state that the run goes on from; what was measured after it is dropped, as
            it is measured again.

    Yields:
        What takes the measurements of a step, which raises OutputError if they can't be written.

    Raises:
        OutputError: the file can't be written.
    """
    journal = _metrics(out)
    kept = [entry for entry in measured(out) if entry["step"] <= step]
    atomic.write(journal.path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
    events = _event_writer(out, step)

    def write(metrics: Mapping[str, float]) -> None:
        journal.append(metrics)
        if events is not None:
            for name, value in metrics.items():
                if name != "step":
                    events.add_scalar(name, value, int(metrics["step"]))
            events.flush()

    try:
        yield write
    finally:
        if events is not None:
            events.close()


def _metrics(out: Path) -> Journal:
    return Journal(out / METRICS, hint="Make room for it, or look at who may write to it.")


def _event_writer(out: Path, step: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(out / "events"), purge_step=step + 1)
