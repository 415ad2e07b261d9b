"""Faces put back over a background that comes in bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from drawn_faces import middles, placed, smooth, spots

from resshift_cli.imaging.faces import SIDE, TEMPLATE, Placement
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.pasting import Pasting, Restore


def unchanged(faces: Sequence[Pixels]) -> list[Pixels]:
    return [face.copy() for face in faces]


def painted(level: float) -> Restore:
    return lambda faces: [np.full((SIDE, SIDE, 3), level, np.float32) for _ in faces]


def put(
    photo: Pixels,
    places: Sequence[Placement],
    restore: Restore = unchanged,
    background: Pixels | None = None,
    **options: Any,
) -> Pixels:
    """Faces of a photo put over it, or over a background, in bands of 50 rows."""
    below = photo if background is None else background
    height, width, channels = below.shape
    bands = [below[top : top + 50] for top in range(0, height, 50)]
    colours = photo[..., : 1 if photo.shape[2] < 3 else 3]
    pasting = Pasting(restore, **{"at_once": 2} | options)
    size = (photo.shape[0], photo.shape[1])
    result = pasting.onto(bands, (height, width, channels), [colours], size, places)
    return np.concatenate(list(result))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_not_changed_gives_the_photo_back_bit_for_bit(channels: int) -> None:
    """Faces that overlap, are turned, larger than what is cut out, and cut by borders."""
    photo = np.random.default_rng(0).random((180, 200, channels), np.float32)
    places = [placed(70, 60 + 60j), placed(90, 100 + 70j, 2.0), placed(700, 100 + 90j, 0.2)]
    places += [placed(80, 3 + 170j)]
    assert (put(photo, places) == photo).all()


def test_what_is_painted_on_a_face_lies_on_its_landmarks_in_the_enlarged_photo() -> None:
    photo, place = np.zeros((100, 130, 3), np.float32), placed(80, 66 + 50j, 0.4)
    marks = spots((SIDE, SIDE), TEMPLATE, 12)
    drawn = put(
        photo,
        [place],
        lambda faces: [np.repeat(marks, 3, axis=2)],
        np.zeros((250, 325, 3), np.float32),
    )
    there = place.back(TEMPLATE) * 2.5
    assert np.abs(middles(drawn, there, 12) - there).max() < 0.5


def test_a_face_is_what_was_restored_and_all_around_it_the_background() -> None:
    photo, background = smooth(80, 80), np.zeros((160, 160, 3), np.float32)
    result = put(photo, [placed(60, 40 + 40j)], painted(0.7), background)
    np.testing.assert_allclose(result[84, 80], 0.7, atol=1e-5)
    assert (result[:5] == 0).all() and (result[:, :5] == 0).all()


def test_the_finest_detail_of_a_large_face_stays() -> None:
    photo = np.full((1100, 1100, 1), 0.5, np.float32)
    photo[::2, ::2] += 0.1
    result = put(photo, [placed(1536, 550 + 500j)], painted(0.25))
    centre = result[540:560, 540:560, 0]
    assert abs(centre.mean() - 0.25) < 1e-3
    np.testing.assert_allclose(
        centre - centre.mean(), photo[540:560, 540:560, 0] - 0.525, atol=0.01
    )


def test_later_faces_cover_earlier_ones_whichever_comes_first_from_the_top() -> None:
    photo = np.zeros((120, 80, 3), np.float32)
    upper, lower = placed(70, 40 + 40j), placed(70, 40 + 76j)
    levels = iter([0.2, 0.8])
    restore: Restore = lambda faces: [np.full((SIDE, SIDE, 3), next(levels), np.float32)]  # noqa: E731
    assert put(photo, [upper, lower], restore, at_once=1)[60, 40, 0] > 0.7
    levels = iter([0.2, 0.8])
    assert put(photo, [lower, upper], restore, at_once=1)[60, 40, 0] < 0.3


def test_faces_are_restored_some_at_a_time_when_their_rows_are_asked_for() -> None:
    photo = smooth(1200, 60, 1)
    places = [placed(50, 30 + 1j * y) for y in range(40, 1180, 60)]
    calls: list[int] = []

    def restore(faces: Sequence[Pixels]) -> list[Pixels]:
        calls.append(len(faces))
        return unchanged(faces)

    pasting = Pasting(restore, at_once=3)
    bands = pasting.onto([photo], photo.shape, [photo], (1200, 60), places)
    first = next(bands)
    assert calls == [3] and (first == photo[: len(first)]).all()
    assert (np.concatenate([first, *bands]) == photo).all()
    assert calls == [3] * 6 + [len(places) - 18]


def test_what_alpha_hides_and_alpha_itself_stay() -> None:
    photo = np.concatenate([smooth(80, 80), np.ones((80, 80, 1), np.float32)], axis=2)
    photo[:, 40:, 3] = 0
    result = put(photo, [placed(60, 40 + 40j)], painted(0.9))
    assert (result[:, 40:] == photo[:, 40:]).all() and (result[..., 3] == photo[..., 3]).all()
    np.testing.assert_allclose(result[40, 36, :3], 0.9, atol=1e-5)


def test_all_of_a_face_that_was_cut_out_is_put_back_up_to_its_borders() -> None:
    photo = np.random.default_rng(1).random((64, 64, 3), np.float32)
    place = Placement(complex(SIDE / 64), 0j)
    assert (put(photo, [place], whole=True) == photo).all()
    level = put(np.full((64, 64, 3), 0.4, np.float32), [place], painted(0.9), whole=True)
    np.testing.assert_allclose(level, 0.9, atol=1e-5)
