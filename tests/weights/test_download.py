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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any, Literal, cast

import pytest
import requests
from hub_server import (
    SECRET,
    ClaimLength,
    ClaimLinkedSize,
    Cut,
    Drip,
    Fault,
    FileServer,
    HubServer,
    IgnoreIfRange,
    IgnoreRanges,
    InChunks,
    Place,
    ReleaseServer,
    Served,
    Stall,
    Status,
    Unlabelled,
    WrongRange,
)

from resshift_cli.errors import ModelUnavailableError
from resshift_cli.system import cache
from resshift_cli.weights import download, release
from resshift_cli.weights.download import Fetched
from resshift_cli.weights.registry import (
    BundledSource,
    HubSource,
    LocalSource,
    ReleaseSource,
    Source,
    WeightFile,
)
from resshift_cli.weights.transfer import Failure, answered

Kind = Literal["hub", "release"]
BOTH: list[Kind] = ["hub", "release"]
SIZE = 600_000
LARGE = 26 << 20  # the Hub's client keeps what came before a cut in steps of 10 MiB
TIMEOUT = 1.0  # seconds
TOKEN = "hf_not_for_messages"

WORKER = """
import json, os, resource, sys, time
from resshift_cli.weights import download
from resshift_cli.weights import registry
from resshift_cli.weights import release
from resshift_cli.weights import transfer
from resshift_cli.errors import ResShiftError

release.READ_TIMEOUT, transfer.BACK_OFF = 1.0, 0.05
KINDS = {"hub": registry.HubSource, "release": registry.ReleaseSource}
NOBODY = 65534

def obey(order):
    table = order["file"]
    table["sources"] = tuple(KINDS[source["kind"]](**source) for source in table["sources"])
    file = registry.WeightFile(**table)
    if order["do"] == "fetch":
        steps = []
        found = download.fetch(
            file, offline=order["offline"], progress=lambda *step: steps.append(step)
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
        assert self.log.read_text() == ""
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


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as home, HubServer() as hub, ReleaseServer() as releases:
        Path(home).chmod(0o755)
        yield Site(hub, releases, Path(home))


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[Client]:
    with Client(site.home, site.environment) as client:
        yield client


@pytest.fixture
def bench(site: Site, client: Client, tmp_path: Path) -> Bench:
    return Bench(site, client, tmp_path)


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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def on_record(cache: Path) -> Any:
    return json.loads((cache / "digests.json").read_text())


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# What a good download is.


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_comes_whole_and_once_and_its_checksum_is_recorded(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    first, second = bench.fetch(offer.file), bench.fetch(offer.file)
    assert Path(first.path).read_bytes() == offer.content
    assert first.sha256 == second.sha256 == sha256(offer.content)
    assert (second.path, second.source, second.steps) == (first.path, kind, [])
    assert on_record(bench.cache) == {offer.file.key: first.sha256}
    assert offer.downloads == [""]


@pytest.mark.parametrize("kind", BOTH)
def test_progress_runs_from_nothing_to_the_whole_under_the_files_name(
    bench: Bench, kind: Kind
) -> None:
    steps = bench.fetch(bench.offer(kind).file).steps
    assert {(name, total) for name, _, total in steps} == {("weights.safetensors", SIZE)}
    assert (steps[0][1], steps[-1][1]) == (0, SIZE)
    assert sorted(steps, key=lambda step: step[1]) == steps


def test_a_small_file_of_the_hub_comes_without_a_redirect(bench: Bench) -> None:
    offer = bench.offer("hub")
    offer.served.lfs = False
    assert Path(bench.fetch(offer.file).path).read_bytes() == offer.content
    assert offer.downloads == []


def test_the_hubs_client_asks_for_the_file_and_for_nothing_that_is_not_there(site: Site) -> None:
    with HubServer() as hub, Client(site.home, site.environment | {"HF_ENDPOINT": hub.url}) as one:
        (site.home / "content").write_bytes(b"weights")
        hub.add_file("owner/alone", "weights.safetensors", site.home / "content")
        file = WeightFile((source_of("hub", "owner/alone"),), "MIT", "", 0)
        one.do("fetch", file, site.home / "cache")
    resolved = "/owner/alone/resolve/main/weights.safetensors"
    asked = {(request.method, request.path, request.status) for request in hub.requests}
    assert asked - {("GET", "/api/agent-harnesses", 200)} == {
        ("HEAD", resolved, 302),
        ("GET", "/objects/owner/alone/weights.safetensors", 200),
    }


def test_what_the_hubs_client_warns_of_is_not_seen(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("hub")
    warned = another_client(HF_HUB_ENABLE_HF_TRANSFER="1")
    assert warned.do("fetch", offer.file, bench.cache).sha256 == sha256(offer.content)


def test_a_token_goes_to_the_hub_but_not_to_its_store(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("hub")
    offer.served.token = TOKEN
    answer = another_client(HF_TOKEN=TOKEN).do("fetch", offer.file, bench.cache)
    assert Path(answer.path).read_bytes() == offer.content
    assert {r.authorised for r in offer.server.asked(offer.name, "HEAD")} == {True}
    assert {r.authorised for r in offer.server.asked(offer.name, place="store")} == {False}


def test_a_release_comes_through_the_proxy_of_the_environment(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("release")
    proxied = another_client(
        RESSHIFT_RELEASES="http://releases.invalid",
        http_proxy=bench.site.releases.url,
        no_proxy="localhost",
    )
    answer = proxied.do("fetch", offer.file, bench.cache)
    assert answer.sha256 == sha256(offer.content)


# Connections that break, and servers that get it wrong.


@pytest.mark.parametrize("kind", BOTH)
def test_a_connection_cut_at_40_percent_is_resumed(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, Cut(0.4, times=1), size=LARGE)
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    whole, rest = offer.downloads
    assert whole == "" and rest.startswith("bytes=")
    assert offer.sent < 1.1 * LARGE


def test_a_connection_may_break_any_number_of_times_if_each_brings_bytes(bench: Bench) -> None:
    offer = bench.offer("release", Cut(0.4, times=9))
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert len(offer.downloads) == 10


def test_a_process_that_was_killed_leaves_a_part_that_the_next_one_continues(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("release", Drip(SIZE // 10, 0.1, times=1))
    killed = another_client()
    killed.order("fetch", offer.file, bench.cache)
    while not list(bench.cache.glob("downloads/*/*.part")) or offer.sent < SIZE // 3:
        time.sleep(0.02)
    killed.process.kill()
    assert bench.cached(offer.file).path == ""
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    assert answer.steps[0][1] >= SIZE // 10
    assert offer.downloads == ["", f"bytes={answer.steps[0][1]}-"]


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_that_ignores_ranges_is_read_from_the_start(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, Cut(0.4, times=1), IgnoreRanges(), size=LARGE)
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    assert tuple(answer.steps[-1][1:]) == (LARGE, LARGE)
    assert len(offer.downloads) == 2


def test_another_range_than_was_asked_for_is_refused(bench: Bench) -> None:
    offer = bench.offer("release", Cut(0.4, times=1), WrongRange(times=1))
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert [bool(asked) for asked in offer.downloads] == [False, True, False]


@pytest.mark.parametrize("kind", BOTH)
def test_a_length_that_was_wrong_once_does_no_harm(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, ClaimLength(SIZE + 1000, times=1))
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)


def test_a_length_that_is_always_too_long_ends_in_an_error(bench: Bench) -> None:
    offer = bench.offer("release", ClaimLength(SIZE + 1000))
    answer = bench.fetch(offer.file)
    assert answer.code == 7 and "has become shorter" in answer.error
    assert len(offer.downloads) < 12
    assert bench.cached(offer.file).path == ""


def test_a_length_that_is_too_short_is_noticed_on_the_hub(bench: Bench) -> None:
    offer = bench.offer("hub", ClaimLength(SIZE - 1000))
    answer = bench.fetch(offer.file)
    assert answer.code == 7 and "download failed" in answer.error
    assert bench.cached(offer.file).path == ""


@pytest.mark.parametrize("faults, tries", [([], 2), ([IgnoreIfRange()], 3)])
def test_a_release_that_changes_while_it_comes_is_started_afresh(
    bench: Bench, faults: list[Fault], tries: int
) -> None:
    offer = bench.offer("release")
    offer.served.faults = [Cut(0.4, then=bench.content(), times=1), *faults]
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert len(offer.downloads) == tries and offer.downloads[1].startswith("bytes=")


def test_a_release_of_unknown_length_comes_whole_or_not_at_all(bench: Bench) -> None:
    offer = bench.offer("release", Cut(0.4, times=1), InChunks())
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    assert {total for _, _, total in answer.steps} == {None}
    assert offer.downloads == ["", ""]


def test_a_part_of_a_file_without_version_is_not_continued(bench: Bench) -> None:
    offer = bench.offer("release", Cut(0.4, times=1), Unlabelled())
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert offer.downloads == ["", ""]


def test_a_file_of_the_hub_that_changes_while_it_comes_is_refused(bench: Bench) -> None:
    # The Hub's client glues what it has to what comes next.
    offer = bench.offer("hub", size=LARGE)
    promised = offer.served.etag
    offer.served.faults = [Cut(0.4, then=bench.content(LARGE), times=1)]
    answer = bench.fetch(offer.file)
    assert answer.code == 7 and f"instead of {promised[:12]}" in answer.error
    assert bench.cached(offer.file).path == ""
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)


@pytest.mark.parametrize("kind", BOTH)
def test_a_slow_drip_is_waited_for(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, Drip(SIZE // 6, 0.3))
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    assert answer.seconds > TIMEOUT
    assert offer.downloads == [""]


@pytest.mark.parametrize("kind", BOTH)
def test_a_connection_that_falls_silent_is_given_up_and_made_anew(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, Stall(0.4, times=1))
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    assert TIMEOUT < answer.seconds < 6 * TIMEOUT
    assert len(offer.downloads) == 2


# Answers other than the file.


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("place", ["front", "store"])
def test_a_server_error_is_waited_out(bench: Bench, kind: Kind, place: Place) -> None:
    offer = bench.offer(kind, Status(500, at=place, times=2))
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_error_that_stays_is_given_up(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, Status(503))
    answer = bench.fetch(offer.file)
    assert answer.code == 7 and "503 service unavailable" in answer.error
    assert len(offer.server.asked(offer.name, "HEAD" if kind == "hub" else "GET")) == 5


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("place", ["front", "store"])
def test_too_many_requests_are_answered_with_the_wait_that_was_asked_for(
    bench: Bench, kind: Kind, place: Place
) -> None:
    offer = bench.offer(kind, Status(429, retry_after="1", at=place, times=1))
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    assert 1.0 <= answer.seconds < 4.0


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "fault, words",
    [
        (Status(401), "401"),
        (Status(403, "GatedRepo"), "403"),
        (Status(403), "403 forbidden"),
        (Status(404, "EntryNotFound"), "404 not found"),
        (Status(410), "410 gone"),
    ],
    ids=["401", "gated", "403", "404", "410"],
)
def test_a_refusal_is_final_and_named_with_the_host(
    bench: Bench, kind: Kind, fault: Status, words: str
) -> None:
    offer = bench.offer(kind, fault)
    answer = bench.fetch(offer.file)
    host = offer.server.url.removeprefix("http://")
    assert answer.code == 7
    assert answer.error.startswith(f"weights.safetensors can't be had: {host}: ")
    assert words in answer.error
    assert len(offer.server.asked(offer.name, "HEAD" if kind == "hub" else "GET")) == 1
    assert ("HF_TOKEN" in answer.hint) == (kind == "hub" and fault.status in (401, 403))


@pytest.mark.parametrize("token, words", [("", "(401)"), ("hf_other", "(403)")])
def test_a_gated_file_says_where_the_token_goes(
    bench: Bench, another_client: Callable[..., Client], token: str, words: str
) -> None:
    offer = bench.offer("hub")
    offer.served.token = TOKEN
    answer = another_client(HF_TOKEN=token).do("fetch", offer.file, bench.cache)
    assert f"its terms have to be accepted first {words}" in answer.error
    assert "HF_TOKEN" in answer.hint


@pytest.mark.parametrize(
    "source, words",
    [
        (HubSource("owner/nothing", "weights.safetensors", "main"), "404 not found"),
        (HubSource("owner/known", "nothing.safetensors", "main"), "404 not found"),
        (HubSource("owner/known", "weights.safetensors", "v9"), "404 no such revision"),
        (HubSource("no such/name", "weights.safetensors", "main"), "the download failed"),
        (ReleaseSource("https://github.com/owner/nothing"), "404 not found"),
        (ReleaseSource("http://[nowhere"), "its address can't be used"),
        (ReleaseSource("nowhere"), "its address can't be used"),
    ],
    ids=["repository", "file", "revision", "name", "release", "bad address", "no address"],
)
def test_what_does_not_exist_is_said_so(bench: Bench, source: Source, words: str) -> None:
    bench.site.hub.add_file("owner/known", "weights.safetensors", bench.content(10))
    answer = bench.fetch(WeightFile((source,), "MIT", "", 0))
    assert answer.code == 7 and words in answer.error


# Several sources.


@pytest.mark.parametrize("kind, other", [("hub", "release"), ("release", "hub")])
def test_the_next_source_is_tried_when_one_fails(bench: Bench, kind: Kind, other: Kind) -> None:
    first, second = bench.offer(kind, Status(404)), bench.offer(other)
    answer = bench.fetch(either(first, second))
    assert (answer.source, answer.sha256) == (other, sha256(second.content))
    assert bench.cached(either(first, second)).path == answer.path


def test_when_all_sources_fail_the_error_says_what_each_said(bench: Bench) -> None:
    first, second = bench.offer("release", Status(404)), bench.offer("hub", Status(401))
    answer = bench.fetch(either(first, second))
    hosts = [offer.server.url.removeprefix("http://") for offer in (first, second)]
    assert answer.error == (
        f"weights.safetensors can't be had: {hosts[0]}: 404 not found; "
        f"{hosts[1]}: needs a login, or does not exist (401)."
    )


# Checksums.


@pytest.mark.parametrize("kind", BOTH)
def test_a_checksum_other_than_the_registrys_is_refused_and_the_file_kept_aside(
    bench: Bench, kind: Kind
) -> None:
    offer = bench.offer(kind)
    file = dataclasses.replace(offer.file, sha256="ab" * 32)
    for name in ("weights.safetensors.refused", "weights.safetensors.refused1"):
        answer = bench.fetch(file)
        (aside,) = bench.cache.glob(f"downloads/*/{name}")
        assert answer.code == 7
        assert (
            f"{sha256(offer.content)[:12]} instead of {'ab' * 6}, kept as {aside}" in answer.error
        )
        assert "`sha256` in the registry" in answer.hint
        assert aside.read_bytes() == offer.content
        assert bench.cached(file).path == bench.cached(offer.file).path == ""


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_that_differs_from_its_first_download_is_refused_until_that_is_forgotten(
    bench: Bench, kind: Kind
) -> None:
    offer = bench.offer(kind)
    first = bench.fetch(offer.file)
    Path(first.path).unlink()
    offer.served.replace(bench.content())
    refused = bench.fetch(offer.file)
    assert f"instead of {first.sha256[:12]}" in refused.error
    assert "`resshift models rm MODEL`" in refused.hint
    bench.client.do("discard", offer.file, bench.cache)
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)


def test_a_source_with_another_checksum_gives_way_to_one_with_the_right_one(bench: Bench) -> None:
    wrong, right = bench.offer("release"), bench.offer("hub")
    file = dataclasses.replace(either(wrong, right), sha256=sha256(right.content))
    assert bench.fetch(file).source == "hub"
    assert [p.read_bytes() for p in bench.cache.glob("**/*.refused")] == [wrong.content]


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_cut_short_on_disk_is_not_here_and_comes_anew(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    path = Path(bench.fetch(offer.file).path)
    os.truncate(path, SIZE // 2)
    assert bench.cached(offer.file).path == ""
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert path.read_bytes() == offer.content


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_is_not_read_again_while_its_size_and_time_stay(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    path = Path(bench.fetch(offer.file).path)
    status = path.stat()
    path.write_bytes(b"?" * SIZE)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bench.cached(offer.file).sha256 == sha256(offer.content)
    os.utime(path)
    assert bench.cached(offer.file).path == ""


def test_a_file_that_another_program_put_into_the_hubs_cache_is_taken(bench: Bench) -> None:
    offer = bench.offer("hub")
    bench.fetch(offer.file)
    (bench.cache / "digests.json").unlink()
    assert bench.fetch(offer.file, offline=True).sha256 == sha256(offer.content)
    assert on_record(bench.cache) == {offer.file.key: sha256(offer.content)}


# A full disk, and caches that can't be written.


@pytest.mark.parametrize("kind", BOTH)
def test_a_disk_that_fills_up_is_one_clear_error(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    answer = bench.fetch(offer.file, largest=SIZE // 2)
    assert answer.code == 6 and answer.error.startswith("The disk is full: ")
    assert ("HF_HOME" if kind == "hub" else "RESSHIFT_CACHE") in answer.hint
    assert bench.cached(offer.file).path == ""
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    if kind == "release":
        assert offer.downloads[-1] == f"bytes={SIZE // 2}-"


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_larger_than_the_free_space_is_not_begun(bench: Bench, kind: Kind) -> None:
    huge = 10**16
    offer = bench.offer(kind, ClaimLinkedSize(huge) if kind == "hub" else ClaimLength(huge))
    answer = bench.fetch(offer.file)
    assert answer.code == 6
    assert "There is no room for weights.safetensors" in answer.error
    assert "10,000,000,000 MB are needed" in answer.error
    assert not list(bench.cache.glob("downloads/*/*"))


@pytest.mark.parametrize("kind", BOTH)
def test_a_cache_folder_that_cannot_be_made_names_the_variable(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    answer = bench.client.do("fetch", offer.file, bench.content(1) / "cache")
    assert answer.code == 6 and "RESSHIFT_CACHE" in answer.hint
    assert offer.sent == 0


def test_a_cache_of_the_hub_that_cannot_be_made_names_its_variable(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("hub")
    client = another_client(HF_HOME=str(bench.content(1) / "hf"))
    answer = client.do("fetch", offer.file, bench.cache)
    assert answer.code == 6 and "HF_HOME" in answer.hint
    assert str(bench.folder) in answer.error


@pytest.mark.parametrize("kind", BOTH)
def test_a_read_only_cache_that_has_the_file_serves_it(bench: Bench, kind: Kind) -> None:
    offer, missing = bench.offer(kind), bench.offer(kind)
    cache = bench.site.home / f"cache of {kind}"
    there = bench.client.do("fetch", offer.file, cache)
    (cache / "hashes.json").unlink()  # which it would like to write
    with read_only(cache):
        found = bench.client.do("fetch", offer.file, cache, as_nobody=True)
        failed = bench.client.do("fetch", missing.file, cache, as_nobody=True)
        assert not (cache / "hashes.json").exists()
    assert (found.path, found.sha256) == (there.path, there.sha256)
    assert failed.code == 6 and "RESSHIFT_CACHE" in failed.hint


def test_a_file_that_cannot_be_deleted_is_an_error(bench: Bench) -> None:
    offer = bench.offer("hub")
    path = Path(bench.fetch(offer.file).path)
    open_to_all = bench.site.home / "cache of all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with read_only(path.parent):
        answer = bench.client.do("discard", offer.file, open_to_all, as_nobody=True)
    assert answer.code == 6 and "HF_HOME" in answer.hint
    assert path.read_bytes() == offer.content


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder; the owner of all, root, has to become somebody else."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


# Two processes, and no network.


@pytest.mark.parametrize("kind", BOTH)
def test_two_processes_download_a_file_once(
    bench: Bench, another_client: Callable[..., Client], kind: Kind
) -> None:
    offer = bench.offer(kind, Drip(SIZE // 8, 0.1))
    other = another_client()
    for client in (bench.client, other):
        client.order("fetch", offer.file, bench.cache)
    answers = [client.answer() for client in (bench.client, other)]
    assert [answer.sha256 for answer in answers] == [sha256(offer.content)] * 2
    assert offer.downloads == [""]


@pytest.mark.parametrize("kind", BOTH)
def test_offline_fails_at_once_and_names_the_ways_out(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    answer = bench.fetch(offer.file, offline=True)
    assert answer.code == 7 and "the network is not to be used" in answer.error
    assert "`resshift models pull" in answer.hint and "--model tiny-x4" in answer.hint
    assert answer.seconds < 1.0
    assert offer.visits == 0


@pytest.mark.parametrize("kind", BOTH)
def test_offline_is_no_obstacle_to_what_is_here(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    assert bench.fetch(offer.file).path == bench.fetch(offer.file, offline=True).path


def test_hf_hub_offline_keeps_every_source_from_being_asked(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offers = [bench.offer("hub"), bench.offer("release")]
    client = another_client(HF_HUB_OFFLINE="Yes")
    answer = client.do("fetch", either(*offers), bench.cache)
    assert answer.code == 7 and "the network is not to be used" in answer.error
    assert client.do("reachable", either(*offers), bench.cache).value == 0
    assert [offer.visits for offer in offers] == [0, 0]


def test_without_a_network_all_sources_have_failed_within_seconds(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    nowhere = closed_port()
    client = another_client(HF_ENDPOINT=nowhere, RESSHIFT_RELEASES=nowhere)
    answer = client.do("fetch", either(bench.offer("release"), bench.offer("hub")), bench.cache)
    assert answer.error.count("no connection") == 2
    assert "`resshift models pull" in answer.hint and "--model tiny-x4" in answer.hint
    assert answer.seconds < 4.0


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_is_reachable_if_a_server_offers_it(bench: Bench, kind: Kind) -> None:
    offered, refused = bench.offer(kind), bench.offer(kind, Status(403, "GatedRepo"))
    files = [offered.file, refused.file, either(refused, offered)]
    asked = [bench.client.do("reachable", file, bench.cache).value for file in files]
    assert asked == [True, False, True]
    assert offered.sent == 0


def test_a_server_that_does_not_answer_is_not_waited_for(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = another_client(HF_ENDPOINT=nowhere, RESSHIFT_RELEASES=nowhere)
        file = either(bench.offer("release"), bench.offer("hub"))
        answer = client.do("reachable", file, bench.cache, within=0.3)
    assert answer.value == 0
    assert answer.seconds < 3.0


# Deleting.


@pytest.mark.parametrize("kind", BOTH)
def test_discarding_frees_a_file_and_forgets_its_checksum(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    path = Path(bench.fetch(offer.file).path)
    assert bench.client.do("discard", offer.file, bench.cache).value == SIZE
    assert not path.exists()
    assert bench.cached(offer.file).path == ""
    assert on_record(bench.cache) == {}
    assert bench.client.do("discard", offer.file, bench.cache).value == 0


def test_discarding_leaves_the_other_files_of_a_repository(bench: Bench) -> None:
    offer = bench.offer("hub")
    repo = offer.name.rpartition("/")[0]
    bench.site.hub.add_file(repo, "other.safetensors", bench.content())
    source = source_of("hub", repo, "other.safetensors")
    other = bench.fetch(WeightFile((source,), "MIT", "", 0))
    blob = Path(bench.fetch(offer.file).path).resolve()
    bench.client.do("discard", offer.file, bench.cache)
    assert not blob.exists()
    assert len(Path(other.path).read_bytes()) == SIZE


def test_discarding_deletes_parts_and_refused_files(bench: Bench) -> None:
    offer = bench.offer("release")
    bench.fetch(dataclasses.replace(offer.file, sha256="ab" * 32))
    bench.fetch(offer.file, largest=SIZE // 2)
    assert len(list(bench.cache.glob("downloads/*/*"))) == 3
    assert bench.client.do("discard", offer.file, bench.cache).value > 1.5 * SIZE
    assert not list(bench.cache.glob("downloads/*"))


# Without any server.


def test_a_wait_may_be_asked_for_in_seconds_or_as_a_date() -> None:
    def wait(header: str) -> float | None:
        return answered(429, {"Retry-After": header}).wait

    assert wait("7") == 7.0
    assert wait(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert wait(formatdate(time.time() - 100, usegmt=True)) == 0.0
    assert wait("soon") is None and wait("") is None


def test_bundled_and_local_files_are_used_where_they_lie(own_cache: Path, tmp_path: Path) -> None:
    bundled = BundledSource("tiny-x4.safetensors")
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    local = LocalSource(str(tmp_path / "own.safetensors"))
    sources: list[tuple[Source, Path]] = [(bundled, bundled.path), (local, Path(local.path))]
    for source, path in sources:
        file = WeightFile((source,), "MIT", "", 0)
        expected = Fetched(path, source, sha256(path.read_bytes()))
        assert download.fetch(file, offline=True) == expected
        assert download.reachable(file, within=1)
        assert download.discard(file) == 0 and path.exists()


def test_a_local_file_may_change_unless_the_registry_says_what_it_is(
    own_cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"first")
    file = WeightFile((LocalSource(str(path)),), "MIT", "", 0)
    download.fetch(file)
    path.write_bytes(b"second")
    assert download.fetch(file).sha256 == sha256(b"second")
    with pytest.raises(ModelUnavailableError, match="or is not the file of the registry"):
        download.fetch(dataclasses.replace(file, sha256=sha256(b"first")))
    path.unlink()
    with pytest.raises(ModelUnavailableError, match=f"{path}: no such file"):
        download.fetch(file, offline=True)


def test_a_record_can_be_read_back_and_replaced(own_cache: Path) -> None:
    assert download.recorded_digest("a key") is None
    download.record_digest("a key", "ab" * 32)
    download.record_digest("a key", "cd" * 32)
    assert download.recorded_digest("a key") == "cd" * 32


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_record_is_named(own_cache: Path, content: str) -> None:
    own_cache.mkdir()
    (own_cache / "digests.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match="digests.json is damaged") as caught:
        download.recorded_digest("a key")
    assert "Delete it" in caught.value.hint


def test_the_cache_lies_where_the_variable_says(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.folder() == own_cache
    monkeypatch.delenv("RESSHIFT_CACHE")
    assert "resshift" in cache.folder().parts


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "on"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"TRANSFORMERS_OFFLINE": "true"}, True),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
    ],
)
def test_offline_is_what_the_hubs_client_takes_for_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert download.is_offline() is expected


class PlainAdapter(requests.adapters.HTTPAdapter):
    """Carries https over plain http, so that no certificate is needed."""

    def send(self, request: requests.PreparedRequest, *rest: Any, **more: Any) -> Any:
        request.url = str(request.url).replace("https://", "http://", 1)
        return super().send(request, *rest, **more)


def test_a_redirect_from_https_to_http_is_not_followed(bench: Bench) -> None:
    offer = bench.offer("release")
    address = release.address(cast(ReleaseSource, offer.file.sources[0]))
    with requests.Session() as session:
        session.mount("https://127.0.0.1", PlainAdapter())
        session.trust_env = False
        url = address.replace("https://github.com", offer.server.url).replace("http:", "https:")
        with pytest.raises(Failure, match="not safe"):
            release._open(session, url, {})
    assert offer.downloads == []
