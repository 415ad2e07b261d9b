"""Which files are results of ours, by what they say of themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags

from resshift_cli.imaging.folders import Beside, Inputs
from resshift_cli.imaging.opening import decoding, opened
from resshift_cli.imaging.sources import Source

File = TypeVar("File", Path, Source)

SIGNATURE = "resshift "
"""What the note that results carry begins with; see `picture.note`."""

KIND = "results of resshift"
"""What they are called where other files go by their extension."""


def is_result(file: Path | Source) -> bool:
    """Whether a file says that it is a result of ours; False where it can't be read."""
    try:
        with opened(file, max_pixels=sys.maxsize) as found, decoding(max_pixels=sys.maxsize):
            image = found.image()
            if image.format == "PNG" and "exif" not in image.info:
                return False  # Pillow would decode it to look behind its pixels
            said = image.getexif().get(ExifTags.Base.ProcessingSoftware, "")
            return str(said).startswith(SIGNATURE)
    except Exception:  # whoever reads it will tell what is wrong
        return False


def among(files: Sequence[File]) -> list[File]:
    """Those of some inputs that are results of ours and not meant, as others are there, too."""
    results = [file for file in files if is_result(file)] if len(files) > 1 else []
    return results if len(results) < len(files) else []


def apart_from_results(inputs: Inputs, names: Iterable[str], beside: Beside) -> Iterator[str]:
    """Those of a folder's images that are no results of ours, which are counted as left alone.

    Args:
        inputs: of which they are.
        names: of the images.
        beside: is told of results.
    """
    for name in names:
        if is_result(inputs.header(name)):
            beside.others[KIND] += 1
        else:
            yield name


def are_all(inputs: Inputs) -> bool:
    """Whether a folder's images are all results of ours, which are meant then."""
    return all(is_result(inputs.header(name)) for name in inputs.images())
