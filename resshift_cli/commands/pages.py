"""Pages that people look at: what they are called, written with progress, and opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli.commands import console, progress
from resshift_cli.errors import UsageError, printable

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Handling
    from resshift_cli.imaging.sources import Source
    from resshift_cli.viewing.page import Page

OpenOption = Annotated[
    bool, typer.Option("--open", help="Open what was written, as the system opens such files.")
]

CompareOption = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Write a page, too, that compares input and result in the browser: photo_x4.png has "
        "it in photo_x4_compare.html. See `resshift compare`.",
    ),
]

EXTENSIONS = (".html", ".htm")


def name_for(picture: Path, ending: str) -> Path:
    """What is written about a picture, beside it: photo.png -> photo_compare.html."""
    return picture.parent / f"{picture.stem}{ending}"


@contextmanager
def placed(
    usual: Path,
    output: str | None,
    inputs: Sequence[Path],
    *,
    overwrite: bool,
    extensions: tuple[str, ...] = EXTENSIONS,
) -> Iterator[Path]:
    """Where a page goes, and can be written; a new folder that got nothing is removed again.

    Args:
        usual: its file where nothing is said.
        output: what was said, a file or a folder.
        inputs: what it must not replace.
        overwrite: whether it may replace something else.
        extensions: what files may be named.

    Raises:
        UsageError: it is named after something else, or would replace an input.
        OutputError: as `targets.check_place` and `targets.made_folder`.
    """
    from resshift_cli.imaging import targets

    folder = targets.output_folder(output, several=False)
    path = (folder or usual.parent) / usual.name
    if output is not None and folder is None:
        path = Path(output)
        if path.suffix.lower() not in extensions:
            raise UsageError(
                f"{printable(path)} has the name of something else than what is written.",
                hint=f"Give it one of the extensions {' '.join(extensions)}, or name a folder, "
                "with a slash at its end.",
            )
    if any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
        raise UsageError(
            f"What is written would replace the input {printable(path)}.",
            hint="Give another file with -o; inputs are never overwritten.",
        )
    with targets.made_folder(folder):
        targets.check_place(path, overwrite=overwrite)
        yield path


def save(page: Page, path: Path, *, overwrite: bool, quiet: bool) -> None:
    """Write a page, with progress on stderr; it appears whole or not at all.

    Raises:
        ResShiftError: it can't be written, or a picture not be read.
    """
    from resshift_cli.imaging import targets

    with progress.bars(quiet=quiet) as bars:
        advance = progress.shares(bars(total=1, desc=path.name, unit=""))
        targets.save(lambda file: page.write(file, advance), path, overwrite=overwrite)


def of_files(
    sources: Sequence[Source], path: Path, handling: Handling, *, overwrite: bool, quiet: bool
) -> None:
    """Write a page that compares files.

    Raises:
        ResShiftError: as `save`.
    """
    from resshift_cli.viewing import exhibits
    from resshift_cli.viewing.page import Page

    found = exhibits.of_files(sources, handling)
    save(Page(f"{found[0].title} compared", found), path, overwrite=overwrite, quiet=quiet)


def show(path: Path) -> None:
    """Open a file with what the system opens such files with, if it has something."""
    import webbrowser

    if not webbrowser.open(path.absolute().as_uri()):
        console.note(f"No browser was found; open {path} yourself.")
