"""What else than a picture a file holds, and does not come along: a gain map, a video, depth."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum
from typing import BinaryIO

from PIL import Image

from resshift_cli.imaging import isobmff

_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
_SAMSUNG_VIDEO = b"\x30\x0a"  # kind of an entry in what Samsung's phones put behind a JPEG


class Companion(Enum):
    """Something beside a picture, as people are told of it."""

    GAIN_MAP = "HDR gain map"
    VIDEO = "video (motion photo)"
    DEPTH = "depth map"
    PICTURE = "second picture"
    SOUND = "sound"


def of(image: Image.Image, file: BinaryIO | None) -> frozenset[Companion]:
    """What an open file has, by other signs than its XMP; where it stands is changed."""
    found = set()
    if image.format in ("JPEG", "MPO"):
        segments = getattr(image, "applist", ())
        if any(body.startswith(_ISO_GAIN_MAP) for _, body in segments):
            found.add(Companion.GAIN_MAP)
        if file is not None and _ends_in_samsungs_video(file):
            found.add(Companion.VIDEO)
    elif image.format in ("AVIF", "HEIF"):
        if any("hdrgainmap" in kind.lower() for kind in image.info.get("aux") or ()):
            found.add(Companion.GAIN_MAP)
        if image.info.get("depth_images"):
            found.add(Companion.DEPTH)
        if file is not None and _has_gain_map(file):
            found.add(Companion.GAIN_MAP)
    return frozenset(found)


def warnings(name: str, companions: Iterable[Companion]) -> tuple[str, ...]:
    """What to tell of them; empty where there are none. `name` is the file's."""
    words = sorted(companion.value for companion in companions)
    if not words:
        return ()
    listed = " and ".join(words)
    return (f"{name} has more than a picture: its {listed} can't come along.",)


def _has_gain_map(file: BinaryIO) -> bool:
    try:
        return isobmff.main_image(file).gain_map
    except (ValueError, IndexError, struct.error):  # the decoder managed without
        return False


def _ends_in_samsungs_video(file: BinaryIO) -> bool:
    """Whether the list of what is behind the picture, which ends the file, has a video in it."""
    end = file.seek(0, 2)
    file.seek(max(0, end - 8))
    length, mark = int.from_bytes(file.read(4), "little"), file.read(4)
    if mark != b"SEFT" or not 12 <= length <= end - 8:
        return False
    file.seek(end - 8 - length)
    head, entries = file.read(12), file.read(length - 12)
    kinds = {entries[at + 2 : at + 4] for at in range(0, len(entries), 12)}
    return head.startswith(b"SEFH") and _SAMSUNG_VIDEO in kinds
