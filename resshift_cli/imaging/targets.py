"""Where results go: what they are called, whether they can be written, and how they are.

A file appears whole or not at all; stdout gets nothing before all of it is there.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from resshift_cli.errors import OutputError, UsageError, printable
from resshift_cli.imaging.formats import AS_IT_IS, FORMATS, SaveOptions
from resshift_cli.system import atomic, held
from resshift_cli.system.held import HeldFolder
from resshift_cli.system.storage import Remote

Content = bytes | memoryview | Callable[[BinaryIO], object]
"""A file's bytes, or what writes them to a new file."""

STDOUT = Path("<stdout>")
"""What messages call it."""


def output_folder(destination: str | Path | None, *, several: bool) -> Path | None:
    """The folder that `-o` means, or None where it means a file or is absent.

    It means a folder if it is one, ends with a slash, or has to take several results. Give it as
    the string that was typed: a `Path` has lost its slash.

    Raises:
        UsageError: several results are to go to what looks like, or is, a single file.
    """
    if destination is None:
        return None
    folder = Path(destination)
    if os.path.isdir(folder) or str(destination).endswith(("/", os.sep)):
        return folder
    if not several:
        return None
    if os.path.exists(folder) or folder.suffix.lower() in FORMATS:
        raise UsageError(
            f"Several results can't all go to the file {printable(folder)}.",
            hint="Give a folder, such as: -o results/",
        )
    return folder


@contextmanager
def made_folder(folder: Path | None) -> Iterator[None]:
    """Make a folder for results, if one is named; what is new and got nothing is removed again.

    Raises:
        OutputError: it can't be made.
    """
    if folder is None:
        yield
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    atomic.make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # the first one that is not empty
            for path in new:
                path.rmdir()


def output_path(
    source: Path,
    *,
    mark: str,
    destination: str | Path | None = None,
    several: bool = False,
    options: SaveOptions = AS_IT_IS,
) -> Path:
    """Where the result of one input goes.

    With the mark `_x4`, `photo.png` becomes `photo_x4.png` beside it, or in the folder that
    `destination` means; a destination that is a file is taken as it is. The extension is that of
    `extension_of`.

    Raises:
        UsageError: as `output_folder`, or a file is named after another format.
    """
    folder = output_folder(destination, several=several)
    if destination is not None and folder is None:
        return _file(Path(destination), options)
    name = f"{source.stem}{mark}{extension_of(source, options)}"
    return (folder or source.parent) / name


def extension_of(source: Path, options: SaveOptions = AS_IT_IS) -> str:
    """The extension of a result that is not named, with its dot.

    It is that of `options.format`; without one it is kept if results can be written with it,
    whatever the file holds, and otherwise (GIF with its 256 colours, none at all) it is `.png`.
    """
    if options.format is not None:
        return f".{options.format}"
    kept = FORMATS.get(source.suffix.lower())
    return source.suffix if kept is not None and kept.implied else ".png"


def _file(path: Path, options: SaveOptions) -> Path:
    """A result's file, unless its name says another format than the options."""
    named = FORMATS.get(path.suffix.lower())
    if options.format is None or named in (None, FORMATS.get(f".{options.format.lower()}")):
        return path
    raise UsageError(
        f"{printable(path)} has the name of another format than {options.format}.",
        hint=f"Call it {printable(path.with_suffix(f'.{options.format}').name)}, or leave the "
        "format (--format) out.",
    )


def plan_outputs(
    sources: Sequence[Path],
    *,
    mark: str,
    destination: str | Path | None = None,
    several: bool | None = None,
    options: SaveOptions = AS_IT_IS,
    beside: Sequence[Path] = (),
) -> list[Path]:
    """Where the result of every input goes; nothing is created.

    Args:
        sources: the inputs.
        mark: what stands behind their names in those of the results.
        destination: as `output_folder`.
        several: whether `destination` has to take several results; by default, whether it has now.
        options: how they are encoded.
        beside: inputs that have no result of their own, such as masks.

    Raises:
        UsageError: two results would have the same name, one would replace an input (refused even
            where overwriting is allowed), or as `output_folder`.
    """
    several = len(sources) > 1 if several is None else several
    outputs = [
        output_path(source, mark=mark, destination=destination, several=several, options=options)
        for source in sources
    ]
    inputs = {identity(source): source for source in (*sources, *beside)}
    makers: dict[str, Path] = {}
    for source, output in zip(sources, outputs, strict=True):
        key = identity(output)
        if key in makers:
            raise UsageError(
                f"{printable(makers[key])} and {printable(source)} would both be written to"
                f" {printable(output)}.",
                hint="Do them one by one, each with a name of its own after -o.",
            )
        if key in inputs:
            raise UsageError(
                f"The result of {printable(source)} would replace the input"
                f" {printable(inputs[key])}.",
                hint="Give another file or folder with -o; inputs are never overwritten.",
            )
        makers[key] = source
    return outputs


def check_writable(path: Path, *, overwrite: bool, options: SaveOptions = AS_IT_IS) -> None:
    """Find out before the work, as far as possible, whether its result can be saved.

    Raises:
        UsageError: the extension is none that results are written with.
        OutputError: as `check_place`.
    """
    options.format_of(path)
    check_place(path, overwrite=overwrite)


def check_place(path: Path, *, overwrite: bool) -> None:
    """The same of a file of any kind.

    A small file is created in the folder and removed again.

    Raises:
        OutputError: the file exists and `overwrite` is false, it is a folder or a device, or the
            folder is missing or not writable.
    """
    check_replaceable(path, overwrite=overwrite)
    target = _real(path)
    trial = atomic.temporary(target)
    try:
        with trial.open("xb"):
            pass
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        atomic.remove(trial)


def save(content: Content, path: Path, *, overwrite: bool) -> None:
    """Save a file: all of it, or nothing.

    The content goes to a file without a name, where the system has such, or else to a hidden one
    beside `path`, reaches the disk, and then takes its name in one step, so that nobody ever sees
    half a file. Whatever goes wrong, Ctrl-C included, that file is removed. Where `path` is a
    link, what it points at is replaced. What replaces a file is as accessible as that was.

    Raises:
        OutputError: as `check_writable`, or the file appeared in the meantime and `overwrite` is
            false, or the disk is full.
    """
    check_replaceable(path, overwrite=overwrite)
    target = _real(path)
    try:
        with held.opened(target.parent) as folder:
            _save(content, folder, target.name, overwrite=overwrite)
    except FileExistsError as error:
        raise _exists_error(path) from error
    except OSError as error:
        raise _write_error(path, error) from error


def save_below(
    content: Content,
    folder: HeldFolder,
    name: str,
    *,
    overwrite: bool,
    finished: Callable[[BinaryIO], object] = lambda file: None,
) -> None:
    """Save a file as `save` does, in the folder that is open or those below, through no link.

    Args:
        content: of the file.
        folder: an open folder.
        name: path within it, with slashes; folders are made. A link of that name is replaced.
        overwrite: whether to replace what is there.
        finished: called with the whole file, which can be read, just before it takes its name.

    Raises:
        OutputError: as `save`, or a folder on the way is a link.
    """
    path = folder.path / name
    *parts, last = name.split("/")
    try:
        with held.below(folder, parts, make=True) as inner:
            check_replaceable(path, overwrite=overwrite)
            _save(content, inner, last, overwrite=overwrite, finished=finished)
    except FileExistsError as error:
        raise _exists_error(path) from error
    except OSError as error:
        raise _write_error(path, error) from error


def _save(
    content: Content,
    folder: HeldFolder,
    name: str,
    *,
    overwrite: bool,
    finished: Callable[[BinaryIO], object] = lambda file: None,
) -> None:
    temporary = atomic.temporary_name(name)
    nameless = folder.nameless()
    try:
        with nameless or folder.create(temporary) as file:
            _put(content, file)
            file.flush()
            if overwrite:
                held.give_access(file, folder.state(name))
            os.fsync(file.fileno())
            finished(file)
            if nameless is not None:
                folder.give_name(file, temporary if overwrite else name)
        if overwrite:
            folder.replace(temporary, name)
        elif nameless is None:
            folder.name_if_free(temporary, name)
    finally:
        folder.remove(temporary)


def send(
    content: Content,
    remote: Remote,
    *,
    overwrite: bool,
    finished: Callable[[BinaryIO], object] = lambda file: None,
) -> int:
    """Have a file somewhere else: all of it, or nothing. It is whole here before it is sent.

    Args:
        content: of the file.
        remote: where it goes.
        overwrite: whether to replace what is there.
        finished: called with the whole file, which can be read, just before it is sent.

    Returns:
        Bytes of the file.

    Raises:
        OutputError: as `Remote.send`, or there is no room for it here.
    """
    with tempfile.TemporaryDirectory(prefix="resshift-") as folder:
        spool = Path(folder, "result").with_suffix(Path(remote.name).suffix)
        try:
            with spool.open("w+b") as file:
                _put(content, file)
                file.flush()
                finished(file)
                size = file.seek(0, os.SEEK_END)
        except OSError as error:
            raise _write_error(spool, error) from error
        remote.send(spool, overwrite=overwrite)
        return size


def check_stdout() -> None:
    """Find out before the work whether a result may go to stdout.

    Raises:
        UsageError: it is a terminal, where nobody looks at an image's bytes.
        OutputError: it is closed.
    """
    if sys.stdout is None or sys.stdout.closed:
        raise OutputError("stdout is closed.", hint="Give a file with -o.")
    if sys.stdout.isatty():
        raise UsageError(
            "stdout is a terminal, and the result would be written to it.",
            hint="Give a file with -o, or feed it to a file: > large.png",
        )


def to_stdout(content: Content) -> None:
    """Write a result to stdout, once it is whole.

    Raises:
        BrokenPipeError: nobody reads it.
        OutputError: it can't be written.
    """
    try:
        with tempfile.TemporaryFile(prefix="resshift-") as spool:
            _put(content, spool)
            spool.seek(0)
            sys.stdout.flush()
            shutil.copyfileobj(spool, sys.stdout.buffer, 1 << 20)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _write_error(STDOUT, error) from error


def _put(content: Content, file: BinaryIO) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content)


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Refuse what can't or must not be replaced, and a folder that is not there.

    Raises:
        OutputError: as `check_writable`.
    """
    name, folder = printable(path), printable(path.parent)
    target = _real(path)
    try:
        mode: int | None = path.lstat().st_mode
        if target.exists():
            mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise _write_error(path, error) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"{name} is a folder.", hint="Name a file in it, or end it with a slash.")
    if mode is not None and not overwrite:
        raise _exists_error(path)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OutputError(f"{name} is not a regular file.", hint="Give another file with -o.")
    if mode is not None and target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{name} is write-protected.", hint="Give another file with -o.")
    if os.path.exists(target.parent) and not os.path.isdir(target.parent):
        raise OutputError(
            f"{name} can't be written: {folder} is not a folder.",
            hint="Give another file or folder with -o.",
        )
    if not os.path.isdir(target.parent):
        raise OutputError(
            f"{name} can't be written: there is no folder {folder}.",
            hint=f"Create it first (`mkdir -p {folder}`), or give a folder: -o {folder}/",
        )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def identity(path: Path) -> str:
    """The same string for two paths of one file, whether it exists or not."""
    return os.path.normcase(_real(path))


def _exists_error(path: Path) -> OutputError:
    return OutputError(
        f"{printable(path)} exists already.",
        hint="Use --overwrite to replace it, or give another file with -o.",
    )


def _write_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{printable(path)} can't be written: {error.strerror or printable(error)}.",
        hint="Give another file or folder with -o, or make room and check your permissions.",
    )
