from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from PIL import Image

from resshift_cli.restoration import features
from resshift_cli.restoration.upscaler import Upscaler

needs_features = pytest.mark.skipif(
    importlib.util.find_spec(features.PACKAGE) is None, reason="needs the extra `realism`"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{seed}.png")
    return folder


def measured(resshift: Run, *arguments: object) -> dict[str, Any]:
    ran = resshift("eval", *arguments, "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    document: dict[str, Any] = json.loads(ran.out)
    return document


def test_a_table_has_bicubic_and_a_row_for_every_chain_length(
    resshift: Run, photos: Path, tiny_weights: Path
) -> None:
    ran = resshift("eval", "--hq", photos, "--weights", tiny_weights, "--steps", 4, "--steps", 1)
    assert ran.code == 0
    block = ran.out.split("SSIM-Y")[0]
    titles = ["bicubic", "tiny.safetensors, 4 steps", "tiny.safetensors, 1 step"]
    assert [title for title in titles if title in block] == titles
    assert "PSNR-Y, dB" in block and "to bicubic" in block


def test_how_the_figures_came_about_is_said(
    resshift: Run, photos: Path, tiny_weights: Path
) -> None:
    ran = resshift("eval", "--hq", photos, "--weights", tiny_weights, "--steps", 1)
    said = " ".join(ran.err.split())
    assert "3 images" in said and "bicubic degradation" in said
    assert "leave out 4 pixels at each border" in said and "BT.601" in said


def test_json_holds_all_of_it(resshift: Run, photos: Path, tiny_weights: Path) -> None:
    document = measured(
        resshift, "--hq", photos, "--weights", tiny_weights, "--steps", 1, "--metric", "psnr-y"
    )
    assert (document["images"], document["scale"], document["border"]) == (3, 4, 4)
    assert [metric["name"] for metric in document["metrics"]] == ["psnr-y"]
    bicubic, model = document["rows"]
    assert bicubic["name"] == "bicubic" and model["steps"] == 1 and len(model["weights"]) == 64
    figures = model["metrics"]["psnr-y"]
    low, high = figures["interval"]
    assert low <= figures["mean"] <= high
    base = bicubic["metrics"]["psnr-y"]["mean"]
    assert figures["difference"] == pytest.approx(figures["mean"] - base)
    assert document["left_out"] == [] and document["errors"] == []


def test_several_weight_files_stand_side_by_side(
    resshift: Run, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(tiny_weights.read_bytes())
    options = ["--weights", tiny_weights, "--weights", copy, "--steps", 1]
    document = measured(resshift, "--hq", photos, *options)
    _, first, second = document["rows"]
    assert first["name"] != second["name"]
    assert first["metrics"] == second["metrics"]  # same weights, same seed, same draws of images


def test_the_seed_of_the_noise_counts(resshift: Run, photos: Path, tiny_weights: Path) -> None:
    options = ["--hq", photos, "--weights", tiny_weights, "--metric", "psnr-y", "--limit", 1]
    means = [
        [row["metrics"]["psnr-y"]["mean"] for row in measured(resshift, *options, *seed)["rows"]]
        for seed in ([], ["--seed", 0], ["--seed", 1])
    ]
    assert means[0] == means[1]
    assert means[0][0] == means[2][0] and means[0][1] != means[2][1]


def test_given_partners_are_used(
    resshift: Run, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    lq = tmp_path / "lq"
    lq.mkdir()
    for seed in range(3):
        Image.new("RGB", (16, 12), (128, 128, 128)).save(lq / f"{seed}x4.png")
    options = ["--hq", photos, "--weights", tiny_weights, "--steps", 1]
    document = measured(resshift, *options, "--lq", lq, "--metric", "sharpness")
    assert document["lq"] == str(lq) and document["degrade"] is None
    assert document["rows"][0]["metrics"]["sharpness"]["mean"] == pytest.approx(0, abs=1e-6)


# Realism, and results that were made elsewhere


@pytest.fixture
def elsewhere(photos: Path, tmp_path: Path) -> Path:
    """The originals, each a little darker, as another program might have made them."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for path in photos.iterdir():
        with Image.open(path) as image:
            image.point(lambda level: level * 9 // 10).save(folder / f"{path.stem}.bmp")
    return folder


def test_results_made_elsewhere_have_a_row_of_their_own(
    resshift: Run, photos: Path, tiny_weights: Path, elsewhere: Path, tmp_path: Path
) -> None:
    options = ["--hq", photos, "--weights", tiny_weights, "--steps", 1, "--metric", "sharpness"]
    out = tmp_path / "out"
    document = measured(resshift, *options, "--results", f"other={elsewhere}", "-o", out)
    other = document["rows"][2]
    assert (other["name"], other["results"]) == ("other", str(elsewhere))
    assert other["metrics"]["sharpness"]["mean"] == pytest.approx(0.9, abs=0.05)
    page = (out / "index.html").read_text()
    assert page.count("<figcaption>other</figcaption>") == 3 and "<td>other</td>" in page


def test_a_missing_and_a_wrong_sized_result_are_named(
    resshift: Run, photos: Path, tiny_weights: Path, elsewhere: Path
) -> None:
    (elsewhere / "0.bmp").unlink()
    Image.new("RGB", (32, 24)).save(elsewhere / "1.bmp")
    options = ["--hq", photos, "--weights", tiny_weights, "--steps", 1, "--metric", "psnr-y"]
    ran = resshift("eval", *options, "--results", f"other={elsewhere}", "--json")
    assert ran.code == 1 and json.loads(ran.out)["images"] == 1
    said = " ".join(ran.err.split())
    assert "other has no 0.png" in said and "1.bmp has 32x24 pixels" in said


@needs_features
def test_realism_is_told_with_its_patches_and_without_an_interval(
    resshift: Run, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for path in photos.iterdir():
        with Image.open(path) as image:
            image.resize((128, 64)).save(path)
    options = ["--hq", photos, "--weights", tiny_weights, "--steps", 1, "--metric", "realism"]
    ran = resshift("eval", *options, "-o", tmp_path / "out")
    assert ran.code == 0 and "realism, KID (lower)" in ran.out
    assert "6 each from 3 images" in " ".join(ran.err.split())
    page = (tmp_path / "out" / "index.html").read_text()
    assert "realism, KID" in page and "6 each from 3 images" in page
    figures = measured(resshift, *options)["rows"][1]["metrics"]["realism"]
    assert (figures["images"], figures["patches"], figures["interval"]) == (3, 6, None)


# The folder


@pytest.fixture
def out(resshift: Run, photos: Path, tiny_weights: Path, tmp_path: Path) -> Path:
    (photos / "0.png").rename(photos / "<b>&.png")
    folder = tmp_path / "out"
    ran = resshift("eval", "--hq", photos, "--weights", tiny_weights, "--steps", 1, "-o", folder)
    assert ran.code == 0 and "index.html" in ran.err
    return folder


def test_the_folder_has_results_for_programs(out: Path) -> None:
    document = json.loads((out / "results.json").read_text())
    lines = list(csv.DictReader((out / "per-image.csv").read_text().splitlines()))
    assert len(lines) == 6
    for row in document["rows"]:
        values = [float(line["ssim-y"]) for line in lines if line["row"] == row["name"]]
        assert row["metrics"]["ssim-y"]["mean"] == pytest.approx(np.mean(values))


def test_the_folder_has_the_enlarged_images(out: Path) -> None:
    kept = sorted(path.relative_to(out / "images").as_posix() for path in out.rglob("*/*/*.png"))
    assert kept == [
        *(f"bicubic/{name}.png" for name in ("1", "2", "<b>&")),
        *(f"tiny.safetensors-1-step/{name}.png" for name in ("1", "2", "<b>&")),
    ]


def test_the_sheet_shows_every_image_in_every_row(out: Path) -> None:
    with Image.open(out / "sheet.png") as sheet:
        width, height = sheet.size
        pixels = np.asarray(sheet.convert("L"))
    assert width >= 4 * 2 * 64 and height >= 3 * 2 * 48  # low quality, two rows and the original
    assert len(np.unique(pixels)) > 50


def test_the_page_needs_nothing_beside_it(out: Path) -> None:
    page = (out / "index.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3 * 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in page and "<script" not in page and "<link" not in page


def test_names_can_t_write_into_the_page(out: Path) -> None:
    page = (out / "index.html").read_text()
    assert "&lt;b&gt;&amp;.png" in page and "<b>" not in page


def test_after_an_interruption_the_same_command_goes_on(
    resshift: Run, photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    enlarge = Upscaler.enlarge

    def interrupted(self: Upscaler, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return enlarge(self, *arguments, **options)

    monkeypatch.setattr(Upscaler, "enlarge", interrupted)
    command = ["--hq", photos, "--weights", tiny_weights, "--steps", 1]
    ran = resshift("eval", *command, "-o", tmp_path / "out")
    assert ran.code == 130 and "the same command goes on" in ran.err
    kept = measured(resshift, *command, "-o", tmp_path / "out")
    assert calls == 4  # one done, one interrupted, that one again, and the third
    assert kept["rows"] == measured(resshift, *command)["rows"]


# What goes wrong


def test_an_unreadable_image_is_told_of_and_left_out_of_all_rows(
    resshift: Run, photos: Path, tiny_weights: Path
) -> None:
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:99])
    Image.new("RGB", (16, 16)).save(photos / "small.png")
    command = ["eval", "--hq", photos, "--weights", tiny_weights, "--steps", 1]
    ran = resshift(*command, "--json")
    document = json.loads(ran.out)
    assert ran.code == 1
    assert [item["image"] for item in document["left_out"]] == ["broken.png", "small.png"]
    assert {row["metrics"]["psnr-y"]["images"] for row in document["rows"]} == {3}
    for told in (ran.err, resshift(*command, "--quiet").err):
        assert "broken.png" in told and "small.png" in told and "left out of all rows" in told


def test_if_no_image_can_be_used_the_first_reason_is_given(
    resshift: Run, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for path in photos.iterdir():
        path.write_text("no image")
    ran = resshift("eval", "--hq", photos, "--weights", tiny_weights, "-o", tmp_path / "out")
    assert ran.code == 4 and "0.png" in ran.err
    assert not (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--metric", "psnr"], 2, "'psnr-y'"),
        (["--degrade", "mildly"], 2, "'mild'"),
        (["--degrade", "mild", "--lq", "PHOTOS"], 2, "--lq"),
        (["--hq", "none"], 3, "no folder none"),
        (["--lq", "none"], 3, "no folder none"),
        (["--steps", "5"], 2, "1 to 4 steps"),
        (["--scale", "17"], 2, "17"),
        (["--crop", "8"], 2, "8"),
        (["--weights", "WEIGHTS"], 2, "twice"),
        (["--model", "no-such"], 2, "no-such"),
        (["-o", "PHOTOS"], 6, "not of an evaluation"),
        (["--device", "cuda:99"], 8, "cuda"),
        (["--results", "PHOTOS"], 2, "NAME=DIR"),
        (["--results", "a=none"], 3, "no images in none"),
        (["--results", "a=PHOTOS", "--results", "a=none"], 2, "'a' twice"),
        (["--results", "bicubic=PHOTOS"], 2, "'bicubic' is asked for twice"),
    ],
)
def test_mistakes_are_told_of_before_the_work(
    resshift: Run,
    photos: Path,
    tiny_weights: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    words: str,
) -> None:
    places = {"PHOTOS": str(photos), "WEIGHTS": str(tiny_weights)}
    words_given = [
        places.get(option, option.replace("=PHOTOS", f"={photos}")) for option in options
    ]
    ran = resshift("eval", "--hq", photos, "--weights", tiny_weights, *words_given)
    assert ran.code == code
    assert words in " ".join(ran.err.split()) and ran.out == ""


def test_a_model_of_fewer_steps_has_no_row_for_more(
    resshift: Run, photos: Path, tiny_weights: Path
) -> None:
    options = ["--hq", photos, "--limit", 1, "--steps", 1, "--steps", 9, "--metric", "psnr-y"]
    ran = resshift("eval", *options, "--weights", tiny_weights, "--json")
    assert ran.code == 0 and "at most 4 steps: no row with 9" in " ".join(ran.err.split())
    assert [row["name"] for row in json.loads(ran.out)["rows"]] == [
        "bicubic",
        "tiny.safetensors, 1 step",
    ]


def test_at_another_scale_the_model_is_run_as_upscale_does(
    resshift: Run, photos: Path, tiny_weights: Path
) -> None:
    options = ["--hq", photos, "--weights", tiny_weights, "--steps", 1, "--scale", 2]
    document = measured(resshift, *options)
    assert (document["scale"], document["border"]) == (2, 2)
    assert document["rows"][1]["scale"] == 2.0
