from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from pictures import made_up_photo
from PIL import Image
from PIL.ExifTags import Base

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    UnsupportedImageError,
    UsageError,
)
from resshift_cli.training import photos as room
from resshift_cli.training.photos import PhotoFiles, Pictures, open_pictures, split

# Which pictures


def listing(folder: Path, rows: str) -> Path:
    (folder / "photos.csv").write_text(rows)
    return folder / "photos.csv"


def test_the_list_decides_which_photos_are_held_out(photos: Path, tmp_path: Path) -> None:
    rows = "file,split,licence\n2.png,held-out,CC0\n1.png,train,CC0\n0.png,train,CC0\n"
    kept, held_out = split([photos], listing(tmp_path, rows), paired=False)
    assert kept == [photos / "1.png", photos / "0.png"]
    assert held_out == [photos / "2.png"]


def test_without_a_list_every_tenth_image_of_the_folder_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    images = [tmp_path / f"{i:02}.png" for i in range(11)] + [tmp_path / "deep" / "x.JPG"]
    for path in [*images, tmp_path / "notes.txt"]:
        path.touch()
    kept, held_out = split([tmp_path], None, paired=False)
    assert held_out == sorted(images)[::10]
    assert sorted(kept + held_out) == sorted(images)


@pytest.mark.parametrize("images", [[], ["only.png"]])
def test_a_folder_with_too_few_images_is_refused(tmp_path: Path, images: list[str]) -> None:
    for name in images:
        (tmp_path / name).touch()
    with pytest.raises(InputMissingError, match="too few images") as caught:
        split([tmp_path], None, paired=False)
    assert "--photos" in caught.value.hint


def test_a_listed_photo_that_is_missing_is_named(photos: Path, tmp_path: Path) -> None:
    rows = "file,split\n0.png,held-out\n1.png,train\nlost.png,train\n"
    with pytest.raises(InputMissingError, match=r"lost\.png is missing"):
        split([photos], listing(tmp_path, rows), paired=False)


def test_a_missing_list_is_said_to_be_missing(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"photos\.csv can't be read"):
        split([photos], tmp_path / "photos.csv", paired=False)


@pytest.mark.parametrize(
    "rows", ["name,split\n0.png,train\n", "file\n0.png\n", "file,split\n0,x\n"]
)
def test_a_list_without_its_columns_or_splits_is_refused(
    photos: Path, tmp_path: Path, rows: str
) -> None:
    with pytest.raises(UsageError, match=r"photos\.csv does not fit") as caught:
        split([photos], listing(tmp_path, rows), paired=False)
    assert "`held-out`" in caught.value.hint


def test_photos_are_rgb_and_the_small_ones_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"{side}.png" for side in (64, 63, 80)]
    Image.new("L", (64, 64), 7).save(paths[0])
    Image.new("RGB", (63, 200)).save(paths[1])
    Image.new("RGBA", (90, 80)).save(paths[2])
    loaded = open_pictures(paths, 64, None).hq
    assert [photo.shape for photo in loaded] == [(64, 64, 3), (80, 90, 3)]
    assert loaded[0].dtype == np.uint8 and (loaded[0] == 7).all()


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_text("no image")
    with pytest.raises(ImageUnreadableError, match=r"fake\.png is not an image") as caught:
        open_pictures([tmp_path / "fake.png"], 64, None)
    assert "out of the photos" in caught.value.hint


def test_a_truncated_photo_is_named(photos: Path) -> None:
    whole = (photos / "0.png").read_bytes()
    (photos / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageUnreadableError, match=r"0\.png is cut short or damaged") as caught:
        open_pictures([photos / "0.png"], 64, None)
    assert "out of the photos" in caught.value.hint


# What `upscale` reads


def test_a_gray_picture_of_16_bits_is_rounded_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(tmp_path / "deep.png")
    (photo,) = open_pictures([tmp_path / "deep.png"], 64, None).hq
    assert photo.shape == (64, 64, 3) and (photo == round(40_000 / 257)).all()


def test_a_photo_that_lies_on_its_side_is_stood_up(tmp_path: Path) -> None:
    lying = Image.fromarray(made_up_photo(0, 96)[:64])
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif, quality=100)
    (photo,) = open_pictures([tmp_path / "lying.jpg"], 64, None).hq
    assert photo.shape == (96, 64, 3)
    upright = np.asarray(lying.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(photo.astype(int) - upright).mean() < 3


def test_pictures_of_other_formats_are_found_and_read(tmp_path: Path) -> None:
    for name in ("a.avif", "b.gif", "c.png"):
        Image.fromarray(made_up_photo(0, 96)).save(tmp_path / name)
    kept, held_out = split([tmp_path], None, paired=False)
    pictures = open_pictures(held_out + kept, 64, None).hq
    assert [photo.shape for photo in pictures] == [(96, 96, 3)] * 3
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() < 5


def test_colours_of_cmyk_follow_its_profile_or_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (64, 64)).save(tmp_path / "ink.jpg")
    with pytest.raises(UnsupportedImageError, match=r"ink\.jpg is in CMYK colours without"):
        open_pictures([tmp_path / "ink.jpg"], 64, None)


def test_of_further_folders_every_tenth_image_is_held_out(photos: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    for number in range(12):
        (pages / f"{number:02}.png").touch()
    rows = "file,split\n0.png,held-out\n1.png,train\n"
    kept, held_out = split([photos, pages], listing(tmp_path, rows), paired=False)
    assert held_out == [photos / "0.png", pages / "00.png", pages / "10.png"]
    assert kept[0] == photos / "1.png" and len(kept) == 11
    kept, held_out = split([photos, pages], None, paired=False)
    assert held_out == [photos / "0.png", pages / "00.png", pages / "10.png"]
    assert len(kept) == 12


def test_pictures_that_are_all_too_small_are_a_usage_error(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"Of 2 photos, the first .*1\.png, none has 101 pixels"):
        open_pictures([photos / "1.png", photos / "2.png"], 101, None)


# Pairs


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pairs at x4, one in a folder of its own."""
    folder = tmp_path / "pairs"
    for number, name in enumerate(["a.png", "deep/b.png"]):
        image = Image.fromarray(made_up_photo(number, 96)[: 96 - 16 * number])
        for kind, reduced in (("hq", image), ("lq", image.reduce(4))):
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            reduced.save(path)
    return folder


def test_pairs_have_the_same_name_in_two_folders(pairs: Path) -> None:
    kept, held_out = split([pairs], None, paired=True)
    assert held_out == [pairs / "hq" / "a.png"] and kept == [pairs / "hq" / "deep" / "b.png"]
    opened = open_pictures(held_out + kept, 64, 4)
    assert [photo.shape for photo in opened.hq] == [(96, 96, 3), (80, 96, 3)]
    assert [photo.shape for photo in opened.partners] == [(24, 24, 3), (20, 24, 3)]
    averages = opened.hq[1].reshape(20, 4, 24, 4, 3).mean((1, 3))
    assert np.abs(opened.partners[1] - averages).max() <= 1


def test_a_list_names_pairs_within_their_folder(pairs: Path, tmp_path: Path) -> None:
    rows = "file,split\ndeep/b.png,held-out\na.png,train\n"
    kept, held_out = split([pairs], listing(tmp_path, rows), paired=True)
    assert (kept, held_out) == ([pairs / "hq" / "a.png"], [pairs / "hq" / "deep" / "b.png"])


def test_a_picture_without_its_partner_is_named(pairs: Path) -> None:
    (pairs / "lq" / "deep" / "b.png").unlink()
    with pytest.raises(InputMissingError, match=r"lq/deep/b\.png, the partner of") as caught:
        open_pictures([pairs / "hq" / "a.png", pairs / "hq" / "deep" / "b.png"], 64, 4)
    assert "`lq`" in caught.value.hint


def test_a_partner_without_its_picture_is_named(pairs: Path) -> None:
    (pairs / "hq" / "deep" / "b.png").unlink()
    with pytest.raises(InputMissingError, match=r"lq/deep/b\.png is the partner of nothing"):
        split([pairs], None, paired=True)


def test_a_partner_of_the_wrong_size_is_named_with_both_sizes(pairs: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.png is 24x24 px and .*a\.png 96x96, .* 2 times"):
        open_pictures([pairs / "hq" / "a.png"], 64, 2)
    Image.new("RGB", (23, 24)).save(pairs / "lq" / "a.png")
    with pytest.raises(UsageError, match="23x24 px") as caught:
        open_pictures([pairs / "hq" / "a.png"], 64, 4)
    assert "multiples of 4" in caught.value.hint


def test_a_folder_without_pairs_is_refused(photos: Path) -> None:
    with pytest.raises(InputMissingError, match="too few images") as caught:
        split([photos], None, paired=True)
    assert "`hq` and `lq`" in caught.value.hint


def test_pictures_alone_have_no_partners() -> None:
    with pytest.raises(ValueError, match="no partners"):
        Pictures([made_up_photo(0, 8)]).partners  # noqa: B018


# Memory


def decoded(files: PhotoFiles) -> list[int]:
    return list(files._kept)


def test_the_pictures_asked_for_last_stay_in_memory(photos: Path) -> None:
    files = PhotoFiles([photos / f"{i}.png" for i in range(3)], budget=3 * (96**2 + 100**2))
    first = files[1]
    assert files[1] is first
    assert files[2].shape == (100, 100, 3) and decoded(files) == [1, 2]
    files[1]
    assert decoded(files) == [2, 1]
    files[0]  # too large for the budget beside any other
    assert decoded(files) == [0]
    assert np.array_equal(files[1], first) and files[1] is not first


def test_one_picture_is_kept_however_small_the_budget(photos: Path) -> None:
    files = PhotoFiles([photos / "1.png", photos / "2.png"], budget=1)
    assert [files[i].shape[0] for i in (0, 1, 0)] == [96, 100, 96]
    assert decoded(files) == [0]


def test_files_are_a_sequence(photos: Path) -> None:
    files = PhotoFiles([photos / f"{i}.png" for i in range(3)])
    assert [photo.shape[0] for photo in files] == [256, 96, 100]
    assert files[-1].shape[0] == 100
    assert [photo.shape[0] for photo in files[1:]] == [96, 100]
    with pytest.raises(IndexError):
        files[3]


def test_a_copy_for_another_process_starts_without_decoded_pictures(photos: Path) -> None:
    files = PhotoFiles([photos / "0.png"])
    files[0]
    copy = pickle.loads(pickle.dumps(files))
    assert decoded(copy) == [] and np.array_equal(copy[0], files[0])


def test_processes_share_the_budget(photos: Path) -> None:
    opened = Pictures(PhotoFiles([photos / "0.png"], 1000), PhotoFiles([photos / "1.png"], 60))
    shared = opened.shared_out(4)
    assert isinstance(shared.hq, PhotoFiles) and isinstance(shared.lq, PhotoFiles)
    assert (shared.hq.budget, shared.lq.budget) == (250, 15)
    arrays = Pictures([made_up_photo(0, 8)])
    assert arrays.shared_out(4).hq is arrays.hq


def test_pictures_are_decoded_at_the_start_only_if_all_fit(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [photos / "1.png", photos / "2.png"]
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageUnreadableError, match=r"2\.png is cut short or damaged"):
        open_pictures(paths, 64, None)
    monkeypatch.setattr(room, "DECODED_BYTES", 3 * 96**2)
    opened = open_pictures(paths, 64, None)
    assert opened.hq[0].shape == (96, 96, 3)
    with pytest.raises(ImageUnreadableError, match=r"2\.png is cut short or damaged"):
        opened.hq[1]
