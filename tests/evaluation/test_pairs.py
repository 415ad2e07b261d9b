"""Originals and their partners: found, read, cut and degraded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_study import draw, setup, single
from PIL import Image

from resshift_cli.errors import (
    InputMissingError,
    UnsupportedImageError,
)
from resshift_cli.evaluation.pairs import Setup, find_pairs, read_pair
from resshift_cli.imaging.picture import Pixels


def test_partners_are_found_by_name_with_or_without_the_scale(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "in/c.png"):
        draw(tmp_path / "hq" / name)
    for name in ("a.png", "bx4.png", "in/c_x4.jpg", "other.png"):
        draw(tmp_path / "lq" / name, (16, 12))
    pairs, left_out = find_pairs(tmp_path / "hq", tmp_path / "lq", scale=4, output=None)
    assert [(pair.name, pair.lq and pair.lq.name) for pair in pairs] == [
        ("a.png", "a.png"),
        ("b.jpg", "bx4.png"),
        ("in/c.png", "c_x4.jpg"),
    ]
    assert left_out == {}


def test_an_original_without_a_partner_is_left_out_with_its_name(tmp_path: Path) -> None:
    draw(tmp_path / "hq" / "a.png")
    draw(tmp_path / "hq" / "b.png")
    draw(tmp_path / "lq" / "ax2.png")
    draw(tmp_path / "lq" / "b.png")
    pairs, left_out = find_pairs(tmp_path / "hq", tmp_path / "lq", scale=4, output=None)
    assert [pair.name for pair in pairs] == ["b.png"]
    assert "a.png has no partner" in str(left_out["a.png"])


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputMissingError, match="no images"):
        find_pairs(tmp_path, None, scale=4, output=None)
    draw(tmp_path / "a.png")
    (tmp_path / "lq").mkdir()
    with pytest.raises(InputMissingError, match="lq") as caught:
        find_pairs(tmp_path, tmp_path / "lq", scale=4, output=None)
    assert "--lq" in caught.value.hint


def test_the_limit_takes_the_first_ones_and_results_are_no_originals(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.png", "out/images/x/a.png"):
        draw(tmp_path / name)
    pairs, _ = find_pairs(tmp_path, None, scale=4, output=tmp_path / "out", limit=2)
    assert [pair.name for pair in pairs] == ["a.png", "b.png"]
    pairs, _ = find_pairs(tmp_path, None, scale=4, output=tmp_path / "out")
    assert len(pairs) == 3


def test_originals_lose_what_is_too_much_at_the_right_and_below(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", (67, 49))
    original, partner = read_pair(single(path), setup())
    assert original.shape == (48, 64, 3) and partner.shape == (12, 16, 3)
    with Image.open(path) as image:
        assert (np.asarray(image)[:48, :64] == np.rint(original * 255)).all()


def test_a_given_partner_is_taken_as_it_is(tmp_path: Path) -> None:
    hq = draw(tmp_path / "a.png", (67, 49))
    lq = draw(tmp_path / "lq.png", (16, 12), seed=5)
    _, partner = read_pair(single(hq, lq), setup())
    with Image.open(lq) as image:
        assert (np.asarray(image) == np.rint(partner * 255)).all()


@pytest.mark.parametrize("size", [(17, 12), (16, 13), (64, 48), (15, 12)])
def test_a_partner_of_the_wrong_size_is_refused_with_both_sizes(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pair = single(draw(tmp_path / "a.png", (67, 49)), draw(tmp_path / "b.png", size))
    with pytest.raises(UnsupportedImageError, match=f"{size[0]}x{size[1]}.*67x49") as caught:
        read_pair(pair, setup())
    assert "16x12" in caught.value.hint


def test_the_crop_is_the_same_place_in_original_and_partner(tmp_path: Path) -> None:
    hq = draw(tmp_path / "a.png", (128, 96))
    whole, small = read_pair(single(hq), setup())
    lq = tmp_path / "lq.png"
    Image.fromarray(np.rint(small * 255).astype(np.uint8)).save(lq)
    original, partner = read_pair(single(hq, lq), setup(crop=40))
    assert original.shape == (40, 40, 3) and partner.shape == (10, 10, 3)
    assert (original == whole[28:68, 44:84]).all()
    assert (partner == small[7:17, 11:21]).all()


def test_what_has_no_room_for_the_window_is_refused(tmp_path: Path) -> None:
    read_pair(single(draw(tmp_path / "a.png", (64, 20))), setup())
    with pytest.raises(UnsupportedImageError, match="too small"):
        read_pair(single(draw(tmp_path / "b.png", (64, 19))), setup())


def test_gray_counts_as_rgb_and_transparency_is_refused(tmp_path: Path) -> None:
    original, _ = read_pair(single(draw(tmp_path / "a.png", mode="L")), setup())
    assert (original[..., 0] == original[..., 2]).all()
    opaque = draw(tmp_path / "b.png", mode="RGBA")
    read_pair(single(opaque), setup())
    with Image.open(opaque) as image:
        image.putalpha(100)
        image.save(tmp_path / "c.png")
    with pytest.raises(UnsupportedImageError, match="transparent"):
        read_pair(single(tmp_path / "c.png"), setup())


@pytest.mark.parametrize("kind", ["mild", "realistic"])
def test_a_degradation_follows_from_seed_and_name_alone(tmp_path: Path, kind: str) -> None:
    first, second = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    asked = setup(degrade=kind)

    def partner(path: Path, asked: Setup) -> Pixels:
        return read_pair(single(path), asked)[1]

    clean = partner(first, setup())
    assert (partner(first, asked) == partner(first, asked)).all()
    assert (partner(first, asked) != clean).any()
    assert (partner(first, asked) != partner(second, asked)).any()
    assert (partner(first, asked) != partner(first, setup(degrade=kind, seed=1))).any()
