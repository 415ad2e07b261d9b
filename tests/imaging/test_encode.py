"""Pictures that are written: what is kept, what is refused, and what is left on disk."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import GRAY_PROFILE, SRGB, exif_with, levels, picture_of, saved
from PIL import ExifTags, Image

from resshift_cli.errors import OutputError, UnsupportedImageError
from resshift_cli.imaging import encode, read
from resshift_cli.imaging.decode import from_pil
from resshift_cli.imaging.encode import to_pil
from resshift_cli.imaging.formats import FORMATS
from resshift_cli.imaging.picture import Picture


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_the_colour_profile_is_carried_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    encode.write(picture_of(icc=SRGB), path, overwrite=False)
    assert read.read(path).icc == SRGB


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", ["a.jpg", "a.tif"])
def test_exif_is_kept_with_the_new_size_and_without_orientation(
    tmp_path: Path, source: str, suffix: str
) -> None:
    exif = exif_with(Orientation=6, Make="A maker")
    path = saved(Image.new("RGB", (7, 5)), tmp_path / source, exif=exif)
    found = read.read(path)
    assert found.pixels.shape == (7, 5, 3)
    output = tmp_path / f"b{suffix}"
    encode.write(found.with_pixels(np.zeros((28, 20, 3), np.float32)), output, overwrite=False)
    with Image.open(output) as file:
        written = file.getexif()
        details = written.get_ifd(ExifTags.IFD.Exif)
        assert written[ExifTags.Base.Make] == "A maker"
        assert ExifTags.Base.Orientation not in written
        assert details[ExifTags.Base.ExifImageWidth] == 20
        assert details[ExifTags.Base.ExifImageHeight] == 28
        assert details[ExifTags.Base.LensModel] == "A lens"
        assert written.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_the_layout_tags_of_a_tiff_do_not_end_up_in_a_jpeg(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (7, 5)), tmp_path / "a.tif", exif=exif_with(Make="A maker"))
    encode.write(read.read(path), tmp_path / "b.jpg", overwrite=False)
    with Image.open(tmp_path / "b.jpg") as file:
        assert ExifTags.Base.StripOffsets not in file.getexif()


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "no room")])
def test_that_memory_runs_out_while_encoding_is_not_blamed_on_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    picture = picture_of()
    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(type(error)):
        encode.encode(picture, tmp_path / "a.webp")
    error = ValueError("too odd")
    with pytest.raises(OutputError, match="a.webp can't be encoded: too odd"):
        encode.encode(picture, tmp_path / "a.webp")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_the_resolution_is_kept(tmp_path: Path, suffix: str) -> None:
    path = saved(Image.new("RGB", (3, 2)), tmp_path / "a.png", dpi=(300, 300))
    encode.write(read.read(path), tmp_path / f"b{suffix}", overwrite=False)
    with Image.open(tmp_path / f"b{suffix}") as file:
        assert file.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_pillow_image_comes_back_as_it_was(mode: str) -> None:
    channels = levels(len(mode))
    image = Image.fromarray(channels[..., 0] if mode == "L" else channels)
    again = to_pil(from_pil(image))
    assert again.mode == mode and again.tobytes() == image.tobytes()


def test_a_pillow_image_keeps_its_profile_and_is_not_changed() -> None:
    image = Image.new("P", (3, 2))
    image.info["icc_profile"] = SRGB
    assert to_pil(from_pil(image)).info["icc_profile"] == SRGB
    assert image.mode == "P"


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_a_pillow_image_of_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(UnsupportedImageError, match="The image"):
        from_pil(Image.new(mode, (2, 2)))


def test_values_outside_0_to_1_are_clipped_when_rounded() -> None:
    pixels = np.array([[[-0.5], [0.5], [1.5]]], np.float32)
    assert np.asarray(to_pil(Picture(pixels))).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.float32), np.zeros((2, 2, 3))]
)
def test_pixels_of_another_shape_or_type_are_no_picture(pixels: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        Picture(pixels)


@pytest.mark.parametrize("image, name, size, message", [
    (picture_of(4), "a.jpg", None, "transparency"), (picture_of(2), "a.bmp", None, "transparency"),
    (picture_of(icc=SRGB[:200]), "a.bmp", None, "colour profile"),
    (picture_of(1, icc=GRAY_PROFILE), "a.webp", None, "no gray"),
    (picture_of(), "a.webp", (100, 16384), "16383 pixels"),
    (picture_of(), "a.jpg", (65501, 100), "65500 pixels"),
    (picture_of(), "a.bmp", (40_000, 40_000), "4 GB"),
    (picture_of(exif=bytes(70_000)), "a.jpg", None, "EXIF"),
])  # fmt: skip
def test_what_a_format_can_not_hold_is_refused_and_png_advised(
    image: Picture, name: str, size: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        encode.check_encodable(image, Path(name), size=size)
    assert "a.png" in caught.value.hint
    encode.check_encodable(image, Path("a.png"), size=size)


def test_jpeg_is_written_at_quality_95_without_colour_subsampling(tmp_path: Path) -> None:
    encode.write(picture_of(), tmp_path / "a.jpg", overwrite=False)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as ours, Image.open(tmp_path / "b.jpg") as theirs:
        assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]  # JPEG only
        assert [component[1:3] for component in ours.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    encode.write(picture_of(1), path, overwrite=True)
    with pytest.raises(OutputError, match="exists already") as caught:
        encode.write(picture_of(3), path, overwrite=False)
    assert "--overwrite" in caught.value.hint
    assert read.read(path).pixels.shape[2] == 1
    encode.write(picture_of(3), path, overwrite=True)
    assert read.read(path).pixels.shape[2] == 3
    assert list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from resshift_cli import errors
from resshift_cli.imaging import encode, picture

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
noise = np.random.default_rng(0).random((128, 128, 3), np.float32)
try:
    encode.write(picture.Picture(noise), Path(sys.argv[1]), overwrite=True)
except errors.OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_disk_that_fills_up_midway_is_reported_and_leaves_nothing(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} can't be written: File too large.\n"
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_reading_and_writing_need_no_torch() -> None:
    code = "import sys, resshift_cli.imaging.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("mode, options, name, held", [
    ("RGB", {}, "a.bmp", True), ("RGB", {}, "a.jpg", True),
    ("RGBA", {}, "a.png", True), ("RGBA", {}, "a.jpg", False), ("RGBA", {}, "a.bmp", False),
    ("RGB", {"icc_profile": SRGB}, "a.bmp", True),
    ("RGB", {"icc_profile": SRGB[:200]}, "a.bmp", False),
])  # fmt: skip
def test_a_header_tells_whether_a_format_can_hold_the_image(
    tmp_path: Path, mode: str, options: dict[str, Any], name: str, held: bool
) -> None:
    path = tmp_path / name  # whatever its name says, it is a PNG
    Image.new(mode, (4, 4)).save(path, "PNG", **options)
    assert encode.can_hold(FORMATS[path.suffix], path) == held
    path.write_bytes(b"no image")
    assert encode.can_hold(FORMATS[path.suffix], path)
