"""Downloads as a user's process makes them, against real servers that misbehave on demand.

`huggingface_hub` reads its environment when it is imported, so all downloads run in processes of
their own, which take one order a line and answer it with one line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import pytest
from hub_server import SECRET, FileServer, HubServer, ReleaseServer, Served
from server_faults import Fault

from resshift_cli.weights.registry import (
    HubSource,
    ReleaseSource,
    Source,
    WeightFile,
)

Kind = Literal["hub", "release"]
BOTH: list[Kind] = ["hub", "release"]
SIZE = 600_000
LARGE = 26 << 20  # the Hub's client keeps what came before a cut in steps of 10 MiB
TIMEOUT = 1.0  # seconds
TOKEN = "hf_not_for_messages"

WORKER = """
import functools, json, os, resource, sys, time
from resshift_cli.weights import download
from resshift_cli.weights import hub
from resshift_cli.weights import registry
from resshift_cli.weights import release
from resshift_cli.weights import transfer
from resshift_cli.errors import ResShiftError

with hub.quiet():
    from huggingface_hub import hf_hub_download, scan_cache_dir  # while they can be read
release.READ_TIMEOUT, transfer.BACK_OFF = 1.0, 0.05
KINDS = {"hub": registry.HubSource, "release": registry.ReleaseSource}
NOBODY = 65534

class Recorded:
    def __init__(self, steps, *, desc, total, initial, unit, unit_scale):
        self.steps, self.name, self.total, self.done = steps, desc, total, initial
        self.update(0)

    def update(self, n):
        self.done += n
        self.steps.append((self.name, self.done, self.total))

    def close(self):
        pass

def obey(order):
    table = order["file"]
    table["sources"] = tuple(KINDS[source["kind"]](**source) for source in table["sources"])
    file = registry.WeightFile(**table)
    if order["do"] == "fetch":
        steps = []
        found = download.fetch(
            file, offline=order["offline"], progress=functools.partial(Recorded, steps)
        )
        source = found.source.kind
        return dict(path=str(found.path), sha256=found.sha256, source=source, steps=steps)
    if order["do"] == "cached":
        found = download.cached(file)
        return {} if found is None else dict(path=str(found.path), sha256=found.sha256)
    if order["do"] == "reachable":
        return dict(value=download.reachable(file, within=order["within"]))
    return dict(value=download.discard(file))

for line in sys.stdin:
    order = json.loads(line)
    os.environ["RESSHIFT_CACHE"] = order["cache"]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"] or hard, hard))
    user = os.geteuid()
    if order["as_nobody"] and user == 0:
        os.seteuid(NOBODY)
    begin = time.monotonic()
    try:
        answer = obey(order)
    except ResShiftError as error:
        answer = dict(error=str(error), hint=error.hint, code=error.exit_code)
    answer["seconds"] = time.monotonic() - begin
    if os.geteuid() != user:
        os.seteuid(user)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(json.dumps(answer), flush=True)
"""


@dataclass
class Answer:
    """What a process made of an order; fields that do not apply are empty."""

    seconds: float
    path: str = ""
    sha256: str = ""
    source: str = ""
    steps: list[tuple[str, int, int | None]] = field(default_factory=list)
    value: int = 0
    error: str = ""
    hint: str = ""
    code: int = 0


class Client:
    """A process that downloads. It may print nothing, and its errors may tell no secrets."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / "stderr"
        inherited = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=inherited | {"HOME": str(folder)} | dict(environment),
            )
        self.orders = cast(IO[str], self.process.stdin)
        self.answers = cast(IO[str], self.process.stdout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.orders.close()
        self.answers.close()
        self.process.wait()

    def order(self, do: str, file: WeightFile, cache: Path, **more: Any) -> None:
        """Have it do something; `answer` tells what came of it."""
        usual = {"offline": False, "within": 3.0, "largest": 0, "as_nobody": False}
        what = {"do": do, "file": dataclasses.asdict(file), "cache": str(cache)}
        self.orders.write(json.dumps(what | usual | more) + "\n")
        self.orders.flush()

    def answer(self) -> Answer:
        line = self.answers.readline()
        told = self.log.read_text()
        assert told == ""
        answer = Answer(**json.loads(line))
        said = answer.error + answer.hint
        assert SECRET not in said and TOKEN not in said and "?" not in said
        return answer

    def do(self, do: str, file: WeightFile, cache: Path, **more: Any) -> Answer:
        self.order(do, file, cache, **more)
        return self.answer()


@dataclass
class Site:
    """What the tests of this file share."""

    hub: HubServer
    releases: ReleaseServer
    home: Path
    count: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "RESSHIFT_RELEASES": self.releases.url,
        }


@dataclass
class Offer:
    """A file that a server offers, as the registry describes it."""

    server: FileServer
    name: str
    served: Served
    file: WeightFile

    @property
    def content(self) -> bytes:
        return self.served.path.read_bytes()

    @property
    def downloads(self) -> list[str]:
        """The ranges that were asked for, "" for the whole."""
        return [request.range for request in self.server.asked(self.name, place="store")]

    @property
    def sent(self) -> int:
        """Bytes that went out so far."""
        return self.server.bytes_sent(self.name)

    @property
    def visits(self) -> int:
        """How often the file was asked for, or about."""
        return sum(len(self.server.asked(self.name, method)) for method in ("HEAD", "GET"))


class Bench:
    """Servers, a client and an empty cache."""

    def __init__(self, site: Site, client: Client, folder: Path) -> None:
        self.site = site
        self.client = client
        self.folder = folder
        self.cache = folder / "cache"

    def content(self, size: int = SIZE) -> Path:
        """A new file of random bytes."""
        path = Path(tempfile.mkstemp(dir=self.folder)[1])
        path.write_bytes(os.urandom(size))
        return path

    def offer(self, kind: Kind, *faults: Fault, size: int = SIZE) -> Offer:
        """A new file on a server."""
        self.site.count += 1
        repo = f"owner/repo{self.site.count}"
        source = source_of(kind, repo)
        server = self.site.hub if isinstance(source, HubSource) else self.site.releases
        name = f"{repo}/{source.name}" if kind == "hub" else f"{repo}/v1/{source.name}"
        served = server.add(name, Served(self.content(size), faults=list(faults)))
        return Offer(server, name, served, WeightFile((source,), "MIT", "", 0))

    def fetch(self, file: WeightFile, **more: Any) -> Answer:
        return self.client.do("fetch", file, self.cache, **more)

    def cached(self, file: WeightFile, **more: Any) -> Answer:
        return self.client.do("cached", file, self.cache, **more)


def source_of(kind: Kind, repo: str, file: str = "weights.safetensors") -> Source:
    if kind == "hub":
        return HubSource(repo, file, "main")
    return ReleaseSource(f"https://github.com/{repo}/releases/download/v1/{file}")


def either(*offers: Offer) -> WeightFile:
    """One file with the sources of several."""
    sources = tuple(offer.file.sources[0] for offer in offers)
    return dataclasses.replace(offers[0].file, sources=sources)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def on_record(cache: Path) -> Any:
    return json.loads((cache / "digests.json").read_text())


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as home, HubServer() as hub, ReleaseServer() as releases:
        Path(home).chmod(0o755)
        yield Site(hub, releases, Path(home))


@pytest.fixture(scope="module")
def fetching(site: Site) -> Iterator[Client]:
    with Client(site.home, site.environment) as client:
        yield client


@pytest.fixture
def bench(site: Site, fetching: Client, tmp_path: Path) -> Bench:
    return Bench(site, fetching, tmp_path)


@pytest.fixture
def another_client(site: Site, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts a process with variables of its own; it ends with the test."""
    with ExitStack() as stack:

        def start(**variables: str) -> Client:
            return stack.enter_context(Client(tmp_path, site.environment | variables))

        yield start


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this process."""
    monkeypatch.setenv("RESSHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
