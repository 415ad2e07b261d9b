"""What can go wrong with a file that `hub_server` offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ALWAYS = 1 << 30

Place = Literal["front", "store"]


@dataclass
class Fault:
    """Something that goes wrong with a file, for so many requests."""

    times: int = field(default=ALWAYS, kw_only=True)
    after: int = field(default=0, kw_only=True)  # occasions that pass before it strikes


@dataclass
class Status(Fault):
    """The front, or the store, answers with an error."""

    status: int
    error_code: str = ""  # of the Hub: GatedRepo, EntryNotFound and so on
    retry_after: str = ""
    at: Place = "front"


@dataclass
class Cut(Fault):
    """The connection ends after a share of the answer; `then` takes the file's place."""

    share: float
    then: Path | None = None


@dataclass
class IgnoreRanges(Fault):
    """The whole file, whatever was asked for."""


@dataclass
class IgnoreIfRange(Fault):
    """The part that was asked for, even if it is of another version."""


@dataclass
class WrongRange(Fault):
    """Another part of the file than was asked for."""


@dataclass
class ClaimLength(Fault):
    """A Content-Length that is not true; the connection ends after the real bytes."""

    length: int


@dataclass
class ClaimLinkedSize(Fault):
    """The Hub says of the file in its store that it has another size."""

    size: int


@dataclass
class Unlabelled(Fault):
    """No ETag, and nothing else to tell one version of the file from another."""


@dataclass
class Headers(Fault):
    """Whatever headers, in place of the true ones or beside them."""

    fields: dict[str, str]


@dataclass
class Redirect(Fault):
    """The front leads to some other address."""

    location: str


@dataclass
class Overlong(Fault):
    """More bytes than there are, in one piece with an honest length or in chunks of none."""

    more: int
    chunked: bool = False


@dataclass
class InChunks(Fault):
    """The length shows only in the end, as the transfer is chunked."""


@dataclass
class Drip(Fault):
    """Few bytes at a time."""

    piece: int
    pause: float  # seconds


@dataclass
class Stall(Fault):
    """Nothing more after a share of the answer, while the connection stays open."""

    share: float
