"""Files that are not on this machine: on web servers, in object stores, on other hosts.

A file is named by its URL. What is read is copied here once, block by block; what is written is
sent when it is whole, and is there whole or not at all. What fails by chance is tried again.

Whatever a URL says of a login, or of a signature behind its question mark, is for the other side
alone: no message and no record has it.
"""

from __future__ import annotations

import hashlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    ResShiftError,
    UsageError,
    printable,
)
from resshift_cli.system.digests import digest

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_WEB = ("http", "https")
_EXTRAS = {
    **{"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"},
    **{"sftp": "sftp", "ssh": "sftp"},
}
"""Schemes, and the extra that knows each."""

_OTHERS = ("hf", "memory")
_RENAMED = ("sftp", "ssh")
"""Where a file that is being written can be seen, so that it gets its name in the end."""

BLOCK = 16 << 20  # bytes that are asked for at a time
SILENCE = 30.0  # seconds that a web server may take to send something
TRIES = 6  # of a request that fails
_BACK_OFF = 0.25  # seconds before the second try; twice as many before every other
# Statuses of web servers that the same request would get again.
_FINAL = (400, 401, 403, 404, 405, 410)


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
        if self.scheme not in _WEB:
            return printable(re.sub(r"://[^/@]*@", "://", self.url))
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return printable(f"{parts.scheme}://{host}{parts.path}")

    @property
    def name(self) -> str:
        """Its last part, as a file here may be called; "" of a folder."""
        web = self.scheme in _WEB
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
        with _told(self, "read", InputMissingError):
            if self.scheme in _WEB:
                return _Web(self).fetch(file, most)
            return self._fetch(file, most)

    def _fetch(self, file: BinaryIO, most: int) -> str:
        system, path = self._system()
        found = patiently(lambda: system.info(path))
        if found["type"] != "file":
            raise InputMissingError(f"{self.shown} is a folder.", hint="Name a file in it.")
        size = int(found["size"])
        _check_size(self, size, most)
        while (start := file.tell()) < size:
            end = min(start + BLOCK, size)
            file.write(patiently(partial(_block, system, path, start, end)))
        file.flush()
        if _version(patiently(lambda: system.info(path))) != _version(found):
            raise _changed(self)
        return _version(found)

    def exists(self) -> bool:
        """Whether there is a file.

        Raises:
            OutputError: that can't be told.
            UsageError: as `fetch`, or nothing can be written to such a place.
        """
        if self.scheme in _WEB or self.scheme == "hf":
            raise UsageError(
                f"Nothing can be written to {self.shown}.",
                hint="Give a file or folder of this machine, or one such as s3://bucket/large/.",
            )
        with _told(self, "written", OutputError):
            system, path = self._system()
            return patiently(lambda: bool(system.exists(path)))

    def send(self, file: Path, *, overwrite: bool) -> None:
        """Have a whole file there, or nothing.

        Args:
            file: what is to be there; its extension tells the store what it is.
            overwrite: whether to replace what is there.

        Raises:
            OutputError: there is one already, or it can't be written.
        """
        with _told(self, "written", OutputError):
            system, path = self._system()
            try:
                _Sending(system, path, file, overwrite).send(by_rename=self.scheme in _RENAMED)
            except FileExistsError:
                raise OutputError(
                    f"{self.shown} exists already.",
                    hint="Use --overwrite to replace it, or give another name with -o.",
                ) from None

    def _system(self) -> tuple[AbstractFileSystem, str]:
        """What knows such places, and the file's name there."""
        if self.scheme not in (*_EXTRAS, *_OTHERS):
            raise UsageError(
                f"There is no way to {self.shown} here.",
                hint=f"URLs begin with one of {', '.join((*_WEB, *_EXTRAS, *_OTHERS))}.",
            )
        from fsspec.core import url_to_fs

        try:
            system, path = url_to_fs(self.url, use_listings_cache=False)
        except ImportError:
            extra = _EXTRAS.get(self.scheme, "s3")
            raise UsageError(
                f"{self.scheme}:// needs packages that are not here.",
                hint=f"pip install 'resshift[{extra}]' brings them.",
            ) from None
        return system, str(path)


@dataclass(frozen=True, slots=True)
class _Sending:
    """A file on its way."""

    system: AbstractFileSystem
    path: str
    file: Path
    overwrite: bool

    def send(self, *, by_rename: bool) -> None:
        """Send it, again if need be."""
        folder, slash, name = self.path.rpartition("/")
        place = f"{folder}{slash}.{secrets.token_hex(4)}.{name}" if by_rename else self.path
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

        patiently(put)
        if by_rename:
            patiently(lambda: self.system.mv(place, self.path))

    def _is_there(self) -> bool:
        there = hashlib.sha256()
        size = int(self.system.info(self.path)["size"])
        for start in range(0, size, BLOCK):
            there.update(_block(self.system, self.path, start, min(start + BLOCK, size)))
        return there.hexdigest() == digest(self.file)


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
                raise _Answer(answer.status_code)
            if answer.status_code == 200:
                file.seek(0)
                file.truncate()
            version = answer.headers.get("ETag", "")
            self.version = "" if version.startswith("W/") else version  # which promises no bytes
            _check_size(self.remote, int(answer.headers.get("Content-Length", "0")), most)
            for block in answer.iter_raw():
                file.write(block)
                _check_size(self.remote, file.tell(), most)


class _Answer(Exception):
    """What a web server said instead of the file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers {status}")
        self.status = status


def _block(system: AbstractFileSystem, path: str, start: int, end: int) -> bytes:
    block = bytes(system.cat_file(path, start=start, end=end))
    if len(block) != end - start:
        raise OSError(f"{len(block)} bytes came in place of {end - start}")
    return block


def patiently(ask: Callable[[], T]) -> T:
    """Ask again, later and later, after failures that may pass.

    Raises:
        Exception: the last one, or one that would come again.
    """
    for number in range(1, TRIES):
        try:
            return ask()
        except Exception as error:
            if _is_final(error):
                raise
            time.sleep(_BACK_OFF * 2 ** (number - 1) * random.uniform(0.5, 1.0))
    return ask()


def _is_final(error: Exception) -> bool:
    """Whether a request that failed would fail again."""
    final = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
    if isinstance(error, (ResShiftError, ImportError, *final)):
        return True
    if isinstance(error, _Answer):
        return error.status in _FINAL
    return type(error).__name__ in ("NoCredentialsError", "InvalidURL", "UnsupportedProtocol")


@contextmanager
def _told(remote: Remote, done: str, kind: type[ResShiftError]) -> Iterator[None]:
    """Say for people what goes wrong; what the packages say may hold a login, and is not shown."""
    try:
        yield
    except ResShiftError:
        raise
    except FileNotFoundError:
        raise kind(f"There is no {remote.shown}.", hint="Check the address.") from None
    except Exception as error:
        why = str(error) if isinstance(error, _Answer) else _kind_of(error)
        if isinstance(error, _Answer) and error.status in (404, 410):
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


def _version(found: dict[str, Any]) -> str:
    """What tells one content of an object from another."""
    for name in ("VersionId", "ETag", "etag", "generation", "LastModified", "mtime", "created"):
        if found.get(name):
            return f"{found[name]}".strip('"')
    return str(found.get("size", ""))


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
