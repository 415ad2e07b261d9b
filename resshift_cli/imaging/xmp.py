"""XMP packets made true of a result: its size, and what of the old file does not come along."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from resshift_cli.imaging.companions import Companion

_GOOGLE = "http://ns.google.com/photos/1.0/"
# Namespaces whose every word is about something that is not in a result, and what that is.
_PROMISES: dict[str, Companion | None] = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": Companion.GAIN_MAP,
    "http://ns.apple.com/HDRGainMap/1.0/": Companion.GAIN_MAP,
    f"{_GOOGLE}container/": None,  # lists what the file ends with
    f"{_GOOGLE}container/item/": None,
    f"{_GOOGLE}depthmap/": Companion.DEPTH,
    "http://ns.google.com/photos/dd/1.0/device/": Companion.DEPTH,
    f"{_GOOGLE}image/": Companion.PICTURE,
    f"{_GOOGLE}audio/": Companion.SOUND,
}
_PROMISING_WORDS = {  # of namespaces that say other things too
    f"{_GOOGLE}camera/": ("MotionPhoto", "MicroVideo"),
    "http://ns.adobe.com/xmp/note/": ("HasExtendedXMP",),
}
_SEMANTICS = {"GainMap": Companion.GAIN_MAP, "MotionPhoto": Companion.VIDEO}
_SEMANTICS |= {"Depth": Companion.DEPTH}
_TAG = re.compile(rb"<[\w.:-]+")
_ATTRIBUTE = re.compile(rb"""\s+([\w.:-]+)\s*=\s*("[^"]*"|'[^']*')""")


def of_size(packet: bytes, size: tuple[int, int]) -> bytes:
    """The packet of an upright result of (height, width); the rest of it stays as it is."""
    height, width = size
    for name, value in (
        (b"tiff:Orientation", 1),
        (b"tiff:ImageWidth", width),
        (b"tiff:ImageLength", height),
        (b"exif:PixelXDimension", width),
        (b"exif:PixelYDimension", height),
    ):
        packet = re.sub(
            rb"(" + name + rb"""\s*(?:=\s*["']|>\s*))\d+""", rb"\g<1>%d" % value, packet
        )
    return packet


def without_promises(packet: bytes) -> tuple[bytes | None, frozenset[Companion]]:
    """The packet without what it says of other things in its file, and what those are.

    One that promises such in words that can't be taken apart is left out.
    """
    if not any(space.encode() in packet for space in (*_PROMISES, *_PROMISING_WORDS)):
        return packet, frozenset()
    found = _Found()
    try:
        found.read(packet)
    except (expat.ExpatError, ValueError, IndexError):
        return None, frozenset()
    for start, end in sorted(found.spans, reverse=True):
        packet = packet[:start] + packet[end:]
    return packet, frozenset(found.companions)


@dataclass(slots=True)
class _Found:
    """Where in a packet promises stand, and of what."""

    spans: list[tuple[int, int]] = field(default_factory=list)
    companions: set[Companion] = field(default_factory=set)

    def read(self, packet: bytes) -> None:
        """Go through it.

        Raises:
            ExpatError: it is no XML.
        """
        parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        spaces: dict[str, list[str]] = {}
        opened: list[int] = []  # where the outermost promising element and those within it begin

        def declare(prefix: str | None, space: str) -> None:
            spaces.setdefault(prefix or "", []).append(space)

        def begin(name: str, attributes: dict[str, str]) -> None:
            start = parser.CurrentByteIndex
            promises = self._note(name, "")
            for attribute, value in attributes.items():
                self._note(attribute, value)
            if opened or promises:
                opened.append(start)
                return
            for (prefix, word), value, (left, right) in _attributes(packet, start):
                known = spaces.get(prefix)
                declared = prefix == "xmlns" and value in _PROMISES
                if declared or (known and _is_promise(known[-1], word)):
                    self.spans.append((left, right))

        def end(name: str) -> None:
            if opened:
                start = opened.pop()
                if not opened:
                    close = packet.index(b">", parser.CurrentByteIndex) + 1
                    self.spans.append((start, close))

        parser.StartNamespaceDeclHandler = declare
        parser.EndNamespaceDeclHandler = lambda prefix: spaces[prefix or ""].pop()
        parser.StartElementHandler, parser.EndElementHandler = begin, end
        parser.Parse(packet.rstrip(b"\0"), True)

    def _note(self, name: str, value: str) -> bool:
        """Remember what a name, and the value of an attribute, promise; whether it does."""
        space, _, word = name.rpartition(" ")
        if not _is_promise(space, word):
            return False
        companion = _PROMISES.get(space)
        if word.startswith(("MotionPhoto", "MicroVideo")) and value != "0":
            companion = Companion.VIDEO
        if word == "Semantic":
            companion = _SEMANTICS.get(value)
        if companion is not None:
            self.companions.add(companion)
        return True


def _is_promise(space: str, word: str) -> bool:
    return space in _PROMISES or word.startswith(_PROMISING_WORDS.get(space, ("\0",)))


def _attributes(
    packet: bytes, start: int
) -> Iterator[tuple[tuple[str, str], str, tuple[int, int]]]:
    """(prefix, name), value and place of every attribute of the tag that begins at `start`."""
    tag = _TAG.match(packet, start)
    place = tag.end() if tag else start
    while found := _ATTRIBUTE.match(packet, place):
        prefix, _, word = found[1].decode().rpartition(":")
        yield (prefix, word), found[2][1:-1].decode(), found.span()
        place = found.end()
