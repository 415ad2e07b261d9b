"""What no request gets past: whom it says it speaks to, where it comes from, its token, its body.

A page of somebody else's that is open in the same browser can send requests here, under names of
its own that lead here, too. So the host must be one of ours, and a request that a browser sends for
another page is refused. Bodies must be small enough, and come in fast enough.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resshift_cli.errors import printable
from resshift_cli.serving import problems
from resshift_cli.serving.problems import BusyError, Refusal

LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine for itself."""

MOST_HEADERS = 16 << 10  # bytes
AROUND = 1 << 16  # bytes of a body beside the image
PATIENCE = 20.0  # seconds that a body may take in any case
SLOWEST = 10_000  # bytes a second that it comes in with at least after that

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'self'; "
    "form-action 'self'; base-uri 'none'; object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_OPEN = ("/api/health",)
"""What is told without a token."""


class Document(JSONResponse):
    """JSON in ASCII: the name of a file need not be Unicode, and comes back as it went out."""

    def render(self, content: object) -> bytes:
        """What goes out."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is let through.

    Attributes:
        hosts: names that the service goes by; None for any.
        token: what every request has to know; None where nothing has to be known.
        cookie: what a browser keeps it as.
        upload: bytes of an image.
    """

    hosts: frozenset[str] | None
    token: str | None
    cookie: str
    upload: int


class Guard:
    """Stands before an application.

    Args:
        app: it.
        rules: what gets to it.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            entered = self._entered(scope)
            if entered is None:
                self._check_token(scope, headers)
            self._check_length(headers)
        except Refusal as refusal:
            await refused(refusal)(scope, receive, guarded)
            return
        if entered is not None:
            await entered(scope, receive, guarded)
            return
        try:
            await self.app(scope, _Body(receive, self._most).receive, guarded)
        except asyncio.CancelledError:  # the service ends, and this took too long
            if not begun:
                await refused(BusyError.ending())(scope, receive, guarded)

    @property
    def _most(self) -> int:
        return self.rules.upload + AROUND

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.rules.hosts is None or _name(host) in self.rules.hosts:
            return
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"'{printable(host[:100])}' is no name of this service.",
            hint="Use the address that it told when it started.",
        )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        navigating = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
        sent = site in ("cross-site", "same-site") and not (navigating and scope["path"] == "/")
        if foreign or sent:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "Another page sent this request.",
                hint="Only the service's own page, and programs, may use it.",
            )

    def _entered(self, scope: Scope) -> Response | None:
        """The answer to a person who opens the page with its token: a cookie has it from then."""
        if self.rules.token is None or scope["path"] != "/" or scope["method"] != "GET":
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if not asked or not self._knows(asked[0]):
            return None
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        response.set_cookie(
            self.rules.cookie, self.rules.token, httponly=True, samesite="strict", path="/"
        )
        return response

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        if self.rules.token is None or scope["path"] in _OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._knows(given.strip()):
            return
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if self.rules.cookie in cookies and self._knows(cookies[self.rules.cookie].value):
            return
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "This service wants its token.",
            hint="Open the address that was printed when it started, or send the header "
            "'Authorization: Bearer TOKEN'.",
        )

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self.rules.token or "").encode())

    def _check_length(self, headers: Headers) -> None:
        if sum(len(name) + len(value) for name, value in headers.raw) > MOST_HEADERS:
            raise Refusal(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The headers of the request are too long.",
                hint="Send fewer of them, or fewer cookies.",
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._most:
            raise too_large(self.rules.upload)


class _Body:
    """What comes in of a request, as long as it is not too much or too slow."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._taken, self._complete = 0, False
        self._since = time.monotonic()

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        due = self._since + PATIENCE + self._taken / SLOWEST
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, due - time.monotonic()))
        except TimeoutError as error:
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT,
                "The request comes in too slowly.",
                hint="Send it again over a better connection.",
            ) from error
        self._taken += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._taken > self._most:
            raise too_large(self._most - AROUND)
        return message


def too_large(most: int) -> Refusal:
    """The refusal of a body."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"What was sent is larger than the {most >> 20} MiB that the service takes.",
        hint="Send a smaller file, or have the service take more (--max-upload).",
    )


def refused(error: Exception) -> Response:
    """The answer that tells of an error."""
    told = problems.document(error)
    headers = {"connection": "close"} if told["status"] in (408, 413) else {}
    if told["status"] == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if told["status"] == HTTPStatus.TOO_MANY_REQUESTS:
        headers["retry-after"] = "5"
    return Document(told, told["status"], headers, problems.MEDIA_TYPE)


def _name(host: str) -> str:
    """A host without its port, in small letters."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
