"""`resshift preview`: one crop at settings to choose between."""

from __future__ import annotations

import json
import re
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from browser_pages import Open, seen
from command_line import Run, files, make_photo
from PIL import Image

from resshift_cli.imaging import icc
from resshift_cli.imaging.icc import SRGB_CURVE
from resshift_cli.training import sheet


@pytest.fixture
def preview(resshift: Run, tiny_weights: Path) -> Run:
    return partial(resshift, "preview", "--weights", tiny_weights)


def test_a_sheet_shows_bicubic_and_every_choice(preview: Run, photo: Path) -> None:
    ran = preview(photo, "--steps", 1, "--steps", 2, "--seed", 3, "--seed", 4)
    sheet = photo.with_name("photo_preview.png")
    assert (ran.code, ran.out) == (0, f"{sheet}\n")
    told = f"{photo} 20x12 at 0, 0 at 4 settings -> {sheet}"
    assert ran.err.splitlines()[-1] == told
    with Image.open(sheet) as image:
        assert image.width == 3 * (80 + 8) + 8  # of five pictures, three in a row


def test_json_tells_what_each_took_and_the_photo_will(preview: Run, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", 90, 70)
    ran = preview(photo, "--size", 32, "--at", "50,40", "--detail", 0, "--detail", 1, "--json")
    report = json.loads(ran.out)
    assert report["crop"] == {"left": 34, "top": 24, "width": 32, "height": 32}
    assert [one["detail"] for one in report["previews"]] == [0, 1]
    assert all(one["seconds"] > 0 and one["photo_seconds"] > 0 for one in report["previews"])


def test_by_default_the_busiest_part_is_shown(preview: Run, tmp_path: Path) -> None:
    calm = Image.new("RGB", (200, 100), "gray")
    with Image.open(make_photo(tmp_path / "noise.png", 32, 32)) as noise:
        calm.paste(noise, (160, 48))
    calm.save(tmp_path / "photo.png")
    ran = preview(tmp_path / "photo.png", "--size", 32, "--steps", 1, "--json")
    assert json.loads(ran.out)["crop"] == {"left": 160, "top": 48, "width": 32, "height": 32}


def test_the_sheet_says_what_each_is_and_takes(
    preview: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, told = sheet.draw, list[str]()

    def noted(rows: Sequence[Sequence[sheet.Cell]]) -> Image.Image:
        told.extend(words for row in rows for words, _ in row)
        return draw(rows)

    monkeypatch.setattr(sheet, "draw", noted)
    assert preview(photo, "--steps", 1).code == 0
    plain, made = told
    assert plain == "bicubic"
    how = r"tiny\.safetensors, 1 step, detail 1, seed 0, crop .+ s, whole photo about .+"
    assert re.fullmatch(how, made)


def test_the_sheet_is_opened_by_the_system(
    preview: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[str]()

    def noted(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", noted)
    assert preview(photo, "--steps", 1, "--open").code == 0
    assert opened == [photo.with_name("photo_preview.png").as_uri()]


def test_a_page_compares_them_in_the_browser(preview: Run, photo: Path, open_page: Open) -> None:
    assert preview(photo, "--steps", 1, "-o", photo.with_name("choice.html")).code == 0
    window = open_page(photo.with_name("choice.html"))
    options = window.get_by_label("First picture").locator("option").all_inner_texts()
    assert options == ["bicubic", "tiny.safetensors, 1 step, detail 1, seed 0"]
    facts = window.locator("tbody td:last-child").all_inner_texts()
    assert facts[0].endswith(" s") and facts[1].startswith("about ")
    assert seen(window).std() > 20  # the noise that the photo is


def test_models_stand_beside_each_other(resshift: Run, photo: Path, tiny_weights: Path) -> None:
    models = ("--model", "tiny-x4", "--weights", tiny_weights)
    ran = resshift("preview", photo, *models, "--steps", 1, "--json")
    names = [one["model"] for one in json.loads(ran.out)["previews"]]
    assert names == ["tiny-x4", "tiny.safetensors"]


def test_what_a_model_can_t_do_is_left_out_and_told(preview: Run, photo: Path) -> None:
    ran = preview(photo, "--steps", 2, "--steps", 5, "--steps", 2, "--json")
    assert [one["steps"] for one in json.loads(ran.out)["previews"]] == [2]
    assert "Left out: 'tiny.safetensors' walks 1 to 4 steps, not 5." in ran.err
    assert preview(photo, "--steps", 5, "--overwrite").code == 2


def test_the_sheet_has_the_photo_s_colours(preview: Run, tmp_path: Path) -> None:
    profile = icc.make("wide", icc.SRGB_PRIMARIES, SRGB_CURVE)
    Image.new("RGB", (20, 20), (9, 200, 9)).save(tmp_path / "photo.png", icc_profile=profile)
    assert preview(tmp_path / "photo.png", "--steps", 1).code == 0
    with Image.open(tmp_path / "photo_preview.png") as sheet:
        assert sheet.info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "1"])
def test_gray_and_transparent_photos_are_shown(preview: Run, tmp_path: Path, mode: str) -> None:
    Image.new(mode, (9, 7)).save(tmp_path / "photo.png")
    assert preview(tmp_path / "photo.png", "--steps", 1).code == 0
    with Image.open(tmp_path / "photo_preview.png") as sheet:
        assert sheet.mode == "RGB"


@pytest.mark.parametrize(
    "arguments, code, told",
    [
        (("--at", "20,3"), 2, "up to 19,11"),
        (("--at", "middle"), 2, "such as: --at 40,25"),
        (("--size", 4), 2, "from 16 to 1024"),
        (("-o", "PHOTO", "--overwrite"), 2, "inputs are never overwritten"),
        (("-o", "sheet.jpg"), 2, ".png .html .htm"),
        (tuple(f"--seed={seed}" for seed in range(25)), 2, "more than the 24"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    preview: Run, photo: Path, arguments: tuple[object, ...], code: int, told: str
) -> None:
    before = files(photo.parent)
    ran = preview(photo, *(photo if each == "PHOTO" else each for each in arguments))
    assert ran.code == code and told in ran.err and len(ran.err.splitlines()) == 1
    assert files(photo.parent) == before
