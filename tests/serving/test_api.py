"""The service by HTTP, asked over the loopback as programs ask it."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from command_line import Run, make_photo
from pictures import P3
from PIL import Image
from serving_bench import Serve, ended, listening, sent, service

from resshift_cli.imaging import icc
from resshift_cli.imaging.icc import SRGB_CURVE
from resshift_cli.serving import api, jobs
from resshift_cli.serving.shelf import Limits

LONG = {"model": "chain-x4", "steps": "15"}
"""Work of many seconds, with a photo of some hundred pixels a side."""

ASYNC = {"prefer": "respond-async"}


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.tif"])
def test_a_result_is_the_one_that_the_command_writes(
    client: httpx2.Client, resshift: Run, tmp_path: Path, name: str
) -> None:
    photo = make_photo(tmp_path / name, 20, 12)
    options = {"scale": "2.5", "seed": "3", "detail": "0.5", "strip_metadata": "true"}
    arguments = ("--scale", "2.5", "--seed", "3", "--detail", "0.5", "--strip-metadata")
    assert resshift("upscale", photo, "--device", "cpu", *arguments).code == 0
    expected = photo.with_stem("photo_x2.5")
    answer = client.post("/api/upscale", files=sent(photo), data=options)
    assert expected.name in answer.headers["content-disposition"]
    assert answer.content == expected.read_bytes()


def test_16_bits_and_metadata_come_along(client: httpx2.Client, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 99).save(path)
    answer = client.post("/api/upscale", files=sent(path))
    (tmp_path / "large.png").write_bytes(answer.content)
    with Image.open(tmp_path / "large.png") as large:
        assert (large.mode, large.size) == ("I;16", (96, 80))
        assert "tiny-x4 (Apache-2.0)" in str(large.getexif()[11])


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_what_a_file_says_of_itself_comes_along_as_by_the_command(
    client: httpx2.Client, resshift: Run, photo: Path, kind: str
) -> None:
    exif = Image.Exif()
    exif[271], exif[274] = "a camera", 6  # turned by a quarter
    profile = icc.make("wide", P3, SRGB_CURVE)
    path = photo.with_suffix(f".{kind}")
    Image.open(photo).save(path, exif=exif, icc_profile=profile)
    assert resshift("upscale", path, "--device", "cpu").code == 0
    answer = client.post("/api/upscale", files=sent(path))
    assert answer.content == path.with_stem("photo_x4").read_bytes()
    with Image.open(path.with_stem("photo_x4")) as large:
        assert large.getexif()[271] == "a camera" and large.info["icc_profile"] == profile
        assert large.size == (48, 80)


def test_a_job_tells_how_far_it_is_and_gives_its_result(client: httpx2.Client, photo: Path) -> None:
    answer = client.post("/api/upscale", files=sent(photo), data={"width": "50"}, headers=ASYNC)
    job = ended(client, answer)
    assert (job["state"], job["progress"], job["input"]) == ("done", 1.0, "photo.png")
    assert (job["result"]["width"], job["result"]["height"]) == (50, 30)
    result = client.get(f"/api/jobs/{job['id']}/result")
    assert len(result.content) == job["result"]["bytes"]
    assert 'filename="photo_w50.png"' in result.headers["content-disposition"]
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404


def test_several_jobs_are_watched_at_once(client: httpx2.Client, photo: Path) -> None:
    asked = [{"seed": seed} for seed in "123"] + [{"scale": "1.5"}]
    answers = [
        client.post("/api/upscale", files=sent(photo), data=data, headers=ASYNC) for data in asked
    ]
    names = [answer.json()["id"] for answer in answers]
    with client.stream("GET", "/api/events", params={"job": [*names, "other"]}) as events:
        lines = list(events.iter_lines())
    assert lines.count("event: done") == 4
    assert all(any(name in line for line in lines) for name in names)


def test_what_was_sent_once_is_asked_again_by_its_id(client: httpx2.Client, photo: Path) -> None:
    kept = client.post("/api/photos", files=sent(photo)).json()
    assert (kept["width"], kept["height"], kept["depth"]) == (20, 12, 8)
    asked = {"photo": kept["id"], "scale": 3}
    estimate = client.post("/api/estimate", json=asked).json()
    assert (estimate["width"], estimate["height"]) == (60, 36) and estimate["seconds"] > 0
    answer = client.post("/api/upscale", json=asked, headers={"accept": "application/json"})
    assert answer.json()["result"]["width"] == 60
    small = client.get(f"/api/photos/{kept['id']}/small")
    assert small.headers["content-type"] == "image/jpeg"


def test_a_preview_is_a_crop_beside_bicubic(client: httpx2.Client, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 70, 50)
    asked = {"x": "60", "y": "10", "size": "32", "scale": "2"}
    job = ended(client, client.post("/api/preview", files=sent(photo), data=asked))
    assert job["result"]["crop"] == {"left": 38, "top": 0, "width": 32, "height": 32}
    page = client.get(f"/api/jobs/{job['id']}/view")
    assert "bicubic" in page.text and "data:image" not in page.text
    tile = client.get(f"/api/jobs/{job['id']}/tiles/1-0-0-0")
    assert tile.headers["content-type"] == "image/png"
    assert client.get(f"/api/jobs/{job['id']}/tiles/2-0-0-0").status_code == 404
    assert client.get(f"/api/jobs/{job['id']}/result").status_code == 404
    for asked in ({"x": "6"}, {"y": "6"}, {"x": "70", "y": "0"}, {"size": "8"}, {"size": "1.5"}):
        answer = client.post("/api/preview", files=sent(photo), data=asked)
        assert (answer.status_code, answer.json()["exit_code"]) == (400, 2)


def test_long_work_becomes_a_job_that_can_be_ended(client: httpx2.Client, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 300, 300)
    answer = client.post("/api/upscale", files=sent(photo), data=LONG | {"scale": "16"})
    assert answer.json()["state"] in ("queued", "running")
    assert client.get(f"{answer.headers['location']}/result").status_code == 409
    assert client.delete(answer.headers["location"]).status_code == 204
    job = ended(client, answer)
    assert (job["state"], job["error"]["status"]) == ("cancelled", 409)


def test_short_work_does_not_wait_for_long_work(
    client: httpx2.Client, photo: Path, tmp_path: Path
) -> None:
    large = make_photo(tmp_path / "large.png", 300, 300)
    asked = LONG | {"scale": "16"}
    long = [client.post("/api/upscale", files=sent(large), data=asked) for _ in range(2)]
    assert client.post("/api/upscale", files=sent(photo)).status_code == 200
    for answer in long:
        state = client.get(answer.headers["location"]).json()["state"]
        assert state in ("queued", "running")
        client.delete(answer.headers["location"])


def test_a_client_that_goes_away_ends_its_job(client: httpx2.Client, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 300, 300)
    before = cancelled(client)
    waiting = {"prefer": "wait=1000"}
    with pytest.raises(httpx2.ReadTimeout):
        asked = LONG | {"scale": "16"}
        client.post("/api/upscale", files=sent(photo), data=asked, headers=waiting, timeout=1)
    while cancelled(client) == before:
        time.sleep(0.05)
    assert cancelled(client) == before + 1


def test_a_client_that_watched_and_goes_away_ends_its_job(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "GRACE", 0.0)
    client = serve()
    photo = make_photo(tmp_path / "photo.png", 300, 300)
    asked = LONG | {"scale": "16"}
    answer = client.post("/api/upscale", files=sent(photo), data=asked)
    with client.stream("GET", f"{answer.headers['location']}/events") as events:
        assert next(events.iter_lines()) in ("event: queued", "event: running")
    assert cancelled(client) == 1


def cancelled(client: httpx2.Client) -> float:
    """How many jobs were, once nothing is under way any more."""
    while figures(client)["resshift_jobs_running"]:
        time.sleep(0.05)
    return figures(client)['resshift_jobs_total{state="cancelled"}']


def figures(client: httpx2.Client) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in client.get("/api/metrics").text.splitlines()]
    return {name: float(value) for name, _, value in lines}


def test_eight_clients_at_once_get_what_is_theirs(client: httpx2.Client, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / f"{n}.png", 20 + n, 30 - n) for n in range(8)]

    def ask(photo: Path) -> bytes:
        return client.post("/api/upscale", files=sent(photo), data={"seed": "1"}).content

    alone = [ask(photo) for photo in photos]
    with ThreadPoolExecutor(8) as together:
        assert list(together.map(ask, photos)) == alone


def test_errors_are_told_with_hint_and_exit_code(client: httpx2.Client, photo: Path) -> None:
    def told(**options: str) -> tuple[int, int, str]:
        answer = client.post("/api/upscale", files=sent(photo), data=options)
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code, answer.json()["exit_code"], answer.json()["hint"]

    assert told(model="tiny-x5") == (404, 2, "Did you mean 'tiny-x4'?")
    assert told(stepz="1") == (400, 2, "Did you mean 'steps'?")
    assert told(steps="one") == (400, 2, "Give a whole number.")
    assert told(scale="17")[:2] == (400, 2)
    assert told(scale="2", width="90")[:2] == (400, 2)
    assert told(format="jxr")[:2] == (400, 2)
    assert told(photo="other")[:2] == (400, 2)


@pytest.mark.parametrize("name, status, code", [
    ("text.png", 422, 4), ("cut.png", 422, 4), ("large.png", 422, 4), ("hdr.dds", 415, 5),
    ("empty.png", 400, 2), ("cut.safetensors", 422, 4),
])  # fmt: skip
def test_what_is_no_image_is_refused_as_the_command_does(
    client: httpx2.Client, troubles: Path, name: str, status: int, code: int
) -> None:
    for way in ("/api/upscale", "/api/photos"):
        answer = client.post(way, files=sent(troubles / name))
        assert (answer.status_code, answer.json()["exit_code"]) == (status, code)


def test_an_image_of_too_many_pixels_is_refused(serve: Serve, photo: Path) -> None:
    client = serve(Limits(pixels=239))  # it has 240
    for way in ("/api/upscale", "/api/photos", "/api/estimate"):
        answer = client.post(way, files=sent(photo))
        assert (answer.status_code, answer.json()["exit_code"]) == (422, 4)
        assert "--max-pixels" in answer.json()["hint"]


def test_names_that_are_no_text_go_out_and_come_back(serve: Serve, photo: Path) -> None:
    folder = photo.parent / os.fsdecode(b"trip\xff")
    folder.mkdir()
    photo.rename(folder / os.fsdecode(b"a\xfe.png"))
    client = serve(root=photo.parent)

    def ask(way: str, asked: dict[str, str]) -> httpx2.Response:
        kind = {"content-type": "application/json"}
        return client.post(way, content=json.dumps(asked), headers=kind)

    (named,) = client.get("/api/folders").json()
    kept = ask("/api/photos", {"path": f"{named}/a\udcfe.png"})
    assert kept.status_code == 201
    result = client.post("/api/upscale", json={"photo": kept.json()["id"]})
    assert "a%3F_x4.png" in result.headers["content-disposition"]
    told = ended(client, ask("/api/batch", {"folder": named}))
    assert told["result"]["done"] == 1 and (photo.parent / f"{folder.name}_x4").is_dir()


def test_every_route_is_described(client: httpx2.Client) -> None:
    told = client.get("/api/openapi.json").json()
    options = told["components"]["schemas"]["Options"]["properties"]
    assert {"scale", "steps", "detail", "seed", "width", "depth", "format"} <= options.keys()
    assert all(option["description"] for option in options.values())
    described = {(way, method.upper()) for way, known in told["paths"].items() for method in known}
    with service() as made:
        there = {
            (route.path, method)
            for route in api.routes(made)
            for method in (route.methods or set()) - {"HEAD"}
        }
    assert {(way, method) for way, method in there if way.startswith("/api/")} == described


def test_a_queue_and_a_store_have_an_end(serve: Serve, photo: Path, tmp_path: Path) -> None:
    client = serve(Limits(queue=1, stored=10_000))
    large = make_photo(tmp_path / "large.png", 300, 300)
    kept = client.post("/api/photos", files=sent(large)).json()["id"]
    asked = {"photo": kept, "model": "chain-x4", "scale": 16}
    answers = [client.post("/api/upscale", json=asked) for _ in range(4)]
    assert [answer.status_code for answer in answers[-2:]] == [429, 429]
    assert client.post("/api/photos", files=sent(photo)).status_code == 429


def test_what_nobody_asks_for_is_deleted(photo: Path) -> None:
    with service() as made, listening(made) as way, httpx2.Client(base_url=way) as client:
        kept = client.post("/api/photos", files=sent(photo)).json()["id"]
        answer = client.post("/api/upscale", files=sent(photo), timeout=60)
        made.sweep()
        assert client.get(answer.headers["location"]).json()["state"] == "done"
        made.limits = replace(made.limits, keep=-1)  # seconds
        made.sweep()
        assert figures(client)["resshift_stored_bytes"] == 0
        assert client.get(f"/api/photos/{kept}").status_code == 404
        assert client.get(answer.headers["location"]).status_code == 404


def test_a_job_that_takes_too_long_is_ended(serve: Serve, tmp_path: Path) -> None:
    client = serve(Limits(seconds=0.2))
    photo = make_photo(tmp_path / "photo.png", 300, 300)
    job = ended(client, client.post("/api/upscale", files=sent(photo), data=LONG))
    assert (job["state"], job["error"]["exit_code"]) == ("failed", 1)
    assert "--max-time" in job["error"]["hint"]
