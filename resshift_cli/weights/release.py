"""Files of release pages: downloads that go on where they broke off.

A file on its way is NAME.part, and NAME.part.json says of which version of which address it is a
part, so that a file that has changed is never glued to the part of an old one.

RESSHIFT_RELEASES replaces https://github.com by a mirror, as HF_ENDPOINT does for the Hub. Proxies
come from the environment.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import resshift_cli
from resshift_cli.diffusion.tables import SpecError, from_table
from resshift_cli.weights import addresses
from resshift_cli.weights.entries import ReleaseSource
from resshift_cli.weights.transfer import (
    PATIENT,
    TWICE,
    Admission,
    Failure,
    Meter,
    answered,
    causes,
)

if TYPE_CHECKING:
    import httpx2

MIRROR = "RESSHIFT_RELEASES"  # environment variable: scheme and host
GITHUB = "https://github.com"

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 30.0  # seconds without any sign of life
MAX_REDIRECTS = 10
_LABEL = re.compile("[!-~][ -~]{0,255}")  # what a header can say of a file's version


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a part is a part of.

    Attributes:
        url: where it came from, as `shown`.
        version: ETag or time that tells the file from later versions, or "".
        size: bytes of the whole file, or None.
    """

    url: str
    version: str
    size: int | None


def address(source: ReleaseSource) -> str:
    """The URL to ask, at a mirror if there is one."""
    mirror = os.environ.get(MIRROR)
    if mirror and source.url.startswith(f"{GITHUB}/"):
        return mirror.rstrip("/") + source.url.removeprefix(GITHUB)
    return source.url


def shown(source: ReleaseSource) -> str:
    """The same URL for messages and records: without the login that a mirror may ask for."""
    mirror = os.environ.get(MIRROR, "")
    # Whatever comes before the last @ of a mirror, even if it makes no address, may be secret.
    host = re.sub("^([^:/?#]+://)?.*@", r"\1", mirror.rstrip("/"))
    return addresses.without_login(address(source).replace(mirror.rstrip("/"), host, 1))


def offers(source: ReleaseSource, *, within: float) -> bool:
    """Whether the host answers for the file, in so many seconds."""
    import httpx2

    try:
        # A redirect is answer enough: what it leads to may be signed for GET alone.
        with _client(within) as client:
            request, login = _asking(client, "HEAD", address(source), {})
            return not client.send(request, auth=login, stream=True).is_error
    except (Failure, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
        return False


def receive(source: ReleaseSource, part: Path, meter: Meter, admit: Admission) -> None:
    """Bring a part as far as one connection goes; it is whole when this returns.

    Args:
        source: the file.
        part: where its bytes go; what is there is continued if it belongs to the same version.
        meter: told the progress.
        admit: told the file's size and what of it is here, before anything is written.

    Raises:
        Failure: the host does not answer, or not with the file, or the connection broke.
        OSError: the part can't be written.
    """
    start, origin = _resumable(part, shown(source))
    if start and start == origin.size:
        return
    headers = {"Range": f"bytes={start}-", "If-Range": origin.version} if start else {}
    with _opened(address(source), headers) as response:
        if start and response.status_code == HTTPStatus.PARTIAL_CONTENT:
            _check_continues(response, part, start, origin)
        else:
            start = 0
            origin = _Origin(shown(source), _version(response), _length(response, part))
        meter.most = admit(origin.size, start, "")
        if not start:
            part.unlink(missing_ok=True)  # first, so that no part has another one's origin
            _origin_file(part).write_text(json.dumps(asdict(origin)), encoding="utf-8")
        _append(response, part, start, origin.size, meter)


def name(part: Path, path: Path) -> None:
    """Give a whole part its name.

    Raises:
        OSError: it can't be renamed.
    """
    os.replace(part, path)
    _origin_file(part).unlink(missing_ok=True)


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _resumable(part: Path, url: str) -> tuple[int, _Origin]:
    """How many bytes of a file are here, and of which version of it."""
    nothing = 0, _Origin(url, "", None)
    try:
        table = json.loads(_origin_file(part).read_text(encoding="utf-8"))
        origin = from_table(_Origin, table, part.name)
        start = part.stat().st_size
    # There is none, or it was cut short when the disk was full.
    except (OSError, ValueError, RecursionError, SpecError):
        return nothing
    known = origin.url == url and _LABEL.fullmatch(origin.version)
    return (start, origin) if known and start <= (origin.size or 0) else nothing


def _version(response: httpx2.Response) -> str:
    """What tells this version of the file from a later one; "" if nothing can be relied on."""
    etag = response.headers.get("ETag", "")
    label = "" if etag.startswith("W/") else etag
    label = label or response.headers.get("Last-Modified", "")
    return label if _LABEL.fullmatch(label) else ""


def _client(seconds: float) -> httpx2.Client:
    """Asks hosts, which have so long to show any sign of life."""
    import httpx2

    headers = {
        "User-Agent": f"resshift/{resshift_cli.__version__}",
        "Accept-Encoding": "identity",  # lengths and ranges are those of the file
    }
    timeout = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT))
    return httpx2.Client(headers=headers, timeout=timeout)


def _asking(
    client: httpx2.Client, method: str, url: str, headers: Mapping[str, str]
) -> tuple[httpx2.Request, tuple[str, str] | None]:
    """A request, and the login of its URL, which loggers of requests are not to see."""
    import httpx2

    if addresses.host(url) == addresses.UNKNOWN:
        raise Failure("its address can't be used")
    asked = httpx2.URL(url)
    login = (asked.username, asked.password) if asked.userinfo else None
    return client.build_request(method, asked.copy_with(userinfo=b""), headers=headers), login


@contextmanager
def _opened(url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """The answer for a URL, after redirects; never one from https to http.

    Raises:
        Failure: there is none.
    """
    import httpx2

    with _client(READ_TIMEOUT) as client:
        try:
            response = _followed(client, url, headers)
        # A lying host, or a wrong address, makes what reads its words fail in other ways, too.
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise _unreached(error) from error
        with closing(response):
            yield response


def _followed(client: httpx2.Client, url: str, headers: Mapping[str, str]) -> httpx2.Response:
    request, login = _asking(client, "GET", url, headers)
    for _ in range(MAX_REDIRECTS):
        response = client.send(request, auth=login, stream=True)
        following = response.next_request
        if following is None:
            return response
        response.close()
        if request.url.scheme == "https" != following.url.scheme:
            raise Failure("leads to an address that is not safe (no https)")
        request, login = following, None  # the same host's is among the headers
    raise Failure("leads from one address to the next without end")


def _unreached(error: Exception) -> Failure:
    """What it means that a host did not answer."""
    import httpx2

    if any(isinstance(cause, ssl.SSLError) for cause in causes(error)):
        return Failure("no secure connection")
    meanings: dict[type[Exception], Failure] = {
        httpx2.ConnectTimeout: Failure("no answer"),
        httpx2.TimeoutException: Failure("no answer", tries=PATIENT),
        httpx2.ProxyError: Failure("no connection through the proxy", tries=TWICE),
        httpx2.RemoteProtocolError: Failure("no answer that can be read", tries=TWICE),
        httpx2.NetworkError: Failure("no connection", tries=TWICE),
    }
    fitting = (failure for kind, failure in meanings.items() if isinstance(error, kind))
    return next(fitting, Failure("its address can't be used"))


def _check_continues(response: httpx2.Response, part: Path, start: int, origin: _Origin) -> None:
    """Refuse what does not fit to our part."""
    fits = f"bytes {start}-{(origin.size or 0) - 1}/{origin.size}"
    if response.headers.get("Content-Range") != fits or _version(response) != origin.version:
        part.unlink()
        raise Failure("sent another part of the file than it was asked for", tries=PATIENT)


def _length(response: httpx2.Response, part: Path) -> int | None:
    """The length of a whole file that is about to come; None if it comes in chunks."""
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink(missing_ok=True)
        raise Failure("the file has become shorter", tries=PATIENT)
    if response.status_code != HTTPStatus.OK:
        raise answered(response.status_code, response.headers)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Failure("sends the file compressed")
    length = response.headers.get("Content-Length", "")
    if re.fullmatch("[0-9]{1,99}", length):
        return int(length)
    if response.headers.get("Transfer-Encoding") == "chunked":
        return None
    raise Failure("does not say how long the file is")


def _append(
    response: httpx2.Response, part: Path, start: int, size: int | None, meter: Meter
) -> None:
    """Add to a part what comes.

    Raises:
        Failure: it ends too soon, or more comes than was promised; then the part is deleted.
    """
    done = start
    meter.start(done, size)
    try:
        with part.open("ab") as out:
            for piece in _pieces(response):
                done += len(piece)
                meter.advance(len(piece))
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
    finally:
        if done > meter.most:
            part.unlink(missing_ok=True)
    if size is not None and done != size:
        raise Failure(f"the connection broke off after {done} of {size} bytes", tries=PATIENT)


def _pieces(response: httpx2.Response) -> Iterator[bytes]:
    """What comes, as soon as it comes."""
    import httpx2

    try:
        yield from response.iter_raw()
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise Failure("the connection broke off", tries=PATIENT) from error
