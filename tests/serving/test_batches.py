"""A folder of the service's machine, enlarged as `resshift batch` does it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest
from command_line import Run, files, make_photo
from serving_bench import Serve, ended


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
