"""`resshift face`: the faces of photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, files, make_photo
from drawn_faces import DETECTOR, PHOTOS, face, needs_photos
from PIL import Image, ImageCms
from tiny_model import tiny_fills, tiny_networks

from resshift_cli.commands import values
from resshift_cli.imaging import detection
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import passes
from resshift_cli.restoration.face_restorer import FaceRestorer, Found
from resshift_cli.weights import checkpoint, places, registry, store
from resshift_cli.weights.registry import LocalSource, ModelEntry, WeightFile

FOUND = Found((face(16, 10 + 9j, 0.2),), turned=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of a tiny model of scale 1."""
    spec = replace(tiny_fills(), denoiser=replace(tiny_fills().denoiser, lq_mask=False))
    path = tmp_path_factory.mktemp("weights") / "people.safetensors"
    checkpoint.save_model(path, spec, tiny_networks(spec)[0].network)
    return path


@pytest.fixture
def people(resshift: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command, by networks that change nothing, beside a.png and b.jpg with `FOUND`."""
    finder = tmp_path / "finds.onnx"
    finder.touch()
    file = WeightFile((LocalSource(str(finder)),), "MIT", "", 0)
    monkeypatch.setattr(registry, "finding_faces", lambda entry: replace(entry, detector=file))
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: FOUND)
    monkeypatch.setattr(passes, "together", together)
    monkeypatch.chdir(tmp_path)
    make_photo(Path("a.png"), 20, 18)
    make_photo(Path("b.jpg"), 24, 16)
    return partial(resshift, "face", "--weights", weights, "--steps", 1)


def together(job: passes.Job, images: Sequence[Pixels], count: int) -> list[Pixels]:
    return [np.array(image) for image in images]


def test_photos_keep_their_size_and_it_is_told_how_many_faces_they_have(people: Run) -> None:
    ran = people("a.png", "b.jpg", "-o", "new/", "--json")
    report = json.loads(ran.out)
    assert ran.code == 0 and "1 step, 1 face, 1 turned away, cpu" in ran.err
    assert [(r["output"], r["width"], r["height"]) for r in report["results"]] == [
        ("new/a_faces.png", 20, 18),
        ("new/b_faces.jpg", 24, 16),
    ]
    told = {"faces": 1, "turned": 1, "small": 0, "background": "none", "blend": 1.0}
    assert told.items() <= report["results"][1].items()
    with Image.open("a.png") as photo, Image.open("new/a_faces.png") as result:
        assert (np.asarray(photo) == np.asarray(result)).all()


def test_all_else_is_enlarged_by_the_bundled_model_or_by_none(people: Run) -> None:
    ran = people("a.png", "--scale", 2, "--json")
    assert json.loads(ran.out)["results"][0]["background"] == "tiny-x4"
    assert people("a.png", "--scale", 2, "--background", "none", "-o", "plain.png").code == 0
    with Image.open("a_faces.png") as made, Image.open("plain.png") as plain:
        assert made.size == plain.size == (40, 36)
        assert (np.asarray(made) != np.asarray(plain)).any()


def test_sixteen_bits_alpha_profile_and_metadata_are_kept(people: Run) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.open("a.png") as photo:
        exif = photo.getexif()
        exif[270] = "us two"
        photo.convert("RGBA").save("c.png", exif=exif, icc_profile=icc, dpi=(300, 300))
    assert people("c.png", "--depth", 16).code == 0
    with Image.open("c_faces.png") as result:
        assert result.mode == "RGBA" and result.info["icc_profile"] == icc
        assert result.getexif()[270] == "us two" and round(result.info["dpi"][0]) == 300
    assert Path("c_faces.png").read_bytes()[24] == 16


def test_where_no_face_is_found_that_is_said_and_the_background_done(
    people: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: Found(()))
    ran = people("b.jpg", "--scale", 1.5, "--background", "none")
    assert ran.code == 0 and "no face found" in ran.err
    with Image.open("b_faces.jpg") as result:
        assert result.size == (36, 24)


def test_faces_that_are_cut_out_need_no_detector_and_are_square(
    people: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    make_photo(Path("cut.png"), 30, 30)
    ran = people("cut.png", "--aligned", "--scale", 2, "--json")
    told = json.loads(ran.out)["results"][0]
    assert ran.code == 0 and told["background"] == "none" and "faces" not in told
    refused = people("a.png", "--aligned", "-o", "out.png")
    assert refused.code == 2 and "a.png is 20x18: a face that was cut out is square" in refused.err
    needed = people("a.png")
    assert needed.code == 2 and "pip install 'resshift[face]'" in needed.err


def test_what_can_t_be_is_refused_before_anything_is_written(people: Run, resshift: Run) -> None:
    before = files(Path())
    for wrong in ("--blend 2", "--min-size -1", "--scale 17", "--background deblur"):
        assert people("a.png", *wrong.split()).code == 2, wrong
    unknown = people("a.png", "--background", "tiny-x")
    assert unknown.code == 2 and "Did you mean 'tiny-x4'?" in unknown.err
    wrong_model = resshift("face", "a.png", "--model", "deblur")
    assert wrong_model.code == 2 and "models list --task face" in wrong_model.err
    mask = resshift("face", "a.png", "--model", "inpaint-face")
    assert mask.code == 2
    assert files(Path()) == before


def test_a_result_is_never_replaced_and_skipped_where_that_is_asked(people: Run) -> None:
    assert people("a.png").code == 0 and people("a.png").code == 6
    assert people("a.png", "--skip-existing").out == ""
    assert people("a.png", "--suffix", "").code == 2


def test_frames_of_an_animation_are_told_of_together(people: Run) -> None:
    frames = [Image.new("RGB", (20, 18), colour) for colour in ("red", "blue")]
    frames[0].save("moving.png", save_all=True, append_images=frames[1:])
    ran = people("moving.png")
    assert ran.code == 0 and "2 faces in all frames" in ran.err


def test_without_the_published_model_it_is_said_which_is_needed(
    resshift: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "reachable", lambda entry, within: False)
    ran = resshift("face", photo)
    assert ran.code == 7 and "`resshift face` takes face (787 MB" in ran.err
    assert values.FACE.models("") == ["face"]
    assert values.background_names("n") == ["none", "nacre-x4"]


@needs_photos
def test_the_faces_of_people_are_found_by_the_fetched_detector(
    resshift: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESSHIFT_CACHE", str(tmp_path / "cache"))
    source = published().sources[1]
    path = places.home(source) / places.file_name(source)
    path.parent.mkdir(parents=True)
    path.write_bytes(DETECTOR.read_bytes())
    monkeypatch.setattr(passes, "together", together)
    result = tmp_path / "result.png"
    ran = resshift(
        *("face", PHOTOS / "263-man-desk.jpg", "-o", result, "--weights", weights, "--steps", 1)
    )
    assert ran.code == 0 and "1 step, 1 face, cpu" in ran.err
    with Image.open(PHOTOS / "263-man-desk.jpg") as before, Image.open(result) as after:
        off = np.asarray(before.convert("RGB")).astype(int) - np.asarray(after.convert("RGB"))
    assert np.abs(off).max() <= 1


def published() -> WeightFile:
    entry: ModelEntry = registry.shipped()["face"]
    assert entry.detector is not None
    return entry.detector
