"""Large images of which several hands make a piece each, and one puts the pieces together.

A piece is a band of rows: a temporary file beside the result, or in a store an object, of float32
as they were computed. Whoever puts them together does with the image all that is done with any
other, but that its pixels come out of the pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np

from resshift_cli.batch.groups import Group, Piece
from resshift_cli.batch.places import Place
from resshift_cli.batch.resume import Job
from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging.files import Loaded
from resshift_cli.imaging.picture import Pixels
from resshift_cli.system import atomic

_BAND = 1 << 18  # pixels that are read at a time


@dataclass(eq=False)
class _Cut:
    """An image of which pieces are made.

    Attributes:
        job: it.
        names: of its pieces, in order.
        made: what became of them, by name.
        is_over: whether no more of them are wanted.
    """

    job: Job
    names: Sequence[str]
    made: dict[str, Piece] = field(default_factory=dict)
    is_over: bool = False

    @property
    def work(self) -> float:
        """What each piece takes, and putting them together; see `Job.work`."""
        return self.job.work / (len(self.names) + 1)


class Pieces:
    """Cuts images into pieces to be made, and knows what of them is.

    Args:
        place: of the results.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._of: dict[str, _Cut] = {}  # by the names of pieces

    def cut(self, groups: Iterable[Group]) -> Iterator[Group]:
        """The same groups, with one for every piece in place of an image that may be cut."""
        for group in groups:
            if len(group.bands) < 2:
                yield group
                continue
            (job,) = group.jobs
            folder, slash, name = job.output.rpartition("/")
            names = [f"{folder}{slash}{atomic.temporary_name(name)}" for _ in group.bands]
            whole = _Cut(job, names)
            self._of |= dict.fromkeys(names, whole)
            for piece, rows in zip(names, group.bands, strict=True):
                if not whole.is_over:
                    one = replace(job, output=piece, work=whole.work, replaces=True)
                    yield Group([one], piece=rows)

    def made(self, piece: Piece) -> Group | None:
        """Hear what became of a piece; and what is to be done now, if that was the last one.

        Where a piece could not be made, the image is done whole: that tells why, if it can't be.
        """
        whole = self._of.get(piece.name)
        if whole is None:
            self._place.remove(piece.name)
            return None
        if whole.is_over:
            return None
        whole.made[piece.name] = piece
        seen = {each.seen for each in whole.made.values()}
        left = replace(whole.job, work=whole.job.work - len(whole.made) * whole.work)
        if piece.error is not None or len(seen) > 1:
            whole.is_over = True
            return Group([left])
        if len(whole.made) < len(whole.names):
            return None
        whole.is_over = True
        return Group([left], pieces=[whole.made[name] for name in whole.names])

    def give_up(self, name: str) -> Job | None:
        """Want no more pieces of an image of which one, by its name, can't be made.

        Returns:
            The image; None if it is given up already.
        """
        whole = self._of[name]
        is_over, whole.is_over = whole.is_over, True
        return None if is_over else whole.job

    def is_wanted(self, group: Group) -> bool:
        """Whether a group is no piece, or one that is still wanted."""
        whole = self._of.get(group.jobs[0].output)
        return group.piece is None or not (whole is None or whole.is_over)

    def forget(self, output: str | None = None) -> None:
        """Remove the pieces of a result that is there, or can't be; by default all."""
        for name, whole in [*self._of.items()]:
            if output is None or whole.job.output == output:
                self._place.remove(name)
                del self._of[name]


def write(bands: Iterable[Pixels], file: BinaryIO) -> None:
    """Write a piece.

    Args:
        bands: of it, float32 (n, W, C) in [0, 1].
        file: new.
    """
    for band in bands:
        file.write(np.ascontiguousarray(band, np.float32).data)


def seen(loaded: Loaded) -> tuple[object, ...]:
    """What tells whether it is the same file for all, wherever they are."""
    state, is_here = loaded.state, loaded.source.remote is None
    assert state is not None  # it has been read
    return (loaded.shape, state.size, state.mtime_ns if is_here else 0, state.version)


def joined(
    pieces: Sequence[Piece], place: Place, loaded: Loaded, shape: tuple[int, int, int]
) -> Iterator[Pixels]:
    """The result that pieces make up.

    Args:
        pieces: from the top.
        place: where they are.
        loaded: the image, which must still be what they were made of.
        shape: (H, W, C) of the result.

    Yields:
        Bands of it, float32 (n, W, C) in [0, 1].

    Raises:
        ImageUnreadableError: the image is another one by now.
        InputMissingError: a piece is gone.
    """
    _, width, channels = shape
    row = 4 * width * channels
    block = max(1, _BAND // width) * row
    done = 0
    for piece in pieces:
        if piece.seen != seen(loaded):
            raise _changed(loaded)
        with place.source(piece.name).fetched().open() as file:
            while data := file.read(block):
                rows = np.frombuffer(data, np.float32).reshape(-1, width, channels)
                done += len(rows)
                yield rows
    if done != shape[0]:
        raise _changed(loaded)


def _changed(loaded: Loaded) -> ImageUnreadableError:
    return ImageUnreadableError(
        f"{loaded.source.name} changed while its pieces were made.",
        hint="Run the same command again when it is complete.",
    )
