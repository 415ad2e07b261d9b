"""The page in a real browser where something goes wrong, or is not what it was."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import make_photo, start
from playwright.sync_api import Browser, Page, expect
from serving_bench import listening, service

SOON = 60_000  # milliseconds, on a machine that has other things to do

Choose = Callable[[str, Path], Page]


@pytest.fixture
def choose(browser: Browser) -> Iterator[Choose]:
    """Opens a page, and chooses a photo there; in the end nothing has gone wrong in its scripts."""
    troubles: list[str] = []
    expect.set_options(timeout=SOON)

    def choose(way: str, photo: Path) -> Page:
        page = browser.new_page()
        page.set_default_timeout(SOON)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(way)
        expect(page.get_by_label("Model", exact=True)).not_to_be_empty()
        page.locator("#file").set_input_files(photo)
        expect(page.get_by_role("button", name="Enlarge")).to_be_enabled()
        return page

    yield choose
    expect.set_options(timeout=5000)
    for context in browser.contexts:
        context.close()
    assert troubles == []


def test_a_folder_that_is_dropped_is_told_what_to_do_with(choose: Choose, photo: Path) -> None:
    with service() as made, listening(made) as way:
        page = choose(way, photo)
        box = page.locator("#drop").bounding_box()
        assert box is not None
        dragging = page.context.new_cdp_session(page)
        dragged = {"items": [], "files": [str(photo.parent)], "dragOperationsMask": 1}
        at = {"x": box["x"] + 20, "y": box["y"] + 20, "data": dragged}
        for kind in ("dragEnter", "dragOver", "drop"):
            dragging.send("Input.dispatchDragEvent", {"type": kind, **at})
        told = f"{photo.parent.name} can't be read. If it is a folder, drop the photos"
        expect(page.get_by_role("alert")).to_contain_text(told)
        expect(page.locator("#facts")).to_contain_text("photo.png: 20 × 12")


@pytest.mark.parametrize("place", ["#jobs", "#result"])
def test_a_result_that_had_its_time_is_told_of_and_the_page_stays(
    choose: Choose, photo: Path, place: str
) -> None:
    with service() as made, listening(made) as way:
        page = choose(way, photo)
        page.get_by_role("button", name="Enlarge").click()
        link = page.locator(place).get_by_role("link", name="Download")
        expect(link).to_be_visible()
        for job in list(made.jobs.known.values()):
            made.drop(job)
        link.click()
        expect(page.get_by_role("alert")).to_contain_text("no such job, or not any more")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("alert")).to_contain_text("no such job, or not any more")
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_label("This session")).to_be_hidden()
        assert page.url.rstrip("/") == way


def test_a_comparison_whose_pictures_can_t_be_fetched_says_so(choose: Choose, photo: Path) -> None:
    with service() as made, listening(made) as way:
        page = choose(way, photo)
        page.route("**/tiles/**", lambda route: route.abort())
        page.get_by_role("button", name="Enlarge").click()
        told = page.frame_locator("#view").get_by_role("alert")
        expect(told).to_contain_text("can't be loaded")


def test_a_service_that_was_killed_and_started_anew_is_gone_on_with(
    choose: Choose, photo: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def serve() -> subprocess.Popen[str]:
        model = ("--model", "chain-x4", "--device", "cpu")
        process = start("serve", "--port", port, *model, environment={"TMPDIR": str(tmp_path)})
        assert process.stdout is not None and process.stdout.readline()
        return process

    first = serve()
    page = choose(f"http://127.0.0.1:{port}", make_photo(tmp_path / "large.png", 300, 300))
    page.get_by_role("button", name="Enlarge").click()
    expect(page.locator("#jobs")).to_contain_text("left")
    first.kill()
    first.communicate()
    second = serve()
    expect(page.locator("#jobs")).to_contain_text("large.png: There is no such job")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_label("This session")).to_be_hidden()
    second.kill()
    second.communicate()
