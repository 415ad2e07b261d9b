"""Files of release pages: downloads that go on where they broke off.

A file on its way is NAME.part, and NAME.part.json says of which version of which address it is a
part, so that a file that has changed is never glued to the part of an old one.

RESSHIFT_RELEASES replaces https://github.com by a mirror, as HF_ENDPOINT does for the Hub. Proxies
come from the environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import resshift_cli
from resshift_cli.weights.registry import ReleaseSource
from resshift_cli.weights.transfer import PATIENT, TWICE, Check, Failure, Meter, answered

if TYPE_CHECKING:
    import requests

MIRROR = "RESSHIFT_RELEASES"  # environment variable: scheme and host
GITHUB = "https://github.com"

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 30.0  # seconds without any sign of life
MAX_REDIRECTS = 10
PIECE = 1 << 16  # bytes received at a time, at most


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a part is a part of.

    Attributes:
        url: where it came from.
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


def offers(source: ReleaseSource, *, within: float) -> bool:
    """Whether the host answers for the file, in so many seconds."""
    import requests

    try:
        # A redirect is answer enough: what it leads to may be signed for GET alone.
        return requests.head(address(source), headers=_headers(), timeout=within).ok
    except OSError:  # all that requests raises is one
        return False


def receive(source: ReleaseSource, part: Path, meter: Meter, check: Check) -> None:
    """Bring a part as far as one connection goes; it is whole when this returns.

    Args:
        source: the file.
        part: where its bytes go; what is there is continued if it belongs to the same version.
        meter: told the progress.
        check: told the file's size and what of it is here, before anything is written.

    Raises:
        Failure: the host does not answer, or not with the file, or the connection broke.
        OSError: the part can't be written.
    """
    import requests

    url = address(source)
    start, origin = _resumable(part, url)
    if start and start == origin.size:
        return
    headers = _headers()
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": origin.version}
    with requests.Session() as session, _open(session, url, headers) as response:
        if start and response.status_code == HTTPStatus.PARTIAL_CONTENT:
            _check_continues(response, part, start, origin)
        else:
            start, origin = 0, _Origin(url, _version(response), _length(response, part))
        check(origin.size, start)
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


def _headers() -> dict[str, str]:
    return {
        "User-Agent": f"resshift/{resshift_cli.__version__}",
        "Accept-Encoding": "identity",  # lengths and ranges are those of the file
    }


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _resumable(part: Path, url: str) -> tuple[int, _Origin]:
    """How many bytes of a file are here, and of which version of it."""
    nothing = 0, _Origin(url, "", None)
    try:
        origin = _Origin(**json.loads(_origin_file(part).read_text(encoding="utf-8")))
        start = part.stat().st_size
    except (OSError, ValueError, TypeError):  # none, or cut short when the disk was full
        return nothing
    known = origin.url == url and origin.version and origin.size is not None
    return (start, origin) if known and start <= (origin.size or 0) else nothing


def _version(response: requests.Response) -> str:
    """What tells this version of the file from a later one; "" if nothing can be relied on."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "")


def _open(session: requests.Session, url: str, headers: Mapping[str, str]) -> requests.Response:
    """Ask for a URL and follow its redirects, but never from https to http."""
    for _ in range(MAX_REDIRECTS):
        try:
            response = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            )
        except OSError as error:
            raise _unreached(error) from error
        target = session.get_redirect_target(response)
        if target is None:
            return response
        response.close()
        url = _following(url, target)
    raise Failure("leads from one address to the next without end")


def _following(url: str, target: str) -> str:
    """Where a redirect leads to."""
    try:
        following = urljoin(url, target)
        is_safe = urlsplit(url).scheme != "https" or urlsplit(following).scheme == "https"
    except ValueError as error:
        raise Failure("leads to what is no address") from error
    if not is_safe:
        raise Failure("leads to an address that is not safe (no https)")
    return following


def _unreached(error: OSError) -> Failure:
    import requests

    is_foreign = not isinstance(error, requests.RequestException)  # no certificates to check with
    if is_foreign or isinstance(error, requests.exceptions.SSLError):
        return Failure("no secure connection")
    if isinstance(error, requests.ConnectTimeout):
        return Failure("no answer")
    if isinstance(error, requests.ReadTimeout):
        return Failure("no answer", tries=PATIENT)
    if isinstance(error, requests.exceptions.ProxyError):
        return Failure("no connection through the proxy", tries=TWICE)
    if isinstance(error, requests.ConnectionError):
        return Failure("no connection", tries=TWICE)
    return Failure("its address can't be used")


def _check_continues(response: requests.Response, part: Path, start: int, origin: _Origin) -> None:
    """Refuse what does not fit to our part."""
    fits = f"bytes {start}-{(origin.size or 0) - 1}/{origin.size}"
    if response.headers.get("Content-Range") != fits or _version(response) != origin.version:
        part.unlink()
        raise Failure("sent another part of the file than it was asked for", tries=PATIENT)


def _length(response: requests.Response, part: Path) -> int | None:
    """The length of a whole file that is about to come; None if it comes in chunks."""
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink(missing_ok=True)
        raise Failure("the file has become shorter", tries=PATIENT)
    if response.status_code != HTTPStatus.OK:
        raise answered(response.status_code, response.headers)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Failure("sends the file compressed")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal():
        return int(length)
    if response.headers.get("Transfer-Encoding") == "chunked":
        return None
    raise Failure("does not say how long the file is")


def _append(
    response: requests.Response, part: Path, start: int, size: int | None, meter: Meter
) -> None:
    """Add to a part what comes."""
    done = start
    meter.start(done, size)
    with part.open("ab") as out:
        for piece in _pieces(response):
            out.write(piece)
            done += len(piece)
            meter.advance(done, size)
        out.flush()
        os.fsync(out.fileno())
    if size is not None and done != size:
        raise Failure(f"the connection broke off after {done} of {size} bytes", tries=PATIENT)


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """What comes, as soon as it comes; `iter_content` would lose what is no full piece."""
    from urllib3.exceptions import HTTPError

    try:
        while piece := response.raw.read1(PIECE):
            yield piece
    except HTTPError as error:
        raise Failure("the connection broke off", tries=PATIENT) from error
