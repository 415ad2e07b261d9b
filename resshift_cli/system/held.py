"""Folders held open, so that what is done in them is done there and nowhere else.

Whoever can write to a folder can put a link in it. A `HeldFolder` follows none: neither to files,
nor to the folders below, whatever is changed meanwhile. Where the system can't work from an open
folder (Windows, where making links takes rights), names are looked at first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from resshift_cli.errors import OutputError, printable

BY_HANDLE = {os.open, os.mkdir, os.rename, os.link, os.unlink, os.stat} <= os.supports_dir_fd
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # of Windows
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # where it is a pipe that nobody writes to


@dataclass(frozen=True, slots=True)
class HeldFolder:
    """A folder.

    Attributes:
        path: what it is called; it may be called otherwise by now.
        handle: the open folder; None where the system works by names.
    """

    path: Path
    handle: int | None

    def _at(self, name: str) -> str | Path:
        return name if self.handle is not None else self.path / name

    def state(self, name: str) -> os.stat_result | None:
        """What there is of a name, links as they are; None if there is nothing."""
        try:
            return os.stat(self._at(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def create(self, name: str) -> BinaryIO:
        """A new file, to be written and read.

        Raises:
            OSError: there is one of that name, or it can't be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
        return os.fdopen(os.open(self._at(name), flags, 0o666, dir_fd=self.handle), "w+b")

    def open(self, name: str) -> BinaryIO:
        """A file that is there, to be read.

        Raises:
            OSError: it is not there, can't be opened, or is a link.
        """
        if not _NO_LINK and stat.S_ISLNK(os.stat(self._at(name), follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        flags = os.O_RDONLY | _NO_LINK | _AT_ONCE | _BINARY
        return os.fdopen(os.open(self._at(name), flags, dir_fd=self.handle), "rb")

    def nameless(self) -> BinaryIO | None:
        """A new file that is gone when it is closed, also by a kill, unless `give_name` names it.

        Returns:
            None where the system, or the file system, has no such files, or there is no /proc to
            name them by.
        """
        flag = getattr(os, "O_TMPFILE", None)  # Linux
        if flag is None or self.handle is None or not os.path.isdir("/proc/self/fd"):
            return None
        try:
            return os.fdopen(os.open(".", flag | os.O_RDWR, 0o666, dir_fd=self.handle), "w+b")
        except OSError:  # whatever else is wrong, an ordinary file will tell
            return None

    def give_name(self, file: BinaryIO, name: str) -> None:
        """Give a file of `nameless` a name that is not taken.

        Raises:
            OSError: it is taken, or can't be given.
        """
        root = os.open("/", os.O_RDONLY)
        try:
            # Only with a folder is the link in /proc followed.
            os.link(
                f"proc/self/fd/{file.fileno()}",
                name,
                src_dir_fd=root,
                dst_dir_fd=self.handle,
                follow_symlinks=True,
            )
        finally:
            os.close(root)

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, from which it takes what was there."""
        os.replace(self._at(old), self._at(new), src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def name_if_free(self, old: str, new: str) -> None:
        """The same in one step unless the name is taken, also if that happened only just now.

        Raises:
            FileExistsError: it is.
        """
        try:
            os.link(self._at(old), self._at(new), src_dir_fd=self.handle, dst_dir_fd=self.handle)
        except FileExistsError:
            raise
        except OSError:  # FAT and some network folders have no hard links
            self.create(new).close()  # takes the name, or raises FileExistsError
            try:
                self.replace(old, new)
            except BaseException:
                self.remove(new)
                raise

    def remove(self, name: str) -> None:
        """Remove a file, if it is there and can be removed."""
        with suppress(OSError):
            os.unlink(self._at(name), dir_fd=self.handle)

    def is_still_there(self) -> bool:
        """Whether it is called what it was called."""
        if self.handle is None:
            return self.path.is_dir()
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.handle))
        except OSError:
            return False


@contextmanager
def opened(path: Path) -> Iterator[HeldFolder]:
    """Open a folder, wherever links lead on the way to it: a person has named it.

    Raises:
        OSError: it is not there, or no folder.
    """
    if not BY_HANDLE:
        yield HeldFolder(path, None)
        return
    handle = os.open(path, os.O_RDONLY | _FOLDER)
    try:
        yield HeldFolder(path, handle)
    finally:
        os.close(handle)


@contextmanager
def below(place: HeldFolder, parts: Sequence[str], *, make: bool = False) -> Iterator[HeldFolder]:
    """Open a folder below another one; no link is followed.

    Args:
        place: where to begin.
        parts: names of folders, each within the one before.
        make: whether to make those that are not there.

    Raises:
        OutputError: one of them is a link.
        OSError: one is not there, or no folder, or can't be made.
    """
    if not parts:
        yield place
        return
    path = place.path / parts[0]
    found = place.state(parts[0])
    if found is None and make:
        with suppress(FileExistsError):
            os.mkdir(place._at(parts[0]), dir_fd=place.handle)
    elif found is not None and stat.S_ISLNK(found.st_mode):
        raise OutputError(
            f"{printable(path)} is a link, and no results are written through links.",
            hint="Remove it, or choose another folder (-o).",
        )
    if place.handle is None:
        with below(HeldFolder(path, None), parts[1:], make=make) as folder:
            yield folder
        return
    handle = os.open(parts[0], os.O_RDONLY | _FOLDER | _NO_LINK, dir_fd=place.handle)
    try:
        with below(HeldFolder(path, handle), parts[1:], make=make) as folder:
            yield folder
    finally:
        os.close(handle)


def state(path: str | Path) -> os.stat_result | None:
    """What there is of a path, a link as it is; None if there is nothing, or it can't be told."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def give_access(file: IO[bytes], like: os.stat_result | None) -> None:
    """Give a new file the permissions of the one it replaces and, where allowed, its owner."""
    if like is None or not stat.S_ISREG(like.st_mode) or not hasattr(os, "fchown"):
        return
    now = os.fstat(file.fileno())
    for user, group in ((like.st_uid, like.st_gid), (-1, like.st_gid)):
        if (now.st_uid, now.st_gid) == (like.st_uid, like.st_gid):
            break
        with suppress(OSError):  # only root gives files away
            os.fchown(file.fileno(), user, group)
            break
    os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode) & 0o777)


def open_own(path: Path, *, write: bool) -> BinaryIO:
    """Open a file that is ours alone, to read it or to append to it, or begin it.

    Raises:
        FileNotFoundError: it is not there, and is to be read.
        OutputError: it is a link, no regular file, has another name elsewhere, or belongs to
            another user.
        OSError: it can't be opened.
    """
    flags = (os.O_RDWR | os.O_CREAT | os.O_APPEND) if write else os.O_RDONLY
    try:
        handle = os.open(path, flags | _NO_LINK | _AT_ONCE | _BINARY, 0o666)
    except OSError:
        if path.is_symlink():  # which the system calls too many of them
            raise not_ours(path, "is a link") from None
        raise
    try:
        check_own(path, os.fstat(handle))
        return os.fdopen(handle, "ab+" if write else "rb")
    except BaseException:
        os.close(handle)
        raise


def check_own(path: Path, found: os.stat_result) -> None:
    """Refuse a file that may be another's.

    Raises:
        OutputError: as `open_own`.
        IsADirectoryError: it is a folder.
    """
    if stat.S_ISLNK(found.st_mode):
        raise not_ours(path, "is a link")
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise not_ours(path, "is not a regular file")
    if found.st_nlink > 1:
        copy = "Copy it, and put the copy in its place"
        raise not_ours(path, "has another name elsewhere (a hard link)", copy)
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    if user not in (0, found.st_uid):
        raise not_ours(path, "belongs to another user")


def not_ours(path: Path, why: str, way_out: str = "Remove it") -> OutputError:
    """The refusal of a file."""
    return OutputError(
        f"{printable(path)} {why}: it is not of resshift's making, and nothing is written to it.",
        hint=f"{way_out}, or choose another folder (-o).",
    )
