"""What the ledger says of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, Literal

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
        mask_state: of the same, what tells that it has not changed without reading it.
        output_bytes, output_sha256: of the file that was written.
        width, height: of the result.
        seconds: of computing.
        peak_bytes: most memory that was taken so far: of a GPU's own by this image, else of the
            process by all images.
        found: what was found in the input, by name, such as how many faces.
        warnings: what was wrong with the input, if it was read nonetheless.
        error, hint, exit_code: why it failed.
        unknown: names of what a later version entered besides; not entered itself.
    """

    status: Literal["writing", "done", "failed"]
    input: str
    output: str
    time: str
    scale: float | None = None
    input_bytes: int | None = None
    input_mtime_ns: int | None = None
    input_sha256: str | None = None
    input_version: str | None = None
    mask_sha256: str | None = None
    mask_state: str | None = None
    output_bytes: int | None = None
    output_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    found: dict[str, Any] | None = None
    warnings: list[str] | None = None
    error: str | None = None
    hint: str | None = None
    exit_code: int | None = None
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
    task: str = "upscale"
    asked: dict[str, Any] | None = None
    size: str | None = None
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
    threads: int | None = None
    unknown: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Names and values, without those that are not known; `OWN` ones come first."""
        values = asdict(self)
        del values["unknown"]
        return {name: value for name, value in values.items() if value is not None}


_FIELDS = tuple(field.name for field in fields(Record) if field.name != "unknown")

OWN = _FIELDS[: _FIELDS.index("folder")]
"""What is another thing in nearly every line, and comes first; the rest is the same for a batch."""


def record_of(values: Mapping[str, Any]) -> Record:
    """A line as a record.

    Raises:
        TypeError: it lacks something.
        ValueError: something is not of the kind that it should be of, as far as that matters.
    """
    known = {name: values[name] for name in _FIELDS if name in values}
    known["unknown"] = tuple(str(name) for name in values if name not in known)
    record = Record(**known)
    texts = (record.folder, record.model, record.weights)
    if not (
        is_sound(values)
        and all(isinstance(text, str) for text in texts)
        and isinstance(record.asked, dict | None)
    ):
        raise ValueError("no record")
    return record


def is_sound(own: Mapping[str, Any]) -> bool:
    """Whether what a line has for its own is of the kinds that matter."""
    return (
        own.get("status") in STATUSES
        and type(own.get("input")) is type(own.get("output")) is type(own.get("time")) is str
        and type(own.get("input_sha256")) in _TEXT_OR_NONE
        and type(own.get("output_sha256")) in _TEXT_OR_NONE
        and type(own.get("found")) in (dict, NoneType)
        and type(own.get("warnings")) in (list, NoneType)
    )


_TEXT_OR_NONE = (str, NoneType)
