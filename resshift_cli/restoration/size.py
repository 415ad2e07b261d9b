"""How large a result is: so many times its input, or as large as a box allows; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resshift_cli.errors import UsageError

MAX_SCALE = 16


def target_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of the result, at least one pixel each."""
    return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True, slots=True)
class Box:
    """What results are to fill as far as their proportions allow.

    Attributes:
        width: most pixels across; None for any number.
        height: most pixels down; likewise. Equal to `width`, it is the long side that counts.
    """

    width: int | None = None
    height: int | None = None

    def __str__(self) -> str:
        """As it stands in names and ledgers."""
        if self.height is None:
            return f"w{self.width}"
        if self.width is None:
            return f"h{self.height}"
        return f"long{self.width}" if self._is_square else f"fit{self.width}x{self.height}"

    def scale(self, height: int, width: int, name: str = "The image") -> float:
        """The scale with which an image of that size fills the box.

        Args:
            height: of the image, in pixels, upright.
            width: likewise.
            name: what messages call it.

        Raises:
            UsageError: the image is larger than the box, or needs a scale above `MAX_SCALE`.
        """
        scale = min((self.width or math.inf) / width, (self.height or math.inf) / height)
        if scale < 1:
            raise UsageError(
                f"{name} is {width}x{height} already, more than {self._words}.",
                hint="Images are only enlarged: ask for a larger size, or leave this one out.",
            )
        if scale > MAX_SCALE:
            tall, wide = target_size(height, width, MAX_SCALE)
            raise UsageError(
                f"{name} is {width}x{height}, and {self._words} is {scale:.4g} times that.",
                hint=f"At most {MAX_SCALE} times is possible, {wide}x{tall}.",
            )
        return scale

    @property
    def _is_square(self) -> bool:
        return self.width == self.height

    @property
    def _words(self) -> str:
        if self.height is None:
            return f"{self.width} pixels across"
        if self.width is None:
            return f"{self.height} pixels down"
        return f"{self.width} pixels" if self._is_square else f"{self.width}x{self.height}"
