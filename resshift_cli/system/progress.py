"""How a job tells how far it is: in the words of tqdm, which the whole ecosystem speaks.

A job is handed `Bars` and makes a bar of it for whatever it counts. `tqdm.auto.tqdm` is such a
maker of bars, and so is what the commands draw with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Protocol, cast


class Bar(Protocol):
    """One count on its way, with the methods of `tqdm.tqdm` that jobs use."""

    def update(self, n: float = 1) -> object:
        """Count `n` more units as done."""

    def set_postfix_str(self, s: str = "") -> object:
        """Say what is worth saying beside the count."""

    def close(self) -> object:
        """Take it from the screen."""


class Bars(Protocol):
    """Makes bars, with the arguments of `tqdm.tqdm` that jobs use."""

    def __call__(
        self,
        *,
        total: float | None = None,
        desc: str | None = None,
        unit: str = "it",
        unit_scale: bool = False,
        initial: float = 0,
    ) -> Bar:
        """A new bar.

        Args:
            total: units in all; None if that is not known.
            desc: what is being worked on.
            unit: what is counted, in the singular.
            unit_scale: whether large counts are told as 1.2 MB, say.
            initial: units that were done before.
        """


class _Silent:
    def update(self, n: float = 1) -> None:
        pass

    def set_postfix_str(self, s: str = "") -> None:
        pass

    def close(self) -> None:
        pass


def silent(
    *,
    total: float | None = None,
    desc: str | None = None,
    unit: str = "it",
    unit_scale: bool = False,
    initial: float = 0,
) -> Bar:
    """`Bars` that show nothing."""
    return _Silent()


class _Called(_Silent):
    def __init__(self, call: Callable[[int, int], object], total: float, initial: float) -> None:
        self.call, self.total, self.done = call, total, initial

    def update(self, n: float = 1) -> None:
        self.done += n
        self.call(round(self.done), round(self.total))


def calling(call: Callable[[int, int], object]) -> Bars:
    """`Bars` that call a function with units done and units in all, where these are known."""

    def bars(
        *,
        total: float | None = None,
        desc: str | None = None,
        unit: str = "it",
        unit_scale: bool = False,
        initial: float = 0,
    ) -> Bar:
        return _Silent() if total is None else _Called(call, total, initial)

    return bars


def bars_of(progress: Bars | Callable[[int, int], object] | bool | None) -> Bars:
    """`Bars` of what a caller may give to see how far a job is.

    Args:
        progress: True for tqdm's bars, in a script or a notebook; None or False for none; makers of
            bars as they are; anything else is called with units done and units in all.
    """
    if progress is True:
        from tqdm.auto import tqdm

        return cast(Bars, tqdm)
    if progress is None or progress is False:
        return silent
    if _makes_bars(progress):
        return cast(Bars, progress)
    return calling(cast(Callable[[int, int], object], progress))


def _makes_bars(call: Callable[..., object]) -> bool:
    """Whether it takes what makers of bars are given, by name."""
    try:
        signature = inspect.signature(call)
        signature.bind(total=1, desc="", unit="", unit_scale=False, initial=0)
    except (TypeError, ValueError):  # it does not, or is of C and does not tell
        return False
    return True
