"""Downloads as a user's process makes them: what comes, from where, and what is said if not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from download_bench import (
    BOTH,
    SIZE,
    TOKEN,
    Bench,
    Client,
    Kind,
    Site,
    closed_port,
    either,
    on_record,
    sha256,
    source_of,
)
from hub_server import HubServer
from server_faults import Drip, Place, Status

from resshift_cli.weights import download
from resshift_cli.weights.registry import (
    HubSource,
    ReleaseSource,
    Source,
    WeightFile,
)

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
