"""The service by HTTP: a table of routes, and what answers each."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.imaging.formats import FORMATS
from resshift_cli.serving import asking, inputs, openapi
from resshift_cli.serving.guards import Document, Guard, Rules, refused
from resshift_cli.serving.jobs import Job
from resshift_cli.serving.problems import Refusal
from resshift_cli.serving.service import Service

CLIENT = "resshift-client"
"""Header by which somebody with several connections, such as the page, says to be one client."""

PULSE = 10.0  # seconds between signs of life on a stream of events
REST = 0.1  # seconds between events of one job

_SITE = {
    "/": ("serving", "site/index.html"),
    "/site.css": ("serving", "site/site.css"),
    "/site.js": ("serving", "site/site.js"),
    "/settings.js": ("serving", "site/settings.js"),
    "/jobs.js": ("serving", "site/jobs.js"),
    "/mask.js": ("serving", "site/mask.js"),
    "/api.js": ("serving", "site/api.js"),
    "/viewer.css": ("viewing", "viewer/viewer.css"),
}
"""Files of the page: in which room each lies."""

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def application(service: Service, rules: Rules) -> Guard:
    """The service as an ASGI application, guarded."""
    app = Starlette(
        routes=routes(service),
        exception_handlers={
            ResShiftError: _told,
            HTTPException: _unknown,
            ClientDisconnect: _gone,
            Exception: _told,
        },
    )
    return Guard(app, rules)


def routes(service: Service) -> list[Route]:
    """What there is to ask for, and what answers it."""
    answers = Answers(service)
    return [
        Route("/api/openapi.json", answers.openapi),
        Route("/api/health", answers.health),
        Route("/api/version", answers.version),
        Route("/api/metrics", answers.metrics),
        Route("/api/models", answers.models),
        Route("/api/photos", answers.add_photo, methods=["POST"]),
        Route("/api/photos/{id}", answers.photo),
        Route("/api/photos/{id}/small", answers.small),
        Route("/api/estimate", answers.estimate, methods=["POST"]),
        *(
            Route(f"/api/{task}", partial(answers.make, task), methods=["POST"])
            for task in asking.TASKS
        ),
        Route("/api/preview", answers.preview, methods=["POST"]),
        Route("/api/events", answers.all_events),
        Route("/api/folders", answers.folders),
        Route("/api/batch", answers.batch, methods=["POST"]),
        Route("/api/jobs/{id}", answers.job),
        Route("/api/jobs/{id}", answers.end_job, methods=["DELETE"]),
        Route("/api/jobs/{id}/events", answers.events),
        Route("/api/jobs/{id}/result", answers.result),
        Route("/api/jobs/{id}/view", answers.view),
        Route("/api/jobs/{id}/tiles/{place}", answers.tile),
        *(Route(path, _asset(room, name)) for path, (room, name) in _SITE.items()),
    ]


class Answers:
    """What is answered.

    Args:
        service: what is asked.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def openapi(self, request: Request) -> Response:
        """What there is to ask for."""
        return Document(openapi.document())

    async def health(self, request: Request) -> Response:
        """That it is there."""
        return Document({"status": "ok"})

    async def version(self, request: Request) -> Response:
        """What it is."""
        return Document(self.service.version())

    async def metrics(self, request: Request) -> Response:
        """Figures, as Prometheus reads them."""
        figures = await run_in_threadpool(self.service.metrics)
        lines = [f"{name} {value:.15g}\n" for name, value in figures.items()]
        return PlainTextResponse("".join(lines), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """The models."""
        return Document(await run_in_threadpool(self.service.models.documents))

    async def add_photo(self, request: Request) -> Response:
        """Keep a photo for what is asked later."""
        async with inputs.values(request) as given:
            photo = await inputs.photo(self.service, given)
        headers = {"location": f"/api/photos/{photo.id}"}
        return Document(photo.document(), HTTPStatus.CREATED, headers)

    async def photo(self, request: Request) -> Response:
        """What is known of a photo."""
        return Document(self.service.shelf.photo(request.path_params["id"]).document())

    async def small(self, request: Request) -> Response:
        """A photo as any browser can show it."""
        photo = self.service.shelf.photo(request.path_params["id"])
        kind, content = await run_in_threadpool(self.service.shelf.small, photo)
        return Response(content, media_type=kind)

    async def estimate(self, request: Request) -> Response:
        """What it would take."""
        async with inputs.values(request) as given:
            wish = await inputs.wish(self.service, given)
        return Document(await run_in_threadpool(self.service.estimate, wish))

    async def make(self, task: str, request: Request) -> Response:
        """Do something with a photo: at once if it takes a moment, else as a job."""
        async with inputs.values(request) as given:
            wish = await inputs.wish(self.service, given, task)
        job = await run_in_threadpool(self.service.make, wish, _client(request))
        if not await self._awaited(request, job, _patience(request, job)):
            return _accepted(job)
        if "application/json" in request.headers.get("accept", ""):
            return Document(job.document(), headers=_location(job))
        return await self._file(job)

    async def preview(self, request: Request) -> Response:
        """Do it with one crop, as a job."""
        async with inputs.values(request) as given:
            x, y, size = inputs.whole_numbers(given, ("x", "y", "size"))
            wish = await inputs.wish(self.service, given)
        if (x is None) != (y is None):
            raise UsageError("A place has both 'x' and 'y'.", hint="Give both of them, or neither.")
        at = None if x is None or y is None else (x, y)
        side = 128 if size is None else size

        def begin() -> Job:
            return self.service.preview(wish, _client(request), at=at, side=side)

        return _accepted(await run_in_threadpool(begin))

    async def folders(self, request: Request) -> Response:
        """Folders that may be done."""
        return Document(await run_in_threadpool(self.service.batches.offered))

    async def batch(self, request: Request) -> Response:
        """Do a folder, as a job."""
        async with inputs.values(request) as given:
            names = (given.pop(name, None) or None for name in ("folder", "masks", "task"))
            folder, masks, task = names
        if not isinstance(folder, str) or not isinstance(masks, str | None):
            raise UsageError("No folder is named.", hint="`/api/folders` lists some.")
        task = task or "upscale"
        asking.kind(task)
        client = _client(request)
        job = await run_in_threadpool(self.service.batch, folder, given, client, task, masks)
        return _accepted(job)

    async def job(self, request: Request) -> Response:
        """How far a job is."""
        return Document(self.service.job(request.path_params["id"]).document())

    async def end_job(self, request: Request) -> Response:
        """End a job, or delete what it gave."""
        job = self.service.job(request.path_params["id"])
        await run_in_threadpool(self.service.drop, job)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def events(self, request: Request) -> Response:
        """How far a job is, again and again."""
        job = self.service.job(request.path_params["id"])
        return StreamingResponse(_events([job]), media_type="text/event-stream")

    async def all_events(self, request: Request) -> Response:
        """The same of several jobs: browsers have few connections."""
        known = self.service.jobs.known
        named = dict.fromkeys(request.query_params.getlist("job"))
        jobs = [self.service.job(name) for name in named if name in known]
        return StreamingResponse(_events(jobs), media_type="text/event-stream")

    async def result(self, request: Request) -> Response:
        """A result, as the command writes it."""
        return await self._file(self.service.job(request.path_params["id"]))

    async def view(self, request: Request) -> Response:
        """A page that compares what a job gave with what it was given."""
        view = await run_in_threadpool(self.service.view, request.path_params["id"])
        # What it may load is said in it.
        headers = {"content-security-policy": "frame-ancestors 'self'"}
        return HTMLResponse(view.document, headers=headers)

    async def tile(self, request: Request) -> Response:
        """A part of a picture of that page."""
        view = await run_in_threadpool(self.service.view, request.path_params["id"])
        tile = await run_in_threadpool(view.tile, request.path_params["place"])
        if tile is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        headers = {"cache-control": "private, max-age=3600, immutable"}
        return Response(tile[1], media_type=tile[0], headers=headers)

    async def _file(self, job: Job) -> Response:
        made = await run_in_threadpool(self.service.result, job.id)
        kind = FORMATS[made.path.suffix.lower()].name.lower().replace("tga", "x-tga")
        name = quote(made.name, safe="", errors="replace")
        plain = re.sub(r"[^\w. -]", "_", made.name, flags=re.ASCII)
        headers = {
            **_location(job),
            "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{name}",
        }
        return FileResponse(made.path, headers=headers, media_type=f"image/{kind}")

    async def _awaited(self, request: Request, job: Job, seconds: float) -> bool:
        """Wait so long for a job to end; it ends, too, when the client goes away.

        Raises:
            ClientDisconnect: it has.
        """
        if seconds <= 0:
            return False
        gone = asyncio.create_task(_disconnected(request))
        until = asyncio.get_running_loop().time() + seconds
        try:
            async for _ in _news([job]):
                left = until - asyncio.get_running_loop().time()
                if gone.done():
                    await run_in_threadpool(self.service.jobs.cancel, job)
                    raise ClientDisconnect
                if job.ended or left <= 0:
                    break
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
        return job.ended


async def _news(jobs: Sequence[Job], pulse: float = 0.5) -> AsyncIterator[None]:
    """Yields when one of some jobs has news, and now and then without."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def call() -> None:
        with suppress(RuntimeError):  # nobody listens any more
            loop.call_soon_threadsafe(news.set)

    with ExitStack() as stack:
        for job in jobs:
            stack.enter_context(job.watched(call))
        while True:
            yield
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), pulse)
            news.clear()


async def _events(jobs: Sequence[Job]) -> AsyncIterator[str]:
    """Jobs as server-sent events, up to the end of all."""
    told: dict[str, str] = {}
    async for _ in _news(jobs, PULSE):
        left = [job for job in jobs if not job.ended]
        documents = {job.id: json.dumps(job.document()) for job in jobs}
        fresh = [job for job in jobs if told.get(job.id) != documents[job.id]]
        for job in fresh:
            yield f"event: {job.state}\ndata: {documents[job.id]}\n\n"
        if not left:
            return
        if not fresh:
            yield ": still here\n\n"
        told = documents
        await asyncio.sleep(REST)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _client(request: Request) -> str:
    """Who asks: a connection, unless it says that it belongs with others."""
    named = request.headers.get(CLIENT)
    host, port = request.client or ("", 0)
    return f"{host} {named[:64]}" if named else f"{host}:{port}"


def _patience(request: Request, job: Job) -> float:
    """How long a client wants to wait (RFC 7240); if it does not say, for what takes a moment."""
    prefer = request.headers.get("prefer", "")
    wait = re.search(r"\bwait=(\d{1,6})\b", prefer)
    if wait is not None:
        return float(wait[1])
    return 0.0 if "respond-async" in prefer or not job.is_short else float("inf")


def _location(job: Job) -> dict[str, str]:
    return {"location": f"/api/jobs/{job.id}"}


def _accepted(job: Job) -> Response:
    return Document(job.document(), HTTPStatus.ACCEPTED, _location(job))


def _asset(room: str, name: str) -> Callable[[Request], Any]:
    """What answers with a file of the page."""
    content = files(f"resshift_cli.{room}").joinpath(name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")

    return answer


async def _told(request: Request, error: Exception) -> Response:
    return refused(error)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    hint = "/api/openapi.json tells what there is."
    headers: Mapping[str, str] = error.headers or {}
    response = refused(Refusal(status, f"{status.phrase}: {request.url.path[:200]}.", hint=hint))
    response.headers.update(headers)
    return response
