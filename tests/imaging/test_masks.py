"""Which pixels of a photo are to be filled, and how what fills them gets in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resshift_cli.errors import ImageUnreadableError, InputMissingError, UsageError
from resshift_cli.imaging.masks import Hole, Mask, Rectangle
from resshift_cli.imaging.picture import Pixels

PHOTO = np.random.default_rng(0).random((12, 20, 3), dtype=np.float32)


def unknown(mask: Mask, photo: Pixels = PHOTO) -> np.ndarray:
    """Found in bands, as a large photo's is."""
    return mask.hole([photo[:5], photo[5:]], photo.shape, "photo.png").unknown


def saved(path: Path, pixels: object) -> str:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return str(path)


def test_a_mask_s_file_is_light_where_pixels_are_unknown(tmp_path: Path) -> None:
    gray = np.arange(240).reshape(12, 20)
    assert (unknown(Mask(saved(tmp_path / "m.png", gray))) == (gray > 127)).all()
    veiled = np.full((12, 20, 4), 255)
    veiled[:, :7, 3] = 0
    assert unknown(Mask(saved(tmp_path / "v.png", veiled)))[:, 7:].all()
    assert not unknown(Mask(saved(tmp_path / "v.png", veiled)))[:, :7].any()


def test_a_colour_of_the_photo_says_it_in_eight_bits() -> None:
    photo = PHOTO.copy()
    photo[3:5, 2:9] = np.array([255, 0, 255], np.float32) / 255 + np.float32(0.001)
    found = unknown(Mask("#Ff00fF"), photo.clip(0, 1))
    assert found[3:5, 2:9].all() and found.sum() == 14


def test_what_is_not_opaque_says_it_and_is_so_when_it_is_filled() -> None:
    photo = np.concatenate([PHOTO, np.ones_like(PHOTO[..., :1])], axis=-1)
    photo[2:4, 5:9, 3] = [0, 0.2, 0.99, 0]
    hole = Mask("alpha").hole([photo], photo.shape, "photo.png")
    assert hole.unknown[2:4, 5:9].all() and hole.unknown.sum() == 8
    result = hole.filled(photo, 0, 0, np.zeros_like(PHOTO))
    assert (result[..., 3] == 1).all() and (result[2:4, 5:9, :3] == 0).all()


def test_rectangles_add_to_it_and_inverted_it_is_all_else() -> None:
    boxes = (Rectangle(1, 2, 3, 4), Rectangle(15, 10, 100, 100))
    found = unknown(Mask(boxes=boxes))
    assert found[2:6, 1:4].all() and found[10:, 15:].all() and found.sum() == 22
    assert (unknown(Mask(boxes=boxes, invert=True)) == ~found).all()


def test_a_hole_grows_by_a_disc() -> None:
    point = np.zeros((11, 13), dtype=bool)
    point[5, 6] = True
    y, x = np.mgrid[:11, :13]
    for radius in (1, 2, 4, 40):
        near = (y - 5) ** 2 + (x - 6) ** 2 <= radius**2
        assert (Hole.of(point, grow=radius).unknown == near).all()


def test_an_edge_is_feathered_within_the_hole_alone() -> None:
    hole = Hole.of(np.pad(np.ones((20, 20), dtype=bool), 5), feather=4)
    assert (hole.share[~hole.unknown] == 0).all()
    assert (hole.share[9:21, 9:21] == 1).all()
    line = hole.share[15, 5:10]
    assert (np.diff(line) > 0).all() and 0 < line[0] < 0.2


def test_what_is_known_comes_back_bit_for_bit_with_its_alpha() -> None:
    photo = np.random.default_rng(1).random((6, 8, 4), dtype=np.float32)
    mask = np.zeros((6, 8), dtype=bool)
    mask[2:4, 3:6] = True
    hole = Hole.of(mask, feather=1)
    result = hole.filled(photo[1:5], 1, 2, np.ones((4, 5, 3), np.float32))
    assert (result[~mask[1:5]] == photo[1:5][~mask[1:5]]).all()
    assert (result[..., 3] == photo[1:5, :, 3]).all()
    assert (result[mask[1:5]][:, :3] > photo[1:5][mask[1:5]][:, :3]).all()


@pytest.mark.parametrize(
    ("mask", "problem", "way_out"),
    [
        (
            Mask(boxes=(Rectangle(20, 0, 5, 5),)),
            "20,0,5,5 lies outside of photo.png, 20x12",
            "--box",
        ),
        (Mask("#123456"), "leaves nothing of photo.png to be filled", "JPEG rarely keeps one"),
        (Mask("#123456", invert=True), "leaves nothing of photo.png known", "--invert"),
        (Mask(boxes=(Rectangle(9, 9, 1, 1),), grow=99), "nothing of photo.png kno", "--grow"),
        (Mask("#fff"), "'#fff' is no colour", "#ff00ff"),
        (Mask("alpha"), "photo.png has no alpha", "--mask"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: Mask, problem: str, way_out: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        mask.check(mask.hole([PHOTO], PHOTO.shape, "photo.png"), "photo.png")
    assert way_out in caught.value.hint


def test_a_mask_s_file_has_to_be_an_image_of_the_photo_s_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"m\.png is 12x20, and photo\.png is 20x12") as caught:
        unknown(Mask(saved(tmp_path / "m.png", np.full((20, 12), 255))))
    assert "upright" in caught.value.hint
    with pytest.raises(UsageError, match="is a folder") as caught:
        unknown(Mask(str(tmp_path)))
    assert "--masks" in caught.value.hint
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageUnreadableError):
        unknown(Mask(str(tmp_path / "text.png")))
    with pytest.raises(InputMissingError):
        unknown(Mask(str(tmp_path / "none.png")))


def test_a_mask_that_says_nothing_or_shows_what_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="Nothing says which pixels") as caught:
        Mask()
    assert "--mask" in caught.value.hint and "--box" in caught.value.hint
    with pytest.raises(UsageError, match="none where it is transparent") as caught:
        Mask("alpha", grow=2, feather=3)
    assert "--grow" in caught.value.hint
