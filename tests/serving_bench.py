"""A service that listens on the loopback for a test, in a thread of the test's process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from resshift_cli.serving import server
from resshift_cli.serving.guards import LOCAL, Rules
from resshift_cli.serving.photos import Root
from resshift_cli.serving.service import Service
from resshift_cli.serving.shelf import Limits
from resshift_cli.serving.warm import Models
from resshift_cli.weights import registry

Serve = Callable[..., httpx2.Client]

FINDER = "finds.onnx"
"""A file beside the registry in place of what finds faces."""


@contextmanager
def service(
    limits: Limits | None = None, root: Path | None = None, more: Path | None = None
) -> Iterator[Service]:
    """A service; `more` is a registry of further models."""
    models = Models(registry.find("tiny-x4"), more, offline=True, resources={"device": "cpu"})
    made = Service(models, Root(root), limits or Limits())
    try:
        yield made
    finally:
        assert made.close(60)


@contextmanager
def listening(made: Service, token: str | None = None) -> Iterator[str]:
    """Where it listens."""
    socket = server.listening("127.0.0.1", 0)
    port = socket.getsockname()[1]
    rules = Rules(LOCAL, token, f"resshift-{port}", made.limits.upload)
    listener = server.Server(made, rules)
    thread = threading.Thread(target=listener.run, args=([socket],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        listener.stop()
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a service, and gives a client of it."""
    with ExitStack() as stack:

        def serve(
            limits: Limits | None = None,
            root: Path | None = None,
            token: str | None = None,
            more: Path | None = None,
        ) -> httpx2.Client:
            made = stack.enter_context(service(limits, root, more))
            way = stack.enter_context(listening(made, token))
            return stack.enter_context(httpx2.Client(base_url=way, timeout=60))

        yield serve


@pytest.fixture(scope="module")
def client(more: Path) -> Iterator[httpx2.Client]:
    """A client of a service that several tests share."""
    with (
        service(more=more) as made,
        listening(made) as way,
        httpx2.Client(base_url=way, timeout=60) as found,
    ):
        yield found


@pytest.fixture(scope="session")
def more(tmp_path_factory: pytest.TempPathFactory, fills: Path, mends: Path) -> Path:
    """A registry with models that fill, mend and restore faces, of random weights."""
    path = tmp_path_factory.mktemp("registry") / "models.toml"
    tables = (
        _table("fills", "inpainting", weights=fills),
        _table("mends", "deblurring", weights=mends),
        _table("people", "face", weights=mends, detector=path.with_name(FINDER)),
    )
    path.with_name(FINDER).touch()
    path.write_text("".join(tables))
    return path


def _table(name: str, task: str, **files: Path) -> str:
    table = f"""
[models.{name}]
description = "tiny"
task = "{task}"
homepage = ""
citation = ""
"""
    for part, path in files.items():
        table += f"""
[models.{name}.{part}]
sources = [{{ kind = "local", path = "{path.as_posix()}" }}]
licence = "Apache-2.0"
sha256 = ""
bytes = 0
"""
    return table


def sent(path: Path) -> dict[str, tuple[str, bytes]]:
    """A photo as a form has it."""
    return {"image": (path.name, path.read_bytes())}


def ended(client: httpx2.Client, answer: httpx2.Response) -> dict[str, Any]:
    """What became of a job, as its events tell."""
    assert answer.status_code == 202
    with client.stream("GET", f"{answer.headers['location']}/events") as events:
        data = [line for line in events.iter_lines() if line.startswith("data: ")]
    found: dict[str, Any] = json.loads(data[-1].removeprefix("data: "))
    return found
