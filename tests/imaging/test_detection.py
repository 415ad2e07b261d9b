"""Finding faces: sizes and tiles of a photo, and the detector itself where its file is here."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import DETECTOR, PHOTOS, needs_detector, needs_photos
from PIL import Image

from resshift_cli.errors import ModelUnavailableError, UsageError
from resshift_cli.imaging import detection
from resshift_cli.imaging.detection import OVERLAP, TILE, Detector, Levels


def row(x: float, y: float, side: float, score: float = 0.95) -> list[float]:
    """What the detector gives of a face."""
    points = [x + side / 3, y + side / 3, x + side * 2 / 3, y + side / 3, x + side / 2]
    points += [y + side / 2, x + side / 3, y + side * 2 / 3, x + side * 2 / 3, y + side * 2 / 3]
    return [x, y, side, side, *points, score]


class _Squares(Detector):
    """Finds squares of 8 to 200 pixels, whole or cut, each of a gray of its own, as faces."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def _detected(self, tile: Levels) -> Sequence[Sequence[float]]:
        self.seen.append(tile.shape[:2])
        found: list[list[float]] = []
        for level in set(np.unique(tile)) - {0}:
            places = np.argwhere(tile[..., 0] == level)
            (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0) + 1
            if 8 <= max(bottom - top, right - left) <= 200:
                found.append(row(float(left), float(top), float(max(bottom - top, right - left))))
        return found


def squares(height: int, width: int, *places: tuple[int, int, int]) -> Levels:
    photo = np.zeros((height, width, 3), np.uint8)
    for number, (left, top, side) in enumerate(places, 1):
        photo[top : top + side, left : left + side] = 40 * number
    return photo


def test_faces_of_all_sizes_are_found_once_and_told_the_largest_first() -> None:
    places = [(104, 96, 896), (1304, 64, 160), (1008, 1600, 96), (1696, 1200, 24)]
    found = _Squares().find(squares(2000, 1800, *places))
    assert [(face.left, face.top, face.size) for face in found] == places
    assert abs(found[0].landmarks[2] - (552 + 544j)) < 1e-9


def test_a_face_on_the_cut_between_tiles_is_found_whole() -> None:
    edge = TILE - OVERLAP
    for at in (edge - 60, edge + 8, TILE - 60, TILE - 4):
        found = _Squares().find(squares(1400, 1400, (at, at, 120)))
        assert [(face.left, face.top, face.size) for face in found] == [(at, at, 120)]


def test_sizes_in_which_no_face_matters_are_passed_over() -> None:
    finder = _Squares()
    finder.find(squares(1000, 1000, (100, 100, 400)), smallest=64)
    assert finder.seen == [(250, 250)]


def test_a_photo_is_looked_at_in_levels_and_a_huge_one_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = np.random.default_rng(0).random((31, 22, 1), np.float32)
    seen, step = detection.looked_at([photo[:7], photo[7:]], (31, 22, 1))
    assert step == 1 and (seen == np.rint(photo * 255)).all() and seen.shape == (31, 22, 3)
    monkeypatch.setattr(detection, "MOST", 100)
    seen, step = detection.looked_at([photo[:7], photo[7:8], photo[8:]], (31, 22, 1))
    whole = Image.fromarray(np.rint(photo[..., 0] * 255).astype(np.uint8)).reduce(3)
    assert step == 3 and seen.shape == (11, 8, 3)
    assert np.abs(seen[..., 0].astype(int) - np.asarray(whole)).max() <= 1


def test_without_opencv_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="OpenCV, which is not installed") as caught:
        Detector(Path("any.onnx"))
    assert "pip install 'resshift[face]'" in caught.value.hint


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="needs OpenCV")
@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_a_file_that_is_no_detector_is_told_of(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "finds.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelUnavailableError, match="no face detector that OpenCV") as caught:
        Detector(path)
    assert "models verify face" in caught.value.hint
    assert capfd.readouterr().err == ""


@needs_detector
def test_nothing_is_a_face_in_a_photo_of_any_size_without_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    finder = Detector(DETECTOR)
    for size in ((1, 1), (1, 300), (33, 20)):
        assert finder.find(np.full((*size, 3), 128, np.uint8)) == []
    assert capfd.readouterr().err == ""


@needs_photos
def test_faces_of_people_are_found_and_their_landmarks_in_every_size_of_the_photo() -> None:
    photo = Image.open(PHOTOS / "043-two-women-certificate.jpg").convert("RGB")
    small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BOX)
    finder = Detector(DETECTOR)
    large, half = (finder.find(np.asarray(each)) for each in (photo, small))
    assert len(large) == len(half) == 2
    for one, other in zip(large, half, strict=True):
        off = np.array(one.landmarks) - 2 * np.array(other.landmarks)
        assert np.abs(off).max() < one.size / 20 and not one.is_turned
        assert one.left < one.landmarks[2].real < one.left + one.width


@needs_photos
def test_a_face_in_profile_is_not_one_to_be_restored() -> None:
    photo = Image.open(PHOTOS / "258-people-at-window.jpg").convert("RGB")
    facing = [f for f in Detector(DETECTOR).find(np.asarray(photo)) if not f.is_turned]
    assert facing == []
