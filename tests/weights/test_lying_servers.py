"""Servers that lie: the next source is asked, and neither crash nor disk nor hours are lost."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from download_bench import BOTH, SIZE, Bench, Client, Kind, either, on_record, sha256
from hub_server import COMMIT
from server_faults import Cut, Fault, Headers, Overlong, Redirect, Status

from resshift_cli.system.progress import silent
from resshift_cli.weights import release, transfer
from resshift_cli.weights.registry import HubSource, ReleaseSource
from resshift_cli.weights.transfer import Meter, answered, patiently

PASSWORD = "s3cret-not-for-anybody"
OTHER: dict[Kind, Kind] = {"hub": "release", "release": "hub"}

LIES: dict[str, Fault] = {
    "a length of 5,000 digits": Headers({"Content-Length": "9" * 5000}),
    "a length of 19 digits": Headers({"Content-Length": "9" * 19}),
    "a length that is no number": Headers({"Content-Length": "many"}),
    "two lengths": Headers({"Content-Length": f"{SIZE}, 1"}),
    "bytes in a header": Headers({"Content-Length": "\xff\xfe"}),
    "bytes in a redirect": Redirect("http://\xff\xfe/weights"),
    "a host without its bracket": Redirect("http://[::bad/weights"),
    "a port beyond all ports": Redirect("http://localhost:99999/weights"),
    "a host of long words": Redirect(f"http://{'x' * 70}/weights"),
    "a scheme of its own": Redirect("gopher://localhost/weights"),
    "a redirect to nowhere": Redirect("http://"),
}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("lie", LIES)
def test_a_host_that_lies_gives_way_to_the_next_source(bench: Bench, kind: Kind, lie: str) -> None:
    liar = bench.offer(kind, dataclasses.replace(LIES[lie]))
    honest = bench.offer(OTHER[kind])
    answer = bench.fetch(either(liar, honest))
    assert (answer.source, answer.sha256) == (OTHER[kind], sha256(honest.content))


@pytest.mark.parametrize("kind", BOTH)
def test_a_length_that_nobody_expects_is_a_lie_and_no_full_disk(bench: Bench, kind: Kind) -> None:
    liar = bench.offer(kind, Headers({"Content-Length": "9" * 15}))
    honest = bench.offer(OTHER[kind])
    answer = bench.fetch(dataclasses.replace(either(liar, honest), bytes=SIZE))
    assert (answer.source, answer.sha256) == (OTHER[kind], sha256(honest.content))


def test_an_etag_of_other_bytes_is_no_version_to_go_on_from(bench: Bench) -> None:
    offer = bench.offer("release", Headers({"ETag": '"\xff\xfe"'}), Cut(0.4, times=1))
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert offer.downloads == ["", ""]


@pytest.mark.parametrize("wait", ["9" * 400, "99999999"])
def test_the_hub_s_client_does_not_wait_for_as_long_as_it_is_told(bench: Bench, wait: str) -> None:
    busy = bench.offer("hub", Status(429, retry_after=wait, at="store", times=1))
    assert bench.fetch(busy.file).sha256 == sha256(busy.content)


BEYOND_CLOCKS = [
    "Fri, 31 Dec 99999 23:59:59 GMT",
    f"Fri, 31 Dec {'9' * 20} 23:59:59 GMT",
    "Mon, 01 Jan 0001 00:00:00 -9999",
    "9" * 400,
]


@pytest.mark.parametrize("wait", BEYOND_CLOCKS)
def test_a_wait_beyond_all_clocks_is_no_crash(wait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LONGEST_WAIT", 0.1)
    failures = [answered(503, {"Retry-After": wait})]
    assert failures[0].wait in (None, 0.0, float("inf"))

    def ask() -> str:
        if failures:
            raise failures.pop()
        return "file"

    assert patiently(ask, Meter("", silent)) == "file"


@pytest.mark.parametrize("kind", BOTH)
def test_a_reply_longer_than_promised_is_cut_off(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind, Overlong(256 << 20, chunked=True))
    answer = bench.fetch(dataclasses.replace(offer.file, bytes=SIZE))
    assert answer.code == 7 and "bytes that it may" in answer.error
    assert offer.sent < 64 << 20
    assert not list(bench.cache.glob("downloads/*/*.part"))


def test_a_part_is_not_continued_beyond_the_whole(bench: Bench) -> None:
    offer = bench.offer("release", Cut(0.5, times=1), Overlong(64 << 20, chunked=True, after=1))
    answer = bench.fetch(offer.file)
    assert offer.downloads == ["", f"bytes={SIZE // 2}-"]
    assert answer.code == 7 and f"more than the {SIZE:,} bytes that it may" in answer.error


def test_a_file_of_another_size_than_the_registry_s_is_not_begun(bench: Bench) -> None:
    offer = bench.offer("release")
    answer = bench.fetch(dataclasses.replace(offer.file, bytes=SIZE // 3))
    assert answer.code == 7 and "600,000 bytes, where about 200,000 are expected" in answer.error
    assert not list(bench.cache.glob("downloads/*/*"))


@pytest.mark.parametrize("origin", ["[" * 100_000, '{"url": 1}', '{"size": "1"}', "\xff"])
def test_a_damaged_note_of_a_part_is_no_obstacle(bench: Bench, origin: str) -> None:
    offer = bench.offer("release")
    path = Path(bench.fetch(offer.file).path)
    path.rename(f"{path}.part")
    Path(f"{path}.part.json").write_text(origin, encoding="latin-1")
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)


# Secrets.


def with_login(url: str) -> str:
    return url.replace("http://", f"http://somebody:{PASSWORD}@")


def test_a_login_of_a_mirror_is_used_and_written_nowhere(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("release", Status(503, at="store"))
    client = another_client(RESSHIFT_RELEASES=with_login(bench.site.releases.url))
    answer = client.do("fetch", offer.file, bench.cache)
    assert answer.code == 7 and PASSWORD not in answer.error + answer.hint
    offer.served.faults.clear()
    answer = client.do("fetch", offer.file, bench.cache, largest=SIZE // 2)
    assert answer.code == 6  # there is a part now, and a note of what it is part of
    written = [path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()]
    assert len(written) > 3 and not any(PASSWORD.encode() in content for content in written)
    assert {request.authorised for request in offer.server.asked(offer.name)} == {True}
    assert {r.authorised for r in offer.server.asked(offer.name, place="store")} == {False}
    assert client.do("fetch", offer.file, bench.cache).sha256 == sha256(offer.content)


@pytest.mark.parametrize("mirror", ["http://u:{}@h:1", "http://u:{}/x@h", "u:{}@h", "http://{}@"])
def test_whatever_a_mirror_is_called_no_password_is_shown(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(release.MIRROR, mirror.format(PASSWORD))
    assert PASSWORD not in release.shown(ReleaseSource(f"{release.GITHUB}/me/net/x.pth"))


def test_a_login_is_not_logged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offer = bench.offer("release")
    monkeypatch.setenv(release.MIRROR, with_login(bench.site.releases.url))
    (source,) = offer.file.sources
    assert isinstance(source, ReleaseSource)
    with caplog.at_level(logging.DEBUG):
        assert release.offers(source, within=3)
    assert caplog.text and PASSWORD not in caplog.text


def test_an_address_of_the_registry_is_recorded_without_its_login() -> None:
    source = ReleaseSource(with_login("http://example.org/a@b/x.pth"))
    assert source.address == "http://example.org/a@b/x.pth"
    assert PASSWORD in source.url


# Sources that change.


def test_a_file_that_the_hub_has_replaced_is_not_even_fetched(bench: Bench) -> None:
    offer = bench.offer("hub")
    first = bench.fetch(offer.file)
    Path(first.path).unlink()
    offer.served.replace(bench.content())
    refused = bench.fetch(offer.file)
    assert refused.code == 7 and "has another file now" in refused.error
    assert "`resshift models rm MODEL`" in refused.hint
    assert offer.downloads == [""]
    assert on_record(bench.cache) == {offer.file.key: first.sha256}


def test_a_short_commit_is_a_revision_like_any_other(bench: Bench) -> None:
    offer = bench.offer("hub")
    (source,) = offer.file.sources
    assert isinstance(source, HubSource)
    pinned = dataclasses.replace(source, revision=COMMIT[:7])
    file = dataclasses.replace(offer.file, sources=(pinned,))
    answer = bench.fetch(file)
    assert answer.sha256 == sha256(offer.content)
    assert bench.fetch(file, offline=True).path == answer.path
