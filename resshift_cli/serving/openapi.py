"""The API in OpenAPI 3.1, with the options as `asking` reads them off their types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resshift_cli import __version__
from resshift_cli.serving import asking, problems
from resshift_cli.serving.asking import TASKS

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_PLACE = {**_ID, "name": "place", "description": "picture-level-column-row"}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`respond-async`: 202 in any case; `wait=SECONDS`: how long to wait.",
}
_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_TASK = {"enum": [*TASKS], "default": "upscale"}
_MASK = {
    "mask": {
        **_TEXT,
        "description": "where the photo is unknown: an image (a file, or the id of one that is "
        "kept) as large as it is and white there; or alpha; or a colour such as #ff00ff.",
    },
    "mask_path": {**_TEXT, "description": "a mask under the service's folder (--root)."},
}
_CROP = {"x": _WHOLE, "y": _WHOLE, "size": _WHOLE}
_MASKS = {**_TEXT, "description": "for inpaint: a folder of masks below the root, or as `mask`."}
_SUMMARIES = {
    "upscale": "Enlarge a photo",
    "restore": "Mend a photo at its own size",
    "inpaint": "Fill holes in a photo",
    "face": "Restore the faces of a photo",
}
_IMAGE = {"200": {"description": "The result.", "content": {"image/*": {}}}}
_PROBLEM = {
    "description": "What went wrong, with the exit code of `resshift` and a way out.",
    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def document() -> dict[str, Any]:
    """All of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "resshift",
            "version": __version__,
            "summary": "Enlarge and mend photos with ResShift, a diffusion model.",
        },
        "paths": {**_of_the_service(), **_of_photos(), **_of_jobs()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _of_the_service() -> dict[str, Any]:
    return {
        "/api/openapi.json": {"get": _operation("This document.", {"200": _plain("It.")})},
        "/api/health": {"get": _operation("Whether it is there.", {"200": _plain("It is.")})},
        "/api/version": {"get": _operation("What it is.", {"200": _plain("Name and version.")})},
        "/api/metrics": {
            "get": _operation("Figures for Prometheus.", {"200": {"description": "Text."}})
        },
        "/api/models": {
            "get": _operation("The models, the default one first.", {"200": _plain("A list.")})
        },
    }


def _of_photos() -> dict[str, Any]:
    accepted = {"202": _answer("It is a job now.", "Job")}
    return {
        "/api/photos": {
            "post": _operation(
                "Keep a photo for what is asked of it later.",
                {"201": _answer("It is kept.", "Photo")},
                body=_body(image=True),
            )
        },
        "/api/photos/{id}": {"get": _operation("A photo.", {"200": _answer("It.", "Photo")}, _ID)},
        "/api/photos/{id}/small": {
            "get": _operation("It, small, as any browser can show it.", _IMAGE, _ID)
        },
        "/api/estimate": {
            "post": _operation(
                "About what a task takes with a photo, and how large the result is.",
                {"200": _answer("An estimate.", "Estimate")},
                body=_body(image=True, options=TASKS, task=_TASK, **_MASK),
            )
        },
        **{f"/api/{task}": {"post": _making(task, accepted)} for task in TASKS},
        "/api/preview": {
            "post": _operation(
                "Do one crop of a photo beside what it is without: around x, y, or else around the "
                "hole or the largest face, or the busiest.",
                accepted,
                body=_body(image=True, options=TASKS, task=_TASK, **_CROP, **_MASK),
            )
        },
        "/api/folders": {
            "get": _operation("Folders below the root.", {"200": _plain("Their paths.")})
        },
        "/api/batch": {
            "post": _operation(
                "Do a folder below the root, as `resshift batch` does: what is finished is entered "
                "in a ledger, and not done again.",
                accepted,
                body=_body(image=False, options=TASKS, folder=_TEXT, task=_TASK, masks=_MASKS),
            )
        },
    }


def _making(task: str, accepted: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        f"{_SUMMARIES[task]}: at once if it takes a moment, else as a job. With `Accept: "
        "application/json` the job is told in place of the result.",
        {**_IMAGE, **accepted},
        _PREFER,
        body=_body(image=True, options=(task,), **(_MASK if TASKS[task].is_masked else {})),
    )


def _of_jobs() -> dict[str, Any]:
    return {
        "/api/jobs/{id}": {
            "get": _operation("How far a job is.", {"200": _answer("How far it is.", "Job")}, _ID),
            "delete": _operation(
                "End a job, or delete what it gave.", {"204": {"description": "Done."}}, _ID
            ),
        },
        "/api/jobs/{id}/events": {
            "get": _operation(
                "A job whenever it has news, up to its end, as server-sent events.",
                {"200": {"description": "Jobs.", "content": {"text/event-stream": {}}}},
                _ID,
            )
        },
        "/api/events": {
            "get": _operation(
                "The same of several jobs at once.",
                {"200": {"description": "Jobs.", "content": {"text/event-stream": {}}}},
                {"name": "job", "in": "query", "schema": {"type": "array", "items": _TEXT}},
            )
        },
        "/api/jobs/{id}/result": {"get": _operation("What a job gave.", _IMAGE, _ID)},
        "/api/jobs/{id}/view": {
            "get": _operation(
                "A page that compares it with the photo, with slider, lens and zoom.",
                {"200": {"description": "A page.", "content": {"text/html": {}}}},
                _ID,
            )
        },
        "/api/jobs/{id}/tiles/{place}": {
            "get": _operation("A part of a picture of that page.", _IMAGE, _ID, _PLACE)
        },
    }


def _operation(
    summary: str,
    responses: dict[str, Any],
    *parameters: dict[str, Any],
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": summary, "responses": {**responses, "default": _PROBLEM}}
    if parameters:
        told["parameters"] = list(parameters)
    return told | ({"requestBody": body} if body else {})


def _plain(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {}}}


def _answer(text: str, schema: str) -> dict[str, Any]:
    found = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": text, "content": {"application/json": found}}


def _body(*, image: bool, options: Iterable[str] = (), **more: dict[str, Any]) -> dict[str, Any]:
    """What is sent: as a form, or as JSON without an image."""
    named = {
        "path": {**_TEXT, "description": "a file under the service's folder (--root)."},
        "photo": {**_TEXT, "description": "the id of a photo that is kept."},
    }
    known = {
        name: option
        for task in options
        for name, option in asking.schema(task)["properties"].items()
    }
    sent = {"image": {**_TEXT, "contentMediaType": "application/octet-stream"}} if image else {}
    named = named if image else {}

    def of(properties: dict[str, Any]) -> dict[str, Any]:
        return {"schema": {"type": "object", "properties": properties}}

    return {
        "required": True,
        "content": {
            "multipart/form-data": of({**sent, **named, **more, **known}),
            "application/json": of({**named, **more, **known}),
        },
    }


def _schemas() -> dict[str, Any]:
    def of(**properties: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": properties}

    return {
        "Options": asking.schema(),
        **{f"{task}-options": asking.schema(task) for task in TASKS},
        "Photo": of(
            id=_TEXT,
            name=_TEXT,
            bytes=_WHOLE,
            width=_WHOLE,
            height=_WHOLE,
            format=_TEXT,
            depth=_WHOLE,
            alpha={"type": "boolean"},
            frames=_WHOLE,
            warnings={"type": "array", "items": _TEXT},
        ),
        "Estimate": of(
            model=_TEXT,
            seconds={"type": ["number", "null"]},
            at_least={
                "type": "boolean",
                "description": "whether more may show meanwhile: the seconds are of one face.",
            },
            width={"type": ["integer", "null"]},
            height={"type": ["integer", "null"]},
        ),
        "Job": of(
            id=_TEXT,
            kind={"enum": [*TASKS, "preview", "batch"]},
            task=_TASK,
            state={"enum": ["queued", "running", "done", "failed", "cancelled"]},
            stage=_TEXT,
            progress={**_NUMBER, "minimum": 0, "maximum": 1},
            seconds_left={"type": ["number", "null"]},
            photo=_TEXT,
            input=_TEXT,
            model=_TEXT,
            result={"type": "object"},
            error={"$ref": "#/components/schemas/Problem"},
        ),
        "Problem": of(
            type=_TEXT, title=_TEXT, status=_WHOLE, detail=_TEXT, hint=_TEXT, exit_code=_WHOLE
        ),
    }
