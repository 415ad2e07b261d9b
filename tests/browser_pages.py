"""Pages in a real browser: Debian's Chromium, or what is called so; skipped where there is none.

With `CI` set, as `.ci/run` does, a browser that is missing is a failure.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        message = "there is no Chromium here (apt-get install chromium)"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    with sync_playwright() as playwright:
        # Its own sandbox needs a user who is not root.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a file as a person would; in the end nothing has gone wrong or out to a network."""
    troubles: list[str] = []

    def open_page(path: Path, *, width: int = 800, height: int = 700, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda request: troubles.extend(_outward(request.url)))
        page.goto(path.absolute().as_uri())
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert troubles == []


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until something holds of a page, which it does within seconds or never."""
    for _ in range(300):
        if holds():
            return
        page.wait_for_timeout(50)
    pytest.fail("what was waited for never came to be")


def _outward(address: str) -> list[str]:
    return [] if address.startswith(("file:", "data:")) else [address]


def seen(page: Page) -> NDArray[np.uint8]:
    """The canvas as it looks once nothing changes there any more, (H, W, 3)."""
    before, now = None, b""
    while before != now:
        page.wait_for_timeout(100)
        before, now = now, page.locator("#canvas").screenshot()
    return np.asarray(Image.open(io.BytesIO(now)).convert("RGB"))


def middle(page: Page) -> tuple[float, float]:
    """Of the canvas, in the window."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
