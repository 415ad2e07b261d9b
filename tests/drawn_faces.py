"""Faces that are not there: spots where their landmarks would be."""

from __future__ import annotations

import cmath
import os
from pathlib import Path

import numpy as np
import pytest

from resshift_cli.imaging import faces
from resshift_cli.imaging.faces import Face, Placement
from resshift_cli.imaging.picture import Pixels

_BESIDE = Path(__file__).parent.parent / "../shared"
DETECTOR = (
    Path(os.environ.get("RESSHIFT_FACE_MODELS", _BESIDE / "models"))
    / "face_detection_yunet_2026may.onnx"
)
PHOTOS = Path(os.environ.get("RESSHIFT_FACE_PHOTOS", _BESIDE / "data/photos"))
needs_detector = pytest.mark.skipif(
    not DETECTOR.is_file(), reason="needs the face detector: RESSHIFT_FACE_MODELS=DIRECTORY"
)
needs_photos = pytest.mark.skipif(
    not (DETECTOR.is_file() and PHOTOS.is_dir()),
    reason="needs photos of people as well: RESSHIFT_FACE_PHOTOS=DIRECTORY",
)


def placed(side: float, middle: complex, angle: float = 0.0) -> Placement:
    """Where a photo's points are in a face that is cut out of `side` pixels square, turned."""
    turn = cmath.rect(faces.SIDE / side, angle)
    return Placement(turn, complex(faces.SIDE, faces.SIDE) / 2 - turn * middle)


def face(side: float, middle: complex, angle: float = 0.0) -> Face:
    """One whose landmarks are exactly where `placed` says."""
    points = placed(side, middle, angle).back(faces.TEMPLATE)
    x, y, half = middle.real, middle.imag, side / 4
    landmarks = tuple(complex(point) for point in points)
    return Face(x - half, y - half, 2 * half, 2 * half, landmarks, 0.95)


def spots(size: tuple[int, int], points: faces.Points, width: float) -> Pixels:
    """Soft spots on black, float32 (H, W, 1)."""
    x = np.arange(size[1]) + 0.5
    y = np.arange(size[0])[:, None] + 0.5
    away = [np.abs(x + 1j * y - point) for point in points]
    image = sum(np.exp(-((distance / width) ** 2)) for distance in away)
    return np.asarray(image, np.float32)[..., None].clip(0, 1)


def middles(image: Pixels, points: faces.Points, around: int) -> faces.Points:
    """Where spots really are: the middle of the light around each point."""
    found = []
    for point in points:
        left, top = (max(int(at) - around, 0) for at in (point.real, point.imag))
        part = image[top : top + 2 * around, left : left + 2 * around, 0].astype(float)
        y, x = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
        found.append(complex((part * x).sum(), (part * y).sum()) / part.sum() + left + 1j * top)
    return np.array(found)


def smooth(height: int, width: int, channels: int = 3) -> Pixels:
    """A photo of waves that are many pixels long."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (17 + 3 * i) + i) * np.cos(y / (23 - 2 * i)) for i in range(channels)]
    return np.stack(waves, axis=2).astype(np.float32) * np.float32(0.4) + np.float32(0.5)
