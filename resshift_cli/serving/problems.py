"""What is refused or goes wrong, as clients are told: with the command's messages and exit codes.

The documents are problem details (RFC 9457) with two members more, `hint` and `exit_code`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from resshift_cli.errors import (
    DeviceError,
    ImageUnreadableError,
    InputMissingError,
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UnknownModelError,
    UnsupportedImageError,
    UsageError,
    expected,
)

MEDIA_TYPE = "application/problem+json"

_STATUS: dict[type[ResShiftError], HTTPStatus] = {
    UnknownModelError: HTTPStatus.NOT_FOUND,
    UsageError: HTTPStatus.BAD_REQUEST,
    InputMissingError: HTTPStatus.NOT_FOUND,
    ImageUnreadableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnsupportedImageError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    OutputError: HTTPStatus.INSUFFICIENT_STORAGE,
    ModelUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    DeviceError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Refusal(UsageError):
    """A request that is refused for what it is, before anything is done.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: HTTPStatus, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class BusyError(ResShiftError):
    """There is too much to do already."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    @classmethod
    def ending(cls) -> BusyError:
        """What a service says that is about to end."""
        return cls("The service is about to end.", hint="Ask again in a while.")


class CancelledError(ResShiftError):
    """Somebody has ended a job, or gone away."""

    status = HTTPStatus.CONFLICT


def status_of(error: ResShiftError) -> HTTPStatus:
    """Of HTTP, for an error."""
    if isinstance(error, Refusal | BusyError | CancelledError):
        return error.status
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def document(error: Exception) -> dict[str, Any]:
    """What is told of an error; what is none of ours is told as a bug."""
    known = expected(error)
    status = status_of(known)
    facts = known.facts()
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": facts.pop("message"),
        **facts,
    }
