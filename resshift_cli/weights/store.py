"""Models -> weight files on this machine that are ready to load: found, fetched, converted once.

Files in safetensors form are used where they lie. Pickled ones (`.pth`) are converted into our
cache when they arrive, and never looked at again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import InputMissingError, ModelUnavailableError, OutputError, UsageError
from resshift_cli.system import cache, digests
from resshift_cli.system.atomic import make_folder
from resshift_cli.system.progress import Bars, silent
from resshift_cli.weights import checksums, download, registry
from resshift_cli.weights.download import Fetched
from resshift_cli.weights.entries import (
    BundledSource,
    LocalSource,
    ModelEntry,
    ReleaseSource,
    WeightFile,
)

PICKLES = (".pth", ".pt", ".ckpt", ".bin")  # endings of files that `torch.save` writes
LIKE = "like"  # metadata entry of a converted file: the model whose network it is


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one model, of safetensors but for the detector; None is what it has not."""

    weights: Path
    autoencoder: Path | None
    detector: Path | None = None

    def digest(self) -> str:
        """SHA-256 of the files, joined by "+": what results say that they were made with."""
        paths = (self.weights, self.autoencoder, self.detector)
        return "+".join(digests.digest(path) for path in paths if path is not None)


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found: `problem` is "" where the file is as it should be."""

    file: WeightFile
    path: Path
    problem: str


def located(entry: ModelEntry) -> Files | None:
    """The files of a model if all of them are here and ready; no network."""
    paths = {file.key: path for file in entry.files if (path := locate(file)) is not None}
    whole = all(file.key in paths for file in entry.files)
    return _files(entry, paths) if whole else None


def obtain(entry: ModelEntry, *, offline: bool = False, progress: Bars = silent) -> Files:
    """The files of a model, fetched and converted if they are not here yet.

    Args:
        entry: the model.
        offline: touch no network.
        progress: shows how far the downloads are, in bytes.

    Raises:
        ModelUnavailableError: no source has a file, its checksum differs, or it does not hold
            what the model needs.
        OutputError: the cache can't be written.
    """
    paths = {file.key: _obtain(entry, file, offline, progress) for file in entry.files}
    return _files(entry, paths)


def reachable(entry: ModelEntry, *, within: float) -> bool:
    """Whether every file that is not here yet is offered by some source, asked for so long."""
    missing = [file for file in entry.files if locate(file) is None]
    return all(download.reachable(file, within=within / len(missing)) for file in missing)


def spec_of(entry: ModelEntry, weights: Path) -> ModelSpec:
    """How a model is run: as the registry says, or else its file, and what its header adds.

    Raises:
        ModelUnavailableError: neither says it, or what it says does not fit.
    """
    spec = specs.read_spec(weights) if entry.spec is None else entry.spec
    return specs.with_header(spec, specs.read_metadata(weights), str(weights))


def known_spec(entry: ModelEntry) -> ModelSpec | None:
    """How a model is run, by the registry or a file that is here; None if neither says it."""
    if entry.spec is not None:
        return entry.spec
    files = located(entry)
    return None if files is None else specs.read_spec(files.weights)


def own(path: Path, like: ModelEntry | None, known: Iterable[ModelEntry]) -> ModelEntry:
    """A model made of a weight file of the user's own.

    Args:
        path: safetensors file.
        like: the model whose networks it fits, or None if that is to be found out: from the
            file's metadata, or else from the names and shapes of its tensors.
        known: the models that it may fit, and whose autoencoder it may use.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: it is no safetensors file, or fits none of the models.
        UsageError: it fits several that are run differently.
        SpecError: its metadata has a table that does not fit.
    """
    if path.suffix.lower() in PICKLES and path.is_file():
        raise ModelUnavailableError(
            f"{path} is no safetensors file.",
            hint="Convert it first: `resshift models convert IN OUT.safetensors --like MODEL`.",
        )
    metadata = specs.read_metadata(path)
    if like is not None:
        return registry.of_file(path, like)
    if specs.SPEC_KEY in metadata:
        spec = specs.from_json(metadata[specs.SPEC_KEY], f"The table in {path}")
        return registry.of_file(path, task=registry.task_of(spec))
    by_name = {entry.name: entry for entry in known}
    if metadata.get(LIKE) in by_name:
        return registry.of_file(path, by_name[metadata[LIKE]])
    from resshift_cli.weights import checkpoint

    fitting = checkpoint.fitting(path, by_name.values())
    named = [entry for entry in fitting if Path(entry.weights.name).stem == path.stem]
    if not fitting:
        raise ModelUnavailableError(
            f"{path} does not say which network it belongs to, and fits none that is known.",
            hint="`resshift models list` shows what is known.",
        )
    if len({entry.spec for entry in fitting}) > 1 and not named:
        raise UsageError(
            f"{path} fits several models: {', '.join(entry.name for entry in fitting)}.",
            hint="Say which one's steps it was trained for (--model, or --like).",
        )
    return registry.of_file(path, (named or fitting)[0])


def convert_own(
    source: Path, target: Path, entry: ModelEntry, *, autoencoder: bool, overwrite: bool
) -> None:
    """Convert a pickled file of the user's own; it says for itself which model it is like.

    Args:
        source: `.pth` or the like.
        target: safetensors file.
        entry: the model whose network it is.
        autoencoder: whether it is that model's autoencoder.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputMissingError: there is no such file.
        UsageError: the target is not named .safetensors.
        OutputError: the target exists, or can't be written.
        ModelUnavailableError: it does not hold the network, or is damaged or dangerous.
    """
    from resshift_cli.weights import convert

    if not source.is_file():
        raise InputMissingError(f"There is no file {source}.", hint="Check its name.")
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} does not end with .safetensors.", hint="Name it so.")
    if target.exists() and not overwrite:
        raise OutputError(
            f"{target} exists already.", hint="Say that it may be replaced (--overwrite)."
        )
    spec = entry.spec
    if spec is None:
        raise UsageError(
            f"'{entry.name}' does not come as .pth files.",
            hint="Name one of the published models (--like).",
        )
    codec = convert.shapes_of_autoencoder(spec)
    expected = codec if autoencoder else convert.shapes_of_denoiser(spec)
    origin = {"source": source.name, "source_sha256": digests.digest(source), LIKE: entry.name}
    tunable = None if autoencoder else codec
    convert.convert(source, target, expected, tunable=tunable, provenance=origin)


def verify(entry: ModelEntry) -> list[Checked]:
    """Compare every file of a model that is here with its recorded digest."""
    return [
        Checked(file, path, _problem(file, path))
        for file in entry.files
        if (path := locate(file)) is not None
    ]


def remove(entry: ModelEntry, *, keep: frozenset[str] = frozenset()) -> int:
    """Delete what was fetched for a model, and forget its digests; returns the bytes freed.

    Bundled files and files of the user's own stay.

    Args:
        entry: the model.
        keep: keys of files to leave, because other models that are here use them.
    """
    freed = 0
    for file in entry.files:
        if file.key in keep or isinstance(file.sources[0], BundledSource | LocalSource):
            continue
        freed += download.discard(file)
        converted = _converted(file)
        if converted.exists():
            freed += converted.stat().st_size
            converted.unlink()
    return freed


def _files(entry: ModelEntry, paths: Mapping[str, Path]) -> Files:
    parts = (entry.weights, entry.autoencoder, entry.detector)
    weights, *others = (None if file is None else paths[file.key] for file in parts)
    assert weights is not None  # every model has some
    return Files(weights, *others)


def locate(file: WeightFile) -> Path | None:
    """A file that is here and ready, or None; no network."""
    if file.is_pickled:
        converted = _converted(file)
        return converted if converted.is_file() else None
    fetched = download.cached(file)
    return None if fetched is None else fetched.path


def _converted(file: WeightFile) -> Path:
    """Where a pickled file is converted to; the digest keeps apart what has the same name."""
    mark = hashlib.sha256(file.key.encode()).hexdigest()[:8]
    folder = cache.folder() / "converted"
    return folder / f"{Path(file.name).stem}-{mark}.safetensors"


def _obtain(entry: ModelEntry, file: WeightFile, offline: bool, progress: Bars) -> Path:
    here = locate(file)
    if here is not None:
        return here
    if not file.is_pickled:
        return _fetch(entry, file, offline, progress).path
    target = _converted(file)
    with cache.locked(target.stem):
        make_folder(target.parent)
        if not target.is_file():  # else another process was faster
            fetched = _fetch(entry, file, offline, progress)
            _convert(entry, file, fetched, target)
            if isinstance(fetched.source, ReleaseSource):
                fetched.path.unlink(missing_ok=True)  # it was fetched for this alone
    return target


def _fetch(entry: ModelEntry, file: WeightFile, offline: bool, progress: Bars) -> Fetched:
    known = _pulled_with(entry, file)
    return download.fetch(
        file, model=known.name, task=known.task, offline=offline, progress=progress
    )


def _pulled_with(entry: ModelEntry, file: WeightFile) -> ModelEntry:
    """The model by whose name a file is fetched; a weight file of the user's own has none."""
    if not isinstance(entry.weights.sources[0], LocalSource) or entry.name != entry.weights.name:
        return entry
    named = registry.shipped().values()
    return next((model for model in named if file.key in {f.key for f in model.files}), entry)


def _convert(entry: ModelEntry, file: WeightFile, fetched: Fetched, target: Path) -> None:
    from resshift_cli.weights import convert

    if entry.spec is None:
        raise ModelUnavailableError(
            f"'{entry.name}' does not say which network {file.name} belongs to.",
            hint="Give its table a `like` that names a model with the same networks.",
        )
    codec = convert.shapes_of_autoencoder(entry.spec)
    is_network = file is entry.weights
    expected = convert.shapes_of_denoiser(entry.spec) if is_network else codec
    tunable = codec if is_network else None
    provenance = _provenance(file, fetched)
    try:
        convert.convert(fetched.path, target, expected, tunable=tunable, provenance=provenance)
    except ModelUnavailableError as error:
        error.hint = f"`resshift models rm {entry.name}` deletes it, so that it is fetched again."
        raise
    checksums.record(_record(file), digests.digest(target))


def _provenance(file: WeightFile, fetched: Fetched) -> Mapping[str, str]:
    return {
        "source": fetched.source.address,
        "source_sha256": fetched.sha256,
        "licence": file.licence,
        "converted": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _record(file: WeightFile) -> str:
    return f"converted from {file.key}"


def _problem(file: WeightFile, path: Path) -> str:
    """What is wrong with a file, in a few words, or ""."""
    recorded = checksums.recorded(_record(file) if file.is_pickled else file.key)
    expected = recorded if file.is_pickled else file.sha256 or recorded
    if expected is not None and digests.digest(path) != expected:
        return "its checksum differs from what was recorded"
    if file.is_pickled and file.sha256:
        original = specs.read_metadata(path).get("source_sha256")
        if original != file.sha256:
            return "it was converted from a file with another checksum"
    return ""
