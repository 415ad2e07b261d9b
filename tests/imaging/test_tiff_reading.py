"""TIFFs that libvips refuses are read by other means, or refused in true words."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.errors import ImageUnreadableError, UnsupportedImageError
from resshift_cli.imaging import read, rows, tiff
from resshift_cli.imaging.opening import opened

TILE = 16


def tiled_planes(levels: NDArray[Any], order: str = "<", *, predictor: bool = False) -> bytes:
    """A deflated TIFF whose channels have tiles of their own; (H, W, C) levels."""
    height, width, channels = levels.shape
    bits = 8 * levels.dtype.itemsize
    head = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    content, offsets, sizes = bytearray(head), [], []
    for channel in range(channels):
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                tile = np.zeros((TILE, TILE), levels.dtype)
                part = levels[top : top + TILE, left : left + TILE, channel]
                tile[: part.shape[0], : part.shape[1]] = part
                if predictor:
                    tile[:, 1:] -= tile[:, :-1].copy()
                packed = zlib.compress(tile.astype(tile.dtype.newbyteorder(order)).tobytes())
                offsets.append(len(content))
                sizes.append(len(packed))
                content += packed
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * channels), (259, 3, [8])]
    tags += [(262, 3, [2]), (277, 3, [channels]), (284, 3, [2]), (317, 3, [1 + predictor])]
    tags += [(322, 3, [TILE]), (323, 3, [TILE]), (324, 4, offsets), (325, 4, sizes)]
    entries = b""
    for tag, kind, values in tags:
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            content += bytes(len(content) % 2)
            place, data = len(content), data
            content += data
            data = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    content += bytes(len(content) % 2)
    content[4:8] = struct.pack(f"{order}I", len(content))
    return bytes(content + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [False, True])
def test_tiled_separate_planes_are_read(
    tmp_path: Path, kind: type[np.unsignedinteger[Any]], order: str, predictor: bool
) -> None:
    rng = np.random.default_rng(0)
    given = rng.integers(0, np.iinfo(kind).max, (37, 21, 3), dtype=kind, endpoint=True)
    (tmp_path / "a.tif").write_bytes(tiled_planes(given, order, predictor=predictor))
    found = read.read(tmp_path / "a.tif")
    assert found.depth == 8 * given.dtype.itemsize
    np.testing.assert_array_equal(np.rint(found.pixels * np.iinfo(kind).max), given)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_damaged_tiled_planes_are_called_damaged(
    tmp_path: Path, kind: type[np.unsignedinteger[Any]]
) -> None:
    rng = np.random.default_rng(0)
    content = tiled_planes(rng.integers(0, 200, (37, 21, 3), dtype=kind))
    (tmp_path / "a.tif").write_bytes(content[:100] + bytes(300) + content[400:])
    with pytest.raises(ImageUnreadableError, match="damaged"):
        read.read(tmp_path / "a.tif")


@pytest.mark.parametrize("packing", ["zstd", "lzma"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_what_libvips_can_not_unpack_is_read(tmp_path: Path, packing: str, mode: str) -> None:
    given = Image.effect_noise((21, 37), 80).convert(mode)
    given.save(tmp_path / "a.tif", compression=packing)
    found = read.read(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(np.rint(found * 255), np.atleast_3d(np.asarray(given)))


def test_what_no_decoder_here_unpacks_is_not_called_damaged(tmp_path: Path) -> None:
    Image.new("I;16", (9, 9)).save(tmp_path / "a.tif", compression="zstd")
    with pytest.raises(UnsupportedImageError, match="packed by ZSTD"):
        read.read(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [
    {"tile": True, "tile_width": 16, "tile_height": 16, "compression": "deflate"},
    {"tile": True, "tile_width": 16, "tile_height": 16, "compression": "lzw"},
    {"compression": "deflate", "predictor": "none"},
    {"compression": "deflate"},
    {"compression": "lzw"},
])  # fmt: skip
@pytest.mark.parametrize("large", [False, True])
def test_a_tile_or_strip_that_can_not_be_unpacked_is_damage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[np.unsignedinteger[Any]],
    options: dict[str, Any],
    large: bool,
) -> None:
    if large:
        monkeypatch.setattr(rows, "LARGE", 10)
    given = np.random.default_rng(0).integers(0, 200, (64, 80, 3)).astype(kind)
    pyvips.Image.new_from_array(given).tiffsave(str(tmp_path / "a.tif"), **options)
    with (tmp_path / "a.tif").open("r+b") as file:
        tags, _ = tiff.first_tags(file)
        offsets = tags.get(tiff.TILE_OFFSETS) or tags[tiff.STRIP_OFFSETS]
        file.seek(offsets[len(offsets) // 2])
        file.write(bytes(100))
    with opened(tmp_path / "a.tif") as spoilt, pytest.raises(ImageUnreadableError, match="damaged"):
        read.load(spoilt)
    assert read.read(tmp_path / "a.tif", allow_truncated=True).damage
