"""`resshift compare` and `upscale --compare`: which page they write, and what they refuse."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from browser_pages import Open
from command_line import Run, files, make_photo, start
from PIL import Image
from playwright.sync_api import expect


@pytest.fixture
def result(photo: Path) -> Path:
    """The photo, four times as large."""
    path = photo.with_name("photo_x4.png")
    Image.open(photo).resize((80, 48)).save(path)
    return path


def test_a_page_is_written_beside_the_first_picture(
    resshift: Run, photo: Path, result: Path, open_page: Open
) -> None:
    ran = resshift("compare", photo, result)
    page = photo.with_name("photo_compare.html")
    assert (ran.code, ran.out) == (0, f"{page}\n")
    assert ran.err.splitlines()[-1] == f"2 pictures -> {page}"
    window = open_page(page)
    expect(window).to_have_title("photo.png compared")
    heads = window.locator("thead th").all_inner_texts()
    assert heads == ["picture", "photo.png", "photo_x4.png"]
    assert window.locator("td").all_inner_texts()[:2] == ["20 x 12", "80 x 48"]


def test_a_page_replaces_nothing_unasked(resshift: Run, photo: Path, result: Path) -> None:
    assert resshift("compare", photo, result).code == 0
    before = files(photo.parent)
    again = resshift("compare", photo, result)
    assert again.code == 6 and "exists already" in again.err
    assert files(photo.parent) == before
    assert resshift("compare", photo, result, "--overwrite").code == 0


@pytest.mark.parametrize(
    "output, code, told",
    [
        ("page.png", 2, "the extensions .html .htm"),
        ("missing/page.html", 6, "there is no folder"),
        ("photo.png", 2, "something else"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(
    resshift: Run, photo: Path, result: Path, output: str, code: int, told: str
) -> None:
    before = files(photo.parent)
    ran = resshift("compare", photo, result, "-o", photo.parent / output)
    assert ran.code == code and told in ran.err and len(ran.err.splitlines()) == 1
    assert files(photo.parent) == before


def test_a_folder_takes_the_page_and_is_made_for_it(
    resshift: Run, photo: Path, result: Path
) -> None:
    folder = photo.parent / "new" / "pages"
    assert resshift("compare", photo, photo.parent / "none.png", "-o", f"{folder}/").code == 3
    assert not folder.parent.exists()
    assert resshift("compare", photo, result, "-o", f"{folder}/").code == 0
    assert (folder / "photo_compare.html").exists()


@pytest.mark.parametrize("name", [".", "..", "/"])
@pytest.mark.parametrize("command", ["compare", "preview"])
def test_a_folder_is_no_picture(resshift: Run, photo: Path, command: str, name: str) -> None:
    others = [photo] if command == "compare" else []
    ran = resshift(command, name, *others, "-o", photo.with_name("page.html"))
    assert ran.code == 2 and "is a folder" in ran.err


def test_figures_tell_how_close_results_are(resshift: Run, photo: Path, result: Path) -> None:
    ran = resshift("compare", photo, result, result, "--reference", result, "--json")
    small, one, _, reference = json.loads(ran.out)["pictures"]
    assert "psnr-y" not in small and "psnr-y" not in reference
    assert one["psnr-y"] is None and one["ssim-y"] == pytest.approx(1)  # no noise: no number
    assert one["facts"]["PSNR-Y, dB"] == "inf"


def test_realism_is_told_of_results_beside_what_they_should_be(
    resshift: Run, tmp_path: Path, open_page: Open
) -> None:
    true = make_photo(tmp_path / "true.png", 128, 128)
    with Image.open(true) as image:
        image.resize((32, 32)).resize((128, 128)).save(tmp_path / "blurred.png")
    ran = resshift("compare", tmp_path / "blurred.png", true, "--reference", true, "--json")
    blurred, equal, _ = json.loads(ran.out)["pictures"]
    assert blurred["psnr-y"] < 20 and blurred["ssim-y"] < 1
    assert blurred["realism"] != equal["realism"]
    shown = open_page(tmp_path / "blurred_compare.html").locator("table").inner_text()
    assert all(name in shown for name in ("PSNR-Y, dB", "SSIM-Y", "realism", "reference"))


@pytest.mark.parametrize(
    "name, code", [("text.png", 4), ("cut.png", 4), ("none.png", 3), ("folder", 2), ("done.png", 2)]
)
def test_what_is_no_picture_of_the_same_leaves_nothing(
    resshift: Run, troubles: Path, name: str, code: int
) -> None:
    before = files(troubles)
    ran = resshift("compare", troubles / "photo.png", troubles / name)
    assert ran.code == code and len(ran.err.splitlines()) == 1
    assert files(troubles) == before


def test_the_page_is_opened_by_the_system(photo: Path, result: Path) -> None:
    browser = photo.with_name("browser")
    browser.write_text(f'#!/bin/sh\necho "$1" > {photo.parent}/opened\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    ran = start("compare", photo, result, "--open", environment={"BROWSER": f"{browser} %s"})
    ran.communicate(timeout=60)
    assert ran.returncode == 0
    opened = photo.with_name("opened").read_text().strip()
    assert opened == photo.with_name("photo_compare.html").as_uri()


def test_upscale_compares_what_it_made(upscale: Run, photo: Path, open_page: Open) -> None:
    ran = upscale(photo, "--compare", "--steps", 1)
    page = photo.with_name("photo_x4_compare.html")
    assert ran.code == 0 and ran.err.splitlines()[-1] == f"{page} compares them"
    window = open_page(page)
    assert "tiny.safetensors, 1 step," in window.locator("table").inner_text()


def test_upscale_checks_pages_before_the_work(upscale: Run, photo: Path) -> None:
    photo.with_name("photo_x4_compare.html").write_text("mine")
    assert upscale(photo, "--compare").code == 6
    other = make_photo(photo.with_name("photo.bmp"), 8, 8)
    assert upscale(photo, other, "--compare", "--overwrite").code == 2
    assert not photo.with_name("photo_x4.png").exists()
    assert upscale(photo, "--compare", "-o", "-").code == 2
