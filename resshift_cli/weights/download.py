"""Weight files from their sources to this machine: checked, and fetched once; no torch.

A source that sends a file with another checksum counts as one that failed: the file is put aside
and the next source is asked. If that one sends the expected file, nothing is amiss and nothing is
said; if none does, the error names both checksums and the file put aside.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from resshift_cli.errors import ModelUnavailableError, OutputError
from resshift_cli.system import cache
from resshift_cli.system.digests import digest
from resshift_cli.system.progress import Bars, silent
from resshift_cli.weights import checksums, hub, places, registry, release
from resshift_cli.weights.entries import (
    BundledSource,
    HubSource,
    LocalSource,
    ReleaseSource,
    Source,
    Task,
    WeightFile,
)
from resshift_cli.weights.transfer import Admission, Failure, Meter, patiently

HEADROOM = 64 << 20  # bytes that a download leaves free on the disk
ABOUT = 2  # times the registered size are the most that a file may have
MOST = 10**18  # bytes of one whose size is not registered


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


@dataclass(frozen=True, slots=True)
class _Order:
    """A file that is to be fetched, for what hints call the model that needs it, and its task."""

    file: WeightFile
    model: str
    task: Task
    progress: Bars

    @property
    def way_out(self) -> str:
        instead = ""
        for entry in registry.bundled(self.task)[:1]:
            other = "" if entry.task == self.task else f": {entry.description}"
            instead = f", or take a model that is bundled (--model {entry.name}{other})"
        return f"Run `resshift models pull {self.model}` when there is a network{instead}."


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
        path = places.path_of(source)
        sha256 = checksums.if_right(path, file, source) if path is not None else ""
        if path is not None and sha256:
            with contextlib.suppress(OutputError):
                checksums.record_first(file, source, sha256)
            return Fetched(path, source, sha256)
    return None


def fetch(
    file: WeightFile,
    *,
    model: str = "MODEL",
    task: Task = "real-world",
    offline: bool = False,
    progress: Bars = silent,
) -> Fetched:
    """A weight file, downloaded from the first source that has it unless it is here already.

    Of several processes that want the same file one downloads it, and the others wait.

    Args:
        file: what to fetch.
        model: the name of the model that needs it, for hints.
        task: what that is for, likewise.
        offline: touch no network; HF_HUB_OFFLINE says the same.
        progress: shows how far the download is, in bytes.

    Raises:
        ModelUnavailableError: no source has it, or none may be asked; says what each answered.
        OutputError: the cache can't be written, or its disk is full.
    """
    here = cached(file)
    if here is not None:
        return here
    order = _Order(file, model, task, progress)
    needs_network = any(isinstance(s, HubSource | ReleaseSource) for s in file.sources)
    if needs_network and (offline or is_offline()):
        raise ModelUnavailableError(
            f"{places.label(file)} is not on this machine, and the network is not to be used.",
            hint=order.way_out,
        )
    return _download(order)


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
        with _held(source):
            freed += places.delete(source)
    checksums.forget(file.key)
    return freed


@contextlib.contextmanager
def _held(source: Source) -> Iterator[None]:
    """Keep other processes from a source's file, and say of what its cache refuses that it does."""
    with cache.locked(places.mark(source.address)), cache.usable(*places.cache_of(source)):
        yield


def _download(order: _Order) -> Fetched:
    said = []
    hints = []
    for source in order.file.sources:
        try:
            if isinstance(source, BundledSource | LocalSource):
                raise _trouble_with(source)
            with _held(source):
                # Another process may have been faster.
                return cached(order.file) or _download_from(source, order)
        except Failure as failure:
            said.append(f"{places.called(source)}: {failure}")
            hints += [failure.hint] if failure.hint else []
    raise ModelUnavailableError(
        f"{places.label(order.file)} can't be had: {'; '.join(said)}.",
        hint=(hints or [order.way_out])[0],
    )


def _trouble_with(source: BundledSource | LocalSource) -> Failure:
    """Why a file that should be on this machine is not taken."""
    found = places.is_here(source)
    words = "can't be read, or is not the file of the registry" if found else "no such file"
    return Failure(words, hint="Compare it with its path and `sha256` in the registry.")


def _download_from(source: HubSource | ReleaseSource, order: _Order) -> Fetched:
    """Download and check a file.

    Raises:
        Failure: the source does not have it.
        OutputError: the disk has no room for it.
        OSError: the cache can't be written.
    """
    file = order.file
    admit = _admission(source, order)
    with contextlib.closing(Meter(places.label(file), order.progress)) as meter:
        if isinstance(source, HubSource):
            path, promised = patiently(lambda: hub.receive(source, meter, admit), meter)
            sha256 = _accept(path, source, order, promised)
        else:
            path = places.home(source) / places.file_name(source)
            part = path.with_name(f"{path.name}.part")
            part.parent.mkdir(parents=True, exist_ok=True)
            patiently(lambda: release.receive(source, part, meter, admit), meter)
            sha256 = _accept(part, source, order, "")
            release.name(part, path)
    checksums.record_first(file, source, sha256)
    checksums.remember(path, sha256)
    return Fetched(path, source, sha256)


def _admission(source: Source, order: _Order) -> Admission:
    """What refuses a file that the disk has no room for, or that can't be the expected one."""
    file = order.file
    folder, variable = places.cache_of(source)
    limit = ABOUT * file.bytes or MOST
    # A file with another one's checksum is kept and shown if the registry has said what to expect.
    first = "" if file.sha256 else checksums.expected(file, source)

    def admit(size: int | None, here: int, promised: str) -> int:
        if first and promised not in ("", first):
            raise Failure(
                f"has another file now, with the SHA-256 {promised[:12]} instead of {first[:12]}",
                hint=_hint_of_change(order),
            )
        if (size or 0) > limit:
            expected = f", where about {file.bytes:,} are expected" if file.bytes else ""
            raise Failure(f"offers {size:,} bytes{expected}")
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        needed = (size or file.bytes) - here
        if needed + HEADROOM > free:
            raise OutputError(
                f"There is no room for {places.label(file)} in {folder}: {needed / 1e6:,.0f} MB "
                f"are needed, and {free / 1e6:,.0f} MB are free.",
                hint=f"Make room, or set the variable {variable} to a folder on another disk.",
            )
        return int(min(size or limit, here + free - HEADROOM))

    return admit


def _accept(arrived: Path, source: Source, order: _Order, promised: str) -> str:
    """The digest of a file that has arrived, if it is the expected or else the promised one."""
    sha256 = digest(arrived)
    expected = checksums.expected(order.file, source)
    wanted = expected or promised or sha256
    if sha256 == wanted:
        return sha256
    raise Failure(
        f"sent a file with the SHA-256 {sha256[:12]} instead of {wanted[:12]}, kept as "
        f"{places.put_aside(arrived, source)}",
        hint=_hint_of_change(order) if expected else "",
    )


def _hint_of_change(order: _Order) -> str:
    way_out = (
        "correct its `sha256` in the registry."
        if order.file.sha256
        else f"`resshift models rm {order.model}` forgets the old checksum."
    )
    return f"If its authors have published another file, {way_out}"


def _offers(source: Source, within: float) -> bool:
    """Whether a source answers for its file."""
    if isinstance(source, BundledSource | LocalSource):
        return places.is_here(source)
    if is_offline():
        return False
    if isinstance(source, HubSource):
        return hub.offers(source, within=within)
    return release.offers(source, within=within)
