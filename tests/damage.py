"""Image files of every kind that is read, and what can become of them: the same every time.

`whole` makes one small image of every kind. `spoilt` damages them at random places, in the same way
for the same numbers. `lying` and `strange` are files that somebody might have made on purpose.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from resshift_cli.imaging.formats import load_extra

READ, UNREADABLE, UNSUPPORTED, UNWRITABLE = 0, 4, 5, 6

# A byte that is no longer what it was may be of no consequence, make the file another kind of
# image, or give it what its own format can't be written with.
ANY_END = frozenset({READ, UNREADABLE, UNSUPPORTED, UNWRITABLE})

HEIGHT, WIDTH = 18, 26


@dataclass(frozen=True, slots=True)
class Sample:
    """A file of a kind that is read.

    Attributes:
        kind: what it is called.
        suffix: of its name.
        content: its bytes.
        moves: whether it is an animation.
    """

    kind: str
    suffix: str
    content: bytes
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that is not what it should be.

    Attributes:
        name: a file name, different for all.
        content: its bytes.
        ends: exit codes that `resshift upscale` may end with.
        of: the sample that it was; None if it was none.
        cut: whether only its end is missing.
    """

    name: str
    content: bytes
    ends: frozenset[int]
    of: Sample | None = None
    cut: bool = False


def photo(channels: int = 3, bits: int = 8, seed: int = 0) -> NDArray[Any]:
    """A slope with noise on it, (H, W, C)."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0.1, 0.8, HEIGHT * WIDTH * channels).reshape(HEIGHT, WIDTH, channels)
    top = 2**bits - 1
    return ((slope + rng.uniform(0, 0.2, slope.shape)) * top).astype(
        np.uint8 if bits == 8 else np.uint16
    )


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _vips(samples: NDArray[Any], suffix: str, **options: Any) -> bytes:
    kind = {"uint8": "srgb", "uint16": "rgb16", "float32": "scrgb"}[samples.dtype.name]
    image = pyvips.Image.new_from_array(samples, interpretation=kind)
    return bytes(image.write_to_buffer(suffix, **options))


def _profile_and_exif() -> dict[str, Any]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "Maker", 6, "Somebody"
    exif[0x8769] = {0x9003: "2020:02:02 02:02:02", 0x829A: (1, 60)}
    return {"icc_profile": profile, "exif": exif.tobytes()}


def _words() -> PngInfo:
    text = PngInfo()
    text.add_text("Title", "A slope", zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    return text


def _profile_of_inks() -> bytes:
    paper = pyvips.Image.black(1, 1).copy(interpretation="srgb")
    return bytes(paper.icc_export(output_profile="cmyk", depth=8).get("icc-profile-data"))


@cache
def whole() -> tuple[Sample, ...]:
    """One file of every kind; those of an extra only where it is installed."""
    colour = Image.fromarray(photo())
    alpha = Image.fromarray(photo(4))
    frames = [Image.fromarray(photo(seed=seed)) for seed in range(3)]
    moving: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 40}
    about, text, inks = _profile_and_exif(), _words(), _profile_of_inks()
    floats = (photo(bits=16) / np.float32(65535)).astype(np.float32)

    samples = [
        Sample("png", ".png", _saved(colour, "PNG", pnginfo=text, dpi=(300, 300), **about)),
        Sample("png of 16 bits", ".png", _vips(photo(bits=16), ".png")),
        Sample("png with alpha", ".png", _saved(alpha, "PNG")),
        Sample("png of 1 bit", ".png", _saved(colour.convert("1"), "PNG")),
        Sample(
            "png with palette",
            ".png",
            _saved(colour.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
        ),
        Sample("interlaced png", ".png", _vips(photo(), ".png", interlace=True)),
        Sample("jpeg", ".jpg", _saved(colour, "JPEG", comment=b"words", dpi=(72, 72), **about)),
        Sample("progressive jpeg", ".jpg", _saved(colour, "JPEG", progressive=True)),
        Sample("gray jpeg", ".jpg", _saved(colour.convert("L"), "JPEG")),
        Sample("cmyk jpeg", ".jpg", _saved(colour.convert("CMYK"), "JPEG", icc_profile=inks)),
        Sample("webp", ".webp", _saved(colour, "WEBP", **about)),
        Sample("webp without loss", ".webp", _saved(alpha, "WEBP", lossless=True)),
        Sample("tiff", ".tif", _saved(colour, "TIFF", **about)),
        Sample("tiff in tiles", ".tif", _vips(photo(), ".tif", tile=True, tile_width=16)),
        Sample("deflated tiff", ".tif", _vips(photo(), ".tif", compression="deflate")),
        Sample(
            "lzw tiff", ".tif", _vips(photo(4), ".tif", compression="lzw", predictor="horizontal")
        ),
        Sample("tiff of jpegs", ".tif", _vips(photo(), ".tif", compression="jpeg", tile=True)),
        Sample("fax tiff", ".tif", _saved(colour.convert("1"), "TIFF", compression="group4")),
        Sample("tiff of 16 bits", ".tif", _vips(photo(bits=16), ".tif")),
        Sample("float tiff", ".tif", _vips(floats, ".tif")),
        Sample("big tiff", ".tif", _vips(photo(), ".tif", bigtiff=True, compression="deflate")),
        Sample("palette tiff", ".tif", _saved(colour.quantize(16), "TIFF", compression="packbits")),
        Sample("cmyk tiff", ".tif", _saved(colour.convert("CMYK"), "TIFF", icc_profile=inks)),
        Sample(  # which Pillow has libtiff decode, where RGB is libvips' work
            "lzw cmyk tiff",
            ".tif",
            _saved(colour.convert("CMYK"), "TIFF", icc_profile=inks, compression="tiff_lzw"),
        ),
        Sample("bmp", ".bmp", _saved(colour, "BMP")),
        Sample("bmp with palette", ".bmp", _saved(colour.quantize(16), "BMP")),
        Sample("gif", ".gif", _saved(colour.quantize(64), "GIF", transparency=3, comment=b"words")),
        Sample("moving gif", ".gif", _saved(frames[0], "GIF", loop=0, **moving), moves=True),
        Sample("moving webp", ".webp", _saved(frames[0], "WEBP", **moving), moves=True),
        Sample("moving png", ".png", _saved(frames[0], "PNG", **moving), moves=True),
        Sample("avif", ".avif", _saved(colour, "AVIF", **about)),
        Sample("avif with alpha", ".avif", _saved(alpha, "AVIF")),
    ]
    samples += _textures(colour, alpha)
    if load_extra("heic"):
        samples.append(Sample("heic", ".heic", _saved(colour, "HEIF", **about)))
    if load_extra("jxl"):
        samples.append(Sample("jxl", ".jxl", _saved(colour, "JXL")))
        samples.append(Sample("jxl without loss", ".jxl", _saved(alpha, "JXL", lossless=True)))
    return tuple(samples)


def _textures(colour: Image.Image, alpha: Image.Image) -> list[Sample]:
    return [
        Sample("tga", ".tga", _saved(alpha, "TGA")),
        Sample("packed tga", ".tga", _saved(colour, "TGA", compression="tga_rle")),
        Sample("tga with palette", ".tga", _saved(colour.quantize(16), "TGA")),
        Sample("dds", ".dds", _saved(alpha, "DDS")),
        Sample("bc3 dds", ".dds", _saved(alpha, "DDS", pixel_format="BC3")),
    ]


# Chance


def cut(content: bytes, chance: random.Random) -> bytes:
    """Without its end."""
    return content[: chance.randrange(1, len(content))]


def flip_in_head(content: bytes, chance: random.Random) -> bytes:
    """With one to four other bytes near its start."""
    return _flip(content, chance, min(len(content), 160))


def flip(content: bytes, chance: random.Random) -> bytes:
    """With one to four other bytes anywhere."""
    return _flip(content, chance, len(content))


def _flip(content: bytes, chance: random.Random, within: int) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(within)] ^= chance.randint(1, 255)
    return bytes(changed)


def fill(content: bytes, chance: random.Random) -> bytes:
    """With a run of zeros or ones, as a bad sector leaves it."""
    start = chance.randrange(len(content))
    length = min(len(content) - start, chance.randint(2, 64))
    run = chance.choice((b"\0", b"\xff")) * length
    return content[:start] + run + content[start + length :]


def lose(content: bytes, chance: random.Random) -> bytes:
    """Without some bytes in its midst."""
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randint(1, 16) :]


def gain(content: bytes, chance: random.Random) -> bytes:
    """With some bytes more in its midst."""
    start = chance.randrange(len(content))
    return content[:start] + chance.randbytes(chance.randint(1, 16)) + content[start:]


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut,
    flip_in_head,
    flip,
    fill,
    lose,
    gain,
)


def spoilt(rounds: int, first: int = 0) -> Iterator[Damaged]:
    """Every sample, damaged in every way, `rounds` times; other ones for another `first`."""
    for number in range(first, first + rounds):
        for sample in whole():
            for way in WAYS:
                chance = random.Random(f"{sample.kind} {way.__name__} {number}")
                yield Damaged(
                    f"{sample.kind} {way.__name__} {number}{sample.suffix}".replace(" ", "_"),
                    way(sample.content, chance),
                    ANY_END,
                    of=sample,
                    cut=way is cut,
                )


# Intent

SIDES = (0, 1, 2 * WIDTH, 2**31 - 1, 2**31, 2**32 - 1)
"""What a header may claim for a side; the last two are negative where there is a sign."""


def lying() -> Iterator[Damaged]:
    """Files whose headers give another size than that of their pixels."""
    for sample in whole():
        tell = _LIES.get(sample.suffix)
        if tell is None:
            continue
        sizes = [(width, HEIGHT) for width in SIDES] + [(WIDTH, height) for height in SIDES]
        for width, height in [*sizes, *((side, side) for side in (*SIDES, 65535))]:
            content = tell(sample.content, width, height)
            if content is not None and content != sample.content:
                name = f"{sample.kind} of {width}x{height}{sample.suffix}".replace(" ", "_")
                yield Damaged(name, content, ANY_END, of=sample)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG, with its checksum."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _png_of(content: bytes, width: int, height: int) -> bytes:
    header = struct.pack(">II", width, height) + content[24:29]
    return content[:8] + chunk(b"IHDR", header) + content[33:]


def _jpeg_of(content: bytes, width: int, height: int) -> bytes | None:
    start = 2
    while content[start + 1] not in (0xC0, 0xC1, 0xC2):
        start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    return _put(content, start + 5, ">HH", height, width)


def _webp_of(content: bytes, width: int, height: int) -> bytes | None:
    kind = content[12:16]
    if kind == b"VP8X":
        both = ((width - 1) & 0xFFFFFF) | ((height - 1) & 0xFFFFFF) << 24
        return content[:24] + both.to_bytes(6, "little") + content[30:]
    if kind == b"VP8 ":
        return _put(content, 26, "<HH", width, height)
    bits = int.from_bytes(content[21:25], "little") & ~(2**28 - 1)
    bits |= ((width - 1) & 0x3FFF) | ((height - 1) & 0x3FFF) << 14
    return content[:21] + bits.to_bytes(4, "little") + content[25:]


def _tiff_of(content: bytes, width: int, height: int) -> bytes:
    """Every entry of the first page's tags that tells of a size, in either layout."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, start)
    changed = bytearray(content)
    step, at = (20, start + 8) if big else (12, start + 2)
    for entry in range(at, at + count * step, step):
        (tag,) = struct.unpack_from(f"{order}H", content, entry)
        if tag in (256, 257):
            struct.pack_into(f"{order}H", changed, entry + 2, 4)
            value = width if tag == 256 else height
            struct.pack_into(f"{order}I", changed, entry + (12 if big else 8), value)
    return bytes(changed)


def _gif_of(content: bytes, width: int, height: int) -> bytes | None:
    frame = content.index(b"\x2c\0\0\0\0") + 5
    changed = _put(content, 6, "<HH", width, height)
    return None if changed is None else _put(changed, frame, "<HH", width, height)


def _heif_of(content: bytes, width: int, height: int) -> bytes | None:
    changed, start = content, -1
    while (start := content.find(b"ispe", start + 1)) >= 0:
        changed = _put(changed, start + 8, ">II", width, height) or changed
    return changed


def _put(content: bytes, start: int, layout: str, *values: int) -> bytes | None:
    """Numbers written over the bytes from `start`, or None where they are too large for that."""
    try:
        packed = struct.pack(layout, *values)
    except struct.error:
        return None
    return content[:start] + packed + content[start + len(packed) :]


_LIES: dict[str, Callable[[bytes, int, int], bytes | None]] = {
    ".png": _png_of,
    ".jpg": _jpeg_of,
    ".webp": _webp_of,
    ".tif": _tiff_of,
    ".bmp": lambda content, width, height: _put(content, 18, "<II", width, height),
    ".tga": lambda content, width, height: _put(content, 12, "<HH", width, height),
    ".dds": lambda content, width, height: _put(content, 12, "<II", height, width),
    ".gif": _gif_of,
    ".avif": _heif_of,
    ".heic": _heif_of,
}


def png(*chunks: bytes) -> bytes:
    """An RGB PNG of 2x2 pixels, with more chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(14)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def _bomb(side: int, bits: int = 8) -> bytes:
    """A whole PNG of black pixels, a thousandth of what it takes in memory."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0))
    pixels = zlib.compress(bytes(side * (1 + side * bits // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _exif_in_a_circle() -> bytes:
    """EXIF whose parts lie within themselves, and whose texts are longer than the file."""
    entries = [
        struct.pack("<HHII", 0x010F, 2, 2**31, 8),
        struct.pack("<HHII", 0x0112, 3, 1, 77),
        struct.pack("<HHII", 0x8769, 4, 1, 8),
        struct.pack("<HHII", 0x8825, 4, 1, 8),
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\x08\0\0\0"


def strange() -> Iterator[Damaged]:
    """What has an image's name and is none, what would fill the memory, and absurd metadata."""
    yield from _of_other_kinds()
    yield from _by_other_names()
    yield from _bombs()
    yield from _absurd_metadata()


def _of_other_kinds() -> Iterator[Damaged]:
    """What is no image, or none that is read, under an image's name."""
    samples = {sample.kind: sample for sample in whole()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.png", samples["png"].content)
    refused, unsupported = frozenset({UNREADABLE}), frozenset({UNSUPPORTED})
    for name, content in (
        ("empty", b""),
        ("zero", b"\0"),
        ("zeros", bytes(5000)),
        ("text", b"no image at all\n" * 50),
        ("page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
        ("zip", archive.getvalue()),
        ("elf", b"\x7fELF\x02\x01\x01" + bytes(1000)),
        ("noise", random.Random(1).randbytes(5000)),
        ("escape", b"\x1b]0;owned\x07\x1b[2J" * 20),
        *((f"only_{n}_bytes", samples["png"].content[:n]) for n in (1, 7, 8, 12, 16, 24, 33)),
        ("only_signature", b"RIFF\0\0\0\0WEBP"),
        ("only_gif", b"GIF89a"),
        ("only_tiff", b"II*\0"),
        ("far_tiff", b"II+\0\x08\0\0\0" + b"\xff" * 8),
    ):
        for suffix in (".png", ".jpg", ".tif", ".webp"):
            yield Damaged(f"{name}{suffix}", content, refused)
    yield Damaged("pdf.png", b"%PDF-1.7\n" + bytes(100), unsupported)
    yield Damaged("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", unsupported)
    yield Damaged("icon.png", _saved(Image.new("RGB", (16, 16)), "ICO"), unsupported)
    yield Damaged("photoshop.png", b"8BPS\0\x01" + bytes(100), unsupported)


def _by_other_names() -> Iterator[Damaged]:
    """An image is what its content says, by any name."""
    names = (".png", ".jpg", ".webp", ".tif")
    for sample in whole():
        if not sample.moves:
            for suffix in names:
                name = f"{sample.kind} named{suffix}".replace(" ", "_")
                yield Damaged(name, sample.content, frozenset({READ, UNWRITABLE}), of=sample)


def _bombs() -> Iterator[Damaged]:
    """Small files that unfold: 16 kB of PNG hold more pixels than are read by default."""
    refused = frozenset({UNREADABLE})
    yield Damaged("bomb.png", _bomb(13_000), refused)
    yield Damaged("bomb_of_1_bit.png", _bomb(24_000, bits=1), refused)
    pour = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(300_000_000), 9))
    yield Damaged("text_bomb.png", png(pour), refused)
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2, 2, 0, 0, 1, 10, 0, 0))
    endless = png(chunk(b"acTL", struct.pack(">II", 2**31, 0)), frame)
    yield Damaged("endless.png", endless, refused)
    pour = chunk(b"iCCP", b"Profile\0\0" + zlib.compress(bytes(300_000_000), 9))
    yield Damaged("profile_bomb.png", png(pour), frozenset({READ, UNREADABLE}))


def _absurd_metadata() -> Iterator[Damaged]:
    """Metadata that is too much, too deep, or nonsense."""
    samples = {sample.kind: sample for sample in whole()}
    refused, fine = frozenset({UNREADABLE}), frozenset({READ})
    small = Image.new("RGB", (4, 4), "teal")
    circle = _exif_in_a_circle()
    yield Damaged("circle.png", png(chunk(b"eXIf", circle)), fine)
    yield Damaged("circle.jpg", _saved(small, "JPEG", exif=b"Exif\0\0" + circle), fine)
    yield Damaged("circle.webp", _saved(small, "WEBP", exif=b"Exif\0\0" + circle), fine)
    noise = random.Random(2).randbytes(60_000)
    for kind, suffix in (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("AVIF", ".avif")):
        name = f"nonsense{suffix}"
        if kind != "AVIF":  # Pillow makes none with such
            yield Damaged(name, _saved(small, kind, exif=b"Exif\0\0" + noise), fine)
        yield Damaged(f"profile_{name}", _saved(small, kind, icc_profile=noise), ANY_END)
        if kind != "JPEG":
            packet = b"<x>" + b" " * 5_000_000 + b"</x>"
            large = png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
            content = large if kind == "PNG" else _saved(small, kind, xmp=packet)
            yield Damaged(f"long_{name}", content, frozenset({READ, UNREADABLE}))
    words = b"".join(chunk(b"tEXt", b"Key%d\0words" % number) for number in range(3000))
    yield Damaged("many_words.png", png(words), fine)
    parts = b"".join(chunk(b"teSt", b"") for _ in range(20_000))
    yield Damaged("many_parts.png", png(parts), fine)
    segments = b"\xff\xe1\xff\xff" + bytes(65533)
    jpeg = samples["jpeg"].content
    yield Damaged("many_segments.jpg", jpeg[:2] + segments * 60 + jpeg[2:], fine)
    count = struct.pack("<IH", 8, 9000) + bytes(12 * 9000)
    yield Damaged("tags_of_nothing.tif", b"II*\0" + count, refused)
    yield Damaged("page_in_a_circle.tif", _page_in_a_circle(samples["tiff"].content), fine)


def _page_in_a_circle(content: bytes) -> bytes:
    """A TIFF whose first page is followed by itself."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    end = start + 2 + 12 * count
    return content[:end] + struct.pack(f"{order}I", start) + content[end + 4 :]
