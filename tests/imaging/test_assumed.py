"""Files that say nothing of their colours: what they are taken for, and how that is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import GRAY_PROFILE, SRGB, eight_bits, saved
from PIL import Image

from resshift_cli.errors import InputMissingError, UsageError
from resshift_cli.imaging import assumed, files, icc, read
from resshift_cli.imaging.assumed import USUAL
from resshift_cli.imaging.files import Handling
from resshift_cli.imaging.opening import read_header
from resshift_cli.imaging.sources import Source


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_that_says_nothing_is_taken_for_what_libvips_has_and_told(
    tmp_path: Path, suffix: str
) -> None:
    path = saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), tmp_path / f"a{suffix}")
    loaded = files.load(Source(path), Handling())
    (warning,) = loaded.warnings
    assert str(path) in warning and "Chemical proof" in warning and "--assume-profile" in warning
    red, green, blue = eight_bits(loaded.picture)[0, 0]
    assert red > 170 and green < 90 and blue < 90
    assert read_header(path, assumed=USUAL).width == 4


def test_libvips_calls_its_profile_what_the_warning_says(tmp_path: Path) -> None:
    chosen = assumed.named("cmyk")
    (profile,) = chosen.profiles.values()
    assert assumed.INKS.encode() in profile or assumed.INKS.encode("utf-16-be") in profile
    assert chosen.warning("a.jpg") == ()


def test_cmyk_that_says_what_it_is_gets_no_warning(tmp_path: Path) -> None:
    (profile,) = assumed.named("cmyk").profiles.values()
    path = saved(Image.new("CMYK", (4, 4)), tmp_path / "a.jpg", icc_profile=profile)
    assert files.load(Source(path), Handling()).warnings == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif", "a.tga"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_a_file_does_not_say_can_be_told_in_its_place(
    tmp_path: Path, name: str, mode: str
) -> None:
    path = saved(Image.new(mode, (4, 4)), tmp_path / name)
    kept = read.read(path, assumed=assumed.named("display-p3")).icc
    assert kept is not None and (kept == icc_of(mode) or name in ("a.webp", "a.gif"))
    assert read.read(path, assumed=USUAL).icc is None


def icc_of(mode: str) -> bytes | None:
    return assumed.named("display-p3").profile(mode)


def test_what_a_file_says_stands(tmp_path: Path) -> None:
    told = assumed.named("a98-rgb")
    path = saved(Image.new("RGB", (4, 4)), tmp_path / "a.png", icc_profile=SRGB)
    assert read.read(path, assumed=told).icc == SRGB
    spoken = saved(Image.new("RGB", (4, 4)), tmp_path / "b.png")
    content = spoken.read_bytes()
    chunk = b"\0\0\0\1sRGB\0\xae\xce\x1c\xe9"
    spoken.write_bytes(content[:33] + chunk + content[33:])
    assert read.read(spoken, assumed=told).icc is None


def test_a_profile_of_other_colours_is_for_other_files(tmp_path: Path) -> None:
    path = tmp_path / "gray.icc"
    path.write_bytes(icc.make("g", icc.SRGB_PRIMARIES, icc.Curve(1.8), gray=True))
    told = assumed.named(str(path))
    assert told.name is not None and told.name.startswith("gray.icc (")
    picture = saved(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    assert read.read(picture, assumed=told).icc is None
    gray = saved(Image.new("L", (4, 4)), tmp_path / "b.png")
    assert read.read(gray, assumed=told).icc == path.read_bytes()


def test_animations_and_large_images_are_taken_for_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resshift_cli.imaging.rows.LARGE", 10)
    handling = Handling(assumed=assumed.named("display-p3"))
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    moving = saved(frames[0], tmp_path / "m.webp", save_all=True, append_images=frames[1:])
    for path in (
        moving,
        saved(frames[0], tmp_path / "a.png"),
        saved(frames[0], tmp_path / "a.tif"),
    ):
        assert files.load(Source(path), handling).picture.icc == icc_of("RGB")


def test_srgb_by_name_is_srgb() -> None:
    profile = assumed.named("SRGB").profile("RGB")
    assert profile is not None and icc.is_srgb(profile)


@pytest.mark.parametrize("text, error, words", [
    ("srbg", InputMissingError, "srgb?"), ("none.icc", InputMissingError, "Name a file"),
])  # fmt: skip
def test_what_is_no_profile_is_refused_with_the_names(
    text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        assumed.named(text)
    assert words in getattr(caught.value, "hint", "")


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"words", GRAY_PROFILE[:200], np.arange(99).tobytes()):
        (tmp_path / "a.icc").write_bytes(content)
        with pytest.raises(UsageError, match="no colour profile"):
            assumed.named(str(tmp_path / "a.icc"))
