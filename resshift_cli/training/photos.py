"""Folders of pictures to train on -> decoded pictures, a few of which stay in memory."""

from __future__ import annotations

import csv
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    UnsupportedImageError,
    UsageError,
    printable,
)
from resshift_cli.imaging.formats import FORMATS
from resshift_cli.imaging.opening import read_header
from resshift_cli.imaging.read import read_rgb8

Photo = NDArray[np.uint8]
"""A picture, (H, W, 3)."""

DECODED_BYTES = 2 << 30  # decoded pictures that stay in memory, over all processes that read them
MAX_PIXELS = 180_000_000  # of one picture
LYING = (5, 6, 7, 8)  # EXIF orientations that turn a picture by a quarter
HQ, LQ = "hq", "lq"  # the folders of pairs

_PAIRS = "Pairs have the same names, the large pictures in `hq` and the small ones in `lq`."


class PhotoFiles(Sequence[Photo]):
    """Picture files, decoded to uint8 (H, W, 3) when they are asked for.

    Those asked for last stay in memory. A copy for another process starts without any.

    Args:
        paths: the files.
        budget: bytes of decoded pictures that are kept.
    """

    def __init__(self, paths: Sequence[Path], budget: int = DECODED_BYTES) -> None:
        self.paths = list(paths)
        self.budget = budget
        self._kept: OrderedDict[int, Photo] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """How many files."""
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Photo: ...

    @overload
    def __getitem__(self, index: slice) -> PhotoFiles: ...

    def __getitem__(self, index: int | slice) -> Photo | PhotoFiles:
        """Decode one picture, or take some of the files.

        Raises:
            InputMissingError, ImageUnreadableError, UnsupportedImageError: as `read.read`.
        """
        if isinstance(index, slice):
            return PhotoFiles(self.paths[index], self.budget)
        index = range(len(self.paths))[index]
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        pixels = _decode(self.paths[index])
        self._kept[index] = pixels
        self._bytes += pixels.nbytes
        while self._bytes > self.budget and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the decoded pictures."""
        return {**self.__dict__, "_kept": OrderedDict(), "_bytes": 0}


@dataclass(frozen=True, slots=True)
class Pictures:
    """What there is to train on.

    Attributes:
        hq: pictures, uint8 (H, W, 3).
        lq: their partners in the same order, where those are given.
    """

    hq: Sequence[Photo]
    lq: Sequence[Photo] | None = None

    def __len__(self) -> int:
        """How many pictures, or pairs."""
        return len(self.hq)

    @property
    def partners(self) -> Sequence[Photo]:
        """The low-resolution pictures of pairs."""
        if self.lq is None:
            raise ValueError("these pictures have no partners")
        return self.lq

    def first(self, count: int) -> Pictures:
        """The first so many."""
        return Pictures(self.hq[:count], None if self.lq is None else self.lq[:count])

    def shared_out(self, processes: int) -> Pictures:
        """The same for one of several processes, which keeps its share of them in memory."""

        def share(pictures: Sequence[Photo]) -> Sequence[Photo]:
            if not isinstance(pictures, PhotoFiles):
                return pictures
            return PhotoFiles(pictures.paths, pictures.budget // processes)

        return Pictures(share(self.hq), None if self.lq is None else share(self.lq))


def _decode(path: Path) -> Photo:
    """What `upscale` would read of a file, in 8-bit RGB: the first frame, without transparency.

    Raises:
        InputMissingError, ImageUnreadableError, UnsupportedImageError: as `read.read`.
    """
    with _taken_out():
        return read_rgb8(path, max_pixels=MAX_PIXELS)


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of what `_decode` gives, by the header where that says it.

    Raises:
        As `_decode`.
    """
    try:
        header = read_header(path, max_pixels=MAX_PIXELS, first_frame=True)
    except (ImageUnreadableError, UnsupportedImageError):  # another decoder may know it
        height, width, _ = _decode(path).shape
        return width, height
    return header.width, header.height


@contextmanager
def _taken_out() -> Iterator[None]:
    """Tell somebody who trains, and has no options for damaged files, the way out."""
    try:
        yield
    except ImageUnreadableError as error:
        hint = "Take it out of the photos."
        raise ImageUnreadableError(str(error), hint=hint) from error


def split(
    folders: Sequence[Path], listed: Path | None, *, paired: bool
) -> tuple[list[Path], list[Path]]:
    """The pictures to train on, and those held out for validation.

    Args:
        folders: where they are, at any depth; every tenth picture of a folder is held out.
        listed: CSV with the columns `file` and `split` (`train` or `held-out`) that says which
            pictures of the first folder to take instead, or None.
        paired: each folder has the folders `hq`, where the pictures are, and `lq`.

    Raises:
        InputMissingError: the list, a listed picture, one of a pair, or any picture at all, is
            missing.
        UsageError: the list lacks a column, or has a split that is neither.
    """
    kept: list[Path] = []
    held_out: list[Path] = []
    for number, folder in enumerate(folders):
        within = folder / HQ if paired else folder
        if listed is not None and number == 0:
            splits = read_splits(listed)
            kept += [within / name for name in splits["train"]]
            held_out += [within / name for name in splits["held-out"]]
        else:
            found = _images(within)
            held_out += found[::10]
            kept += [path for i, path in enumerate(found) if i % 10]
            if paired:
                _check_names(folder)
    missing = [path for path in kept + held_out if not path.is_file()]
    if missing or not kept or not held_out:
        few = " and ".join(printable(folder) for folder in folders)
        what = f"{printable(missing[0])} is missing" if missing else f"{few} has too few images"
        hint = f"--photos names the folder to train on{', which has `hq` and `lq`' * paired}."
        raise InputMissingError(f"{what}.", hint=hint)
    return kept, held_out


def is_list_of(folder: Path, listed: Path, *, paired: bool) -> bool:
    """Whether any picture that a list names is in a folder; `paired` as of `split`.

    Raises:
        InputMissingError, UsageError: as `read_splits`.
    """
    within = folder / HQ if paired else folder
    splits = read_splits(listed)
    return any((within / name).is_file() for name in splits["train"] + splits["held-out"])


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS)


def read_splits(listed: Path) -> dict[str, list[str]]:
    """The files of a list of photos, by split.

    Raises:
        InputMissingError: the list can't be read.
        UsageError: it lacks a column, or has a split that is neither.
    """
    splits: dict[str, list[str]] = {"train": [], "held-out": []}
    try:
        with listed.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                splits[row["split"]].append(row["file"])
    except OSError as error:
        raise InputMissingError(
            f"The list of photos {printable(listed)} can't be read: {error.strerror}.",
            hint='`photos = ""` in the configuration takes every image of the folder.',
        ) from error
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"The list of photos {printable(listed)} does not fit: {printable(error)}.",
            hint="It needs the columns `file` and `split`, which is `train` or `held-out`.",
        ) from error
    return splits


def open_pictures(paths: Sequence[Path], smallest: int, scale: int | None) -> Pictures:
    """Open pictures, leaving out those with a side below `smallest`.

    If all fit into memory they are decoded now, so that a damaged one is found at the start; else
    whenever they are needed.

    Args:
        paths: the files; those of pairs are in the folder `hq` beside `lq`.
        smallest: least width and height in pixels.
        scale: for pairs, how many times larger they are than their partners.

    Raises:
        ImageUnreadableError, UnsupportedImageError: a file is no image, or can't be decoded.
        InputMissingError: a partner is missing.
        UsageError: all are too small, or a partner does not have the size that goes with `scale`.
    """
    large = []
    pixels = 0
    for path in paths:
        width, height = _size(path)
        if min(width, height) >= smallest:
            large.append((path, (width, height)))
            pixels += width * height
    if not large:
        raise UsageError(
            f"Of {len(paths)} photos, the first being {printable(paths[0])}, none has {smallest} "
            "pixels along both sides.",
            hint="Photos to train on must exceed `crop`; held-out ones need 256 px.",
        )
    hq, lq = [path for path, _ in large], None
    share = DECODED_BYTES
    if scale is not None:
        share = DECODED_BYTES * scale**2 // (scale**2 + 1)
        lq = PhotoFiles(
            [_partner(path, size, scale) for path, size in large], DECODED_BYTES - share
        )
    pictures = Pictures(PhotoFiles(hq, share), lq)
    if 3 * pixels <= share:
        for files in filter(None, (pictures.hq, pictures.lq)):
            for index in range(len(files)):
                files[index]
    return pictures


def _check_names(folder: Path) -> None:
    """Refuse low-resolution pictures that are no picture's partner."""
    for path in _images(folder / LQ):
        original = folder / HQ / path.relative_to(folder / LQ)
        if not original.is_file():
            raise InputMissingError(
                f"{printable(path)} is the partner of nothing: {printable(original)} is missing.",
                hint=_PAIRS,
            )


def _partner(path: Path, size: tuple[int, int], scale: int) -> Path:
    folder = next(above for above in path.parents if above.name == HQ)
    partner = folder.with_name(LQ) / path.relative_to(folder)
    if not partner.is_file():
        raise InputMissingError(
            f"{printable(partner)}, the partner of {printable(path)}, is missing.", hint=_PAIRS
        )
    width, height = _size(partner)
    if (width * scale, height * scale) != size:
        raise UsageError(
            f"{printable(partner)} is {width}x{height} px and {printable(path)} "
            f"{size[0]}x{size[1]}, which is not "
            f"{scale} times as large.",
            hint=f"Cut {printable(path.name)} to multiples of {scale} px before it is reduced.",
        )
    return partner
