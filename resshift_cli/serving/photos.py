"""Photos that clients enlarge: what they sent, and files below the folder that is open to them.

Neither a path nor a link leads anywhere else: paths are walked folder by folder through no link,
and what is sent lies in a folder of our own, under names of our own.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from resshift_cli.errors import InputMissingError, OutputError, UsageError, printable
from resshift_cli.imaging import targets
from resshift_cli.imaging.files import Handling, Loaded, load
from resshift_cli.imaging.sources import Source
from resshift_cli.imaging.targets import Content
from resshift_cli.system import held

LONGEST_NAME = 100  # characters


@dataclass(eq=False)
class Photo:
    """An image file of a client's.

    Attributes:
        name: what it is called; it is no path.
        open: opens it, for every use on its own.
        bytes: how large it is.
        kept: where it lies, if it is ours to delete.
        id: what clients call it.
        facts: what is told of it, once it was looked at.
        touched: when somebody last asked for it, in seconds of `time.monotonic`.
    """

    name: str
    open: Callable[[], BinaryIO]
    bytes: int
    kept: Path | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    facts: dict[str, Any] = field(default_factory=dict)
    touched: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, once it was looked at."""
        return self.facts["height"], self.facts["width"]

    @contextmanager
    def source(self) -> Iterator[Source]:
        """It, to be read."""
        self.touched = time.monotonic()
        with self.open() as file:
            yield Source(Path(self.name), file)

    def look(self, handling: Handling) -> Loaded:
        """Read it, and note what there is to say of it.

        Raises:
            ResShiftError: as `imaging.files.load`.
        """
        with self.source() as source:
            loaded = load(source, handling)
        height, width, _ = loaded.shape
        self.facts = {
            "name": self.name,
            "bytes": self.bytes,
            "width": width,
            "height": height,
            "format": loaded.picture.format,
            "depth": loaded.picture.depth,
            "alpha": loaded.picture.has_alpha,
            "frames": loaded.frames,
            "warnings": loaded.warnings,
        }
        return loaded

    def document(self) -> dict[str, Any]:
        """What clients are told of it."""
        return {"id": self.id, **self.facts}

    def discard(self) -> None:
        """Delete what is ours of it."""
        if self.kept is not None:
            with suppress(OSError):
                self.kept.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Root:
    """The folder whose files clients may name; there may be none.

    Attributes:
        path: it, wherever links lead on the way to it.
    """

    path: Path | None

    def photo(self, name: str) -> Photo:
        """A file in it or below.

        Args:
            name: path within the folder, with slashes.

        Raises:
            UsageError: there is no such folder, or the path leads out of it.
            InputMissingError: there is no such file, or it is behind a link.
        """
        parts = self.parts(name)
        with self._opened(parts) as file:
            size = os.fstat(file.fileno()).st_size
        return Photo(parts[-1], lambda: self._open(parts), size)

    def save(self, content: Content, name: str, *, overwrite: bool) -> None:
        """Write a file in it or below, whole or not at all.

        Args:
            content: of the file.
            name: as `photo`.
            overwrite: whether it may replace another one.

        Raises:
            UsageError: as `photo`.
            OutputError: it can't be written, is there, or is behind a link.
        """
        parts = self.parts(name)
        assert self.path is not None  # or there were no parts
        try:
            with held.opened(self.path) as root:
                targets.save_below(content, root, "/".join(parts), overwrite=overwrite)
        except OSError as error:
            raise OutputError(
                f"'{printable(name)}' can't be written: {error.strerror or printable(error)}.",
                hint="Check that the service's folder (--root) is still there.",
            ) from error

    def parts(self, name: str) -> list[str]:
        """A path within the folder, in parts.

        Raises:
            UsageError: there is no folder, or the path leads out of it.
        """
        if self.path is None:
            raise UsageError(
                "Files of the service's machine can't be named.",
                hint="Send the image itself, or start the service with a folder (--root).",
            )
        path = PurePosixPath(name)
        odd = any(sign in name for sign in "\\\0:") if os.name == "nt" else "\0" in name
        if odd or path.is_absolute() or ".." in path.parts or not path.parts:
            raise UsageError(
                f"'{printable(name)}' is no path within the service's folder.",
                hint="Name a file as seen from there, such as trip/photo.jpg.",
            )
        return list(path.parts)

    def _open(self, parts: list[str]) -> BinaryIO:
        assert self.path is not None  # or there were no parts
        *folders, last = parts
        name = "/".join(parts)
        try:
            with held.opened(self.path) as root, held.below(root, folders) as folder:
                file = folder.open(last)
        except (OSError, OutputError) as error:  # a link among them
            raise InputMissingError(
                f"There is no file '{printable(name)}' that may be opened.",
                hint="Check its name; links are not followed.",
            ) from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise InputMissingError(
                f"'{printable(name)}' is not a regular file.", hint="Name an image file."
            )
        return file

    @contextmanager
    def _opened(self, parts: list[str]) -> Iterator[BinaryIO]:
        with self._open(parts) as file:
            yield file


def received(content: BinaryIO, name: str, folder: Path) -> Photo:
    """What a client sent, kept in a folder.

    Args:
        content: it, from its beginning.
        name: what the client calls it; it names no file here.
        folder: ours alone.

    Raises:
        UsageError: it is empty.
        OutputError: there is no room for it.
    """
    path = folder / secrets.token_hex(16)
    try:
        with path.open("xb") as file:
            while block := content.read(1 << 20):
                file.write(block)
            size = file.tell()
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(
            f"The image can't be kept: {error.strerror or printable(error)}.",
            hint="Make room on the service's machine, or set TMPDIR to another folder.",
        ) from error
    if size == 0:
        path.unlink(missing_ok=True)
        raise UsageError("The image that was sent is empty.", hint="Send an image file.")
    return Photo(plain(name), lambda: path.open("rb"), size, path)


def plain(name: str) -> str:
    """A name out of a client's: the last part of a path, without what moves a cursor, and short."""
    last = printable(name.replace("\\", "/").rpartition("/")[2]).strip(". ") or "image"
    if len(last) <= LONGEST_NAME:
        return last
    stem, dot, ending = last.rpartition(".")
    if not dot or len(ending) > 10:
        return last[:LONGEST_NAME]
    return f"{stem[: LONGEST_NAME - len(ending) - 1]}.{ending}"
