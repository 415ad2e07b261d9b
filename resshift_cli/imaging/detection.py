"""Find faces in photos of any size, with the detector YuNet as OpenCV runs it.

It sees faces of about 10 to 300 pixels. So a photo is looked at in several sizes, each half of the
one before, and each in tiles that share more than such a face; the same face found twice is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.errors import ModelUnavailableError, UsageError
from resshift_cli.imaging.faces import Face
from resshift_cli.imaging.picture import Pixels, levels

Levels = NDArray[np.uint8]

SURE = 0.88
"""Least score of a face: food, leaves and dogs come up to that, faces of 24 pixels and more mostly
reach it. One that is missed stays as it is; one that is none would be made into one."""

SMALLEST = 16  # pixels of a face where it is looked for, so that it is found surely
TILE, OVERLAP = 1024, 256  # pixels, in every size of a photo
COARSEST = 320  # pixels along the longer side of its last size, in which a face may fill it
MOST = 50_000_000  # pixels of a photo that is looked at as it is, and not only smaller
SAME = 0.4  # of two boxes' union is shared where they are of the same face
EDGE = 2  # pixels from where a tile was cut: a face that comes so near is found in another


def check_installed() -> None:
    """Find out whether OpenCV is here, without importing it.

    Raises:
        UsageError: it is not.
    """
    if find_spec("cv2") is None:
        raise UsageError(
            "To find faces takes OpenCV, which is not installed.",
            hint="Install it with `pip install 'resshift[face]'`, or give faces that are cut out "
            "and upright already (--aligned).",
        )


def looked_at(rows: Iterable[Pixels], shape: tuple[int, int, int]) -> tuple[Levels, int]:
    """A photo as it is looked at, uint8 (h, w, 3), and how many times smaller it is.

    Args:
        rows: bands of it, float32 (n, W, 1 or 3) in [0, 1].
        shape: (H, W, C) of it.
    """
    height, width, _ = shape
    step = 1
    while height * width > MOST * step * step:
        step += 1
    photo = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
    top, held = 0, np.empty((0, width, 3), np.uint8)
    for band in rows:
        held = np.concatenate([held, np.broadcast_to(levels(band, 8), (*band.shape[:2], 3))])
        ready = len(held) // step * step
        if ready:
            photo[top : top + ready // step] = _smaller(held[:ready], step)
            top, held = top + ready // step, held[ready:]
    if len(held):
        photo[top:] = _smaller(held, step)
    return photo, step


def _smaller(photo: Levels, step: int) -> Levels:
    return photo if step == 1 else np.asarray(Image.fromarray(photo).reduce(step))


class Detector:
    """YuNet, ready to run.

    Args:
        path: its file.

    Raises:
        UsageError: OpenCV is not installed.
        ModelUnavailableError: the file is damaged, or another one.
    """

    def __init__(self, path: Path) -> None:
        check_installed()
        import cv2

        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            content = np.fromfile(path, np.uint8)
            self._network = cv2.FaceDetectorYN.create(
                "onnx", content, np.empty(0, np.uint8), (COARSEST, COARSEST), SURE
            )
        except (OSError, cv2.error) as error:
            raise ModelUnavailableError(
                f"{path} is no face detector that OpenCV can load.",
                hint="`resshift models verify face` says whether it is damaged.",
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(before)

    def find(self, photo: Levels, smallest: float = SMALLEST) -> list[Face]:
        """The faces of a photo, the largest first.

        Args:
            photo: uint8 (H, W, 3), RGB.
            smallest: size of the faces that matter; smaller ones are found where that is easy.
        """
        step = 1
        while smallest >= 2 * step * SMALLEST:
            step *= 2
        photo = _smaller(photo, step)
        found: list[Face] = []
        while True:
            found += self._in_tiles(photo, step)
            if max(photo.shape[:2]) <= COARSEST:
                return _each_once(found)
            photo, step = _smaller(photo, 2), step * 2

    def _in_tiles(self, photo: Levels, step: int) -> Iterator[Face]:
        height, width, _ = photo.shape
        for top in _starts(height):
            for left in _starts(width):
                tile = photo[top : top + TILE, left : left + TILE]
                ends = (left + tile.shape[1] < width, top + tile.shape[0] < height)
                for row in self._detected(tile):
                    if not _is_cut(row, tile.shape, begins=(left > 0, top > 0), ends=ends):
                        yield _face(row, complex(left, top), step)

    def _detected(self, tile: Levels) -> Iterable[Sequence[float]]:
        height, width, _ = tile.shape
        self._network.setInputSize((width, height))
        rows: Any = self._network.detect(np.ascontiguousarray(tile[..., ::-1]))[1]
        return [] if rows is None else rows.tolist()


def _starts(length: int) -> range:
    """Where tiles begin along an axis."""
    return range(0, max(length - OVERLAP, 1), TILE - OVERLAP)


def _is_cut(
    row: Sequence[float],
    shape: tuple[int, ...],
    *,
    begins: tuple[bool, bool],
    ends: tuple[bool, bool],
) -> bool:
    """Whether a face comes near a side, of x or y, at which the photo goes on."""
    sides = zip(row[:2], row[2:4], (shape[1], shape[0]), begins, ends, strict=True)
    return any(
        (before and start < EDGE) or (after and start + extent > length - EDGE)
        for start, extent, length, before, after in sides
    )


def _face(row: Sequence[float], corner: complex, step: int) -> Face:
    """A face of what YuNet gives: box, landmarks and score, in a tile that begins at a corner."""
    x, y = row[0] + corner.real, row[1] + corner.imag
    points = tuple(complex(row[i], row[i + 1]) + corner for i in range(4, 14, 2))
    return Face(x, y, row[2], row[3], points, row[14]).larger(step)


def _each_once(found: Iterable[Face]) -> list[Face]:
    """Faces without those that were found twice, of which the surest stays; the largest first."""
    kept: list[Face] = []
    for face in sorted(found, key=lambda face: -face.score):
        if all(_shared(face, other) < SAME for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: (-face.size, face.top, face.left))


def _shared(one: Face, other: Face) -> float:
    """What of two boxes' union both have."""
    across = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    down = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    both = max(across, 0.0) * max(down, 0.0)
    return both / (one.width * one.height + other.width * other.height - both)
