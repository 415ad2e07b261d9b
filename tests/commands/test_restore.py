"""`resshift restore`: photos at their own size."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, files, make_photo
from PIL import Image

from resshift_cli.commands import values
from resshift_cli.weights import store


@pytest.fixture
def restore(resshift: Run, mends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder with a.png and b.jpg."""
    monkeypatch.chdir(tmp_path)
    make_photo(Path("a.png"), 20, 12)
    make_photo(Path("b.jpg"), 10, 16)
    return partial(resshift, "restore", "--weights", mends, "--steps", 1)


def test_photos_are_mended_at_their_own_size(restore: Run) -> None:
    ran = restore("a.png", "b.jpg", "-o", "new/", "--json")
    report = json.loads(ran.out)
    assert ran.code == 0
    assert [(r["output"], r["width"], r["height"]) for r in report["results"]] == [
        ("new/a_restored.png", 20, 12),
        ("new/b_restored.jpg", 10, 16),
    ]
    assert {"scale": 1.0, "strength": 1.0, "steps": 1}.items() <= report["results"][0].items()


def test_without_strength_a_photo_stays_what_it_is(restore: Run) -> None:
    assert restore("a.png", "--strength", 0).code == 0
    with Image.open("a.png") as photo, Image.open("a_restored.png") as result:
        assert (np.asarray(photo) == np.asarray(result)).all()


def test_a_photo_goes_through_a_pipe_s_rules_and_is_never_replaced(restore: Run) -> None:
    assert restore("a.png", "--suffix", "").code == 2
    assert restore("a.png").code == 0 and restore("a.png").code == 6
    assert restore("a.png", "--skip-existing").out == ""


def test_what_can_t_be_is_refused_before_anything_is_written(
    restore: Run, resshift: Run, tiny_weights: Path, tmp_path: Path
) -> None:
    before = files(tmp_path)
    assert restore("a.png", "--strength", 2).code == 2
    assert restore("a.png", "--scale", 2).code == 2
    enlarges = resshift("restore", "a.png", "--weights", tiny_weights)
    assert enlarges.code == 2 and "enlarges by 4, and can't mend" in enlarges.err
    wrong = resshift("restore", "a.png", "--model", "inpaint-face")
    assert wrong.code == 2 and "models list --task restore" in wrong.err
    assert files(tmp_path) == before


def test_unless_told_the_bundled_model_mends_and_no_network_is_touched(
    restore: Run, resshift: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "reachable", lambda entry, within: pytest.fail("asked"))
    ran = resshift("restore", "b.jpg", "--json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.code, json.loads(ran.out)["model"], result["steps"]) == (0, "tiny-x1", 1)
    assert files(Path()).keys() == {"a.png", "b.jpg", "b_restored.jpg"}


def test_the_published_model_is_taken_by_name_and_never_replaced(
    restore: Run, resshift: Run
) -> None:
    ran = resshift("restore", "a.png", "--model", "deblur", "--offline")
    assert ran.code == 7 and "resshift models pull deblur" in ran.err
    assert "(--model tiny-x1: takes away noise and JPEG artefacts" in ran.err
    assert values.RESTORE.models("") == ["tiny-x1", "deblur"]
