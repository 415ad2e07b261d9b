"""`resshift inpaint`: holes in a photo."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ran, Run, files
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from resshift_cli.commands import values
from resshift_cli.imaging import read
from resshift_cli.weights import store

Pixels = NDArray[Any]


@pytest.fixture
def inpaint(resshift: Run, fills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder with photo.png, 40x30, and mask.png."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise()).save("photo.png")
    Image.fromarray(hole().astype(np.uint8) * 255).save("mask.png")
    return partial(resshift, "inpaint", "--weights", fills, "--steps", 1)


def noise(*channels: int, deep: bool = False) -> Pixels:
    kind: Any = np.uint16 if deep else np.uint8
    shape = (30, 40, *(channels or (3,)))
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, dtype=kind)


def hole() -> Pixels:
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:12, 20:33] = True
    return mask


def pixels(name: str) -> Pixels:
    with Image.open(name) as image:
        return np.asarray(image).astype(int)


def test_a_hole_is_filled_and_all_else_is_as_it_was(inpaint: Run) -> None:
    ran = inpaint("photo.png", "--mask", "mask.png")
    assert (ran.code, ran.out) == (0, "photo_filled.png\n")
    assert "photo.png 40x30 -> photo_filled.png 40x30, fills.safetensors, 1 step, " in ran.err
    result, mask = pixels("photo_filled.png"), hole()
    assert (result[~mask] == noise()[~mask]).all()
    assert (result[mask] != noise()[mask]).any(axis=-1).mean() > 0.9


def test_sixteen_bits_and_alpha_come_back_too(inpaint: Run) -> None:
    import pyvips  # type: ignore[import-untyped]

    deep = noise(4, deep=True)
    pyvips.Image.new_from_array(deep, interpretation="rgb16").write_to_file("deep.png")
    assert inpaint("deep.png", "--mask", "mask.png", "--feather", 2).code == 0
    picture = read.read(Path("deep_filled.png"))
    result = np.rint(picture.pixels * 65535).astype(int)
    assert picture.depth == 16 and (result[~hole()] == deep[~hole()]).all()
    assert (result[..., 3] == deep[..., 3]).all() and (result != deep).any()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tga", "a.bmp", "a.webp", "a.jxl"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_known_comes_back_in_every_format_without_loss(
    inpaint: Run, name: str, channels: int
) -> None:
    if name == "a.jxl":
        pytest.importorskip("pillow_jxl")
    if name == "a.bmp" and channels % 2 == 0:
        pytest.skip("BMP has no alpha")
    Image.fromarray(noise(channels).squeeze()).save("in.png")
    options = ["--lossless"] if name in ("a.webp", "a.jxl") else []
    assert inpaint("in.png", "--mask", "mask.png", "-o", name, *options).code == 0
    before, after = (read.read(Path(file)).pixels for file in ("in.png", name))
    wide = max(before.shape[2], after.shape[2])  # WebP has no gray
    if wide > channels:
        before = np.concatenate([before[..., :1].repeat(3, 2), before[..., 1:]], axis=2)
    assert (before[~hole()] == after[~hole()]).all() and (before[hole()] != after[hole()]).any()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_that_are_known_come_back_too(inpaint: Run, name: str, channels: int) -> None:
    import pyvips

    kind = "grey16" if channels == 1 else "rgb16"
    deep = pyvips.Image.new_from_array(noise(channels, deep=True), interpretation=kind)
    deep.write_to_file("in.tif")
    assert inpaint("in.tif", "--mask", "mask.png", "-o", name, "--grow", 1).code == 0
    before, after = read.read(Path("in.tif")), read.read(Path(name))
    known = np.ones((30, 40), dtype=bool)
    known[4:13, 19:34] = False
    assert after.depth == 16 and (before.pixels[known] == after.pixels[known]).all()


def test_what_is_transparent_is_filled_and_opaque_then(inpaint: Run) -> None:
    cut = noise(4)
    cut[..., 3] = np.where(hole(), 0, 255)
    Image.fromarray(cut).save("cut.png")
    assert inpaint("cut.png", "--mask", "alpha", "-o", "whole.png").code == 0
    result = pixels("whole.png")
    assert (result[..., 3] == 255).all() and (result[~hole()] == cut[~hole()]).all()


def test_colours_and_rectangles_tell_the_hole(inpaint: Run) -> None:
    marked = noise()
    marked[hole()] = (255, 0, 255)
    Image.fromarray(marked).save("marked.png")
    assert inpaint("marked.png", "--mask", "#FF00FF").code == 0
    assert inpaint("marked.png", "--box", "20,5,13,7", "--suffix", "_box").code == 0
    assert (pixels("marked_filled.png") == pixels("marked_box.png")).all()
    assert inpaint("marked.png", "--box", "20,5,13,7", "--invert", "--suffix", "_else").code == 0
    assert (pixels("marked_else.png")[hole()] == (255, 0, 255)).all()


def test_several_seeds_give_several_results_to_choose_from(inpaint: Run) -> None:
    ran = inpaint("photo.png", "--mask", "mask.png", "--seeds", 3, "--seed", 7, "--json")
    assert ran.code == 0
    results = json.loads(ran.out)["results"]
    assert [(r["output"], r["seed"]) for r in results] == [
        (f"photo_filled_seed{seed}.png", seed) for seed in (7, 8, 9)
    ]
    assert {"mask": "mask.png", "boxes": [], "grow": 0}.items() <= results[0].items()
    first, second, _ = (pixels(r["output"]) for r in results)
    assert (first[hole()] != second[hole()]).any()
    alone = inpaint("photo.png", "--mask", "mask.png", "--seed", 8)
    assert alone.code == 0 and (pixels("photo_filled.png") == second).all()


def test_several_results_need_a_folder(inpaint: Run, tmp_path: Path) -> None:
    two = partial(inpaint, "photo.png", "--mask", "mask.png", "--seeds", 2)
    before = files(tmp_path)
    assert two("-o", "one.png").code == two("-o", "-").code == 2
    assert files(tmp_path) == before
    assert two("-o", "new/").out.splitlines() == [
        "new/photo_filled_seed0.png",
        "new/photo_filled_seed1.png",
    ]


def test_an_animation_is_filled_frame_by_frame(inpaint: Run) -> None:
    frames = [Image.fromarray(noise()), Image.fromarray(255 - noise())]
    frames[0].save("moving.png", save_all=True, append_images=frames[1:], duration=40)
    assert inpaint("moving.png", "--mask", "mask.png").code == 0
    with Image.open("moving_filled.png") as image:
        results = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)]
    assert len(results) == 2
    for result, frame in zip(results, frames, strict=True):
        assert (result[~hole()] == np.asarray(frame)[~hole()]).all()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "Nothing says which pixels are to be filled. Give a mask (--mask FILE"),
        (("--mask", "none.png"), 3, "There is no file none.png."),
        (("--mask", "text.png"), 4, "text.png"),
        (("--mask", "small.png"), 2, "The mask small.png is 5x5, and photo.png is 40x30."),
        (("--mask", "black.png"), 2, "leaves nothing of photo.png to be filled"),
        (("--mask", "black.png", "--invert"), 2, "leaves nothing of photo.png known"),
        (("--mask", "alpha"), 2, "photo.png has no alpha"),
        (("--mask", "#12"), 2, "'#12' is no colour"),
        (("--box", "1,2,3"), 2, "'1,2,3' is no X,Y,WIDTH,HEIGHT"),
        (("--box", "40,0,3,3"), 2, "The rectangle 40,0,3,3 lies outside of photo.png"),
        (("--mask", "mask.png", "--grow", "-1"), 2, "--grow"),
        (("--mask", "mask.png", "--scale", "2"), 2, "--scale"),
    ],
)
def test_a_request_that_can_t_be_met_writes_nothing(
    inpaint: Run, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    Path("text.png").write_text("no image")
    Image.new("L", (5, 5), 255).save("small.png")
    Image.new("L", (40, 30)).save("black.png")
    before = files(tmp_path)
    ran = inpaint("photo.png", *options)
    assert ran.code == code and said in ran.err
    assert files(tmp_path) == before


def test_the_mask_is_never_replaced_nor_a_result_that_is_there(inpaint: Run) -> None:
    assert inpaint("photo.png", "--mask", "mask.png", "-o", "mask.png", "--overwrite").code == 2
    assert inpaint("photo.png", "--mask", "mask.png").code == 0
    assert inpaint("photo.png", "--mask", "mask.png").code == 6


# Models


def test_a_model_for_something_else_is_refused(inpaint: Run, resshift: Run) -> None:
    ran = resshift("inpaint", "photo.png", "--mask", "mask.png", "--model", "tiny-x4")
    assert ran.code == 2
    assert "'tiny-x4' is for real-world, which `resshift inpaint` does not do." in ran.err
    assert "resshift models list --task inpaint" in ran.err
    upscaled = resshift("upscale", "photo.png", "--model", "inpaint-face")
    assert upscaled.code == 2 and "`resshift upscale` does not do" in upscaled.err


def test_a_file_that_takes_no_mask_is_refused(
    resshift: Run, inpaint: Callable[..., Ran], tiny_weights: Path
) -> None:
    ran = resshift("inpaint", "photo.png", "--mask", "mask.png", "--weights", tiny_weights)
    assert ran.code == 2 and "takes no mask, and can't fill holes" in ran.err


@pytest.mark.parametrize("options", [(), ("--offline",)])
def test_without_the_published_model_the_bundled_one_fills_and_says_so(
    inpaint: Run, resshift: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(store, "reachable", lambda entry, within: False)
    ran = resshift("inpaint", "photo.png", "--mask", "mask.png", "--json", *options)
    assert (ran.code, json.loads(ran.out)["model"]) == (0, "tiny-x1")
    (line,) = [line for line in ran.err.splitlines() if "using tiny-x1" in line]
    for fact in ("inpaint-imagenet, the default", "no commercial use", "models pull inpaint-im"):
        assert fact in line


def test_several_results_that_would_be_the_same_are_refused(
    inpaint: Run, resshift: Run, tmp_path: Path
) -> None:
    before = files(tmp_path)
    asked = ("--mask", "mask.png", "--model", "tiny-x1", "--seeds", 4)
    ran = resshift("inpaint", "photo.png", *asked)
    assert ran.code == 2 and "all 4 results would be the same" in ran.err
    assert files(tmp_path) == before


def test_a_model_that_was_named_and_is_not_here_is_not_talked_over(
    inpaint: Run, resshift: Run
) -> None:
    options = ("--mask", "mask.png", "--model", "inpaint-face", "--offline")
    ran = resshift("inpaint", "photo.png", *options)
    assert ran.code == 7 and "`resshift models pull inpaint-face` when there is" in ran.err
    assert "using tiny-x1" not in ran.err


def test_the_shell_completes_the_models_that_fill_holes() -> None:
    assert values.INPAINT.models("") == ["inpaint-imagenet", "inpaint-face", "tiny-x1"]
    assert "tiny-x4" in values.UPSCALE.models("t")
    assert not values.UPSCALE.models("inp")
