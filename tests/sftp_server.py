"""A server of files over SFTP, on the loopback, that knows one login."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import paramiko
from paramiko import SFTPAttributes, SFTPServer

USER, PASSWORD = "me", "not-to-be-seen"

T = TypeVar("T")


class _Login(paramiko.ServerInterface):  # type: ignore[misc]  # it has no types
    def check_auth_password(self, username: str, password: str) -> int:
        known = (username, password) == (USER, PASSWORD)
        return int(paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def get_allowed_auths(self, username: str) -> str:
        return "password"


class _Open(paramiko.SFTPHandle):  # type: ignore[misc]  # it has no types
    def stat(self) -> Any:
        return SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]  # it has no types
    """The files below `root`."""

    def __init__(self, server: Any, root: Path) -> None:
        super().__init__(server)
        self.root = root

    def _at(self, path: str) -> str:
        return f"{self.root}{self.canonicalize(path)}"

    def _do(self, done: Callable[[], T]) -> T | int:
        try:
            return done()
        except OSError as error:
            return int(SFTPServer.convert_errno(error.errno))

    def list_folder(self, path: str) -> Any:
        def found(name: str) -> Any:
            attributes = SFTPAttributes.from_stat(os.lstat(os.path.join(self._at(path), name)))
            attributes.filename = name
            return attributes

        return self._do(lambda: [found(name) for name in os.listdir(self._at(path))])

    def stat(self, path: str) -> Any:
        return self._do(lambda: SFTPAttributes.from_stat(os.stat(self._at(path))))

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened() -> Any:
            mode = "wb" if flags & os.O_WRONLY else "r+b" if flags & os.O_RDWR else "rb"
            handle = _Open(flags)
            handle.readfile = handle.writefile = os.fdopen(
                os.open(self._at(path), flags, 0o666), mode
            )
            return handle

        return self._do(opened)

    def remove(self, path: str) -> int:
        return self._do(lambda: os.remove(self._at(path))) or paramiko.SFTP_OK

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        return self._do(lambda: os.replace(self._at(oldpath), self._at(newpath))) or 0

    def mkdir(self, path: str, attr: Any) -> int:
        return self._do(lambda: os.mkdir(self._at(path))) or paramiko.SFTP_OK


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The URL of a server of the files below a folder, with its login."""
    key = paramiko.RSAKey.generate(2048)
    transports: list[paramiko.Transport] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # it is closed
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", SFTPServer, _Files, root)
            transport.start_server(server=_Login())
            transports.append(transport)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    yield f"sftp://{USER}:{PASSWORD}@127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    accepting.join()
    for transport in transports:
        transport.close()
