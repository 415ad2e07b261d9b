"""A result promises nothing that stayed behind in its input, and people are told of that."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]
from image_files import saved
from PIL import Image

from resshift_cli.imaging import animation, companions, encode, read
from resshift_cli.imaging.companions import Companion
from resshift_cli.imaging.formats import load_extra
from resshift_cli.imaging.opening import opened
from resshift_cli.imaging.xmp import without_promises

GOOGLE = "http://ns.google.com/photos/1.0/"
HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"


def packet(attributes: str, within: str = "") -> bytes:
    """XMP with a title, and with these attributes and elements beside it."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5" '
        f"{attributes}>{within}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def item(semantic: str) -> str:
    directory = f'xmlns:C="{GOOGLE}container/" xmlns:Item="{GOOGLE}container/item/"'
    return (
        f'<C:Directory {directory}><rdf:Seq><rdf:li rdf:parseType="Resource"><C:Item '
        f'Item:Semantic="{semantic}" Item:Length="343"/></rdf:li></rdf:Seq></C:Directory>'
    )


PROMISES = [
    (packet(f'xmlns:hdrgm="{HDRGM}" hdrgm:Version="1.0"', item("GainMap")), Companion.GAIN_MAP),
    (packet(f"xmlns:h='{HDRGM}'  h:Version = '1.0'"), Companion.GAIN_MAP),
    (packet(f'xmlns:G="{GOOGLE}camera/" G:MotionPhoto="1"', item("MotionPhoto")), Companion.VIDEO),
    (packet(f'xmlns:G="{GOOGLE}camera/" G:MicroVideoOffset="99"'), Companion.VIDEO),
    (packet("", f'<G:MotionPhoto xmlns:G="{GOOGLE}camera/">1</G:MotionPhoto>'), Companion.VIDEO),
    (packet(f'xmlns:GDepth="{GOOGLE}depthmap/" GDepth:Format="x"'), Companion.DEPTH),
    (packet(f'xmlns:GImage="{GOOGLE}image/" GImage:Mime="image/jpeg"'), Companion.PICTURE),
    (packet("", f'<a:Mime xmlns:a="{GOOGLE}audio/">audio/mp4</a:Mime>'), Companion.SOUND),
]


@pytest.mark.parametrize("promising, companion", PROMISES)
def test_a_promise_is_taken_out_and_the_rest_stays(promising: bytes, companion: Companion) -> None:
    kept, companions = without_promises(promising)
    assert companions == {companion}
    assert kept is not None and b'xmp:Rating="5"' in kept
    for word in (b"Version", b"Motion", b"MicroVideo", b"Item", b"Mime", b"Format", b"343"):
        assert word not in kept
    assert without_promises(kept) == (kept, frozenset())


def test_what_promises_nothing_stays_byte_for_byte() -> None:
    other = packet(f'xmlns:G="{GOOGLE}camera/" G:HdrPlusMakernote="AB" G:MotionPhotoNot="0"')
    kept, companions = without_promises(other)
    assert companions == frozenset() and kept is not None and b'HdrPlusMakernote="AB"' in kept
    assert without_promises(packet("")) == (packet(""), frozenset())


def test_a_promise_in_words_that_are_no_xml_is_left_out_whole() -> None:
    assert without_promises(packet(f'xmlns:hdrgm="{HDRGM}"')[:-20]) == (None, frozenset())


def test_the_xmp_of_an_ultra_hdr_photo_becomes_true_and_the_loss_is_told(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "a.jpg", xmp=PROMISES[0][0])
    picture = read.read(path)
    assert picture.warnings == (
        f"{path} has more than a picture: its HDR gain map can't come along.",
    )
    encode.write(picture, tmp_path / "b.jpg", overwrite=False)
    written = (tmp_path / "b.jpg").read_bytes()
    assert b"hdr" not in written and b"GainMap" not in written and b'Rating="5"' in written


def test_a_gain_map_is_known_by_its_segment_too(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "a.jpg")
    body = b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"
    content = path.read_bytes()
    segment = struct.pack(">BBH", 0xFF, 0xE2, len(body) + 2) + body
    path.write_bytes(content[:2] + segment + content[2:])
    assert "gain map" in read.read(path).warnings[0]


def test_the_video_behind_a_photo_of_samsungs_is_told_of(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "a.jpg")
    entry = b"\0\0\x30\x0a" + struct.pack("<II", 32, 32)
    directory = b"SEFH" + struct.pack("<II", 106, 1) + entry
    trailer = bytes(32) + directory + struct.pack("<I", len(directory)) + b"SEFT"
    path.write_bytes(path.read_bytes() + trailer)
    assert "video (motion photo)" in read.read(path).warnings[0]
    path.write_bytes(path.read_bytes().replace(b"\x30\x0a", b"\x31\x0a"))
    assert read.read(path).warnings == ()


def test_a_gain_map_beside_a_heic_or_avif_is_told_of(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "AVIF")
    content = buffer.getvalue()
    item = b"\0\0\0\x15infe\x02\0\0\0\0\x09\0\0tmap\0"
    start = content.index(b"iinf")
    length = int.from_bytes(content[start - 4 : start], "big")
    more = struct.pack(">I", length + len(item)) + content[start : start - 4 + length] + item
    content = content[: start - 4] + more + content[start - 4 + length :]
    meta = content.index(b"meta")
    grown = int.from_bytes(content[meta - 4 : meta], "big") + len(item)
    content = content[: meta - 4] + struct.pack(">I", grown) + content[meta:]
    with io.BytesIO(content) as file:
        from resshift_cli.imaging.isobmff import main_image

        assert main_image(file).gain_map and main_image(file).cicp == (1, 13)
        with Image.open(file) as image:
            assert companions.of(image, file) == {Companion.GAIN_MAP}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("packing", ["none", "deflate"])
def test_a_tiff_promises_no_more_than_a_jpeg(tmp_path: Path, kind: type, packing: str) -> None:
    image = pyvips.Image.new_from_array(np.zeros((8, 8, 3), kind)).copy()
    image.set_type(pyvips.GValue.blob_type, "xmp-data", PROMISES[0][0])
    image.tiffsave(str(tmp_path / "a.tif"), compression=packing)
    picture = read.read(tmp_path / "a.tif")
    assert ["HDR gain map" in warning for warning in picture.warnings] == [True]
    assert picture.xmp is not None
    assert b'Rating="5"' in picture.xmp and b"hdr" not in picture.xmp


def test_what_an_animation_promises_is_told_of_too(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = tmp_path / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], xmp=PROMISES[0][0])
    with opened(path) as file:
        moving = animation.probe(file)
    assert moving is not None
    for frame in animation.read(moving):
        assert "HDR gain map" in frame.warnings[0] and b"hdr" not in (frame.xmp or b"")


@pytest.mark.skipif(not load_extra("heic"), reason="needs pillow-heif")
def test_a_plain_heic_has_no_companions(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (16, 16)), tmp_path / "a.heic")
    assert read.read(path).warnings == ()
