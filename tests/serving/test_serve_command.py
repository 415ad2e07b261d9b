"""`resshift serve` as a process: what it prints, how it ends, and what it leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command_line import Run, make_photo, posix, start
from serving_bench import sent

ENDLESS = """
import time
from resshift_cli.__main__ import main
from resshift_cli.serving import work

def seconds(*arguments):
    print("counting", flush=True)
    time.sleep(90)

work.seconds = seconds
main()
"""
"""The command, with estimates that none can stop while they are computed."""


@contextmanager
def serving(
    temporary: Path,
    *arguments: object,
    program: str | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service of its own, and where it is."""
    options: dict[str, Any] = {"environment": {"TMPDIR": str(temporary), **(environment or {})}}
    if program is not None:
        options["program"] = program
    process = start("serve", "--port", 0, *arguments, **options)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@posix
def test_it_ends_its_jobs_and_leaves_nothing_when_it_is_terminated(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    photo = make_photo(tmp_path / "photo.png", 300, 300)
    with serving(kept, "--model", "chain-x4", "--device", "cpu") as (process, way):
        asked = {"scale": "16"}
        headers = {"prefer": "respond-async"}
        job = httpx2.post(
            f"{way}api/upscale", files=sent(photo), data=asked, headers=headers, timeout=60
        )
        assert job.status_code == 202 and list(kept.iterdir())
        with httpx2.stream(
            "GET", f"{way}{job.headers['location'][1:]}/events", timeout=60
        ) as events:
            lines = events.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert any(line == "event: cancelled" for line in lines)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 143 and not list(kept.glob("resshift-serve-*"))
    assert err.splitlines()[-1] == (
        "Terminated; the service has ended, and what it kept is deleted."
    )


@posix
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_none_can_stop_does_not_hold_its_end(
    tmp_path: Path, photo: Path, number: signal.Signals, code: int
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    with serving(kept, "--model", "tiny-x4", program=ENDLESS) as (process, way):
        assert process.stdout is not None
        with ThreadPoolExecutor(1) as client:
            asked = client.submit(httpx2.post, f"{way}api/estimate", files=sent(photo), timeout=60)
            assert process.stdout.readline() == "counting\n"
            process.send_signal(number)
            answer = asked.result()
        _, err = process.communicate(timeout=30)
    assert (process.returncode, len(err.splitlines())) == (code, 2) and not list(kept.iterdir())
    assert (answer.status_code, answer.json()["hint"]) == (429, "Ask again in a while.")


@posix
def test_for_other_machines_it_makes_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--model", "tiny-x4") as (process, way):
        address, _, token = way.partition("?token=")
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{address}api/models", timeout=60).status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert httpx2.get(f"{address}api/models", headers=bearer, timeout=60).status_code == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and len(token) >= 24
    assert err.count(token) == 1


def test_what_can_t_be_is_refused_at_once(resshift: Run, tmp_path: Path) -> None:
    assert resshift("serve", "--root", tmp_path / "none").code == 3
    assert resshift("serve", "--stdio", "--open").code == 2
    assert resshift("serve", "--max-upload", "5").code == 2
    told = resshift("serve", "--host", "no.such.host.invalid", "--port", 1)
    assert told.code == 2 and "Leave --host out" in told.err


def test_what_it_takes_to_listen_is_told(resshift: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ran = resshift("serve")
    assert ran.code == 2 and "pip install 'resshift[serve]'" in ran.err


@posix
def test_the_page_is_opened_by_the_system(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/making\nmv {tmp_path}/making {tmp_path}/opened\n'
    )
    browser.chmod(0o755)
    told = {"BROWSER": f"{browser} %s", "RESSHIFT_TOKEN": "a-secret"}
    with serving(tmp_path, "--open", "--model", "tiny-x4", environment=told) as (_, way):
        while not (tmp_path / "opened").exists():
            time.sleep(0.05)
        assert (tmp_path / "opened").read_text().strip() == way
        assert way.endswith("/?token=a-secret")
        entered = httpx2.get(way, follow_redirects=True, timeout=60)
        assert entered.status_code == 200 and "resshift" in entered.text


def test_a_port_that_is_taken_is_told(resshift: Run) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        ran = resshift("serve", "--port", other.getsockname()[1])
    assert ran.code == 1 and "choose another --port" in ran.err


def by_pipes(folder: Path, *requests: dict[str, Any] | str, root: bool = False) -> dict[Any, Any]:
    """Answers by the requests' ids; progress is left out."""
    lines = [one if isinstance(one, str) else json.dumps(one) for one in requests]
    arguments = ("--root", folder) if root else ()
    process = start("serve", "--stdio", "--model", "tiny-x4", *arguments, cwd=folder,
                    stdin=subprocess.PIPE)  # fmt: skip
    out, err = process.communicate("\n".join(lines), timeout=120)
    assert process.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    return {each["id"]: each for each in told if "event" not in each}


@pytest.fixture
def working(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    make_photo(folder / "photo.png", 20, 12)
    return folder


def test_by_pipes_a_line_is_a_request(working: Path, resshift: Run) -> None:
    upscale = {"do": "upscale", "input": "photo.png"}
    found = by_pipes(
        working,
        {**upscale, "id": 1, "output": "large.png", "scale": 2},
        {**upscale, "id": 2, "output": "none/large.png"},
        {**upscale, "id": 3, "output": "x.png", "input": "no.png"},
        {"id": 4, "do": "estimate", "input": "photo.png"},
        {"id": 5, "do": "dance"},
        "{",
    )
    assert found[1]["result"]["output"] == "large.png" and found[1]["result"]["width"] == 40
    assert [found[key]["error"]["exit_code"] for key in (2, 3, 5, None)] == [6, 3, 2, 2]
    assert found[4]["result"]["height"] == 48
    expected = working.parent / "expected.png"
    resshift("upscale", working / "photo.png", "--scale", 2, "-o", expected)
    assert (working / "large.png").read_bytes() == expected.read_bytes()


def test_by_pipes_progress_is_told_and_a_request_ended(working: Path) -> None:
    make_photo(working / "large.png", 300, 300)
    ask = {"id": 1, "do": "upscale", "input": "large.png", "output": "out.png"}
    process = start("serve", "--stdio", "--model", "chain-x4", cwd=working, stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({**ask, "scale": 16}) + "\n")
    process.stdin.flush()
    while (told := json.loads(process.stdout.readline()))["stage"] != "enlarging":
        assert (told["id"], told["event"]) == (1, "progress")
    out, _ = process.communicate('{"id": 2, "do": "cancel", "of": 1}\n', timeout=60)
    found = {each["id"]: each for each in map(json.loads, out.splitlines()) if "event" not in each}
    assert found[2]["result"] == {} and "cancelled" in found[1]["error"]["message"]
    assert process.returncode == 0 and not (working / "out.png").exists()


def test_by_pipes_what_is_no_text_or_not_there_is_no_end(working: Path) -> None:
    bytes_and_all = {"encoding": "utf-8", "errors": "surrogateescape"}
    strict = {"PYTHONIOENCODING": "ascii:strict"}
    process = start("serve", "--stdio", "--model", "tiny-x4", cwd=working, environment=strict,
                    stdin=subprocess.PIPE, **bytes_and_all)  # fmt: skip
    lines = '{"id": 1, "do": "estimate", "input": "\udcff"}\n{"id": 2, "do": "version"}\n'
    lines += '{"id": 3, "do": "estimate", "input": "é.png"}'
    out, err = process.communicate(lines, timeout=120)
    told = {each["id"]: each for each in map(json.loads, out.splitlines())}
    assert (process.returncode, err) == (0, "") and told[2]["result"]["model"] == "tiny-x4"
    assert [told[key]["error"]["exit_code"] for key in (1, 3)] == [3, 3]
    assert "é.png" in told[3]["error"]["message"]


@posix
def test_by_pipes_without_any_there_is_nothing_to_do(working: Path) -> None:
    command = f"{sys.executable} -m resshift_cli serve --stdio --model tiny-x4 <&-"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, cwd=working)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_by_pipes_a_root_is_all_that_is_read_and_written(working: Path) -> None:
    outside = make_photo(working.parent / "outside.png", 8, 8)
    (working / "link.png").symlink_to(outside)
    upscale = {"do": "upscale", "input": "photo.png", "output": "a/large.png"}
    found = by_pipes(
        working,
        {**upscale, "id": 1},
        {**upscale, "id": 2, "output": "../large.png"},
        {**upscale, "id": 3, "input": "link.png"},
        {**upscale, "id": 4, "input": str(outside)},
        root=True,
    )
    assert (working / "a" / "large.png").exists()
    assert [found[key]["error"]["exit_code"] for key in (2, 3, 4)] == [2, 3, 2]
