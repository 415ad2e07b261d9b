"""What a service keeps: photos that it was given or named, in a folder that is ours alone."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from resshift_cli.errors import OutputError, printable
from resshift_cli.imaging.files import Handling, load
from resshift_cli.imaging.opening import MAX_PIXELS
from resshift_cli.serving import photos
from resshift_cli.serving.photos import Photo, Root
from resshift_cli.serving.problems import BusyError, Refusal
from resshift_cli.viewing import pyramid

AT_ONCE = 2  # photos that are read to be looked at, each of which is in memory


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service takes on.

    Attributes:
        pixels: of a photo.
        upload: bytes of a photo that is sent.
        stored: bytes of photos and results that are kept.
        queue: jobs that wait.
        seconds: that a job may take.
        keep: seconds that photos and results are kept after they were last asked for.
    """

    pixels: int = MAX_PIXELS
    upload: int = 256 << 20
    stored: int = 16 << 30
    queue: int = 64
    seconds: float = 6 * 3600
    keep: float = 3600


class Shelf:
    """Photos by their ids, and a folder for them and for results; close it in the end.

    Args:
        root: files that clients may name.
        limits: what is taken.

    Raises:
        OutputError: there is no folder to be had.
    """

    def __init__(self, root: Root, limits: Limits) -> None:
        self.root, self.limits = root, limits
        try:
            self._folder = tempfile.TemporaryDirectory(
                prefix="resshift-serve-", ignore_cleanup_errors=True
            )
        except OSError as error:
            raise OutputError(
                f"Nothing can be kept in {printable(tempfile.gettempdir())}: {error.strerror}.",
                hint="Make room there, or set TMPDIR to another folder.",
            ) from error
        self.folder = Path(self._folder.name)
        self.photos: dict[str, Photo] = {}
        self._reading = threading.Semaphore(AT_ONCE)

    @property
    def handling(self) -> Handling:
        """How files are read and written where nothing is said."""
        return Handling(max_pixels=self.limits.pixels)

    def receive(self, content: BinaryIO, name: str) -> Photo:
        """Keep and read an image that a client sent.

        Raises:
            BusyError: there is no room for more.
            ResShiftError: it is no image, or can't be kept.
        """
        if self.stored() > self.limits.stored:
            raise BusyError(
                "The service keeps as many photos and results as it may.",
                hint="Delete what is finished, or ask again later.",
            )
        return self.know(photos.received(content, name, self.folder))

    def open(self, name: str) -> Photo:
        """Read an image below the root.

        Raises:
            ResShiftError: there is no such file, or it is no image.
        """
        return self.know(self.root.photo(name))

    def know(self, photo: Photo) -> Photo:
        """Read a photo, and remember it.

        Raises:
            ResShiftError: it is no image.
        """
        try:
            with self._reading:
                photo.look(self.handling)
        except BaseException:
            photo.discard()
            raise
        self.photos[photo.id] = photo
        return photo

    def photo(self, name: str) -> Photo:
        """One that is known.

        Raises:
            Refusal: there is none of that name any more.
        """
        if name not in self.photos:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "There is no such photo, or not any more.",
                hint="Send it again: what nobody asks for is deleted after a while (--keep).",
            )
        photo = self.photos[name]
        photo.touched = time.monotonic()
        return photo

    def small(self, photo: Photo) -> tuple[str, bytes]:
        """A photo of some hundred pixels a side, as any browser can show it: its type and file.

        Raises:
            ResShiftError: it can't be read any more.
        """
        with self._reading, photo.source() as source:
            loaded = load(source, replace(self.handling, first_frame=True))
            alpha = loaded.shape[2] in (2, 4)
            encode = pyramid.as_png if alpha else pyramid.as_jpeg
            content = pyramid.smallest(loaded.rows, loaded.shape, encode(loaded.picture.icc))
        return "image/png" if alpha else "image/jpeg", content

    def stored(self) -> int:
        """Bytes of what is kept."""
        total = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    total += entry.stat().st_size
        return total

    def forget(self, due: float, wanted: Collection[str]) -> None:
        """Delete the photos that nobody has asked for since then, and no job needs.

        Args:
            due: in seconds of `time.monotonic`.
            wanted: ids of those that jobs need.
        """
        for name, photo in list(self.photos.items()):
            if photo.touched < due and name not in wanted:
                del self.photos[name]
                photo.discard()

    def close(self) -> None:
        """Delete all of it."""
        self._folder.cleanup()
