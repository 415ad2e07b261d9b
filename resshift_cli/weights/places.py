"""Where weight files lie on this machine, and what messages call them and their sources.

Files of the Hugging Face Hub lie in its own cache. `cache.folder()` has the rest:

    downloads/ID/NAME           a checked file of a release page; ID stands for its address
    downloads/ID/NAME.part      one on its way
    downloads/ID/NAME.refused   one whose checksum is not the expected one, of whatever source
    digests.json                the checksum that each file had when it first came
    hashes.json                 checksums by path, size and time, so that no file is read twice
    locks/                      what makes processes wait for each other
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from pathlib import Path

from resshift_cli.system import cache
from resshift_cli.weights import addresses, hub, release
from resshift_cli.weights.entries import (
    BundledSource,
    HubSource,
    LocalSource,
    ReleaseSource,
    Source,
    WeightFile,
)


def mark(address: str) -> str:
    """A short name for an address that any file system takes."""
    return hashlib.sha256(address.encode()).hexdigest()[:16]


def home(source: Source) -> Path:
    """The folder of all that is downloaded here from a source."""
    return cache.folder() / "downloads" / mark(source.address)


def file_name(source: Source) -> str:
    """The source's file name, free of queries and of what a path can't hold."""
    without_query = re.split("[?#]", source.name)[0]
    return re.sub(r"[^\w.\-]", "_", without_query).lstrip(".") or "weights"


def path_of(source: Source) -> Path | None:
    """Where the file of a source lies, or would lie; None if that shows only when it comes."""
    if isinstance(source, HubSource):
        return hub.find(source)
    if isinstance(source, ReleaseSource):
        return home(source) / file_name(source)
    return source.path if isinstance(source, BundledSource) else Path(source.path).expanduser()


def cache_of(source: Source) -> tuple[Path, str]:
    """The cache that a source's file goes to, and the variable that sets it."""
    if isinstance(source, HubSource):
        return hub.cache_folder(), hub.HOME
    return cache.folder(), cache.VARIABLE


def put_aside(arrived: Path, source: Source) -> Path:
    """Keep a refused file under a name that nothing loads, and free its place.

    Raises:
        OSError: it can't be kept.
    """
    folder = home(source)
    folder.mkdir(parents=True, exist_ok=True)
    names = (f"{file_name(source)}.refused{number or ''}" for number in itertools.count())
    aside = next(folder / name for name in names if not (folder / name).exists())
    if isinstance(source, HubSource):
        # The Hub's cache may use the bytes for other revisions, so they are linked, not moved.
        try:
            os.link(arrived.resolve(), aside)
        except OSError:
            shutil.copyfile(arrived, aside)
        hub.drop(source)
    else:
        release.name(arrived, aside)
    return aside


def delete(source: Source) -> int:
    """Delete all that was downloaded from a source; the bytes freed.

    Raises:
        OSError: it can't be deleted.
    """
    freed = hub.drop(source) if isinstance(source, HubSource) else 0
    folder = home(source)
    if folder.is_dir():
        freed += sum(path.stat().st_size for path in folder.iterdir())
        shutil.rmtree(folder)
    return freed


def label(file: WeightFile) -> str:
    """What messages call a file."""
    return file_name(file.sources[0])


def called(source: Source) -> str:
    """How messages call a source: by its host, without path or query."""
    if isinstance(source, HubSource):
        return addresses.host(hub.endpoint())
    if isinstance(source, ReleaseSource):
        return addresses.host(release.shown(source))
    return source.address


def is_here(source: BundledSource | LocalSource) -> bool:
    """Whether there is a file where one should lie."""
    path = path_of(source)
    return path is not None and path.is_file()
