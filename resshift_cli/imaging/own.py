"""Which files are results of ours, by what they say of themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags

from resshift_cli.imaging.folders import Found
from resshift_cli.imaging.opening import decoding, opened

SIGNATURE = "resshift "
"""What the note that results carry begins with; see `picture.note`."""

KIND = "results of resshift"
"""What they are called where other files go by their extension."""


def is_result(path: Path) -> bool:
    """Whether a file says that it is a result of ours; False where it can't be read."""
    try:
        with opened(path, max_pixels=sys.maxsize) as file, decoding(max_pixels=sys.maxsize):
            image = file.image()
            if image.format == "PNG" and "exif" not in image.info:
                return False  # Pillow would decode it to look behind its pixels
            said = image.getexif().get(ExifTags.Base.ProcessingSoftware, "")
            return str(said).startswith(SIGNATURE)
    except Exception:  # whoever reads it will tell what is wrong
        return False


def among(paths: Sequence[Path]) -> list[Path]:
    """Those of some inputs that are results of ours and not meant, as others are there, too."""
    results = [path for path in paths if is_result(path)] if len(paths) > 1 else []
    return results if len(results) < len(paths) else []


def leave_out(folder: Path, found: Found) -> None:
    """Count the results `among` what was found in a folder as left alone."""
    results = {str(path) for path in among([folder / name for name in found.images])}
    if results:
        found.images = [name for name in found.images if str(folder / name) not in results]
        found.others[KIND] += len(results)
