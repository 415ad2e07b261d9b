"""Weight files from their sources to this machine: checked, and fetched once; no torch.

Files of the Hugging Face Hub lie in its own cache. `cache.folder()` has the rest:

    downloads/ID/NAME           a checked file of a release page; ID stands for its address
    downloads/ID/NAME.part      one on its way
    downloads/ID/NAME.refused   one whose checksum is not the expected one, of whatever source
    digests.json                the checksum that each file had when it first came
    hashes.json                 checksums by path, size and time, so that no file is read twice
    locks/                      what makes processes wait for each other

A source that sends a file with another checksum counts as one that failed: the file is put aside
and the next source is asked. If that one sends the expected file, nothing is amiss and nothing is
said; if none does, the error names both checksums and the file put aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from resshift_cli.errors import ModelUnavailableError, OutputError
from resshift_cli.system import cache
from resshift_cli.system.digests import digest
from resshift_cli.weights import hub, release
from resshift_cli.weights.registry import (
    BundledSource,
    HubSource,
    LocalSource,
    ReleaseSource,
    Source,
    WeightFile,
)
from resshift_cli.weights.transfer import Check, Failure, Meter, Progress, patiently

__all__ = [
    "Fetched",
    "Progress",
    "cached",
    "discard",
    "fetch",
    "is_offline",
    "reachable",
    "record_digest",
    "recorded_digest",
]

DIGESTS, HASHES = "digests.json", "hashes.json"

HEADROOM = 64 << 20  # bytes that a download leaves free on the disk

_TRY_LATER = (
    "Run `resshift models pull MODEL` when there is a network, "
    "or use --model tiny-x4, which is bundled."
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A weight file on this machine.

    Attributes:
        path: the file as its authors published it.
        source: where it came from.
        sha256: of that file, in lower-case hexadecimal.
    """

    path: Path
    source: Source
    sha256: str


def is_offline() -> bool:
    """Whether the environment forbids the network with HF_HUB_OFFLINE."""
    return hub.is_offline()


def cached(file: WeightFile) -> Fetched | None:
    """A weight file that is here, whole and with the expected checksum, or None; no network.

    A cache that can't be written is no obstacle. A downloaded file that has no checksum on record,
    because another program has put it into the Hub's cache, gets its own one recorded.

    Raises:
        ModelUnavailableError: the recorded checksums are damaged.
    """
    for source in file.sources:
        path = _path_of(source)
        sha256 = _digest_if_right(path, file, source) if path is not None else ""
        if path is not None and sha256:
            with contextlib.suppress(OutputError):
                _record_first(file, source, sha256)
            return Fetched(path, source, sha256)
    return None


def fetch(file: WeightFile, *, offline: bool = False, progress: Progress | None = None) -> Fetched:
    """A weight file, downloaded from the first source that has it unless it is here already.

    Of several processes that want the same file one downloads it, and the others wait.

    Args:
        file: what to fetch.
        offline: touch no network; HF_HUB_OFFLINE says the same.
        progress: told how far the download is.

    Raises:
        ModelUnavailableError: no source has it, or none may be asked; says what each answered.
        OutputError: the cache can't be written, or its disk is full.
    """
    here = cached(file)
    if here is not None:
        return here
    if not any(isinstance(source, HubSource | ReleaseSource) for source in file.sources):
        return _download(file, progress)  # which says what is wrong with it
    if offline or is_offline():
        raise ModelUnavailableError(
            f"{_label(file)} is not on this machine, and the network is not to be used.",
            hint=_TRY_LATER,
        )
    return _download(file, progress)


def reachable(file: WeightFile, *, within: float) -> bool:
    """Whether some source offers the file, asked for so many seconds in all."""
    deadline = time.monotonic() + within
    answers: SimpleQueue[bool] = SimpleQueue()

    def ask(source: Source) -> None:
        answers.put(_offers(source, within))

    with hub.quiet():
        for source in file.sources:
            # A daemon, since a name look-up can't be broken off and must not delay the exit.
            threading.Thread(target=ask, args=(source,), daemon=True).start()
        for _ in file.sources:
            try:
                if answers.get(timeout=max(0.0, deadline - time.monotonic())):
                    return True
            except Empty:
                return False
    return False


def recorded_digest(key: str) -> str | None:
    """The SHA-256 recorded under a key, `WeightFile.key` or another, or None.

    Raises:
        ModelUnavailableError: the record is damaged.
    """
    recorded = cache.read_table(DIGESTS).get(key)
    return recorded if isinstance(recorded, str) else None


def record_digest(key: str, sha256: str) -> None:
    """Record a SHA-256 under a key, in place of what was there.

    Raises:
        ModelUnavailableError: the record is damaged.
        OutputError: the cache can't be written.
    """
    with cache.editing(DIGESTS) as table:
        table[key] = sha256


def discard(file: WeightFile) -> int:
    """Delete what the downloads hold of a file, parts and refused ones too; the bytes freed.

    Its recorded checksum is forgotten. Other files of the same Hub repository stay, and so do
    bundled files and those of the user's own.

    Raises:
        ModelUnavailableError: the recorded checksums are damaged.
        OutputError: it can't be deleted.
    """
    freed = 0
    for source in file.sources:
        with cache.locked(_mark(source.address)), cache.usable(*_cache_of(source)):
            freed += hub.drop(source) if isinstance(source, HubSource) else 0
            freed += _delete(_home(source))
    with cache.editing(DIGESTS) as table:
        table.pop(file.key, None)
    return freed


# Where files lie, and their checksums.


def _mark(address: str) -> str:
    """A short name for an address that any file system takes."""
    return hashlib.sha256(address.encode()).hexdigest()[:16]


def _home(source: Source) -> Path:
    """The folder of all that is downloaded here from a source."""
    return cache.folder() / "downloads" / _mark(source.address)


def _file_name(source: Source) -> str:
    """The source's file name, free of queries and of what a path can't hold."""
    plain = re.split("[?#]", source.name)[0]
    return re.sub(r"[^\w.\-]", "_", plain).lstrip(".") or "weights"


def _label(file: WeightFile) -> str:
    """What messages call a file."""
    return _file_name(file.sources[0])


def _path_of(source: Source) -> Path | None:
    """Where the file of a source lies, or would lie; None if that shows only when it comes."""
    if isinstance(source, HubSource):
        return hub.find(source)
    if isinstance(source, ReleaseSource):
        return _home(source) / _file_name(source)
    return source.path if isinstance(source, BundledSource) else Path(source.path).expanduser()


def _cache_of(source: Source | None) -> tuple[Path, str]:
    """The cache that a source's file goes to, or else ours, and the variable that sets it."""
    if isinstance(source, HubSource):
        return hub.cache_folder(), hub.HOME
    return cache.folder(), cache.VARIABLE


def _digest_if_right(path: Path, file: WeightFile, source: Source) -> str:
    """The digest of a file that is here and whole, or "" if it is not."""
    try:
        sha256 = _hash_of(path)
    except OSError:  # there is none, or it can't be read
        return ""
    return sha256 if _expected(file, source) in ("", sha256) else ""


def _hash_of(path: Path) -> str:
    """The digest of a file, from memory if it has the same size and time as then."""
    known = cache.read_table(HASHES).get(str(path))
    if isinstance(known, list) and known[:-1] == _stamp(path):
        return str(known[-1])
    sha256 = digest(path)
    with contextlib.suppress(OutputError):  # then it is read again next time
        _remember(path, sha256)
    return sha256


def _remember(path: Path, sha256: str) -> None:
    with cache.editing(HASHES) as table:
        for gone in [known for known in table if not os.path.exists(known)]:
            del table[gone]
        table[str(path)] = [*_stamp(path), sha256]


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _expected(file: WeightFile, source: Source) -> str:
    """The digest that a file has to have, or "" if any will do."""
    if file.sha256 or isinstance(source, BundledSource | LocalSource):
        return file.sha256
    return recorded_digest(file.key) or ""


def _record_first(file: WeightFile, source: Source, sha256: str) -> None:
    """Record the digest of a first download, if nothing else says what it has to be."""
    if isinstance(source, HubSource | ReleaseSource) and not _expected(file, source):
        record_digest(file.key, sha256)


def _delete(folder: Path) -> int:
    """Remove a folder; the bytes freed."""
    if not folder.is_dir():
        return 0
    freed = sum(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    return freed


# Asking sources.


def _download(file: WeightFile, progress: Progress | None) -> Fetched:
    said = []
    hints = []
    for source in file.sources:
        try:
            if isinstance(source, BundledSource | LocalSource):
                raise _trouble_with(source)
            with cache.locked(_mark(source.address)), cache.usable(*_cache_of(source)):
                # Another process may have been faster.
                return cached(file) or _download_from(source, file, Meter(_label(file), progress))
        except Failure as failure:
            said.append(f"{_place(source)}: {failure}")
            hints += [failure.hint] if failure.hint else []
    raise ModelUnavailableError(
        f"{_label(file)} can't be had: {'; '.join(said)}.", hint=(hints or [_TRY_LATER])[0]
    )


def _trouble_with(source: BundledSource | LocalSource) -> Failure:
    """Why a file that should be on this machine is not taken."""
    path = _path_of(source)
    found = path is not None and path.is_file()
    words = "can't be read, or is not the file of the registry" if found else "no such file"
    return Failure(words, hint="Compare it with its path and `sha256` in the registry.")


def _download_from(source: HubSource | ReleaseSource, file: WeightFile, meter: Meter) -> Fetched:
    """Download and check a file.

    Raises:
        Failure: the source does not have it.
        OutputError: the disk has no room for it.
        OSError: the cache can't be written.
    """
    check = _admission(source, file)
    if isinstance(source, HubSource):
        path, promised = patiently(lambda: hub.receive(source, meter, check), meter)
        sha256 = _accept(path, source, file, promised)
    else:
        path = _home(source) / _file_name(source)
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        patiently(lambda: release.receive(source, part, meter, check), meter)
        sha256 = _accept(part, source, file, "")
        release.name(part, path)
    _record_first(file, source, sha256)
    _remember(path, sha256)
    return Fetched(path, source, sha256)


def _admission(source: Source, file: WeightFile) -> Check:
    """What refuses a file that the disk has no room for."""
    folder, variable = _cache_of(source)

    def check(size: int | None, here: int) -> None:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        needed, free = (size or file.bytes) - here, shutil.disk_usage(existing).free
        if needed + HEADROOM > free:
            raise OutputError(
                f"There is no room for {_label(file)} in {folder}: {needed / 1e6:,.0f} MB are "
                f"needed, and {free / 1e6:,.0f} MB are free.",
                hint=f"Make room, or set the variable {variable} to a folder on another disk.",
            )

    return check


def _accept(arrived: Path, source: Source, file: WeightFile, promised: str) -> str:
    """The digest of a file that has arrived, if it is the expected or else the promised one."""
    sha256 = digest(arrived)
    expected = _expected(file, source)
    wanted = expected or promised or sha256
    if sha256 == wanted:
        return sha256
    hint = ""
    if expected:
        way_out = (
            "correct its `sha256` in the registry."
            if file.sha256
            else "`resshift models rm MODEL` forgets the old checksum."
        )
        hint = f"If its authors have published another file, {way_out}"
    raise Failure(
        f"sent a file with the SHA-256 {sha256[:12]} instead of {wanted[:12]}, kept as "
        f"{_put_aside(arrived, source)}",
        hint=hint,
    )


def _put_aside(arrived: Path, source: Source) -> Path:
    """Keep a refused file under a name that nothing loads, and free its place."""
    home = _home(source)
    home.mkdir(parents=True, exist_ok=True)
    names = (f"{_file_name(source)}.refused{number or ''}" for number in itertools.count())
    aside = next(home / name for name in names if not (home / name).exists())
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


def _place(source: Source) -> str:
    """How messages call a source: by its host, without path or query."""
    if isinstance(source, HubSource):
        return _host(hub.endpoint())
    if isinstance(source, ReleaseSource):
        return _host(release.address(source))
    return source.address


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "its address"
    except ValueError:
        return "its address"


def _offers(source: Source, within: float) -> bool:
    """Whether a source answers for its file."""
    if isinstance(source, BundledSource | LocalSource):
        path = _path_of(source)
        return path is not None and path.is_file()
    if is_offline():
        return False
    if isinstance(source, HubSource):
        return hub.offers(source, within=within)
    return release.offers(source, within=within)
