"""What the results of a folder are called, and where they go."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path, PurePath

from resshift_cli.batch.places import Place
from resshift_cli.errors import UsageError, printable
from resshift_cli.imaging import targets
from resshift_cli.imaging.folders import Inputs
from resshift_cli.imaging.formats import AS_IT_IS, FORMATS, PNG, Format, SaveOptions
from resshift_cli.system.storage import Remote, is_url

NAME_MAX = 255  # bytes of a file's name


MARK = re.compile(r"_(x[\d.]+|w\d+|h\d+|long\d+|fit\d+x\d+|[a-z]+)")
"""What may stand behind a folder's name in that of its results, see `Recipe.mark`."""


def results_folder(folder: Path, mark: str) -> Path:
    """DIR_x4 for DIR and the mark _x4, and for DIR/, ., .. and links what they mean."""
    whole = folder if folder.name not in ("", "..") else Path(os.path.realpath(folder))
    return whole.with_name(f"{whole.name}{mark}")


def said(folder: str) -> str:
    """What people call a folder: its path, or its URL without a login."""
    return Remote(folder).shown if is_url(folder) else folder


def results_at(folder: str, mark: str) -> str:
    """The same of a folder's path or URL.

    Raises:
        UsageError: there is nothing that could be beside it.
    """
    if not is_url(folder):
        return str(results_folder(Path(folder), mark))
    whole = folder.rstrip("/")
    if "/" not in whole.partition("://")[2]:
        raise UsageError(
            f"Beside {said(whole)} there is no place for results.",
            hint="Name one with -o, such as s3://bucket/large; it may lie within.",
        )
    return f"{whole}{mark}"


def check_apart(inputs: Inputs, results: Place) -> None:
    """Refuse results that would fall among the inputs.

    Args:
        inputs: the images.
        results: where their results go, in folders of the same names; it may lie in the folder of
            the inputs, or that in it.

    Raises:
        UsageError: they would.
    """
    whole, root = PurePath(inputs.root), PurePath(results.root)
    if not whole.is_relative_to(root):
        return
    within = whole.relative_to(root).as_posix()
    if within == "." or any(name.startswith(f"{within}/") for name in inputs.images()):
        raise UsageError(
            f"The results in {printable(results.said)} would fall among the inputs.",
            hint="Give another folder with -o; it may lie within the input folder.",
        )


def results_beside(folder: Path, is_one: Callable[[Path], bool]) -> list[Path]:
    """Folders that hold results of a folder by their names, as `results_folder` gives them.

    Args:
        folder: of the inputs.
        is_one: whether a folder is such by what is in it.
    """
    whole = results_folder(folder, "")
    named = (p for p in whole.parent.glob(f"{escape(whole.name)}_*") if p.is_dir())
    return sorted(p for p in named if MARK.fullmatch(p.name.removeprefix(whole.name)) and is_one(p))


def _any(name: str, kind: Format) -> bool:
    return True


def _none(name: str) -> bool:
    return False


def name_outputs(
    inputs: Sequence[str],
    *,
    options: SaveOptions = AS_IT_IS,
    can_hold: Callable[[str, Format], bool] = _any,
    is_input: Callable[[str], bool] = _none,
) -> dict[str, str]:
    """What the result of every input is called: as the input, if it has the format that is due.

    Where another format is due, its extension comes after the name: `a.gif` becomes `a.gif.png`
    beside the `a.png` of `a.png`, whether or not there is one.

    Args:
        inputs: paths within the folder.
        options: as `targets.extension_of`.
        can_hold: whether a format has a place for all that an input holds; if not, and nobody asked
            for it, PNG is due.
        is_input: whether there is an input of a name that `inputs` lacks: one with the extension
            that is due keeps its own.
    """
    outputs: dict[str, str] = {}
    others = []
    for source in inputs:
        suffix = targets.extension_of(Path(source), options)
        due = FORMATS[suffix.lower()]
        if options.format is None and not can_hold(source, due):
            suffix, due = ".png", PNG
        if FORMATS.get(Path(source).suffix.lower()) is due:
            outputs[source] = source
        else:
            others.append((source, suffix))
    taken = set(outputs.values())
    for source, suffix in others:
        name = source
        while (name := _fitting(name, suffix)) in taken or is_input(name):
            pass
        taken.add(name)
        outputs[source] = name
    return outputs


def _fitting(name: str, suffix: str) -> str:
    """A path with one more extension, its last part cut to what a file system takes."""
    folder, slash, last = name.rpartition("/")
    if len(os.fsencode(last + suffix)) > NAME_MAX:
        mark = "~" + hashlib.sha256(os.fsencode(last)).hexdigest()[:8] + suffix
        while len(os.fsencode(last + mark)) > NAME_MAX:
            last = last[:-1]
        return f"{folder}{slash}{last}{mark}"
    return f"{folder}{slash}{last}{suffix}"
