"""Faces cut out upright and put back: geometry, whoever found them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_faces import face, middles, placed, smooth, spots

from resshift_cli.errors import ImageArgumentError
from resshift_cli.imaging import faces
from resshift_cli.imaging.faces import SIDE, TEMPLATE, Patch, Placement, Region
from resshift_cli.imaging.picture import Pixels

# A small face, one that is turned, one that is larger than what is cut out, two beyond a border.
PLACES = [(60, 80 + 70j, 0.0), (150, 90 + 90j, 0.5), (700, 150 + 110j, -0.2)]
PLACES += [(120, 10 + 60j, 0.1), (120, 190 + 150j, 3.0)]


def cut_out(photo: Pixels, place: Placement) -> Pixels:
    region = faces.seen(place).within(photo.shape[0], photo.shape[1])
    part = photo[region.top : region.bottom, region.left : region.right]
    return faces.cut(part, region, place)


@pytest.mark.parametrize(("side", "middle", "angle"), PLACES)
def test_landmarks_of_a_face_come_to_lie_on_the_template(
    side: float, middle: complex, angle: float
) -> None:
    place, found = placed(side, middle, angle), face(side, middle, angle).upright
    assert abs(found.turn - place.turn) < 1e-9 and abs(found.shift - place.shift) < 1e-6
    photo = spots((160, 200), place.back(TEMPLATE), side / 40)
    cut = cut_out(photo, place)
    within = [p for p in TEMPLATE if 2 < place.back(p).real < 198 and 2 < place.back(p).imag < 158]
    seen = middles(cut, np.array(within), 30)
    assert within and np.abs(seen - np.array(within)).max() < 0.5


@pytest.mark.parametrize(("side", "middle", "angle"), PLACES[:3])
def test_what_is_put_back_lies_on_the_landmarks(side: float, middle: complex, angle: float) -> None:
    place = placed(side, middle, angle)
    patch = Patch.of(spots((SIDE, SIDE), TEMPLATE, 12), place, (160, 200))
    photo = faces.blended(np.zeros((160, 200, 1), np.float32), 0, [patch], 1.0, 1)
    there = place.back(TEMPLATE)
    width = max(3, round(side * 30 / SIDE))
    inside = [p for p in there if width < p.real < 200 - width and width < p.imag < 160 - width]
    seen = middles(photo, np.array(inside), width)
    assert inside and np.abs(seen - np.array(inside)).max() < 0.5


@pytest.mark.parametrize(("side", "angle"), [(120, 0.4), (300, -1.0), (512, 0.0)])
def test_a_face_there_and_back_is_the_photo_within_a_level(side: float, angle: float) -> None:
    photo, place = smooth(320, 340), placed(side, 170 + 150j, angle)
    patch = Patch.of(cut_out(photo, place), place, (320, 340))
    region = patch.region
    back, share = patch.rows(region.top, region.bottom)
    own = photo[region.top : region.bottom, region.left : region.right]
    inside = np.broadcast_to(share == 1, own.shape)
    assert np.abs(back - own)[inside].max() < 1 / 255


def test_a_change_counts_less_and_less_towards_the_border_of_a_face() -> None:
    place = placed(400, 200 + 200j)
    patch = Patch.of(np.ones((SIDE, SIDE, 1), np.float32), place, (400, 400))
    band = faces.blended(np.zeros((400, 400, 1), np.float32), 0, [patch], 1.0, 1)[..., 0]
    marks = np.array(
        place(np.array([[x + 0.5 + 1j * (y + 0.5) for x in range(400)] for y in range(400)]))
    )
    away = np.abs(marks - faces.MIDDLE)
    assert (band[away < faces.INNER] == 1).all() and (band[away > faces.OUTER] == 0).all()
    assert np.abs(np.diff(band, axis=0)).max() < 0.04


def test_half_the_strength_is_half_the_change_and_none_leaves_every_bit() -> None:
    photo = np.random.default_rng(0).random((100, 100, 3), np.float32) * np.float32(0.9)
    patch = Patch.of(np.full((SIDE, SIDE, 3), 0.1, np.float32), placed(80, 50 + 50j), (100, 100))
    half, whole, none = (faces.blended(photo, 0, [patch], s, 3) for s in (0.5, 1.0, 0.0))
    assert (none == photo).all()
    np.testing.assert_allclose(half[50, 50], (photo[50, 50] + whole[50, 50]) / 2, atol=1e-6)
    still = replace(patch, change=patch.change * 0)
    assert (faces.blended(photo, 0, [still], 1.0, 3) == photo).all()


def test_where_faces_overlap_the_later_one_is_seen() -> None:
    black = np.zeros((100, 160, 1), np.float32)
    left, right = (
        Patch.of(np.full((SIDE, SIDE, 1), level, np.float32), placed(90, middle), (100, 160))
        for level, middle in ((0.25, 60 + 50j), (0.75, 100 + 50j))
    )
    one, other = (
        faces.blended(black, 0, order, 1.0, 1)[50, :, 0] for order in ((left, right), (right, left))
    )
    assert one[80] == 0.75 and other[80] == 0.25
    assert (np.diff(one[60:100]) >= 0).all()


def test_rows_in_parts_are_the_rows_of_the_whole() -> None:
    photo = smooth(100, 120)
    patches = [Patch.of(smooth(SIDE, SIDE), placed(90, 60 + 55j, 0.3), (100, 120))]
    whole = faces.blended(photo, 0, patches, 1.0, 3)
    parts = [faces.blended(photo[t : t + 30], t, patches, 1.0, 3) for t in range(0, 100, 30)]
    assert (np.concatenate(parts) == whole).all()


def test_a_large_face_is_brought_down_without_aliases() -> None:
    stripes = np.zeros((1500, 1500, 1), np.float32)
    stripes[:, ::2] = 1
    cut = cut_out(stripes, placed(1200, 750 + 750j, 0.1))
    assert np.abs(cut - 0.5).max() < 0.02


def test_beyond_a_border_a_face_is_mirrored() -> None:
    photo = smooth(64, 64, 1)
    cut = cut_out(photo, placed(SIDE, 0 + 32j))
    assert cut.shape == (SIDE, SIDE, 1)
    np.testing.assert_allclose(cut[:, :250], cut[:, -250:][:, ::-1], atol=1e-5)


def test_a_face_has_its_place_in_an_enlarged_photo() -> None:
    place = placed(80, 50 + 40j, 0.3)
    larger = place.of_larger(2.5, 2.5)
    points = place.back(TEMPLATE) * 2.5
    np.testing.assert_allclose(larger(points), TEMPLATE, atol=1e-6)
    assert place.of_larger(1, 1) == place


def test_a_face_that_looks_away_is_known_by_its_landmarks() -> None:
    facing = face(100, 50 + 50j, 0.3)
    assert not facing.is_turned
    points = np.array(facing.landmarks)
    narrow = points.real.mean() + (points.real - points.real.mean()) * 0.3 + 1j * points.imag
    assert replace(facing, landmarks=tuple(narrow)).is_turned
    assert replace(facing, landmarks=(1 + 1j,) * 5).is_turned


def test_colours_between_pixels_are_exact_on_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[None, :, None], (9, 20, 1))
    points = np.array([[5.5 + 4.5j, 6.1 + 4.2j, 7.75 + 3j]])
    np.testing.assert_allclose(faces.sampled(ramp, points)[0, :, 0], [5, 5.6, 7.25], atol=1e-5)


def test_a_region_outside_an_image_is_at_least_a_pixel() -> None:
    assert Region(50, 60, 70, 80).within(10, 20) == Region(19, 9, 20, 10)
    assert Region(-9, -9, -1, -1).within(10, 20) == Region(0, 0, 1, 1)


def test_what_is_not_square_was_not_cut_out() -> None:
    with pytest.raises(ImageArgumentError, match="me.png is 20x10") as caught:
        faces.check_cut_out(10, 20, "me.png")
    assert "--aligned" in caught.value.hint
