"""What a request brings: an image, or the name of one, and what is to be done with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from resshift_cli.errors import UsageError
from resshift_cli.imaging.masks import ALPHA
from resshift_cli.serving import asking
from resshift_cli.serving.photos import Photo
from resshift_cli.serving.problems import Refusal
from resshift_cli.serving.service import Service, Wish

MOST_JSON = 1 << 16  # bytes
MOST_FIELDS, MOST_FILES = 64, 2
SOURCES = ("image", "path", "photo")
"""Fields that say which photo: itself, its path under the root, or its id; one of them."""


@asynccontextmanager
async def values(request: Request) -> AsyncIterator[dict[str, Any]]:
    """The fields of a request, JSON or a form; files among them are there until the end.

    A field that a form has several times is a list.

    Raises:
        UsageError: it is neither, or can't be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        yield await _json(request)
        return
    if kind != "multipart/form-data":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The request is neither a form with an image nor JSON.",
            hint="Send multipart/form-data with a field 'image', such as: curl -F image=@photo.jpg",
        )
    form = await _form(request)
    try:
        named = {name: form.getlist(name) for name in form}
        yield {name: found if len(found) > 1 else found[0] for name, found in named.items()}
    finally:
        await form.close()


async def _form(request: Request) -> FormData:
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=MOST_JSON,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise UsageError(
            f"The form can't be read: {error.message}", hint="Send it as browsers and curl do."
        ) from error


async def _json(request: Request) -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_JSON:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "The JSON is too long.",
                hint="Send images as multipart/form-data.",
            )
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError("The request is no JSON.", hint="Check it with a validator.") from error
    if not isinstance(found, dict):
        raise UsageError("The request is no JSON object.", hint='Send such as {"photo": "..."}.')
    return found


async def photo(service: Service, given: dict[str, Any]) -> Photo:
    """The photo that some fields name, which lose it.

    Raises:
        UsageError: there is none, or more than one.
        ResShiftError: it is no image, or not there.
    """
    named = [name for name in SOURCES if given.get(name) is not None]
    if len(named) != 1:
        raise UsageError(
            "The request names no photo, or more than one.",
            hint="Give one of image (a file), path (under the service's folder) and photo (an id).",
        )
    found = given.pop(named[0])
    if named[0] == "image":
        if not isinstance(found, UploadFile):
            raise UsageError("The field 'image' is no file.", hint="curl -F image=@photo.jpg")
        return await run_in_threadpool(service.shelf.receive, found.file, found.filename or "")
    if not isinstance(found, str):
        raise UsageError(f"The field '{named[0]}' is no text.", hint="Give a text.")
    if named[0] == "path":
        return await run_in_threadpool(service.shelf.open, found)
    return service.shelf.photo(found)


async def wish(service: Service, given: dict[str, Any], task: str | None = None) -> Wish:
    """What some fields ask for, which lose all that are no options.

    Args:
        service: what is asked.
        given: the fields.
        task: what is to be done; if it is None, a field says so, or the photo is enlarged.

    Raises:
        UsageError: no photo is named, or more than one, or there is no such task.
        ResShiftError: something is no image, or not there.
    """
    if task is None:
        task = given.pop("task", None) or "upscale"
    masked = asking.kind(task).is_masked
    where = await _mask(service, given) if masked else None
    return Wish(await photo(service, given), given, task, where)


async def _mask(service: Service, given: dict[str, Any]) -> Photo | str | None:
    """The mask that some fields tell, which lose it."""
    found, path = given.pop("mask", None), given.pop("mask_path", None)
    if found and path:
        raise UsageError("'mask' and 'mask_path' both tell a mask.", hint="Give one of them.")
    if isinstance(found, UploadFile):
        return await run_in_threadpool(service.shelf.receive, found.file, found.filename or "")
    for name, value in (("mask", found), ("mask_path", path)):
        if not isinstance(value, str | None):
            raise UsageError(f"The field '{name}' is no text.", hint="Give a text.")
    if path:
        return await run_in_threadpool(service.shelf.open, path)
    is_photo = found and found != ALPHA and not found.startswith("#")
    return service.shelf.photo(found) if is_photo else found or None


def whole_numbers(given: dict[str, Any], names: Iterable[str]) -> list[int | None]:
    """Fields that are whole numbers where they are there; the others lose them.

    Raises:
        UsageError: one is something else.
    """
    found: list[int | None] = []
    for name in names:
        value = given.pop(name, None)
        if value is None or value == "":
            found.append(None)
            continue
        try:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise ValueError
            found.append(int(value))
        except ValueError as error:
            raise UsageError(
                f"The field '{name}' is no whole number.", hint="Give one, such as 128."
            ) from error
    return found
