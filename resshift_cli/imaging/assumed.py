"""What the colours of a file are taken for that says nothing of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from PIL import ImageCms

from resshift_cli.errors import InputMissingError, UsageError, printable
from resshift_cli.imaging import icc
from resshift_cli.imaging.icc import SRGB_CURVE, SRGB_PRIMARIES, Curve, Primaries

_D65 = SRGB_PRIMARIES.white
_SPACES = {  # as CSS calls them
    "srgb": (SRGB_PRIMARIES, SRGB_CURVE),
    "display-p3": (Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65), SRGB_CURVE),
    "a98-rgb": (Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65), Curve(563 / 256)),
}
INKS = "Chemical proof"
"""The profile of CMYK that libvips comes with, in the public domain."""

NAMES = (*_SPACES, "cmyk")
_MOST = 16 << 20  # bytes of a profile


@dataclass(frozen=True, slots=True)
class Assumed:
    """Profiles for files without one.

    Attributes:
        name: which, as a ledger says; None if nobody chose.
        profiles: by the kind of colours that they are for, as profiles call it.
    """

    name: str | None = None
    profiles: Mapping[bytes, bytes] = field(default_factory=dict)

    def profile(self, mode: str) -> bytes | None:
        """What an image without a profile is taken for; None is sRGB.

        Args:
            mode: Pillow's.
        """
        if mode == "CMYK":
            return self.profiles.get(b"CMYK") or _inks()
        return self.profiles.get(b"GRAY" if mode in ("1", "L", "LA", "I", "I;16") else b"RGB ")

    def warning(self, name: str) -> tuple[str, ...]:
        """What to tell of CMYK that is taken for what nobody chose; `name` is its file's."""
        if b"CMYK" in self.profiles:
            return ()
        return (
            f"{name} is in CMYK colours without a profile, and is taken for '{INKS}', which comes"
            " with libvips; --assume-profile names another.",
        )


USUAL = Assumed()
"""sRGB, and inks as libvips has them."""


def named(text: str) -> Assumed:
    """What a user says that colours without a profile are: one of `NAMES`, or a file.

    Raises:
        InputMissingError: it is neither.
        UsageError: the file is no profile for gray, RGB or CMYK.
    """
    name = text.lower()
    if name == "cmyk":
        return Assumed(name, {b"CMYK": _inks()})
    if name in _SPACES:
        space = _SPACES[name]
        gray = icc.make(f"{text} gray", *space, gray=True)
        return Assumed(name, {b"RGB ": icc.make(text, *space), b"GRAY": gray})
    path = Path(text)
    try:
        with path.open("rb") as file:
            profile = file.read(_MOST)
    except OSError as error:
        near = get_close_matches(name, NAMES, n=1)
        raise InputMissingError(
            f"{printable(text)} is no profile that there is, and no file that can be opened"
            " (--assume-profile).",
            hint=f"Did you mean {near[0]}?" if near else f"Name a file, or {', '.join(NAMES)}.",
        ) from error
    kind = profile[16:20]
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
        usable = profile[36:40] == b"acsp" and kind in (b"RGB ", b"GRAY", b"CMYK")
    except (ImageCms.PyCMSError, OSError):
        usable = False
    if not usable:
        raise UsageError(
            f"{printable(text)} is no colour profile for gray, RGB or CMYK (--assume-profile).",
            hint=f"Name an ICC file (.icc, .icm), or {', '.join(NAMES)}.",
        )
    return Assumed(f"{path.name} ({sha256(profile).hexdigest()[:12]})", {kind: profile})


def _inks() -> bytes:
    from resshift_cli.imaging import vips

    return vips.profile("cmyk")
