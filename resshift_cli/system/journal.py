"""Files of JSON lines that grow by one line at a time, and outlive a loss of power."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from resshift_cli.errors import OutputError, printable
from resshift_cli.system import atomic, held


class Journal:
    """A file of JSON lines; an absent one is begun by the first line.

    Args:
        path: the file.
        hint: what helps where it can't be read or written.
    """

    def __init__(self, path: Path, *, hint: str) -> None:
        self.path = path
        self.hint = hint

    def lines(self) -> Iterator[dict[str, Any]]:
        """All whole lines that are objects; what is torn or of another kind is passed over.

        Raises:
            OutputError: it is there but can't be read, or is not ours: see `held.open_own`.
        """
        try:
            with held.open_own(self.path, write=False) as file:
                content = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(
                f"{printable(self.path)} can't be read: {atomic.reason(error)}.", hint=self.hint
            ) from error
        for line in content.split(b"\n"):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                yield values

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; when this returns it is on the disk.

        Raises:
            OutputError: it can't be written, or is not ours.
        """
        line = json.dumps(values).encode("ascii") + b"\n"
        new = not self.path.exists()
        try:
            with held.open_own(self.path, write=True) as file:
                # After a line that was torn when the power went, begin a new one.
                file.write(line if self._ends_whole(file) else b"\n" + line)
                file.flush()
                os.fsync(file.fileno())
            if new:
                atomic.sync_folder(self.path.parent)
        except OSError as error:
            raise OutputError(
                f"{printable(self.path)} can't be written: {atomic.reason(error)}.", hint=self.hint
            ) from error

    @staticmethod
    def _ends_whole(file: Any) -> bool:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")
