"""A folder whose faces are restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from batch_folder import lines, results
from command_line import Run, make_photo
from drawn_faces import face
from tiny_model import tiny_fills, tiny_networks

from resshift_cli.imaging import detection
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import passes
from resshift_cli.restoration.face_restorer import FaceRestorer, Found
from resshift_cli.weights import checkpoint, registry
from resshift_cli.weights.registry import LocalSource, WeightFile

SPEC = replace(tiny_fills(), denoiser=replace(tiny_fills().denoiser, lq_mask=False))


@pytest.fixture
def people(resshift: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Does the images of `folder`: each has one face, which is painted gray."""
    finder, weights = tmp_path / "finds.onnx", tmp_path / "people.safetensors"
    finder.touch()
    checkpoint.save_model(weights, SPEC, tiny_networks(SPEC)[0].network)
    file = WeightFile((LocalSource(str(finder)),), "MIT", "", 0)
    monkeypatch.setattr(registry, "finding_faces", lambda entry: replace(entry, detector=file))
    found = Found((face(6, 5 + 4j, 0.2),))
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: found)
    monkeypatch.setattr(passes, "together", painted)
    return partial(resshift, "batch", folder, "--task", "face", "--weights", weights)


def painted(job: passes.Job, images: Sequence[Pixels], count: int) -> list[Pixels]:
    return [np.full_like(image, 0.5) for image in images]


def test_faces_are_restored_as_by_the_command_for_one(
    people: Run, resshift: Run, folder: Path, tmp_path: Path
) -> None:
    ran, output = people("--blend", 0.5, "--steps", 1), folder.with_name("in_faces")
    assert ran.code == 0 and "3 done" in ran.err
    assert set(results(output)) == {"a.png", "b.jpg", "sub", "sub/c.png"}
    alone = (
        "-o",
        folder / "one.png",
        "--weights",
        tmp_path / "people.safetensors",
        "--steps",
        1,
        "--blend",
        0.5,
    )
    assert resshift("face", folder / "a.png", *alone).code == 0
    assert (folder / "one.png").read_bytes() == (output / "a.png").read_bytes()
    told = lines(output)[0]
    assert (told["task"], told["scale"], told["asked"]["blend"]) == ("face", 1.0, 0.5)


def test_faces_are_counted_in_ledger_summary_report_and_dry_run(
    people: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "time is that of one in each image" in people("--dry-run").err
    faces = Found((face(6, 5 + 4j), face(6, 4 + 5j)), turned=1)
    found = {(9, 12): faces, (12, 9): Found(()), (8, 8): Found((), small=1)}
    monkeypatch.setattr(FaceRestorer, "find", lambda model, photo, shape, which: found[shape[:2]])
    ran = people("--steps", 1, "--report", folder / "report.csv")
    assert ran.code == 0 and "2 faces restored; 2 images without" in ran.err
    told = {line["input"]: line["found"] for line in lines(folder.with_name("in_faces"))}
    assert told["a.png"] == {"faces": 2, "turned": 1, "small": 0}
    assert told["sub/c.png"] == {"faces": 0, "turned": 0, "small": 1}
    table = (folder / "report.csv").read_text().splitlines()
    assert [row.endswith("no face restored") for row in table] == [False, False, True, True]
    assert "faces restored" not in people("--steps", 1).err


def test_what_is_finished_is_not_done_again_but_with_other_settings(
    people: Run, folder: Path
) -> None:
    assert people("--steps", 1).code == 0
    assert "0 done, 3 finished before" in people("--steps", 1).err
    other = people("--steps", 1, "--min-size", 40)
    assert other.code == 6 and "made otherwise: min size 24.0, not 40.0" in other.err


def test_the_background_s_model_is_among_the_weights(people: Run, folder: Path) -> None:
    assert people("--scale", 2, "--steps", 1).code == 0
    told = lines(folder.with_name("in_faces"))[0]
    assert told["asked"]["background"] == "tiny-x4" and told["weights"].count("+") == 2
    assert registry.find("tiny-x4").weights.sha256 in told["weights"]


def test_what_takes_no_work_tells_what_it_would_take(people: Run, folder: Path) -> None:
    ran = people("--dry-run", "--scale", 2)
    assert ran.code == 0 and "3 to do" in ran.err
    assert not folder.with_name("in_faces").exists()


def test_what_is_not_square_was_not_cut_out(people: Run, folder: Path) -> None:
    make_photo(folder / "d.png", 16, 16)
    ran = people("--aligned", "--steps", 1)
    assert ran.code == 1 and "a.png is 12x9: a face that was cut out is square" in ran.err
    assert set(results(folder.with_name("in_faces"))) >= {"d.png", "sub/c.png"}


def test_options_go_with_their_task(
    people: Run, resshift: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = resshift("batch", folder, "--min-size", 30)
    assert refused.code == 2 and "--min-size does not go with --task upscale" in refused.err
    assert "use --task face" in refused.err
    assert people("--width", 40).code == 2 and people("--background", "deblur").code == 2
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    assert "pip install 'resshift[face]'" in people().err
