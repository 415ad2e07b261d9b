"""Where images come from: files of this machine and of others, and stdin."""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    UsageError,
    printable,
)
from resshift_cli.system.digests import digest, digest_of
from resshift_cli.system.storage import Remote
from resshift_cli.system.versions import Known

_BLOCK = 1 << 20  # bytes
MOST_STDIN = 4 << 30
"""Bytes that are taken from stdin, or elsewhere, and kept in the folder of temporary files."""


class State(NamedTuple):
    """What tells one content of a file from another without reading it."""

    size: int
    mtime_ns: int
    inode: int
    version: str = ""  # of a file in a store, which has no times that tell

    @classmethod
    def at(cls, file: str | Path | int) -> State | None:
        """That of a file of this machine, or of an open one; None where there is nothing."""
        try:
            found = os.stat(file)
        except OSError:
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class Source:
    """Something that an image is read from, again and again if need be.

    Attributes:
        path: the file, or what messages call it.
        spool: its content, where `path` is no file.
        label: what it is called, where that is not `path`.
        remote: the file, where it is not on this machine; it is read by pieces until it is
            `fetched`.
        known: what its store has said of it.
        head: the first bytes of it, as far as they are here.
    """

    path: Path
    spool: BinaryIO | None = None
    label: str = ""
    remote: Remote | None = None
    known: Known | None = None
    head: bytes = b""

    @classmethod
    def at(cls, remote: Remote, known: Known | None = None, head: bytes = b"") -> Source:
        """A file that is not on this machine."""
        return cls(Path(remote.name), None, remote.shown, remote, known, head)

    @property
    def said(self) -> str:
        """What reports call it."""
        return self.label or str(self.path)

    @property
    def name(self) -> str:
        """For messages."""
        return printable(self.said)

    def open(self) -> BinaryIO:
        """Open it, as a file of the system; of one elsewhere, what can be read and sought in.

        Raises:
            InputMissingError: there is no such file, or it can't be opened.
            UsageError: it is a folder, or not a regular file.
        """
        if self.spool is None and self.remote is not None:
            return self.remote.open(self._known().size, self.head)
        if self.spool is None:
            return _open(self.path)
        file = os.fdopen(os.dup(self.spool.fileno()), "rb")
        file.seek(0)
        return file

    def is_file_at(self, path: Path) -> bool:
        """Whether it is a file of this machine that `path` leads to.

        Raises:
            OSError: there is nothing at `path`, or the source is gone.
        """
        here = self.spool is None and self.remote is None
        return here and os.path.samefile(self.path, path)

    def fetched(self) -> Source:
        """The same as a file of this machine: itself, or a copy that is gone when it is.

        Raises:
            InputMissingError, UsageError, ImageUnreadableError: as `Remote.fetch`.
        """
        if self.remote is None or self.spool is not None:
            return self
        with tempfile.TemporaryFile(prefix="resshift-") as file:
            version = self.remote.fetch(file, MOST_STDIN)
            spool = _Spool(os.dup(file.fileno()), "r+b")
        size = os.fstat(spool.fileno()).st_size
        known = Known(size, version, 0.0)
        return Source(self.path, cast(BinaryIO, spool), self.label, self.remote, known)

    def digest(self) -> str:
        """The SHA-256 of its content.

        Raises:
            OSError, InputMissingError: it can't be read.
        """
        if self.spool is None and self.remote is not None:
            return self.remote.digest()
        if self.spool is None:
            return digest(self.path)
        with self.open() as file:
            return digest_of(file)

    def state(self) -> State | None:
        """What it is like now, or was when its store told; None where there is nothing."""
        if self.remote is not None and self.spool is None:
            known = self.known or self.remote.known()
            return None if known is None else State(known.size, 0, 0, known.version)
        state = State.at(self.path if self.spool is None else self.spool.fileno())
        if state is None or self.known is None:
            return state
        return state._replace(version=self.known.version)

    def _known(self) -> Known:
        assert self.remote is not None  # or nobody asks
        known = self.known or self.remote.known()
        if known is None:
            raise InputMissingError(f"There is no {self.name}.", hint="Check the address.")
        return known

    def check_unchanged(self, since: State | None) -> None:
        """Make sure that it is still what it was.

        Raises:
            ImageUnreadableError: somebody has written to it, or replaced it.
        """
        if self.state() != since:
            raise ImageUnreadableError(
                f"{self.name} changed while it was read.",
                hint="Run the same command again when it is complete.",
            )


class _Spool(io.FileIO):
    """A file without a name that is closed when nobody has it any more."""

    def __del__(self) -> None:
        self.close()


@contextmanager
def stdin() -> Iterator[Source]:
    """All that comes in on stdin, in a file without a name, which is gone whatever happens.

    Raises:
        InputMissingError: stdin is closed, or can't be read.
        ImageUnreadableError: nothing comes in, or more than `MOST_STDIN`.
        OutputError: the file can't be written.
    """
    if sys.stdin is None:
        raise InputMissingError("stdin is closed.", hint="Give the name of a file instead of -.")
    source = Path("<stdin>")
    with tempfile.TemporaryFile(prefix="resshift-") as spool:
        try:
            taken = 0
            while block := _read_stdin():
                taken += len(block)
                if taken > MOST_STDIN:
                    raise ImageUnreadableError(
                        f"More than {MOST_STDIN >> 30} GB came in on stdin.",
                        hint="Give the name of a file instead of -.",
                    )
                spool.write(block)
            spool.flush()
        except OSError as error:
            raise OutputError(
                f"What comes in on stdin can't be kept in {printable(tempfile.gettempdir())}: "
                f"{error.strerror or printable(error)}.",
                hint="Make room there, or set TMPDIR to another folder.",
            ) from error
        if not spool.tell():
            raise ImageUnreadableError(
                "Nothing came in on stdin.", hint="Check the command before the pipe."
            )
        yield Source(source, spool)


@contextmanager
def elsewhere(remote: Remote) -> Iterator[Source]:
    """A file that is not on this machine, copied to one without a name.

    Raises:
        InputMissingError, UsageError, ImageUnreadableError: as `Remote.fetch`.
    """
    with tempfile.TemporaryFile(prefix="resshift-") as spool:
        remote.fetch(spool, MOST_STDIN)
        yield Source(Path(remote.name), spool, remote.shown)


def check_stdin() -> None:
    """Find out before the work whether an image may come in on stdin.

    Raises:
        UsageError: it is a terminal, where nobody types an image.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        raise UsageError(
            "stdin is a terminal, and - reads an image from it.",
            hint="Feed it a file: resshift upscale - < photo.png",
        )


def _read_stdin() -> bytes:
    try:
        return sys.stdin.buffer.read(_BLOCK)
    except OSError as error:
        raise InputMissingError(
            f"stdin can't be read: {error.strerror or printable(error)}.",
            hint="Give the name of a file instead of -.",
        ) from error


def _open(path: Path) -> BinaryIO:
    name = printable(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(
                f"{name} is a folder.",
                hint=f"`resshift batch {name}` enlarges what is in it; or name its files.",
            )
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{name} is not a regular file.", hint="Save the image to a file and give its name."
            )
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputMissingError(f"There is no file {name}.", hint=_nearest(path)) from error
    except OSError as error:
        raise InputMissingError(
            f"{name} can't be opened: {error.strerror or printable(error)}.",
            hint="Check its name and whether you may read it (`ls -l` shows that).",
        ) from error


def _nearest(path: Path) -> str:
    """A hint that names what the user may have meant instead of `path`."""
    folder = path.parent
    if not os.path.isdir(folder):
        return f"There is no folder {printable(folder)} either; check the path."
    try:
        names = {p.name.lower(): p for p in islice(folder.iterdir(), 10_000) if p.is_file()}
    except OSError:
        names = {}
    # A common extension makes any two names alike: the stems have to be.
    near = [
        name
        for name in get_close_matches(path.name.lower(), names, n=3)
        if get_close_matches(path.stem.lower(), [Path(name).stem], cutoff=0.65)
    ]
    return f"Did you mean {printable(names[near[0]])}?" if near else "Check its name and folder."
