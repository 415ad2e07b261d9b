from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from memory import needs_proc, peak_over
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.imaging import streaming, tiff, tiff_writing
from resshift_cli.imaging.metadata import Description
from resshift_cli.imaging.vips import decode

SHAPE = (300, 150)


def levels(channels: int, depth: int) -> NDArray[Any]:
    noise = np.random.default_rng(0).integers(0, 2**depth, (*SHAPE, channels))
    return noise.astype(np.uint8 if depth == 8 else np.uint16)


def small(kind: str, mode: str = "RGB", **beside: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (1, 1)).save(file, kind, **beside)
    return file.getvalue()


def in_bands(image: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(image, [1, 1, 40, 299])


def pixels(content: bytes, tmp_path: Any) -> NDArray[Any]:
    path = tmp_path / "image"
    path.write_bytes(content)
    with path.open("rb") as file:
        return decode(file, SHAPE[::-1])


every_kind = pytest.mark.parametrize("depth", [8, 16])
every_shape = pytest.mark.parametrize("channels", [1, 2, 3, 4])


@every_kind
@every_shape
def test_a_png_holds_the_rows_that_came(tmp_path: Any, channels: int, depth: int) -> None:
    image, file = levels(channels, depth), io.BytesIO()
    like = small("PNG", icc_profile=b"profile", dpi=(300, 300))
    streaming.write_png(file, in_bands(image), image.shape, depth=depth, like=like)
    np.testing.assert_array_equal(pixels(file.getvalue(), tmp_path), image)
    with Image.open(file) as opened:
        assert opened.info["icc_profile"] == b"profile"
        assert opened.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@every_kind
@every_shape
@pytest.mark.parametrize("compression", [0, 6])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_holds_the_rows_that_came(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    depth: int,
    compression: int,
    big: bool,
) -> None:
    if big:  # else only pixels of 4 GiB are
        monkeypatch.setattr(tiff_writing, "_ORDINARY_LIMIT", 0)
    monkeypatch.setattr(tiff_writing, "_STRIP", 10_000)
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    image, file = levels(channels, depth), io.BytesIO()
    described = Description(exif=exif.tobytes(), icc=b"profile")
    options = {"depth": depth, "compression": compression}
    tiff_writing.write(file, in_bands(image), image.shape, described, **options)
    np.testing.assert_array_equal(pixels(file.getvalue(), tmp_path), image)
    tags, found = tiff.first_tags(file)
    assert (file.getvalue()[2:4] == b"+\0") == big
    assert tags[tiff.ICC] == b"profile"
    assert found[271] == "Maker"
    assert found.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_the_rows_that_came_without_subsampling(channels: int) -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.stack([y // 2, x, (x + y) // 3][:channels], axis=-1).astype(np.uint8)
    like = small("JPEG", "L" if channels == 1 else "RGB", comment=b"hello", icc_profile=b"profile")
    file = io.BytesIO()
    streaming.write_jpeg(file, in_bands(image), image.shape, like=like, quality=95)
    with Image.open(file) as opened:
        assert opened.info["comment"] == b"hello" and opened.info["icc_profile"] == b"profile"
        layers = opened.layer  # type: ignore[attr-defined]  # of JPEG only
        assert [layer[1:3] for layer in layers] == [(1, 1)] * channels
        decoded = np.asarray(opened).reshape(image.shape).astype(int)
    assert np.abs(decoded - image).max() <= 8
    assert np.abs(decoded - image).mean() < 1


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_what_the_file_raises_is_raised() -> None:
    image = levels(3, 8)
    with pytest.raises(OSError, match="No space left"):
        streaming.write_png(Full(), in_bands(image), image.shape, depth=8, like=small("PNG"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_the_rows_raise_is_raised(kind: str, error: type[BaseException]) -> None:
    image = levels(3, 8)

    def rows() -> Iterator[NDArray[Any]]:
        yield image[:50]
        raise error

    with pytest.raises(error):
        if kind == "PNG":
            streaming.write_png(io.BytesIO(), rows(), image.shape, depth=8, like=small("PNG"))
        else:
            streaming.write_jpeg(io.BytesIO(), rows(), image.shape, like=small("JPEG"), quality=90)


def test_a_signal_as_the_encoder_starts_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = threading.Thread.start, []

    def start_and_raise(self: threading.Thread) -> None:
        started.append(self)
        start(self)
        raise KeyboardInterrupt

    image = levels(3, 8)
    monkeypatch.setattr(threading.Thread, "start", start_and_raise)
    with pytest.raises(KeyboardInterrupt):
        streaming.write_png(io.BytesIO(), in_bands(image), image.shape, depth=8, like=small("PNG"))
    (encoder,) = started
    encoder.join(20)
    assert not encoder.is_alive()


def test_rows_that_do_not_come_are_an_error() -> None:
    image = levels(3, 8)
    with pytest.raises(Exception, match="png"):
        streaming.write_png(io.BytesIO(), [image[:50]], image.shape, depth=8, like=small("PNG"))


@needs_proc
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_memory_does_not_grow_with_the_rows(kind: str) -> None:
    def write(height: int) -> None:
        band = np.random.default_rng(0).integers(0, 256, (100, 3000, 3)).astype(np.uint8) // 64
        rows, shape = (band for _ in range(height // 100)), (height, 3000, 3)
        with open("/dev/null", "wb") as null:
            if kind == "PNG":
                streaming.write_png(null, rows, shape, depth=8, like=small("PNG"), compression=1)
            elif kind == "JPEG":
                streaming.write_jpeg(null, rows, shape, like=small("JPEG"), quality=50)
            else:
                tiff_writing.write(null, rows, shape, Description())

    write(300)
    assert peak_over(lambda: write(12_000)) < 40 << 20, "the pixels are 103 MiB"
