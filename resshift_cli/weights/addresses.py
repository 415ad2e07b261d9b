"""Addresses as messages and records may show them: never with a name and password in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

UNKNOWN = "its address"  # what messages call a host that no address tells


def without_login(url: str) -> str:
    """An address without the name and password that may stand before its host."""
    return re.sub(r"^([^:/?#]+://)[^/?#]*@", r"\1", url)


def host(url: str) -> str:
    """The host of an address, with its port."""
    try:
        parts = urlsplit(without_login(url))
        _ = parts.port  # or it is none
    except ValueError:
        return UNKNOWN
    return parts.netloc or UNKNOWN
