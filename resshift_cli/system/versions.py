"""What stores say of a file, by which it is known to be what it was."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple


class Known(NamedTuple):
    """What a store says of a file without sending it.

    Attributes:
        size: bytes.
        version: what tells this content from others; "" if nothing does.
        changed: when it was written, by the store's clock, in seconds; 0 if nobody knows.
    """

    size: int
    version: str
    changed: float


def known(found: Mapping[str, Any]) -> Known:
    """The same of what fsspec has of a file, listed or asked for alone."""
    times = (_seconds(found.get(name)) for name in _TIMES)
    changed = next((time for time in times if time), 0.0)
    tags = (str(found.get(name) or "").strip('"') for name in _TAGS)
    version = next((tag for tag in tags if tag), f"{changed:.6f}" if changed else "")
    return Known(int(found["size"] or 0), version, changed)


# What fsspec's packages call them, the same in lists as of one file.
_TAGS = ("ETag", "etag", "generation", "blob_id")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


def _seconds(time: object) -> float:
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return 0.0
    if isinstance(time, datetime):
        return time.timestamp()
    return float(time) if isinstance(time, int | float) else 0.0
