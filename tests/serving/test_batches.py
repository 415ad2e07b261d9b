"""A folder of the service's machine, enlarged as `resshift batch` does it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest
from command_line import Run, files, make_photo
from serving_bench import Serve, ended

from resshift_cli.serving import turns


@pytest.fixture
def root(tmp_path: Path, folder: Path) -> Path:
    """A root with three images in its folder `in`, and links out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    make_photo(outside / "secret.png", 8, 8)
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "way").symlink_to(outside)
    root = tmp_path / "root"
    root.mkdir()
    folder.rename(root / "in")
    (root / "way").symlink_to(outside)
    return root


def test_results_are_those_of_the_command_which_finds_them_finished(
    serve: Serve, root: Path, tmp_path: Path, resshift: Run
) -> None:
    client = serve(root=root)
    job = ended(client, client.post("/api/batch", json={"folder": "in", "steps": 1}))
    told = job["result"]
    assert (told["output"], told["found"], told["done"], told["failed"]) == ("in_x4", 3, 3, 0)
    assert {"a.png", "b.jpg", "sub/c.png"} < files(root / "in_x4").keys()
    assert not any("secret" in name or "link" in name for name in files(root / "in_x4"))
    command = ("batch", root / "in", "--model", "tiny-x4", "--device", "cpu", "--exclude", "link*",
               "--exclude", "way", "--steps", 1, "--json")  # fmt: skip
    assert '"skipped": 3' in resshift(*command).out
    resshift(*command, "-o", tmp_path / "anew")
    for name in ("a.png", "b.jpg", "sub/c.png"):
        made = root / "in_x4" / name
        assert made.read_bytes() == (tmp_path / "anew" / name).read_bytes()


def test_an_image_that_fails_is_told_and_the_others_are_done(serve: Serve, root: Path) -> None:
    (root / "in" / "a.png").write_text("no image")
    client = serve(root=root)
    told = ended(client, client.post("/api/batch", json={"folder": "in"}))["result"]
    assert (told["done"], told["failed"], told["failures"][0]["input"]) == (2, 1, "a.png")
    again = ended(client, client.post("/api/batch", json={"folder": "in"}))["result"]
    assert (again["done"], again["skipped"], again["failed"]) == (0, 2, 1)


def test_a_batch_that_is_ended_goes_on_where_it_was(serve: Serve, root: Path) -> None:
    make_photo(root / "in" / "z.png", 300, 300)
    client = serve(root=root)
    asked = {"folder": "in", "model": "chain-x4"}
    answer = client.post("/api/batch", json=asked)
    while not (root / "in_x4" / "a.png").exists():
        time.sleep(0.05)
    client.delete(answer.headers["location"])
    assert ended(client, answer)["state"] == "cancelled"
    (root / "in" / "z.png").unlink()
    told = ended(client, client.post("/api/batch", json=asked))["result"]
    assert told["skipped"] >= 1 and told["skipped"] + told["done"] == 3


def many(folder: Path, side: int = 300) -> Path:
    """A folder of photos that take a while."""
    folder.mkdir(parents=True)
    for number in range(4):
        make_photo(folder / f"{number}.png", side, side)
    return folder


def running(client: httpx2.Client, answer: httpx2.Response) -> bool:
    state: str = client.get(answer.headers["location"]).json()["state"]
    return state == "running"


def cancelled(client: httpx2.Client, answer: httpx2.Response) -> bool:
    client.delete(answer.headers["location"])
    return bool(ended(client, answer)["state"] == "cancelled")


def test_a_photo_does_not_wait_for_a_folder_nor_a_folder_for_a_photo(
    serve: Serve, root: Path, more: Path
) -> None:
    large = many(root / "many")
    client = serve(root=root, more=more)
    asked = {"model": "chain-x4", "scale": 16, "path": "many/0.png"}
    long = client.post("/api/upscale", json=asked)
    told = ended(client, client.post("/api/batch", json={"folder": "in"}))
    assert told["result"]["done"] == 3 and running(client, long)
    assert cancelled(client, long)
    folder = client.post("/api/batch", json={"folder": large.name, "model": "chain-x4"})
    while "enlarging" not in client.get(folder.headers["location"]).json()["stage"]:
        time.sleep(0.05)
    # How many faces there are is not known before: it waits with what is long.
    face = {"model": "people", "steps": 1, "path": "in/sub/c.png", "aligned": True}
    assert ended(client, client.post("/api/face", json=face))["state"] == "done"
    assert running(client, folder) and cancelled(client, folder)


def test_folders_take_turns_by_image(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WHILE", 0.0)
    folders = [many(root / name, 160) for name in ("one", "two")]
    client = serve(root=root)
    asked = {"model": "chain-x4", "steps": 1}
    answers = [client.post("/api/batch", json=asked | {"folder": f.name}) for f in folders]
    while not all(list(root.glob(f"{folder.name}_x4/*.png")) for folder in folders):
        time.sleep(0.05)
    assert all(running(client, answer) for answer in answers)
    assert all(cancelled(client, answer) for answer in answers)


@pytest.mark.parametrize(
    "place", ["way", "in/way", "../outside", "/", ".", "", "none", "in/a.png", "in\0"]
)
def test_no_other_folder_is_read_or_written(serve: Serve, root: Path, place: str) -> None:
    before = files(root.parent)
    answer = serve(root=root).post("/api/batch", json={"folder": place})
    assert answer.status_code in (400, 404) and answer.json()["hint"]
    assert files(root.parent) == before


def test_results_go_through_no_link(serve: Serve, root: Path) -> None:
    (root / "in_x4").symlink_to(root.parent / "outside")
    client = serve(root=root)
    job = ended(client, client.post("/api/batch", json={"folder": "in"}))
    assert job["error"]["exit_code"] == 2 and "in_x4" in job["error"]["detail"]
    assert list(files(root.parent / "outside")) == ["secret.png"]


def test_folders_are_offered_where_there_is_a_root(
    serve: Serve, client: httpx2.Client, root: Path
) -> None:
    assert serve(root=root).get("/api/folders").json() == ["in", "in/sub"]
    assert client.get("/api/folders").json() == []
    assert client.post("/api/batch", json={"folder": "in"}).status_code == 400
