"""What no request gets past: other pages, other names, no token, too much, too slow, elsewhere."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import pytest
from command_line import make_photo
from serving_bench import Serve, sent

from resshift_cli.serving import guards, server
from resshift_cli.serving.shelf import Limits


def raw(client: httpx2.Client, request: bytes, *, wait: float = 30) -> bytes:
    """What comes back for some bytes, until the service closes the connection."""
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with closing(socket.create_connection((host, port), timeout=wait)) as connection:
        answer = b""
        with suppress(ConnectionError):  # it may close before it has read all
            connection.sendall(request)
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost.:1"])
def test_other_names_than_ours_are_refused(client: httpx2.Client, host: str) -> None:
    for way in ("/", "/api/health", "/api/version"):
        answer = client.get(way, headers={"host": host})
        assert (answer.status_code, answer.json()["exit_code"]) == (421, 2)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "[::1]:8040", "127.0.0.1"])
def test_our_names_are_not(client: httpx2.Client, host: str) -> None:
    assert client.get("/api/version", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("headers", [
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"},
    {"origin": "http://[evil"}, {"origin": ""},
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
])  # fmt: skip
def test_what_another_page_sends_is_refused(
    client: httpx2.Client, photo: Path, headers: dict[str, str]
) -> None:
    answer = client.post("/api/upscale", files=sent(photo), headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (403, 403)
    assert client.get("/api/models", headers=headers).status_code == 403


def test_our_own_page_may_and_a_link_may_lead_to_it(client: httpx2.Client) -> None:
    own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert client.get("/api/models", headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200


def test_answers_keep_browsers_from_what_they_need_not_do(client: httpx2.Client) -> None:
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


def test_with_a_token_nothing_is_told_without_it(serve: Serve, photo: Path) -> None:
    client = serve(token="secret")
    assert client.get("/api/health").status_code == 200
    for way in ("/", "/api/models", "/?token=wrong", "/api/models?token=secret"):
        answer = client.get(way)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    bearer = {"authorization": "Bearer secret"}
    assert client.get("/api/models", headers=bearer).status_code == 200
    assert client.post("/api/upscale", files=sent(photo), headers=bearer).status_code == 200


def test_a_browser_that_came_with_the_token_keeps_it(serve: Serve) -> None:
    client = serve(token="secret")
    entered = client.get("/?token=secret")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert client.get("/api/models").status_code == 200


def test_files_are_read_below_the_root_and_through_no_link(serve: Serve, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "trip").mkdir(parents=True)
    make_photo(root / "trip" / "photo.png", 8, 8)
    outside = make_photo(tmp_path / "outside.png", 8, 8)
    (root / "link.png").symlink_to(outside)
    (root / "way").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.png")
    client = serve(root=root)
    for path in ("link.png", "way/outside.png", "../outside.png", str(outside), "trip/../../x.png",
                 "pipe.png", "trip", "", ".", "trip/photo.png\0.jpg", "no.png"):  # fmt: skip
        answer = client.post("/api/photos", json={"path": path})
        assert answer.status_code in (400, 404), path
    assert client.post("/api/photos", json={"path": "trip/photo.png"}).status_code == 201


def test_without_a_root_no_path_is_read(client: httpx2.Client, photo: Path) -> None:
    answer = client.post("/api/upscale", json={"path": photo.name})
    assert (answer.status_code, answer.json()["exit_code"]) == (400, 2)
    assert "--root" in answer.json()["hint"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\r\nSet-Cookie: x=1.png", "\x1b[2J.png",
                                  'q".png', "é猫.png", "", "x" * 900 + ".png", "CON"])  # fmt: skip
def test_a_file_s_name_is_only_a_name(client: httpx2.Client, photo: Path, name: str) -> None:
    answer = client.post("/api/upscale", files={"image": (name or "image", photo.read_bytes())})
    told = answer.headers["content-disposition"]
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert told.startswith("attachment; filename=") and len(told) < 900
    assert "/" not in told.partition("filename*")[0] and "\x1b" not in told


def test_too_large_a_body_is_refused_before_it_is_read(serve: Serve, photo: Path) -> None:
    client = serve(Limits(upload=1 << 20))
    answer = client.post("/api/upscale", content=b"x" * (2 << 20))
    assert (answer.status_code, answer.json()["exit_code"]) == (413, 2)

    def endless() -> Iterator[bytes]:
        yield from [b"x" * 65536] * 64

    kind = {"content-type": "multipart/form-data; boundary=b"}
    with suppress(httpx2.WriteError):  # or the connection is closed on the sender
        answer = client.post("/api/upscale", content=endless(), headers=kind)
        assert answer.status_code in (400, 413)
    assert client.post("/api/upscale", files=sent(photo)).status_code == 200


def test_a_slow_body_is_not_waited_for(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "PATIENCE", 0.5)
    host = str(client.base_url.netloc, "ascii")
    head = f"POST /api/upscale HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n"
    answer = raw(client, f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b".encode())
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"exit_code":2' in answer


def test_a_client_that_never_says_what_it_wants_is_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    assert raw(serve(), b"GET / HTTP/1.1\r\nHost: ") == b""


def test_nor_is_one_waited_for_that_has_said_something_before(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    head, client = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n", serve()
    address = client.base_url.host, client.base_url.port or 0
    with closing(socket.create_connection(address, timeout=30)) as connection:
        connection.sendall(head + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(head)
        while connection.recv(65536):
            pass  # until it is closed


def test_huge_headers_and_garbage_are_refused(client: httpx2.Client) -> None:
    huge = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        + b"x" * 100_000
        + b"\r\n\r\n"
    )
    for request in (huge, b"\0\1\2 nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        answer = raw(client, request)
        assert answer.startswith(b"HTTP/1.1 4")
    started = time.monotonic()
    assert client.get("/api/health").status_code == 200 and time.monotonic() - started < 5


@pytest.mark.parametrize("body, kind", [
    (b"{", "application/json"), (b"[1]", "application/json"), (b"[" * 60_000, "application/json"),
    (b"x" * 70_000, "application/json"), (b"", "multipart/form-data"),
    (b"--b", "multipart/form-data; boundary=b"), (b"a=1", "application/x-www-form-urlencoded"),
    (b'{"photo": 1}', "application/json"), (b'{"photo": "x", "scale": {}}', "application/json"),
])  # fmt: skip
def test_bodies_that_make_no_sense_are_told_of(
    client: httpx2.Client, body: bytes, kind: str
) -> None:
    answer = client.post("/api/upscale", content=body, headers={"content-type": kind})
    assert answer.status_code in (400, 404, 413, 415) and answer.json()["exit_code"] == 2


class Harmful:
    """What leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["photo.png", "model.pth", "model.ckpt"])
def test_a_pickle_is_no_image_and_is_not_loaded(
    client: httpx2.Client, tmp_path: Path, name: str
) -> None:
    trace = tmp_path / "trace"
    harmful = {"image": (name, pickle.dumps(Harmful(trace)))}
    answer = client.post("/api/upscale", files=harmful, data={"model": name})
    assert answer.status_code in (404, 422) and not trace.exists()
    answer = client.post("/api/photos", files=harmful)
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 4) and not trace.exists()
