"""A proxy before a store, on the loopback, that lies now and then."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EVERY = 5  # request that fails
FAULTS = ("refused", "cut off", "done, but not told", "half of it")


class Lossy(ThreadingHTTPServer):
    """Hands on requests to `behind`, and counts what it did to them."""

    daemon_threads = True

    def __init__(self, behind: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.number = 0
        self.one = threading.Lock()
        self.faults: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self) -> str:
        """What is done to this request."""
        with self.one:
            self.number += 1
            if self.number % EVERY:
                return ""
            fault = FAULTS[self.number // EVERY % len(FAULTS)]
            self.faults[fault] += 1
            return fault


class _Handler(BaseHTTPRequestHandler):
    server: Lossy
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault()
        self.close_connection = bool(fault)
        if fault == "refused":
            self._answer(503, [], b"")
            return
        if fault == "cut off":
            return
        there = http.client.HTTPConnection(*self.server.behind, timeout=20)
        there.request(self.command, self.path, body, dict(self.headers))
        answer = there.getresponse()
        content = answer.read()
        there.close()
        if fault == "done, but not told":
            return
        self._answer(answer.status, answer.getheaders(), content, half=fault == "half of it")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _hand_on  # noqa: N815  # as the class asks

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length")
        told = length if self.command == "HEAD" and length else str(len(content))
        self.send_header("Content-Length", told)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)


@contextmanager
def before(host: str, port: int) -> Iterator[Lossy]:
    """A proxy before a server."""
    proxy = Lossy((host, port))
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
