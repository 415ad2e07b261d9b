"""The size in a JPEG XL file's header."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest

from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging import encode, jxl, picture, read

needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("pillow_jxl") is None, reason="pillow-jxl-plugin is not installed"
)
SIZES = [(1, 1), (8, 8), (256, 256), (264, 256), (300, 200), (1600, 900), (513, 7), (9000, 3)]


@needs_plugin
@pytest.mark.parametrize("width, height", SIZES)
def test_the_size_is_that_of_the_image(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "a.jxl"
    encode.write(picture.Picture(np.zeros((height, width, 1), np.float32)), path, overwrite=False)
    with path.open("rb") as file:
        assert jxl.size(file) == (width, height)
    naked = path.read_bytes()
    if naked.startswith(b"\xff\x0a"):
        box = (8 + len(naked)).to_bytes(4, "big") + b"jxlc" + naked
        signature = b"\0\0\0\x0cJXL \r\n\x87\n"
        assert jxl.size(io.BytesIO(signature + b"\0\0\0\x0cfree1234" + box)) == (width, height)


@needs_plugin
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jxl"
    encode.write(picture.Picture(np.zeros((20, 30, 3), np.float32)), path, overwrite=False)
    path.write_bytes(path.read_bytes()[:20])  # decoding would fail
    with pytest.raises(ImageUnreadableError, match="too large: 30x20"):
        read.read(path, max_pixels=599)
    with pytest.raises(ImageUnreadableError, match="damaged"):
        read.read(path)


@pytest.mark.parametrize("content", [b"", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", bytes(99)])
def test_a_file_without_a_header_has_no_size(content: bytes) -> None:
    with pytest.raises(ValueError, match="it ha|it holds"):
        jxl.size(io.BytesIO(content))
