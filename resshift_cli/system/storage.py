"""Files that are not on this machine: on web servers, in object stores, on other hosts.

A file is named by its URL. What is read is copied here once, block by block; what is written is
sent when it is whole, and is there whole or not at all. What fails by chance is tried again.

Whatever a URL says of a login, or of a signature behind its question mark, is for the other side
alone: no message and no record has it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    ResShiftError,
    UsageError,
    printable,
)
from resshift_cli.system import atomic
from resshift_cli.system.digests import digest
from resshift_cli.system.patience import Answer, patiently
from resshift_cli.system.versions import Known, known

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# What these log would else be printed by the logging of Python's last resort.
for _package in ("adlfs", "azure", "botocore", "fsspec", "gcsfs", "google", "paramiko", "s3fs"):
    logging.getLogger(_package).addHandler(logging.NullHandler())

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
WEB = ("http", "https")
_EXTRAS = {
    **{"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"},
    **{"sftp": "sftp", "ssh": "sftp"},
}
"""Schemes, and the extra that knows each."""

_OTHERS = ("hf", "memory")
_OF_AZURE = ("az", "abfs", "abfss")
"""Where container@account is a place, and no login."""

_RENAMED = ("sftp", "ssh")
"""Where a file that is being written can be seen, so that it gets its name in the end."""

BLOCK = 16 << 20  # bytes that are asked for at a time
HEAD = 64 << 10  # bytes in which most headers are
SILENCE = 30.0  # seconds that a web server may take to send something


def is_url(name: str) -> bool:
    """Whether a name is that of a file elsewhere, and no path."""
    return _URL.match(name) is not None


@dataclass(frozen=True, slots=True)
class Remote:
    """A file elsewhere, or a place for one.

    Attributes:
        url: as it was given; `shown` is for messages.
    """

    url: str

    @property
    def scheme(self) -> str:
        """What kind of place it is in."""
        return self.url.partition(":")[0].lower()

    @property
    def shown(self) -> str:
        """The URL without login and signature."""
        if self.scheme in _OF_AZURE:
            return printable(self.url)
        if self.scheme not in WEB:
            return printable(re.sub(r"://[^/@]*@", "://", self.url))
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return printable(f"{parts.scheme}://{host}{parts.path}")

    @property
    def name(self) -> str:
        """Its last part, as a file here may be called; "" of a folder."""
        web = self.scheme in WEB
        path = urlsplit(self.url).path if web else self.url.partition("://")[2]
        last = path.rpartition("/")[2]
        return (unquote(last) if web else last).replace("/", "_").replace("\0", "_")

    def below(self, name: str) -> Remote:
        """A file in this folder."""
        return Remote(f"{self.url.rstrip('/')}/{name}")

    def fetch(self, file: BinaryIO, most: int) -> str:
        """Copy it to a file here, which is empty.

        Args:
            file: where it goes.
            most: bytes that it may have.

        Returns:
            What tells this content from others: the store's ETag or version, "" if it has none.

        Raises:
            InputMissingError: there is no such file, or it can't be reached.
            ImageUnreadableError: it is larger, or changed while it was read.
            UsageError: there is no way to such places here.
        """
        with told(self, "read", InputMissingError):
            if self.scheme in WEB:
                return _Web(self).fetch(file, most)
            return self._fetch(file, most)

    def _fetch(self, file: BinaryIO, most: int) -> str:
        system, path = self.system()
        found = patiently(lambda: system.info(path))
        if found["type"] != "file":
            raise InputMissingError(f"{self.shown} is a folder.", hint="Name a file in it.")
        size = int(found["size"])
        _check_size(self, size, most)
        while (start := file.tell()) < size:
            end = min(start + BLOCK, size)
            file.write(patiently(partial(_block, system, path, start, end)))
        file.flush()
        if known(patiently(partial(_asked_anew, system, path))) != known(found):
            raise _changed(self)
        return known(found).version

    def exists(self) -> bool:
        """Whether there is a file.

        Raises:
            OutputError: that can't be told.
            UsageError: as `fetch`, or nothing can be written to such a place.
        """
        self.check_writable()
        with told(self, "written", OutputError):
            system, path = self.system()
            return patiently(lambda: bool(system.exists(path)))

    def check_writable(self) -> None:
        """Refuse what nothing can be written to, whoever asks.

        Raises:
            UsageError: it is such a place.
        """
        if self.scheme in WEB or self.scheme == "hf":
            raise UsageError(
                f"Nothing can be written to {self.shown}.",
                hint="Give a file or folder of this machine, or one such as s3://bucket/large/.",
            )

    def known(self) -> Known | None:
        """What the store says of it; None if there is no such file.

        Raises:
            InputMissingError: that can't be told.
            UsageError: as `fetch`.
        """
        with told(self, "read", InputMissingError):
            system, path = self.system()
            try:
                found = patiently(lambda: system.info(path))
            except FileNotFoundError:
                return None
            return known(found) if found["type"] == "file" else None

    def blocks(self) -> Iterator[bytes]:
        """Its content, some at a time.

        Raises:
            InputMissingError: as `fetch`.
        """
        with told(self, "read", InputMissingError):
            system, path = self.system()
            size = int(patiently(lambda: system.info(path))["size"])
            for start in range(0, size, BLOCK):
                yield patiently(partial(_block, system, path, start, min(start + BLOCK, size)))

    def read(self) -> bytes | None:
        """A small file in one request, as it is at one time; None if there is none.

        Raises:
            InputMissingError: that can't be told.
        """
        with told(self, "read", InputMissingError):
            system, path = self.system()
            with suppress(FileNotFoundError):
                return bytes(patiently(lambda: system.cat_file(path)))
            return None

    def digest(self) -> str:
        """The SHA-256 of its content.

        Raises:
            InputMissingError: as `fetch`.
        """
        sha256 = hashlib.sha256()
        for block in self.blocks():
            sha256.update(block)
        return sha256.hexdigest()

    def open(self, size: int, head: bytes = b"") -> BinaryIO:
        """Read it by blocks, as they are asked for.

        Args:
            size: bytes that it has.
            head: those of them that are here already, from the start.

        Raises:
            InputMissingError: as `fetch`, whoever reads then.
        """
        return io.BufferedReader(_Blocks(self, size, head))

    def write(self, content: bytes, *, create: bool = False) -> bool:
        """Have a small file there, whole.

        Args:
            content: of it.
            create: whether only where there is none; whether that is certain is the store's to say.

        Returns:
            Whether this was done; False if there was another file.

        Raises:
            OutputError: it can't be written.
        """
        with told(self, "written", OutputError):
            system, path = self.system()
            try:
                _pipe(system, path, content, create=create, by_rename=self.scheme in _RENAMED)
            except FileExistsError:
                # As in `_Sending`: it may be this very one.
                return self.read() == content
            return True

    def remove(self) -> None:
        """Remove it, if it is there and can be removed."""
        system, path = self.system()
        with suppress(Exception):
            patiently(lambda: system.rm_file(path))

    def send(self, file: Path, *, overwrite: bool) -> None:
        """Have a whole file there, or nothing.

        Args:
            file: what is to be there; its extension tells the store what it is.
            overwrite: whether to replace what is there.

        Raises:
            OutputError: there is one already, or it can't be written.
        """
        with told(self, "written", OutputError):
            system, path = self.system()
            try:
                _Sending(self, system, path, file, overwrite).send(
                    by_rename=self.scheme in _RENAMED
                )
            except FileExistsError:
                raise OutputError(
                    f"{self.shown} exists already.",
                    hint="Use --overwrite to replace it, or give another name with -o.",
                ) from None

    def system(self) -> tuple[AbstractFileSystem, str]:
        """What knows such places, and the file's name there.

        Raises:
            UsageError: as `fetch`.
        """
        if self.scheme not in (*_EXTRAS, *_OTHERS):
            raise UsageError(
                f"There is no way to {self.shown} here.",
                hint=f"URLs begin with one of {', '.join((*WEB, *_EXTRAS, *_OTHERS))}.",
            )
        from fsspec.core import url_to_fs

        # fsspec is not shown the file's name: there is a meaning of its own for `::` in URLs.
        place, slash, name = self.url.partition("://")[2].partition("/")
        # What speaks SFTP remembers no lists, and hands all options on to where it connects.
        options = {} if self.scheme in _RENAMED else {"use_listings_cache": False}
        try:
            system, root = url_to_fs(f"{self.scheme}://{place}", **options)
        except ImportError:
            extra = _EXTRAS.get(self.scheme, "s3")
            raise UsageError(
                f"{self.scheme}:// needs packages that are not here.",
                hint=f"pip install 'resshift[{extra}]' brings them.",
            ) from None
        return system, f"{str(root).rstrip('/')}{slash}{name}"


@dataclass(frozen=True, slots=True)
class _Sending:
    """A file on its way."""

    remote: Remote
    system: AbstractFileSystem
    path: str
    file: Path
    overwrite: bool

    def send(self, *, by_rename: bool) -> None:
        """Send it, again if need be."""
        place = _beside(self.path) if by_rename else self.path
        if by_rename and not self.overwrite and self.system.exists(self.path):
            raise FileExistsError
        mode = "overwrite" if self.overwrite or by_rename else "create"

        def put() -> None:
            try:
                self.system.put_file(str(self.file), place, mode=mode)
            except FileExistsError:
                # A request that got no answer may have been carried out, and was then repeated.
                if not self._is_there():
                    raise

        if not by_rename:
            return patiently(put)
        with _named_in_the_end(self.system, place, self.path):
            patiently(put)

    def _is_there(self) -> bool:
        return self.remote.digest() == digest(self.file)


class _Web:
    """A file of a web server, some of which is here."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.version = ""  # that allows to go on where it broke off

    def fetch(self, file: BinaryIO, most: int) -> str:
        """As `Remote.fetch`; what broke off goes on, if the server can do that."""
        patiently(lambda: self._ask(file, most))
        file.flush()
        return self.version

    def _ask(self, file: BinaryIO, most: int) -> None:
        import httpx2

        headers = {"Accept-Encoding": "identity"}
        if self.version and (start := file.tell()):
            headers |= {"Range": f"bytes={start}-", "If-Range": self.version}
        with (
            httpx2.Client(follow_redirects=True, timeout=SILENCE) as client,
            client.stream("GET", self.remote.url, headers=headers) as answer,
        ):
            if answer.status_code not in (200, 206):
                raise Answer(answer.status_code)
            if answer.status_code == 200:
                file.seek(0)
                file.truncate()
            version = answer.headers.get("ETag", "")
            self.version = "" if version.startswith("W/") else version  # which promises no bytes
            _check_size(self.remote, int(answer.headers.get("Content-Length", "0")), most)
            for block in answer.iter_raw():
                file.write(block)
                _check_size(self.remote, file.tell(), most)


def _asked_anew(system: AbstractFileSystem, path: str) -> dict[str, Any]:
    system.invalidate_cache(path)  # the Hub's remembers files, whatever it was told
    return dict(system.info(path))


def _block(system: AbstractFileSystem, path: str, start: int, end: int) -> bytes:
    block = bytes(system.cat_file(path, start=start, end=end))
    if len(block) != end - start:
        raise OSError(f"{len(block)} bytes came in place of {end - start}")
    return block


class _Blocks(io.RawIOBase):
    """A file elsewhere, of which more is asked for at a time the further one reads."""

    def __init__(self, remote: Remote, size: int, head: bytes) -> None:
        self._remote, self._size = remote, size
        self._at = self._start = 0
        self._block, self._ask = head, HEAD

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not self._start <= self._at < self._start + len(self._block):
            self._fetch()
        behind = self._at - self._start
        some = self._block[behind : behind + len(buffer)]
        buffer[: len(some)] = some
        self._at += len(some)
        return len(some)

    def _fetch(self) -> None:
        end = min(self._at + self._ask, self._size)
        self._start, self._block = self._at, b""
        if end > self._at:
            with told(self._remote, "read", InputMissingError):
                system, path = self._remote.system()
                self._block = patiently(partial(_block, system, path, self._at, end))
            self._ask = min(2 * self._ask, BLOCK)


def _pipe(
    system: AbstractFileSystem, path: str, content: bytes, *, create: bool, by_rename: bool
) -> None:
    if not by_rename:
        mode = "create" if create else "overwrite"
        patiently(lambda: system.pipe_file(path, content, mode=mode))
        return
    if create and system.exists(path):
        raise FileExistsError
    place = _beside(path)
    with _named_in_the_end(system, place, path):
        patiently(lambda: system.makedirs(path.rpartition("/")[0], exist_ok=True))
        patiently(lambda: system.pipe_file(place, content))


def _beside(path: str) -> str:
    """A new hidden name in the same folder."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{atomic.temporary_name(name)}"


@contextmanager
def _named_in_the_end(system: AbstractFileSystem, place: str, path: str) -> Iterator[None]:
    """Have what was put in one place in another one, or nothing in either."""
    try:
        yield
        patiently(lambda: system.mv(place, path))
    except BaseException:
        with suppress(Exception):
            system.rm_file(place)
        raise


@contextmanager
def told(remote: Remote, done: str, kind: type[ResShiftError]) -> Iterator[None]:
    """Say for people what goes wrong; what the packages say may hold a login, and is not shown."""
    try:
        yield
    except ResShiftError:
        raise
    except FileNotFoundError:
        raise kind(f"There is no {remote.shown}.", hint="Check the address.") from None
    except Exception as error:
        why = str(error) if isinstance(error, Answer) else _kind_of(error)
        if isinstance(error, Answer) and error.status in (404, 410):
            raise kind(f"There is no {remote.shown}.", hint="Check the address.") from None
        raise kind(
            f"{remote.shown} can't be {done}: {why}.",
            hint="Check the address, the network, and that this machine has a login for it.",
        ) from None


def _kind_of(error: Exception) -> str:
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return "no permission"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)
    return (error.strerror if isinstance(error, OSError) and error.errno else None) or words.lower()


def _check_size(remote: Remote, size: int, most: int) -> None:
    if size > most:
        raise ImageUnreadableError(
            f"{remote.shown} has more than {most >> 30} GB.", hint="Reduce the image first."
        )


def _changed(remote: Remote) -> ImageUnreadableError:
    return ImageUnreadableError(
        f"{remote.shown} changed while it was read.",
        hint="Run the same command again when it is complete.",
    )
