"""Pages in a real browser: what keys, mouse and fingers do, and what is seen then."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser_pages import Open, middle, seen, until
from pictures import P3
from PIL import Image
from playwright.sync_api import Page as Window
from playwright.sync_api import expect

from resshift_cli.imaging import icc
from resshift_cli.imaging.icc import SRGB_CURVE
from resshift_cli.imaging.picture import Pixels
from resshift_cli.viewing.exhibits import Exhibit
from resshift_cli.viewing.page import Page

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def plain(colour: tuple[int, int, int], height: int = 60, width: int = 80) -> Pixels:
    return np.broadcast_to(np.array(colour, np.float32) / np.float32(255), (height, width, 3))


def exhibit(title: str, pixels: Pixels, profile: bytes | None = None) -> Exhibit:
    height, width, channels = pixels.shape
    return Exhibit(title, (height, width, channels), [pixels], profile)


def written(folder: Path, *exhibits: Exhibit, lossless: bool | None = None) -> Path:
    path = folder / "page.html"
    with path.open("wb") as file:
        Page("Compared", exhibits, lossless=lossless).write(file, lambda done, total: None)
    return path


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Red, a larger green and blue."""
    return written(
        tmp_path,
        exhibit("red", plain(RED)),
        exhibit("green", plain(GREEN, 120, 160)),
        exhibit("blue", plain(BLUE)),
    )


def colour_at(window: Window, across: float, down: float = 0.8) -> tuple[int, ...]:
    """What is seen at a place, in shares of the canvas."""
    canvas = seen(window)
    height, width, _ = canvas.shape
    return tuple(int(level) for level in canvas[int(down * height), int(across * width)])


def test_the_divider_parts_the_first_from_the_second(colours: Path, open_page: Open) -> None:
    window = open_page(colours)
    assert colour_at(window, 0.4) == RED and colour_at(window, 0.6) == GREEN
    x, y = middle(window)
    window.mouse.move(x, y)
    window.mouse.down()
    window.mouse.move(x + 150, y)
    window.mouse.up()
    assert colour_at(window, 0.6) == RED


def test_keys_move_the_divider_too(colours: Path, open_page: Open) -> None:
    window = open_page(colours)
    window.get_by_label("Divider").focus()
    window.keyboard.press("Home")
    assert colour_at(window, 0.3) == GREEN
    window.get_by_label("Divider").press("End")
    assert colour_at(window, 0.7) == RED
    window.locator("#stage").focus()
    for _ in range(15):
        window.keyboard.press("Shift+ArrowLeft")
    assert colour_at(window, 0.75) == GREEN


def test_any_two_are_compared_and_swapped(colours: Path, open_page: Open) -> None:
    window = open_page(colours)
    window.get_by_label("First picture").select_option("blue")
    assert colour_at(window, 0.4) == BLUE
    window.get_by_role("button", name="Swap").click()
    assert colour_at(window, 0.4) == GREEN and colour_at(window, 0.6) == BLUE


def test_side_by_side_shows_all_of_them(colours: Path, open_page: Open) -> None:
    window = open_page(colours)
    window.keyboard.press("p")
    found = {tuple(colour) for colour in seen(window).reshape(-1, 3).tolist()}
    assert {RED, GREEN, BLUE} <= found
    expect(window.get_by_label("First picture")).to_be_hidden()


def test_blinking_shows_one_and_then_the_other(colours: Path, open_page: Open) -> None:
    window = open_page(colours, reduced_motion="reduce")
    window.keyboard.press("b")
    window.locator("#stage").focus()
    assert colour_at(window, 0.6) == RED
    window.keyboard.press(" ")
    assert colour_at(window, 0.4) == GREEN
    window.keyboard.press("Enter")  # by itself from now on
    until(window, lambda: colour_at(window, 0.4) == RED)


def test_a_difference_is_amplified_and_nothing_else(tmp_path: Path, open_page: Open) -> None:
    one = plain((100, 100, 100), 700, 900)
    other = plain((103, 100, 99), 700, 900)
    window = open_page(written(tmp_path, exhibit("one", one), exhibit("other", other)))
    window.keyboard.press("d")
    assert colour_at(window, 0.5) == (24, 0, 8)
    window.get_by_label("Amplified").select_option("32 times")
    assert colour_at(window, 0.5) == (96, 0, 32)


@pytest.mark.parametrize("zoom", [1, 2, 4, 8])
def test_pixels_are_squares_and_the_same_place_is_seen(
    tmp_path: Path, open_page: Open, zoom: int
) -> None:
    board = np.zeros((60, 80, 3), np.float32)
    board[::2, 1::2] = board[1::2, ::2] = 1
    large = np.repeat(np.repeat(board, 2, axis=0), 2, axis=1)
    window = open_page(written(tmp_path, exhibit("small", board), exhibit("large", large)))
    window.get_by_text(f"{zoom}:1", exact=True).click()
    expect(window.get_by_label("Zoom and place")).to_have_text(f"{zoom}:1, around 80, 60")
    canvas = seen(window)
    middle, side = canvas.shape[1] // 2, 2 * zoom
    row, reach = canvas[len(canvas) // 2 + 40, :, 0], min(middle, 70 * zoom)
    for half in (row[middle - reach : middle - 4], row[middle + 4 : middle + reach]):
        edges = np.flatnonzero(np.diff(half.astype(int)))
        assert set(half.tolist()) == {0, 255} and set(np.diff(edges).tolist()) == {side}
    changed = np.flatnonzero(np.diff(row[middle - reach : middle + reach].astype(int)))
    changed = changed[np.abs(changed - reach) > 8]
    assert len(set((changed % side).tolist())) == 1  # the same on both sides
    window.keyboard.press("p")
    panes, rows = np.split(seen(window)[:, : middle * 2], 2, axis=1), len(canvas) // 2
    around = [pane[rows - 50 : rows + 50, middle // 2 - 70 : middle // 2 + 70] for pane in panes]
    np.testing.assert_array_equal(around[0], around[1])
    assert np.ptp(around[0]) == 255


def test_a_wheel_zooms_to_where_it_is_turned(tmp_path: Path, open_page: Open) -> None:
    pixels = np.array(plain(GREEN, 600, 800))
    pixels[:40, :40] = np.array(RED, np.float32) / 255
    page = written(tmp_path, exhibit("one", pixels), exhibit("other", pixels))
    window = open_page(page)
    seen(window)
    before = seen(window)
    rows, columns = np.nonzero((before == RED).all(axis=2))
    box = window.locator("#canvas").bounding_box()
    assert box is not None
    window.mouse.move(box["x"] + columns.mean(), box["y"] + rows.mean())
    for _ in range(6):
        window.mouse.wheel(0, -100)
    canvas = seen(window)
    assert tuple(canvas[int(rows.mean()), int(columns.mean()) + 3].tolist()) == RED
    assert (canvas == RED).all(axis=2).sum() > 20 * len(rows)


def test_the_lens_shows_one_place_in_both(tmp_path: Path, open_page: Open) -> None:
    pair = exhibit("one", plain(RED, 900, 1200)), exhibit("other", plain(BLUE, 900, 1200))
    window = open_page(written(tmp_path, *pair))
    window.keyboard.press("l")
    x, y = middle(window)
    window.mouse.move(x + 250, y + 100)
    canvas, box = seen(window), window.locator("#canvas").bounding_box()
    assert box is not None
    at = int(y + 100 - box["y"]), int(x + 250 - box["x"])
    assert tuple(canvas[at[0], at[1] - 50].tolist()) == RED  # where blue is, without the lens
    assert tuple(canvas[at[0], at[1] + 50].tolist()) == BLUE


def touching(window: Window) -> Callable[..., None]:
    """What sets fingers down, moves them and lifts them."""
    session = window.context.new_cdp_session(window)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    return fingers


def test_a_finger_moves_the_divider_or_the_lens(tmp_path: Path, open_page: Open) -> None:
    pair = exhibit("one", plain(RED, 900, 1200)), exhibit("other", plain(BLUE, 900, 1200))
    window = open_page(written(tmp_path, *pair), width=390, height=844, has_touch=True)
    (x, y), fingers = middle(window), touching(window)
    window.get_by_text("1:1", exact=True).tap()
    fingers("touchStart", (x + 20, y + 60))
    fingers("touchMove", (x + 100, y + 60))
    fingers("touchEnd")
    divider = int(window.get_by_label("Divider").input_value())
    assert 700 < divider < 800 and colour_at(window, 0.7) == RED and colour_at(window, 0.9) == BLUE
    window.get_by_label("Lens").check()
    fingers("touchStart", (x + 50, y + 100))
    box = window.locator("#canvas").bounding_box()
    assert box is not None
    at = int(y + 100 - box["y"]), int(x + 80 - box["x"])
    until(window, lambda: tuple(seen(window)[at].tolist()) == BLUE)  # without the lens it is red
    fingers("touchEnd")


def test_a_lens_leaves_something_of_a_narrow_pane_to_be_seen(
    tmp_path: Path, open_page: Open
) -> None:
    pair = exhibit("one", plain(RED, 900, 900)), exhibit("other", plain(BLUE, 900, 900))
    window = open_page(written(tmp_path, *pair), width=390, height=500)
    for key in "pl":
        window.keyboard.press(key)
    canvas = seen(window)
    row = canvas[len(canvas) // 2, : canvas.shape[1] // 2 - 4]  # through the first pane
    bright = np.flatnonzero((row > 60).all(axis=1))  # neither red nor blue
    frame = np.split(bright, np.flatnonzero(np.diff(bright) > 8) + 1)
    assert len(frame) == 2 and 0.5 < (frame[1][0] - frame[0][0]) / len(row) < 0.7


@pytest.mark.parametrize("scheme, darkest", [("light", 255), ("dark", 0)])
def test_a_page_is_light_or_dark_as_its_reader_has_it(
    colours: Path, open_page: Open, scheme: str, darkest: int
) -> None:
    window = open_page(colours, color_scheme=scheme)
    shown = np.asarray(Image.open(io.BytesIO(window.screenshot())).convert("L")).astype(int)
    assert abs(shown[2, 2] - darkest) < 40
    heading = window.locator("h1").bounding_box()
    assert heading is not None
    top, left = int(heading["y"]), int(heading["x"])
    words = shown[top : top + int(heading["height"]), left : left + 60]
    assert np.ptp(words) > 180


def test_two_fingers_zoom_and_one_moves(tmp_path: Path, open_page: Open) -> None:
    pair = exhibit("one", plain(RED, 900, 1200)), exhibit("other", plain(BLUE, 900, 1200))
    page = written(tmp_path, *pair)
    window = open_page(page, width=390, height=844, has_touch=True, device_scale_factor=3)
    (x, y), fingers = middle(window), touching(window)
    window.keyboard.press("1")
    fingers("touchStart", (x - 20, y), (x + 20, y))
    for apart in range(25, 155, 5):
        fingers("touchMove", (x - apart, y), (x + apart, y))
    fingers("touchEnd")
    place = window.get_by_label("Zoom and place")
    expect(place).to_have_text(re.compile("^8:1, "))
    before = int(place.inner_text().split()[-1])
    fingers("touchStart", (x - 60, y + 60))
    fingers("touchMove", (x - 60, y + 60 - 32))
    fingers("touchEnd")
    expect(place).to_have_text(re.compile(f", {before + 12}$"))


def test_a_phone_s_page_is_no_wider_than_the_phone(tmp_path: Path, open_page: Open) -> None:
    facts = {"made by": "resshift 1.0: a-model-with-a-name (Apache-2.0), 15 steps, seed 0" * 2}
    one = exhibit("a-name-without-end-" * 9, plain(RED)).saying(facts)
    window = open_page(written(tmp_path, one, exhibit("b", plain(BLUE))), width=390, height=844)
    assert window.evaluate("document.documentElement.scrollWidth") <= 390


def test_profiles_are_heeded(tmp_path: Path, open_page: Open) -> None:
    profile = icc.make("Display P3", P3, SRGB_CURVE)
    pixels = plain((100, 200, 100))
    pair = exhibit("P3", pixels, profile), exhibit("sRGB", pixels)
    window = open_page(written(tmp_path, *pair))
    wide, narrow = colour_at(window, 0.4), colour_at(window, 0.6)
    assert narrow == (100, 200, 100)
    assert wide[0] < 60 and wide[1] > 200  # a purer green than the same numbers are in sRGB


@pytest.mark.parametrize("lossless", [None, False])
def test_of_a_large_picture_every_corner_is_there(
    tmp_path: Path, open_page: Open, lossless: bool | None
) -> None:
    pixels = np.array(plain(GREEN, 1500, 2600))
    pixels[-300:, -300:] = np.array(BLUE, np.float32) / 255
    pair = exhibit("one", pixels), exhibit("small", plain(RED, 750, 1300))
    window = open_page(written(tmp_path, *pair, lossless=lossless))
    window.keyboard.press("1")
    window.locator("#stage").focus()
    for _ in range(40):
        window.keyboard.press("ArrowRight")
        window.keyboard.press("ArrowDown")
    found = colour_at(window, 0.4, 0.4)
    assert np.abs(np.subtract(found, BLUE)).max() <= (0 if lossless is None else 3)


HOSTILE = "\"><script>document.title='run'</script>&amp;'</script><!--\u2028é猫.png"


def test_names_are_text_whatever_they_are(tmp_path: Path, open_page: Open) -> None:
    one = exhibit(HOSTILE, plain(RED)).saying({HOSTILE: HOSTILE})
    window = open_page(written(tmp_path, one, exhibit("b", plain(BLUE))))
    expect(window).to_have_title("Compared")
    shown = HOSTILE.replace("\u2028", "\\u2028")  # no line of its own
    assert window.get_by_label("First picture").locator("option").first.text_content() == shown
    assert window.locator("td").first.text_content() == shown
    assert colour_at(window, 0.4) == RED
