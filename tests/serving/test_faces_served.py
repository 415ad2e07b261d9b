"""The service restores faces, as `resshift face` does."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command_line import Run, make_photo
from drawn_faces import DETECTOR, PHOTOS, face, needs_photos
from PIL import Image
from serving_bench import FINDER, Serve, ended, sent, service

from resshift_cli.commands.portraits import Faces, Portraits
from resshift_cli.imaging import detection
from resshift_cli.restoration.face_restorer import FaceRestorer, Found
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.serving.stdio import Pipes

FOUND = Found((face(16, 10 + 6j, 0.2),), turned=1)

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def drawn(more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with a detector of this test's own; `FOUND` is in every photo."""
    (tmp_path / FINDER).touch()
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: FOUND)
    return found_by(tmp_path / FINDER, more)


def found_by(finder: Path, more: Path) -> Path:
    path = finder.with_name("models.toml")
    text = more.read_text()
    path.write_text(text.replace(more.with_name(FINDER).as_posix(), finder.as_posix()))
    return path


@pytest.fixture
def client(serve: Serve, drawn: Path, tmp_path: Path) -> httpx2.Client:
    return serve(more=drawn, root=tmp_path)


@pytest.fixture
def ask(client: httpx2.Client, photo: Path) -> Ask:
    """What becomes of a photo with options."""

    def ask(**data: str) -> dict[str, Any]:
        asked = {"model": "people", "steps": "1", **data}
        answer = client.post("/api/face", files=sent(photo), data=asked)
        return ended(client, answer)

    return ask


def made(client: httpx2.Client, job: dict[str, Any]) -> bytes:
    return client.get(f"/api/jobs/{job['id']}/result").content


def test_a_result_is_the_one_that_the_command_writes_background_and_all(
    ask: Ask, client: httpx2.Client, resshift: Run, photo: Path, drawn: Path
) -> None:
    options = ("--registry", drawn, "--model", "people", "--steps", 1, "--device", "cpu")
    asked = ("--scale", 2, "--blend", 0.5, "--strip-metadata")
    assert resshift("face", photo, *options, *asked).code == 0
    large = ask(scale="2", blend="0.5", strip_metadata="on")
    assert made(client, large) == photo.with_stem("photo_faces").read_bytes()
    told = {"background": "tiny-x4", "faces": 1, "turned": 1, "remark": "1 face, 1 turned away"}
    assert told.items() <= large["result"].items()


def test_the_background_stays_loaded_beside_the_model_and_is_there_the_next_time(
    ask: Ask, client: httpx2.Client
) -> None:
    first, plain = made(client, ask(scale="2")), made(client, ask(scale="2", background="none"))
    loaded = {model["name"] for model in client.get("/api/models").json() if model["loaded"]}
    assert loaded == {"people", "tiny-x4"}
    assert made(client, ask(scale="2")) == first != plain
    other = ask(scale="2", background="chain-x4")
    assert other["result"]["background"] == "chain-x4" and made(client, other) != first


def test_what_is_loaded_already_is_not_let_go_of_for_what_goes_over_it(
    ask: Ask, client: httpx2.Client, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, model in (("upscale", "tiny-x4"), ("restore", "mends")):
        asked = {"model": model, "steps": "1"}
        assert client.post(f"/api/{task}", files=sent(photo), data=asked).status_code == 200
    monkeypatch.setattr(Upscaler, "load", lambda *arguments, **options: pytest.fail("again"))
    assert ask(scale="2")["state"] == "done"
    loaded = {model["name"] for model in client.get("/api/models").json() if model["loaded"]}
    assert loaded == {"people", "tiny-x4"}


def test_where_no_face_is_found_that_is_told(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: Found(()))
    told = ask(scale="1.5", background="none")["result"]
    assert (told["faces"], told["remark"], told["width"]) == (0, "no face found", 30)


def test_without_opencv_it_is_said_what_helps_and_cut_out_faces_are_done(
    ask: Ask, client: httpx2.Client, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    (tmp_path / FINDER).unlink()
    models = {model["name"]: model for model in client.get("/api/models").json()}
    assert "pip install 'resshift[face]'" in models["people"]["missing"]
    assert (
        models["tiny-x4"]["missing"] is None and "models pull deblur" in models["deblur"]["missing"]
    )
    refused = client.post("/api/face", files=sent(photo), data={"model": "people"})
    told = refused.json()
    assert (told["status"], told["exit_code"]) == (400, 2) and "--aligned" in told["hint"]
    square = make_photo(photo.with_stem("square"), 16, 16)
    asked = {"model": "people", "steps": "1", "aligned": "on"}
    job = ended(client, client.post("/api/face", files=sent(square), data=asked))
    assert job["state"] == "done" and "faces" not in job["result"]
    oblong = client.post("/api/face", files=sent(photo), data=asked).json()
    assert oblong["detail"].endswith("a face that was cut out is square.")


def test_a_detector_that_is_here_later_is_used(
    ask: Ask, client: httpx2.Client, photo: Path, tmp_path: Path
) -> None:
    finder = tmp_path / FINDER
    finder.unlink()
    square = make_photo(photo.with_stem("square"), 16, 16)
    asked = {"model": "people", "steps": "1", "aligned": "on"}
    assert (
        ended(client, client.post("/api/face", files=sent(square), data=asked))["state"] == "done"
    )
    assert ask()["error"]["exit_code"] == 7
    finder.touch()
    assert ask()["result"]["faces"] == 1


def test_an_estimate_is_of_background_and_one_face(client: httpx2.Client, photo: Path) -> None:
    def told(**asked: str) -> dict[str, Any]:
        data = {"task": "face", "model": "people", "steps": "1", **asked}
        estimate: dict[str, Any] = client.post("/api/estimate", files=sent(photo), data=data).json()
        return estimate

    small, large = told(), told(scale="2")
    assert small["at_least"] and (small["width"], large["width"]) == (20, 40)
    assert large["seconds"] > small["seconds"] > 0
    assert told(scale="2", background="tiny-x5")["hint"] == "Did you mean 'tiny-x4'?"
    assert told(background="mends")["exit_code"] == told(blend="2")["exit_code"] == 2
    assert told(width="40")["hint"]


def test_what_can_be_asked_for_is_what_the_command_takes(client: httpx2.Client) -> None:
    schemas = client.get("/api/openapi.json").json()["components"]["schemas"]
    known = schemas["face-options"]["properties"]
    of_command = {*Faces.__annotations__, *Portraits.__annotations__, "scale", "steps", "seed"}
    assert of_command - {"panel"} <= known.keys() and "width" not in known
    assert known["min_size"]["type"] == "number" and known["aligned"]["type"] == "boolean"
    assert all(option["description"] for option in known.values())


def test_a_folder_s_faces_are_those_of_the_command_which_finds_them_finished(
    serve: Serve, drawn: Path, folder: Path, tmp_path: Path, resshift: Run
) -> None:
    client = serve(more=drawn, root=tmp_path)
    data = {"folder": "in", "task": "face", "model": "people", "steps": 1, "scale": 2}
    told = ended(client, client.post("/api/batch", json=data))["result"]
    assert (told["output"], told["found"], told["done"]) == ("in_faces", 3, 3)
    assert told["faces"] == 3
    options = ("--task", "face", "--registry", drawn, "--model", "people", "--device", "cpu")
    ran = resshift("batch", folder, *options, "--steps", 1, "--scale", 2)
    assert ran.code == 0 and "0 done, 3 finished before" in ran.err


def test_pipes_restore_faces_too(drawn: Path, photo: Path) -> None:
    target, out = photo.with_stem("people"), io.StringIO()
    request = {"do": "face", "input": str(photo), "output": str(target), "model": "people"}
    with service(more=drawn) as made:
        Pipes(made, out).run([json.dumps({"id": 1, **request, "steps": 1, "scale": 2})])
    told = json.loads(out.getvalue().splitlines()[-1])["result"]
    assert (told["output"], told["faces"], told["background"]) == (str(target), 1, "tiny-x4")
    with Image.open(target) as image:
        assert image.size == (40, 24)


def test_a_preview_is_of_the_largest_face_or_of_all_that_is_cut_out(
    client: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: Found((face(40, 200 + 100j),)))
    photo = make_photo(tmp_path / "photo.png", 300, 200)
    data = {"task": "face", "model": "people", "steps": "1", "size": "32"}
    job = ended(client, client.post("/api/preview", files=sent(photo), data=data))
    crop = job["result"]["crop"]
    assert abs(crop["left"] + crop["width"] / 2 - 200) <= 1
    assert abs(crop["top"] + crop["height"] / 2 - 100) <= 1 and 40 <= crop["width"] < 60
    square = make_photo(tmp_path / "square.png", 50, 50)
    cut = {**data, "aligned": "on", "x": "5", "y": "5"}
    job = ended(client, client.post("/api/preview", files=sent(square), data=cut))
    assert job["result"]["crop"] == {"left": 0, "top": 0, "width": 50, "height": 50}


@needs_photos
def test_the_faces_of_people_are_found(serve: Serve, more: Path, tmp_path: Path) -> None:
    shutil.copy(DETECTOR, tmp_path / FINDER)
    client = serve(more=found_by(tmp_path / FINDER, more))
    with Image.open(PHOTOS / "263-man-desk.jpg") as image:
        image.thumbnail((200, 200))
        image.save(tmp_path / "small.png")
    asked = {"model": "people", "steps": "1"}
    job = ended(client, client.post("/api/face", files=sent(tmp_path / "small.png"), data=asked))
    assert job["result"]["remark"] == "1 face"
