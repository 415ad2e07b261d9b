"""Connections that break, servers that get it wrong, and downloads that go on all the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import cast

import httpx2
import pytest
from download_bench import (
    BOTH,
    LARGE,
    SIZE,
    TIMEOUT,
    Bench,
    Client,
    Kind,
    sha256,
)
from server_faults import (
    ClaimLength,
    Cut,
    Drip,
    Fault,
    IgnoreIfRange,
    IgnoreRanges,
    InChunks,
    Stall,
    Unlabelled,
    WrongRange,
)

from resshift_cli.weights import release
from resshift_cli.weights.registry import (
    ReleaseSource,
)
from resshift_cli.weights.transfer import Failure, answered

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


def test_a_wait_may_be_asked_for_in_seconds_or_as_a_date() -> None:
    def wait(header: str) -> float | None:
        return answered(429, {"Retry-After": header}).wait

    assert wait("7") == 7.0
    assert wait(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert wait(formatdate(time.time() - 100, usegmt=True)) == 0.0
    assert wait("soon") is None and wait("") is None


class PlainTransport(httpx2.HTTPTransport):
    """Carries https over plain http, so that no certificate is needed."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url.copy_with(scheme="http")
        return super().handle_request(httpx2.Request("GET", url, headers=request.headers))


def test_a_redirect_from_https_to_http_is_not_followed(bench: Bench) -> None:
    offer = bench.offer("release")
    address = release.address(cast(ReleaseSource, offer.file.sources[0]))
    url = address.replace("https://github.com", offer.server.url).replace("http:", "https:")
    with (
        httpx2.Client(trust_env=False, mounts={"https://": PlainTransport()}) as client,
        pytest.raises(Failure, match="not safe"),
    ):
        release._followed(client, url, {})
    assert offer.downloads == []
