"""Images that come from elsewhere, and results that go there."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lossy_proxy
import pytest
from command_line import Run, make_photo
from stores import SECRET

from resshift_cli.system import patience


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `web/`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    (tmp_path / "web").mkdir()
    serve = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the command is run."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_an_image_of_a_web_server_is_enlarged_into_the_folder_where_one_is(
    upscale: Run, web: str, here: Path, tmp_path: Path
) -> None:
    photo = make_photo(tmp_path / "web" / "a b.png", 12, 9)
    ran = upscale(f"{web.replace('//', '//me:secret@')}/a%20b.png?sig=secret", "--json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.code, result["output"]) == (0, "a b_x4.png")
    assert result["input"] == f"{web}/a%20b.png" and "secret" not in ran.out + ran.err
    assert upscale(photo, "-o", "same.png").code == 0
    assert (here / "a b_x4.png").read_bytes() == (here / "same.png").read_bytes()


@pytest.mark.parametrize(
    "name, code, words",
    [
        ("none.png", 3, "There is no http://127.0.0.1"),
        ("text.png", 4, "text.png is not an image"),
        ("empty.png", 4, "empty.png is empty"),
    ],
)
def test_what_a_web_server_has_not_is_told_of(
    upscale: Run, web: str, here: Path, tmp_path: Path, name: str, code: int, words: str
) -> None:
    (tmp_path / "web" / "text.png").write_text("no image")
    (tmp_path / "web" / "empty.png").touch()
    ran = upscale(f"{web}/{name}")
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert words in ran.err and not list(here.iterdir())
    traced = upscale(f"{web.replace('//', '//me:secret@')}/{name}?sig=secret", "--debug").err
    assert "Traceback" in traced and "secret" not in traced


def test_from_store_to_store_it_is_the_same_image(
    upscale: Run, s3: Any, here: Path, tmp_path: Path
) -> None:
    photos = [make_photo(tmp_path / f"{name}.png", 12, 9 + len(name)) for name in ("a", "bb")]
    for photo in photos:
        s3.put_file(str(photo), f"photos/in/{photo.name}")
    names = [f"s3://photos/in/{photo.name}" for photo in photos]
    ran = upscale(*names, "-o", "s3://photos/out/")
    assert (ran.code, ran.out.split()) == (
        0,
        ["s3://photos/out/a_x4.png", "s3://photos/out/bb_x4.png"],
    )
    assert upscale(photos[0], "-o", "local.png").code == 0
    assert s3.cat_file("photos/out/a_x4.png") == (here / "local.png").read_bytes()
    refused = upscale(*names, "-o", "s3://photos/out/")
    assert refused.code == 6 and "s3://photos/out/a_x4.png exists already." in refused.err
    assert (
        "2 images have their results already"
        in upscale(*names, "-o", "s3://photos/out/", "--skip-existing").err
    )
    assert upscale(photos[0], "-o", "s3://photos/out/a_x4.png", "--overwrite").code == 0
    assert SECRET not in refused.err + ran.err


def test_a_store_that_lies_now_and_then_gets_the_whole_result(
    upscale: Run,
    lossy: lossy_proxy.Lossy,
    s3: Any,
    photo: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "BACK_OFF", 0.01)
    s3.put_file(str(photo), "photos/in.png")
    assert upscale(photo, "-o", "local.png").code == 0
    for number in range(4):
        assert upscale("s3://photos/in.png", "-o", f"s3://photos/{number}.png").code == 0
        assert s3.cat_file(f"photos/{number}.png") == (here / "local.png").read_bytes()
    assert len(lossy.faults) >= 3


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["-o", "https://host/a.png"], 2, "Nothing can be written to https://host/a.png"),
        (["-o", "s3://photos/a.txt"], 2, "a.txt"),
        (["-o", "s3://photos/", "--compare"], 2, "where they are on this machine"),
        (["-o", "gopher://photos/a.png"], 2, "There is no way to gopher://photos/a.png"),
    ],
)
def test_what_can_not_go_there_is_refused_before_the_work(
    upscale: Run, photo: Path, s3: Any, here: Path, arguments: list[str], code: int, words: str
) -> None:
    ran = upscale(photo, *arguments)
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert s3.find("photos") == []
