"""Fixtures of stores: one that speaks S3 on the loopback, and one before which a proxy lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lossy_proxy
import pytest

SECRET = "not-to-be-seen"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """An S3 server, with nothing in it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


def environment(url: str) -> dict[str, str]:
    """What a process has to have that is to speak to a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def connected(monkeypatch: pytest.MonkeyPatch, url: str) -> Any:
    """What speaks to it, as a command that is started now will do."""
    import s3fs

    for name, value in environment(url).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    return s3fs.S3FileSystem(use_listings_cache=False)


@pytest.fixture
def s3(s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store with an empty bucket named `photos`."""
    host, port = s3_server
    store = connected(monkeypatch, f"http://{host}:{port}")
    store.mkdir("photos")
    yield store
    store.rm("photos", recursive=True)


@pytest.fixture
def lossy(
    s3: Any, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[lossy_proxy.Lossy]:
    """The same, spoken to through a proxy that fails one request in five."""
    with lossy_proxy.before(*s3_server) as proxy:
        connected(monkeypatch, proxy.url)
        yield proxy
