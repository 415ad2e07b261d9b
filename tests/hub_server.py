"""Real servers on 127.0.0.1 that play the Hugging Face Hub and a release host, faults included.

Each has a front, which knows the names, and a store, which holds the bytes and is redirected to,
as the Hub's CDN and the release host's object store are. Files are sent from disk piece by piece,
so they may be of any size.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from server_faults import (
    ClaimLength,
    ClaimLinkedSize,
    Cut,
    Drip,
    Fault,
    Headers,
    IgnoreIfRange,
    IgnoreRanges,
    InChunks,
    Overlong,
    Place,
    Redirect,
    Stall,
    Status,
    Unlabelled,
    WrongRange,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = "X-Signature=not-for-messages"  # the query of a redirect to the store
PIECE = 1 << 18  # bytes sent at a time

F = TypeVar("F", bound=Fault)


@dataclass
class Served:
    """A file that is offered, and what is to go wrong with it.

    Attributes:
        path: where its bytes are.
        lfs: whether the Hub redirects to its store, as it does for large files.
        token: what the Hub asks for, if it is gated.
    """

    path: Path
    lfs: bool = True
    token: str = ""
    faults: list[Fault] = field(default_factory=list)
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        self.replace(self.path)

    def replace(self, path: Path) -> None:
        """Offer another file under the same name."""
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(PIECE):
                sha256.update(block)
        self.path, self.etag = path, sha256.hexdigest()

    def due(self, kind: type[F], place: Place | None = None) -> F | None:
        """The fault of a kind that strikes now, which uses it up by one."""
        for fault in self.faults:
            here = not isinstance(fault, Status) or fault.at == place
            if isinstance(fault, kind) and fault.times > 0 and here:
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None


@dataclass
class Request:
    """One request that came; `sent` grows while its answer goes out."""

    place: Place
    method: str
    path: str
    range: str
    authorised: bool
    status: int = 0
    sent: int = 0


class FileServer:
    """What both hosts have in common; a context manager that serves until it ends."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._front = _Listener(self, "front")
        self._store = _Listener(self, "store")

    def __enter__(self) -> Self:
        for listener in (self._front, self._store):
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping.set()
        for listener in (self._front, self._store):
            listener.shutdown()
            listener.server_close()

    @property
    def url(self) -> str:
        """Scheme, host and port of the front."""
        return self._front.url

    @property
    def store_url(self) -> str:
        """Scheme, host and port of the store."""
        return self._store.url

    def add(self, name: str, served: Served) -> Served:
        """Offer a file under what `name_of` makes of its path."""
        self.files[name] = served
        return served

    def name_of(self, path: str) -> str | None:
        """The file that a path of the front means."""
        raise NotImplementedError

    def asked(self, name: str, method: str = "GET", place: Place = "front") -> list[Request]:
        """The requests for one file."""
        wanted = [r for r in self.requests if r.method == method and r.place == place]
        if place == "store":
            return [r for r in wanted if r.path == f"/objects/{name}"]
        return [r for r in wanted if self.name_of(r.path) == name]

    def bytes_sent(self, name: str) -> int:
        """Bytes of a file that went out, from the front or the store."""
        places: tuple[Place, ...] = ("front", "store")
        return sum(r.sent for place in places for r in self.asked(name, place=place))


@dataclass
class Repository:
    """What was published: files by name, and the messages of its commits, the last one last."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


class HubServer(FileServer):
    """The Hub: `{repo}/resolve/{revision}/{file}`, for the revisions "main" and `COMMIT`.

    The commit may be cut short.

    Models can be published there, by whoever has the token `writer`.

    Attributes:
        writer: the token that may write into repositories of `user`.
        repositories: what was published, by name.
        uploads: what was sent to the store, by SHA-256.
        refuse_readme: whether the front matter of every README.md is wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writer = "hf_writer"
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.refuse_readme = False

    def add_file(
        self, repo: str, file: str, path: Path, *, lfs: bool = True, token: str = ""
    ) -> Served:
        """Offer a file of a repository; a token gates it."""
        return self.add(f"{repo}/{file}", Served(path, lfs=lfs, token=token))

    def name_of(self, path: str) -> str | None:
        """The repository and file that a path means."""
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        return f"{match[1]}/{match[2]}" if match else None

    def published(self, path: str) -> tuple[str, Repository] | None:
        """The repository that a path of the API asks about."""
        name = path.removeprefix("/api/models/")
        return (name, self.repositories[name]) if name in self.repositories else None

    def missing(self, path: str) -> str:
        """The error code for a path that names nothing here."""
        name = self.name_of(path)
        if name is None or not any(n.startswith(name.rsplit("/", 1)[0] + "/") for n in self.files):
            return "RepoNotFound"
        known = re.search(r"/resolve/([^/]+)/", path)
        return (
            "EntryNotFound"
            if known and (known[1] == "main" or COMMIT.startswith(known[1]))
            else "RevisionNotFound"
        )


class ReleaseServer(FileServer):
    """A release host: `{owner}/{repo}/releases/download/{tag}/{file}`."""

    def add_file(self, repo: str, tag: str, file: str, path: Path) -> Served:
        """Offer a file of a release."""
        return self.add(f"{repo}/{tag}/{file}", Served(path))

    def name_of(self, path: str) -> str | None:
        """The repository, tag and file that a path means."""
        match = re.fullmatch(r"/([^/]+/[^/]+)/releases/download/([^/]+)/([^/]+)", path)
        return f"{match[1]}/{match[2]}/{match[3]}" if match else None


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away between two requests."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def __init__(self, site: FileServer, place: Place) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        self.place = place

    @property
    def url(self) -> str:
        # Another host as well as another port: it is by the host that clients tell them apart.
        host = "127.0.0.1" if self.place == "front" else "localhost"
        return f"http://{host}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._receive()

    def do_PUT(self) -> None:
        self._receive()

    def _receive(self) -> None:
        """What is sent when a model is published."""
        hub = self.server.site
        assert isinstance(hub, HubServer)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.request_seen = Request(self.server.place, self.command, path, "", bool(token))
        hub.requests.append(self.request_seen)
        if self.server.place == "store":  # by an address that is signed, without a token
            hub.uploads[path.removeprefix("/uploads/")] = content
            self._answer(200, {})
        elif path == "/api/validate-yaml":
            wrong = {"errors": [{"message": "license is unheard of"}], "warnings": []}
            self._document(wrong if hub.refuse_readme else {}, 400 if hub.refuse_readme else 200)
        elif token != hub.writer:
            known = token.startswith("hf_")  # but may only read
            self._refuse(403 if known else 401, "")
        elif path == "/api/repos/create":
            self._create(hub, json.loads(content))
        elif match := re.fullmatch(r"/api/models/(.+/.+)/preupload/main", path):
            self._sort(json.loads(content)["files"])
        elif match := re.fullmatch(r"/(.+/.+)\.git/info/lfs/objects/batch", path):
            self._sign(hub, json.loads(content)["objects"])
        elif match := re.fullmatch(r"/api/models/(.+/.+)/commit/main", path):
            self._commit(hub, match[1], [json.loads(line) for line in content.splitlines()])
        else:
            self._refuse(404, "RepoNotFound")

    def _create(self, hub: HubServer, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "user":
            self._refuse(403, "")
        elif name in hub.repositories:
            self._document({"error": "You already created this model repo"}, 409)
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            hub.repositories[name] = Repository(private)
            self._document({"url": f"{hub.url}/{name}"})

    def _sort(self, files: list[dict[str, str]]) -> None:
        """Say which files go to the store, and which into the commit."""
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        self._document({"files": modes})

    def _sign(self, hub: HubServer, objects: list[dict[str, str]]) -> None:
        signed = [
            {
                **wanted,
                "actions": {"upload": {"href": f"{hub.store_url}/uploads/{wanted['oid']}"}},
            }
            for wanted in objects
        ]
        self._document({"transfer": "basic", "objects": signed})

    def _commit(self, hub: HubServer, name: str, lines: list[dict[str, Any]]) -> None:
        repository = hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = hub.uploads[value["oid"]]
            else:
                repository.files[value["path"]] = base64.b64decode(value["content"])
        address = f"{hub.url}/{name}/commit/{COMMIT}"
        self._document({"commitUrl": address, "commitOid": COMMIT, "success": True})

    def _document(self, content: object, status: int = 200) -> None:
        self._answer(status, {"Content-Type": "application/json"}, json.dumps(content))

    def _handle(self) -> None:
        site, place = self.server.site, self.server.place
        path = urlsplit(self.path).path  # a proxy is asked for whole URLs
        self.request_seen = Request(
            place,
            self.command,
            path,
            self.headers.get("Range", ""),
            "Authorization" in self.headers,
        )
        site.requests.append(self.request_seen)
        try:
            if place == "store":
                self._answer_file(site.files[path.removeprefix("/objects/")])
            else:
                self._answer_name(site, path)
        except ConnectionError:  # the client has gone
            self.close_connection = True

    def _answer_name(self, site: FileServer, path: str) -> None:
        if path == "/api/agent-harnesses":  # what the Hub's client asks for once a day
            self._answer(200, {}, json.dumps({"standardEnvVars": [], "harnesses": {}}))
            return
        if isinstance(site, HubServer) and (known := site.published(path)):
            self._document({"id": known[0], "private": known[1].private, "sha": COMMIT})
            return
        name = site.name_of(path) or ""
        served = site.files.get(name)
        code = "" if served else "EntryNotFound"
        if isinstance(site, HubServer):
            code = site.missing(path)
            if code == "RevisionNotFound":
                served = None
        if served is None:
            self._refuse(404, code)
            return
        fault = served.due(Status, "front")
        if fault:
            self._refuse(fault.status, fault.error_code, fault.retry_after)
        elif served.token and self.headers.get("Authorization") != f"Bearer {served.token}":
            self._refuse(403 if self.request_seen.authorised else 401, "GatedRepo")
        elif isinstance(site, HubServer) and not served.lfs:
            self._answer_file(served, {"X-Repo-Commit": COMMIT})
        else:
            self._redirect(site, name, served)

    def _redirect(self, site: FileServer, name: str, served: Served) -> None:
        lead = served.due(Redirect)
        location = lead.location if lead else f"{site.store_url}/objects/{name}?{SECRET}"
        headers = {"Location": location}
        if isinstance(site, HubServer):
            lie = served.due(ClaimLinkedSize)
            headers |= {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{served.etag}"',
                "X-Linked-Size": str(lie.size if lie else served.path.stat().st_size),
            }
        self._answer(302, headers)

    def _refuse(self, status: int, code: str, retry_after: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        headers |= {"Retry-After": retry_after} if retry_after else {}
        self._answer(status, headers, json.dumps({"error": f"no, {status}"}))

    def _answer(self, status: int, headers: dict[str, str], body: str = "") -> None:
        content = body.encode()
        self._head(status, headers | {"Content-Length": str(len(content))})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.request_seen.status = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _answer_file(self, served: Served, more: dict[str, str] | None = None) -> None:
        fault = served.due(Status, "store") if self.server.place == "store" else None
        if fault:
            self._refuse(fault.status, fault.error_code, fault.retry_after)
            return
        path, etag = served.path, f'"{served.etag}"'
        size = path.stat().st_size
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        headers |= more or {}
        headers |= {} if served.due(Unlabelled) else {"ETag": etag}
        start = self._start(served, etag)
        if start is not None and start >= size:
            self._answer(416, {"Content-Range": f"bytes */{size}"})
            return
        if start is not None:
            shown = 1 if served.due(WrongRange) else start
            headers["Content-Range"] = f"bytes {shown}-{size - 1}/{size}"
        length = size - (start or 0)
        lie = served.due(ClaimLength) if self.command == "GET" else None
        length = lie.length if lie else length
        extra = served.due(Overlong) if self.command == "GET" else None
        length += extra.more if extra else 0
        chunked = self.command == "GET" and served.due(InChunks) is not None
        chunked = chunked or bool(extra and extra.chunked)
        headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(length)}
        told = served.due(Headers) if self.command == "GET" else None
        headers |= told.fields if told else {}
        self._head(200 if start is None else 206, headers)
        if self.command == "GET":
            first = start or 0
            self._send(served, range(first, first + length), chunked, extra is not None)

    def _start(self, served: Served, etag: str) -> int | None:
        """Where the range starts that is to be sent; None for the whole file."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag or served.due(IgnoreIfRange)
        if match is None or not same or served.due(IgnoreRanges):
            return None
        return int(match[1])

    def _send(self, served: Served, span: range, chunked: bool, overlong: bool) -> None:
        """Send what there is, up to a claimed length, and spoil it where that is due."""
        cut, stall, drip = served.due(Cut), served.due(Stall), served.due(Drip)
        short = cut or stall
        last = int(len(span) * short.share) if short else len(span)
        with served.path.open("rb") as file:
            file.seek(span.start)
            while self.request_seen.sent < last:
                piece = drip.piece if drip else PIECE
                content = file.read(min(piece, last - self.request_seen.sent))
                if not content and overlong:
                    content = bytes(min(piece, last - self.request_seen.sent))
                if not content:  # more was claimed than there is
                    self._hang_up()
                    return
                self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content) if chunked else content)
                self.request_seen.sent += len(content)
                if drip:
                    self.server.site.stopping.wait(drip.pause)
        if stall:
            self.server.site.stopping.wait(60)
        if cut and cut.then:
            served.replace(cut.then)
        if short:
            self._hang_up()
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_WR)
