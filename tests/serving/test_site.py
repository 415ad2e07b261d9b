"""The page in a real browser, from a dropped photo to a downloaded result."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from command_line import Run, make_photo
from drawn_faces import face
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect
from serving_bench import Serve

from resshift_cli.imaging import detection
from resshift_cli.restoration.face_restorer import FaceRestorer, Found

SOON = 60_000  # milliseconds, on a machine that has other things to do
HOSTILE = "<img src=x onerror=document.title='run'>&amp;'\u202egnp.png"

Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, client: httpx2.Client) -> Iterator[Visit]:
    """Opens the page; in the end nothing has gone wrong there, or out to anywhere else."""
    troubles: list[str] = []
    way = str(client.base_url)

    def visit(
        *, width: int = 1000, height: int = 800, refused: tuple[int, ...] = (), **options: Any
    ) -> Page:
        def heed(response: Response) -> None:
            if response.status >= 400 and response.status not in refused:
                troubles.append(f"{response.status} {response.url}")

        def listen(message: ConsoleMessage) -> None:
            if not message.text.startswith("Failed to load resource"):  # `heed` has those
                troubles.append(message.text)

        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.set_default_timeout(SOON)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", listen)
        page.on("response", heed)
        page.on("request", lambda request: troubles.extend(
            [] if request.url.startswith((way, "data:")) else [request.url]))  # fmt: skip
        page.goto(way)
        expect(page.get_by_label("Model", exact=True)).to_have_value("tiny-x4")
        return page

    expect.set_options(timeout=SOON)
    yield visit
    expect.set_options(timeout=5000)
    for context in browser.contexts:
        context.close()
    assert troubles == []


def drop(page: Page, path: Path, name: str | None = None) -> None:
    """Drop a file as a person does from another window."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.get_by_text("Drop photos here").evaluate(
        """(target, [name, content]) => {
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          data.items.add(new File([bytes], name));
          for (const kind of ["dragover", "drop"])
            target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true }));
        }""",
        [name or path.name, content],
    )


def test_a_dropped_photo_is_enlarged_compared_and_downloaded(
    visit: Visit, resshift: Run, tmp_path: Path
) -> None:
    photo = make_photo(tmp_path / "photo.png", 40, 30)
    page = visit(accept_downloads=True)
    expect(page.get_by_role("button", name="Enlarge")).to_be_disabled()
    drop(page, photo)
    expect(page.get_by_text("photo.png: 40 × 30, PNG, 8 bits.")).to_be_visible()
    expect(page.locator("#estimate")).to_have_text(re.compile(r"^160 × 120, about \d+ s$"))
    page.get_by_label("Seed").fill("3")
    page.get_by_label("Size", exact=True).fill("2")
    page.get_by_role("button", name="Enlarge").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    resshift("upscale", photo, "--device", "cpu", "--seed", 3, "--scale", 2)
    assert download.value.suggested_filename == "photo_x2.png"
    assert Path(download.value.path()).read_bytes() == (tmp_path / "photo_x2.png").read_bytes()


@pytest.mark.parametrize("kind", ["tiff", "heic"])
def test_deep_and_rare_formats_are_shown_and_come_back_as_the_command_writes_them(
    visit: Visit, resshift: Run, tmp_path: Path, kind: str
) -> None:
    photo = tmp_path / f"photo.{kind}"
    levels = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54
    if kind == "tiff":
        Image.fromarray(levels).save(photo)
    else:
        colours = Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
        pytest.importorskip("pillow_heif").from_pillow(colours).save(photo)
    page = visit(accept_downloads=True)
    drop(page, photo)
    depth = {"tiff": "TIFF, 16 bits", "heic": "HEIF, 8 bits"}[kind]
    expect(page.locator("#facts")).to_contain_text(f"40 × 30, {depth}")
    small = page.locator("#small")
    expect(small).to_have_js_property("naturalWidth", 40)
    page.get_by_role("button", name="Enlarge").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    assert resshift("upscale", photo, "--device", "cpu").code == 0
    assert download.value.suggested_filename == f"photo_x4.{kind}"
    assert Path(download.value.path()).read_bytes() == photo.with_stem("photo_x4").read_bytes()


def test_a_licence_is_shown_and_target_size_and_detail_are_heeded(
    visit: Visit, photo: Path
) -> None:
    page = visit()
    expect(page.locator("#terms")).to_contain_text("Apache-2.0")
    page.get_by_label("Model", exact=True).select_option("realsr-x4-v2")
    expect(page.locator("#terms")).to_contain_text("S-Lab-1.0 No commercial use.")
    page.get_by_label("Model", exact=True).select_option("tiny-x4")
    drop(page, photo)
    page.get_by_label("What is said of the size").select_option("pixels across")
    page.get_by_label("Size", exact=True).fill("50")
    expect(page.locator("#estimate")).to_contain_text("50 × 30")
    page.get_by_label("What is said of the size").select_option("pixels, long side")
    page.get_by_label("Size", exact=True).fill("60")
    page.get_by_label("Detail").fill("0.5")
    page.get_by_role("button", name="Enlarge").click()
    expect(page.locator("#title")).to_have_text("photo_long60.png")
    expect(page.locator("#told")).to_contain_text("60 × 36")
    expect(page.locator("#told")).to_contain_text("tiny-x4, 1 step, detail 0.5, seed 0")


def test_the_slider_parts_photo_and_result_and_the_lens_shows_both(
    visit: Visit, tmp_path: Path
) -> None:
    page = visit()
    drop(page, make_photo(tmp_path / "photo.png", 40, 30))
    page.get_by_role("button", name="Enlarge").click()
    view = page.frame_locator("#view")
    canvas = view.locator("#canvas")
    expect(canvas).to_be_visible()
    view.get_by_label("Divider").focus()

    def seen() -> bytes:
        before, now = None, b""
        while before != now:
            page.wait_for_timeout(200)
            before, now = now, canvas.screenshot()
        return now

    half = seen()
    page.keyboard.press("Home")
    assert seen() != half
    view.get_by_text("Lens", exact=True).click()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert seen() != half


def test_a_crop_is_previewed_where_one_clicks(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    drop(page, make_photo(tmp_path / "photo.png", 300, 200))
    expect(page.locator("#small")).to_be_visible()
    page.locator("#small").click(position={"x": 5, "y": 190})
    expect(page.locator("#mark")).to_be_visible()
    page.get_by_role("button", name="Preview a crop").click()
    expect(page.locator("#told")).to_contain_text("128 × 128 at 0, 72, tiny-x4, 1 step")
    expect(page.frame_locator("#view").locator("#first")).to_have_value("0")
    expect(page.locator("#download")).to_be_hidden()


def test_work_is_cancelled_and_forgotten(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    drop(page, make_photo(tmp_path / "photo.png", 300, 300))
    page.get_by_label("Model", exact=True).select_option("chain-x4")
    page.get_by_role("button", name="Enlarge").click()
    jobs = page.locator("#jobs")
    expect(jobs).to_contain_text(re.compile(r"enlarging \d+%, about .+ left"))
    page.reload()
    expect(jobs).to_contain_text("left")
    jobs.get_by_role("button", name="Cancel").click()
    expect(jobs).to_contain_text("photo.png: cancelled")
    jobs.get_by_role("button", name="Delete").click()
    expect(page.get_by_label("This session")).to_be_hidden()


def test_much_can_be_asked_for_at_once(visit: Visit, photo: Path) -> None:
    page = visit()
    drop(page, photo)
    for seed in range(9):  # more than a browser has connections
        page.get_by_label("Seed").fill(str(seed))
        page.get_by_role("button", name="Enlarge").click()
    jobs = page.locator("#jobs")
    expect(jobs.get_by_role("link", name="Download")).to_have_count(9)


def test_what_can_t_be_is_told_with_a_way_out(visit: Visit, photo: Path, tmp_path: Path) -> None:
    page = visit(refused=(400, 422))
    text = tmp_path / "text.png"
    text.write_text("no image")
    drop(page, text)
    trouble = page.get_by_role("alert")
    expect(trouble).to_contain_text("text.png is not an image")
    drop(page, photo)
    expect(trouble).to_be_hidden()
    page.get_by_label("Size", exact=True).fill("99")
    expect(trouble).to_contain_text("A scale of 99 is outside 1 to 16. Choose one of these")


def test_names_are_shown_as_they_are_and_run_nothing(visit: Visit, photo: Path) -> None:
    page = visit()
    drop(page, photo, HOSTILE)
    expect(page.locator("#facts")).to_contain_text("onerror=document.title")
    page.get_by_role("button", name="Enlarge").click()
    expect(page.locator("#title")).to_contain_text("onerror=document.title")
    assert page.title() == "resshift"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_s_page_is_no_wider_than_the_phone(visit: Visit, photo: Path, scheme: str) -> None:
    page = visit(width=390, height=844, has_touch=True, color_scheme=scheme)
    drop(page, photo, "a-name-without-end-" * 5 + ".png")
    page.get_by_text("More", exact=True).click()
    page.get_by_role("button", name="Enlarge").click()
    expect(page.locator("#view")).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    canvas = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"\d+", canvas)]
    assert max(levels) < 40 if scheme == "dark" else min(levels) > 200


def test_a_folder_is_enlarged_where_the_service_has_a_root(
    browser: Browser, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "trip").mkdir()
    make_photo(tmp_path / "trip" / "photo.png", 8, 8)
    page = browser.new_page()
    page.goto(str(serve(root=tmp_path).base_url))
    expect(page.get_by_label("folder", exact=False)).to_be_visible(timeout=SOON)
    page.get_by_label("folder", exact=False).fill("trip")
    page.get_by_role("button", name="Do all of it").click()
    done = "folder trip: 1 images, 1 done, 0 finished before, 0 failed. In trip_x4"
    expect(page.locator("#jobs")).to_contain_text(done, timeout=SOON)
    page.close()


def test_a_hole_is_painted_on_the_photo_and_filled(visit: Visit, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 40, 30)
    page = visit(accept_downloads=True)
    drop(page, photo)
    expect(page.locator("#estimate")).to_contain_text("160 × 120")
    page.get_by_label("Task").select_option("Fill holes")
    page.get_by_label("Model", exact=True).select_option("fills")
    expect(page.locator("#estimate")).to_be_empty()
    page.get_by_label("Steps").fill("1")
    fill = page.get_by_role("button", name="Fill", exact=True)
    expect(fill).to_be_disabled()
    preview = page.get_by_role("button", name="Preview a crop")
    expect(preview).to_be_disabled()
    page.get_by_label("Brush").fill("4")
    page.locator("#paint").hover(position={"x": 10, "y": 10})
    page.mouse.down()
    page.mouse.move(*corner(page, 20, 10))
    page.mouse.up()
    preview.click()
    expect(page.locator("#told")).to_contain_text("40 × 30 at 0, 0, fills, 1 step")
    fill.click()
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "photo_filled.png"
    before, after = pixels(photo), pixels(download.value.path())
    assert (before[20:] == after[20:]).all() and (before[8:13, 10:20] != after[8:13, 10:20]).any()


def corner(page: Page, x: int, y: int) -> tuple[float, float]:
    box = page.locator("#paint").bounding_box()
    assert box is not None
    return box["x"] + x, box["y"] + y


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_painting_is_undone_and_a_mask_chosen_in_its_place(visit: Visit, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 40, 30)
    Image.new("L", (8, 8), 255).save(tmp_path / "wrong.png")
    page = visit(refused=(400,))
    drop(page, photo)
    page.get_by_label("Task").select_option("Fill holes")
    page.get_by_label("Model", exact=True).select_option("fills")
    page.locator("#paint").click(position={"x": 10, "y": 10})
    fill = page.get_by_role("button", name="Fill", exact=True)
    expect(fill).to_be_enabled()
    page.get_by_role("button", name="Undo").click()
    expect(fill).to_be_disabled()
    page.get_by_label("Choose a mask").set_input_files(tmp_path / "wrong.png")
    words = "The mask wrong.png is 8x8, and photo.png is 40x30."
    expect(page.get_by_role("alert")).to_contain_text(words)


def test_each_task_has_models_and_settings_of_its_own(visit: Visit, photo: Path) -> None:
    page = visit()
    drop(page, photo)
    page.get_by_label("Task").select_option("Mend at its own size")
    expect(page.get_by_label("Model", exact=True).locator("option")).to_have_text(
        ["tiny-x1", "mends", "deblur"]
    )
    expect(page.get_by_label("Size", exact=True)).to_be_hidden()
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_label("strength")).to_be_visible()
    page.get_by_label("Model", exact=True).select_option("deblur")
    expect(page.locator("#terms")).to_contain_text("Run `resshift models pull deblur`")
    expect(page.get_by_role("button", name="Mend")).to_be_disabled()
    page.get_by_label("Model", exact=True).select_option("mends")
    expect(page.get_by_role("button", name="Mend")).to_be_enabled()
    page.get_by_label("Task").select_option("Enlarge")
    expect(page.get_by_label("strength")).to_have_count(0)
    expect(page.get_by_label("Size", exact=True)).to_be_visible()


def test_faces_are_restored_over_a_larger_background(
    visit: Visit, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found((face(16, 10 + 6j, 0.2),), turned=1)
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: found)
    page = visit()
    drop(page, photo)
    page.get_by_label("Task").select_option("Restore faces")
    page.get_by_label("Model", exact=True).select_option("people")
    page.get_by_label("Steps").fill("1")
    page.get_by_label("Size", exact=True).fill("2")
    expect(page.locator("#estimate")).to_have_text(re.compile("^40 × 24, at least about"))
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_label("background").locator("option").nth(2)).to_have_text("tiny-x4")
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("#told")).to_contain_text("1 face, 1 turned away")
    expect(page.locator("#title")).to_have_text("photo_faces.png")


def test_what_can_t_run_here_says_why(
    visit: Visit, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    page = visit()
    drop(page, photo)
    page.get_by_label("Task").select_option("Restore faces")
    page.get_by_label("Model", exact=True).select_option("people")
    expect(page.locator("#terms")).to_contain_text("pip install 'resshift[face]'")
    restore = page.get_by_role("button", name="Restore", exact=True)
    expect(restore).to_be_disabled()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("aligned").check()
    expect(restore).to_be_enabled()
