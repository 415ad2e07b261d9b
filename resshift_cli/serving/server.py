"""What listens: one address, one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from resshift_cli.errors import ResShiftError, UsageError, printable
from resshift_cli.serving import api
from resshift_cli.serving.guards import MOST_HEADERS, Rules
from resshift_cli.serving.service import Service

CONNECTIONS = 256  # at a time
PATIENCE = 20.0  # seconds until the headers of a request are there
CLOSING = 2  # seconds that answers have to end when the service does
ENDING = 6.0  # seconds that jobs have then


class _Protocol(H11Protocol):
    """HTTP with clients that have something to say."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a client some time to say it."""
        super().connection_made(transport)
        self._be_patient(self.cycle)

    def on_response_complete(self) -> None:
        """Give it some time for its next request, too, once that has begun."""
        answered = self.cycle
        super().on_response_complete()
        self._be_patient(answered)

    def _be_patient(self, answered: object) -> None:
        self.loop.call_later(PATIENCE, self._lose_patience, answered)

    def _lose_patience(self, answered: object) -> None:
        if self.cycle is answered:
            self.transport.close()


class Server(uvicorn.Server):
    """A service, listening.

    Args:
        service: it.
        rules: what is let through to it.
        debug: whether bugs are traced on stderr; clients are told of them in any case.
    """

    def __init__(self, service: Service, rules: Rules, *, debug: bool = False) -> None:
        self.service = service
        config = uvicorn.Config(
            api.application(service, rules),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_level="error" if debug else "critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=CLOSING,
            h11_max_incomplete_event_size=MOST_HEADERS,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the caller to heed, who calls `stop`."""
        yield

    def stop(self) -> None:
        """Have `run` return soon; jobs are ended."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the jobs first, so that those who wait for them hear of it."""
        await asyncio.to_thread(self.service.jobs.close, ENDING)
        await super().shutdown(sockets)


def listening(host: str, port: int) -> socket.socket:
    """A socket on which nothing is answered yet.

    Args:
        host: name or address of this machine.
        port: 0 for any that is free.

    Raises:
        UsageError: the host is no name of this machine.
        ResShiftError: the port is taken, or may not be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except socket.gaierror as error:
        raise UsageError(
            f"'{printable(host)}' is no address of this machine.",
            hint="Leave --host out for this machine alone, or use 0.0.0.0 for all its addresses.",
        ) from error
    except OSError as error:
        raise ResShiftError(
            f"{printable(host)} port {port} can't be listened to: {error.strerror}.",
            hint="Another one runs there already, perhaps: choose another --port, or 0 for any.",
        ) from error


def is_local(host: str) -> bool:
    """Whether nobody on another machine reaches it."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except socket.gaierror:  # `listening` tells
        return True
    return all(str(address[0]).startswith("127.") or address[0] == "::1" for *_, address in found)
