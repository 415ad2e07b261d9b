"""Damaged files: refused, or read as far as they go if that is asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import levels, picture_of, saved, smooth
from PIL import Image, ImageFile, PngImagePlugin

from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging import encode, read
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.picture import Picture


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tga", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    pixels = np.divide(levels(3, 64, 64), 255, dtype=np.float32)
    encode.write(Picture(pixels), path, overwrite=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageUnreadableError, match="cut short"):
        read.read(path)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("suffix, depth, options", [
    (".png", 8, {}), (".png", 16, {}), (".jpg", 8, {"quality": 100}), (".bmp", 8, {}),
    (".tif", 8, {}), (".tif", 16, {}), (".tif", 16, {"compression": 1}), (".gif", 8, {}),
    (".tga", 8, {}),
])  # fmt: skip
def test_a_truncated_file_is_read_as_far_as_it_goes_if_that_is_allowed(
    tmp_path: Path, suffix: str, depth: int, options: dict[str, Any], share: float
) -> None:
    height = 1200 if options.get("compression") else 64  # several strips
    pixels = smooth(height, height)
    pixels += np.random.default_rng(0).normal(0, 0.02, pixels.shape).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    given = Picture(pixels, depth=depth)
    encode.write(given, path, overwrite=False, options=SaveOptions(**options))
    whole = read.read(path, allow_truncated=True)
    assert whole.damage == ""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    found = read.read(path, allow_truncated=True)
    assert str(path) in found.damage and "cut short" in found.damage
    assert (found.depth, found.pixels.shape) == (depth, pixels.shape)
    same = (found.pixels == whole.pixels).all(axis=(1, 2)).mean()
    assert share - 0.25 < same < share + 0.1
    np.testing.assert_array_equal(read.read(path, allow_truncated=True).pixels, found.pixels)


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_what_can_only_be_read_whole_is_refused_all_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    encode.write(Picture(smooth()), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:-100])
    for allow in (False, True):
        with pytest.raises(ImageUnreadableError) as caught:
            read.read(path, allow_truncated=allow)
        assert "--allow-truncated" not in caught.value.hint


def test_the_way_out_of_a_truncated_file_is_named_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    encode.write(picture_of(), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ImageUnreadableError) as caught:
        read.read(path)
    assert "--allow-truncated" in caught.value.hint


def test_what_is_wrong_otherwise_stays_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    large = saved(Image.new("RGB", (20, 10)), tmp_path / "large.png")
    for path in (tmp_path / "empty.png", tmp_path / "text.png", large):
        with pytest.raises(ImageUnreadableError):
            read.read(path, allow_truncated=True, max_pixels=199)


def test_leniency_does_not_leak(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    encode.write(Picture(smooth()), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:-100])
    before = ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK
    outcomes: list[str] = []

    def strictly() -> None:
        for _ in range(20):
            with pytest.raises(ImageUnreadableError):
                read.read(path)
            outcomes.append("refused")

    other = threading.Thread(target=strictly)
    other.start()
    for _ in range(20):
        assert read.read(path, allow_truncated=True).damage
    other.join()
    assert outcomes == ["refused"] * 20
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)


def test_a_png_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = saved(Image.fromarray(levels(3, 64, 64)), tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImageUnreadableError, match="damaged"):
        read.read(path)
