"""What `resshift bench` reports, and how two reports compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from resshift_cli import __version__
from resshift_cli.errors import InputMissingError, UsageError
from resshift_cli.evaluation.timing import IDENTITY
from resshift_cli.evaluation.turns import Turns
from resshift_cli.restoration import rates


def document(measured: Sequence[Turns], device: torch.device) -> dict[str, Any]:
    """What --json prints: the machine, and a row per measurement."""
    return {
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**rates.describe_machine(), "device": rates.name_of(device)},
        "rows": [facts for turns in measured for facts in turns.facts()],
        "errors": [
            {"task": trial.title, **error.facts()}
            for turns in measured
            for trial, error in turns.failures
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
            _identity(row), float(row["seconds_per_megapixel"]["median"])
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
    before = {_identity(row): row for row in earlier["rows"]}
    for row in now["rows"]:
        if same := before.pop(_identity(row), None):
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


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in IDENTITY)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in IDENTITY}
