"""Everything that can go wrong in an expected way.

    ResShiftError                  a job failed
    |-- UsageError                 the request can't be read, or asks for the impossible
    |   |-- UnknownModelError      no model has this name
    |   `-- ImageArgumentError     what Python gave is no image, or has values of another range
    |-- InputMissingError          an input file does not exist, or can't be opened
    |-- ImageUnreadableError       a file is no image, truncated, empty or too large
    |-- UnsupportedImageError      an image, but of a kind that is not handled yet
    |-- OutputError                a result can't be written, or would replace a file
    |-- ModelUnavailableError      weights can't be fetched, are missing, damaged or do not fit
    `-- DeviceError                the device or precision asked for is not here

Each class says what its exit code means; help and README have their tables from here. The codes of
what is no error of these are in `commands.exits`.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

BUG = 70  # exit status of what no class here is for


def printable(text: object) -> str:
    r"""Text that came from outside, with control and other invisible characters escaped (`\x1b`).

    A file name can then neither move a terminal's cursor nor start a line of its own.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )


def counted(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


OUT_OF_MEMORY = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",  # the same, on Windows
    "Cannot allocate memory",  # the system's ENOMEM
    "failed to map segment",  # the system's, for a library
    "can't start new thread",  # which needs a stack
    "bad_alloc",
    "bad allocation",  # the same, on Windows
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)
# All that oneDNN says where its code finds no room; what it can't do is told at more length.
_NO_PRIMITIVE = "could not create a primitive"


class ResShiftError(Exception):
    """An expected failure.

    Attributes:
        hint: one sentence naming a command, an option or a file that helps.
        exit_code: the process' exit status when this ends a command.
        meaning: what that code tells.
    """

    exit_code = 1
    meaning = "a job failed, of too little memory for instance"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """How it gets to another process, whatever the arguments of its class are."""
        return _rebuilt, (type(self), self.args, self.__dict__)

    def facts(self) -> dict[str, Any]:
        """What --json, ledgers and services say of it."""
        return {"message": str(self), "hint": self.hint, "exit_code": self.exit_code}


def _rebuilt(
    kind: type[ResShiftError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> ResShiftError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class UsageError(ResShiftError):
    """The request can't be read, or asks for the impossible."""

    exit_code = 2
    meaning = "the request can't be read, or asks for the impossible"


class UnknownModelError(UsageError):
    """No table of weights.toml has this name."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known models: {', '.join(known)}."
        super().__init__(f"There is no model named '{name}'.", hint=hint)


class ImageArgumentError(UsageError, ValueError):
    """What `Upscaler` was given is no image, or its values are in another range than expected."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, here or on another device.

    Many do: `MemoryError` of Python and numpy, `OSError` of the system, `torch.OutOfMemoryError`
    of the CUDA allocator, a plain `RuntimeError` of torch's CPU allocator and of threads that can't
    be started, `ImportError` of libraries that find no room.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error)
    says_so = message == _NO_PRIMITIVE or any(words in message for words in OUT_OF_MEMORY)
    return isinstance(error, RuntimeError | ImportError) and says_so


@contextmanager
def memory_limit(hint: str) -> Iterator[None]:
    """Turn what Python and torch raise when memory runs out into an error with a way out.

    Raises:
        ResShiftError: in place of what `out_of_memory` knows.
    """
    try:
        yield
    except ResShiftError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise ResShiftError("There is not enough memory.", hint=hint) from error


def expected(error: Exception) -> ResShiftError:
    """An error as one that a record can hold; a bug must not end a night's work either.

    Its traceback is let go of, and so what the frames in it hold: whole images.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__, cause = None, cause.__cause__ or cause.__context__
    if isinstance(error, ResShiftError):
        return error
    if isinstance(error, OSError):
        return ResShiftError(f"{printable(error)}.", hint="Run the same command again.")
    bug = ResShiftError(
        f"This is a bug in resshift: {type(error).__name__}: {error}.",
        hint="`resshift --debug upscale` of this image shows the traceback.",
    )
    bug.exit_code = BUG
    return bug


class InputMissingError(ResShiftError):
    """An input file does not exist, or can't be opened."""

    exit_code = 3
    meaning = "an input file is missing, or can't be opened"


class ImageUnreadableError(ResShiftError):
    """A file is not an image, or is truncated, empty or too large."""

    exit_code = 4
    meaning = "an input file is no image, is damaged or too large"


class UnsupportedImageError(ResShiftError):
    """An image, but of a kind that is not handled yet."""

    exit_code = 5
    meaning = "an image of a kind that is not handled yet"


class OutputError(ResShiftError):
    """A result can't be written, or would replace a file."""

    exit_code = 6
    meaning = "a result can't be written (disk full, say), or would replace a file"


class ModelUnavailableError(ResShiftError):
    """A weight file is missing, damaged, or does not fit its layout."""

    exit_code = 7
    meaning = "weights can't be fetched, are missing, damaged or do not fit"


class DeviceError(ResShiftError):
    """The device or precision asked for is not here."""

    exit_code = 8
    meaning = "the device or precision asked for is not here"
