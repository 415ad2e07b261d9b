"""What tells one file's content from another's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20  # bytes read at a time


def digest(path: Path) -> str:
    """The SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return digest_of(file)


def digest_of(file: BinaryIO) -> str:
    """The same of an open file, from its start; it is left at its end."""
    sha256 = hashlib.sha256()
    file.seek(0)
    while block := file.read(BLOCK):
        sha256.update(block)
    return sha256.hexdigest()
