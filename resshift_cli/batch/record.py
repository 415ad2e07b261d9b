"""What the ledger says of one image, and many such by the names of their inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from resshift_cli.system.index import Index

STATUSES = ("writing", "done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    r"""One line. What earlier versions did not enter has a default that is true of them.

    Attributes:
        status: about to be written, finished, or failed.
        input: path within `folder`, with slashes. Bytes of a name that are not UTF-8 are single
            surrogates, as Python has them (`\udcff`).
        output: path within the folder of the ledger, likewise.
        folder: the folder of the inputs, absolute.
        model, weights: its name, and the SHA-256 of its files.
        task: what was done, as `Craft` has it.
        asked: what was asked of that besides, by name.
        size: the box that results fill, where that says how large they are.
        scale: of this image; None of one that failed before its size was known.
        steps, seed, tile, overlap, temperature, detail, color_fix, consistency, keep_hidden,
            wrap, tta: as `settings.Settings`.
        precision: what was computed in.
        format, quality, lossless, compression, depth, strip_metadata, palette: as
            `formats.SaveOptions`.
        first_frame: whether only the first frame or page was taken.
        assume_profile: what colours were taken for that a file said nothing of; None if nobody
            chose.
        device: where.
        threads: how many of a CPU computed it, on which its last bits depend.
        version: of resshift.
        time: when the line was written, UTC, ISO 8601.
        input_bytes, input_mtime_ns, input_sha256: of the file that was read, where it could be.
        input_version: ETag or the like of one that was read from a store.
        mask_sha256: of what said which of its pixels are to be filled, if that was a file.
        output_bytes, output_sha256: of the file that was written.
        width, height: of the result.
        seconds: of computing.
        peak_bytes: most memory that was taken so far: of a GPU's own by this image, else of the
            process by all images.
        warnings: what was wrong with the input, if it was read nonetheless.
        error, hint, exit_code: why it failed.
        unknown: names of what a later version entered besides; not entered itself.
    """

    status: Literal["writing", "done", "failed"]
    input: str
    output: str
    folder: str
    model: str
    weights: str
    steps: int
    seed: int
    tile: int
    overlap: int
    temperature: float
    precision: str
    device: str
    version: str
    time: str
    task: str = "upscale"
    asked: dict[str, Any] | None = None
    size: str | None = None
    scale: float | None = None
    detail: float = 1.0
    color_fix: str = "none"
    consistency: float = 0.0
    keep_hidden: bool = False
    wrap: str = "none"
    tta: bool = False
    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    compression: int | None = None
    depth: int | None = None
    strip_metadata: bool = False
    palette: bool = False
    first_frame: bool = False
    assume_profile: str | None = None
    input_bytes: int | None = None
    input_mtime_ns: int | None = None
    input_sha256: str | None = None
    input_version: str | None = None
    mask_sha256: str | None = None
    output_bytes: int | None = None
    output_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    threads: int | None = None
    warnings: list[str] | None = None
    error: str | None = None
    hint: str | None = None
    exit_code: int | None = None
    unknown: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Names and values, without those that are not known."""
        values = asdict(self)
        del values["unknown"]
        return {name: value for name, value in values.items() if value is not None}


OWN = (
    *("status", "input", "output", "time", "scale", "input_bytes", "input_mtime_ns"),
    *("input_sha256", "input_version", "mask_sha256", "output_bytes", "output_sha256"),
    *("width", "height", "seconds", "peak_bytes", "warnings", "error", "hint", "exit_code"),
)
"""What is another thing in nearly every line; the rest is the same for most of a batch."""

_OWN = frozenset(OWN)
_TEXTS = ("status", "input", "output", "time")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Lines that have the same names in them, and the same values but for some.

    Attributes:
        own: names of what each has for its own.
        common: what they have in common.
        known: the same, as `Record` takes it.
    """

    own: tuple[str, ...]
    common: Mapping[str, Any]
    known: Mapping[str, Any]


class Records(Mapping[str, Record]):
    """The last record of every input, in a temporary file where memory would not do.

    What many records have in common is kept once.
    """

    def __init__(self) -> None:
        self._index = Index()
        self._kinds: list[_Kind] = []
        self._numbers: dict[object, int] = {}

    def __getitem__(self, name: str) -> Record:
        """The record of an input; KeyError if there is none."""
        number, own = json.loads(self._index[name])
        kind = self._kinds[number]
        return Record(**dict(zip(kind.own, own, strict=True)), **kind.known)

    def lines(self) -> Iterator[dict[str, Any]]:
        """All records as lines, with what a later version may have entered besides."""
        for text in self._index.values():
            number, own = json.loads(text)
            kind = self._kinds[number]
            yield {**dict(zip(kind.own, own, strict=True)), **kind.common}

    def __contains__(self, name: object) -> bool:
        """Whether there is one."""
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        """All inputs, sorted."""
        return iter(self._index)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._index)

    def put(self, values: Mapping[str, Any]) -> None:
        """Have a line, as far as it is one, in place of what there is of the same input.

        Raises:
            ValueError, TypeError: it is no record.
        """
        own = tuple(name for name in OWN if name in values)
        common = tuple(item for item in values.items() if item[0] not in _OWN)
        key: object = (own, common)
        try:
            number = self._numbers.get(key)
        except TypeError:  # a later version's values may be of any kind
            key = repr(key)
            number = self._numbers.get(key)
        if number is None or not _is_own(values):
            record = record_of(values)  # or it is none
            known = {name: value for name, value in common if name in _FIELDS}
            kind = _Kind(own, dict(common), {**known, "unknown": record.unknown})
            number = self._numbers.setdefault(key, len(self._kinds))
            self._kinds[number:] = self._kinds[number:] or [kind]
        self._index[values["input"]] = json.dumps((number, [values[name] for name in own]))

    def time_of(self, name: str) -> str:
        """When the record of an input was written; "" if there is none."""
        found = self.get(name)
        return "" if found is None else found.time

    def discard(self, name: str) -> None:
        """Have none of an input."""
        if self._kinds:
            self._index.pop(name, None)


def record_of(values: Mapping[str, Any]) -> Record:
    """A line as a record.

    Raises:
        TypeError: it lacks something.
        ValueError: something is not of the kind that it should be of, as far as that matters.
    """
    known = {name: values[name] for name in _FIELDS if name in values}
    known["unknown"] = tuple(str(name) for name in values if name not in known)
    record = Record(**known)
    if not _is_sound(record):
        raise ValueError("no record")
    return record


def _is_own(values: Mapping[str, Any]) -> bool:
    """The same of what a line has for its own, where the rest is known to be sound."""
    for name in _TEXTS:
        if type(values.get(name)) is not str:
            return False
    digests = values.get("input_sha256"), values.get("output_sha256")
    return (
        all(digest is None or type(digest) is str for digest in digests)
        and type(values.get("warnings")) in (list, type(None))
        and values["status"] in STATUSES
    )


_FIELDS = tuple(field.name for field in fields(Record) if field.name != "unknown")


def _is_sound(record: Record) -> bool:
    """Whether what a file said is of the kinds that it should be of, as far as that matters."""
    texts = (record.input, record.output, record.folder, record.model, record.weights)
    return (
        record.status in STATUSES
        and all(isinstance(text, str) for text in texts)
        and all(
            isinstance(digest, str | None) for digest in (record.input_sha256, record.output_sha256)
        )
        and isinstance(record.warnings, list | None)
        and isinstance(record.asked, dict | None)
    )
