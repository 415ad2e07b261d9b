"""Which models exist: weights.toml and the user's own file as frozen types; no torch.

A file has two kinds of tables, `[licences.ID]` and `[models.NAME]`. A model may say
`like = "OTHER"`: it then has everything that the other one has, but for what it says itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from resshift_cli.diffusion.specs import ModelSpec, SpecError, from_table
from resshift_cli.errors import InputMissingError, UnknownModelError, UsageError
from resshift_cli.system.atomic import make_folder, write

Task = Literal["real-world", "bicubic", "inpainting", "face"]
UPSCALING: tuple[Task, ...] = ("real-world", "bicubic")
"""Tasks of the models that `resshift upscale` runs."""

OWN_REGISTRY = "RESSHIFT_REGISTRY"  # environment variable: the user's own file elsewhere
UNKNOWN_LICENCE = "unknown"

_FIX_REGISTRY = "Compare its keys and values with the models in weights.toml."


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository on the Hugging Face Hub; `revision` is a branch, tag or commit."""

    repo: str
    file: str
    revision: str
    kind: Literal["hub"] = "hub"

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"https://huggingface.co/{self.repo}/resolve/{self.revision}/{self.file}"

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.file.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class ReleaseSource:
    """A file of a release page, or any other that can be had by its URL."""

    url: str
    kind: Literal["release"] = "release"

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return self.url

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class BundledSource:
    """A file within this package."""

    file: str
    kind: Literal["bundled"] = "bundled"

    @property
    def address(self) -> str:
        """How messages call it."""
        return f"bundled {self.file}"

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.file

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(str(files("resshift_cli"))) / "bundled" / self.file


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file of the user's own."""

    path: str
    kind: Literal["local"] = "local"

    @property
    def address(self) -> str:
        """How messages call it."""
        return self.path

    @property
    def name(self) -> str:
        """The file's own name."""
        return Path(self.path).name


Source = HubSource | ReleaseSource | BundledSource | LocalSource


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights, and where to get it.

    Attributes:
        sources: the same file in several places, to be tried in this order.
        licence: id of a `[licences]` table.
        sha256: of the file as it lies there, in hexadecimal, or "": then the first download is
            recorded, and later ones must match it.
        bytes: about how large it is, or 0 if that is not known.
    """

    sources: tuple[Source, ...]
    licence: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        """Refuse a file that can't be had."""
        if not self.sources:
            raise SpecError("A weight file has no sources.", hint=_FIX_REGISTRY)
        if any(isinstance(s, LocalSource) and _is_pickle(s.name) for s in self.sources):
            raise SpecError(
                f"{self.name} is no safetensors file.",
                hint=f"Convert it first: resshift models convert {self.name} OUT.safetensors.",
            )
        if self.sha256 and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise SpecError(
                f"'{self.sha256}' is no SHA-256: it needs 64 hexadecimal digits.",
                hint=_FIX_REGISTRY,
            )

    @property
    def key(self) -> str:
        """What tells it from every other file: the address of its first source."""
        return self.sources[0].address

    @property
    def name(self) -> str:
        """Its own name."""
        return self.sources[0].name

    @property
    def is_pickled(self) -> bool:
        """Whether it has to be converted before it is used: `.pth` and its kin hold pickles."""
        return _is_pickle(self.name)


def _is_pickle(name: str) -> bool:
    return not name.endswith(".safetensors")


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms that weights are published under.

    Attributes:
        id: SPDX id, or the licence's short name where it has none.
        title: its full name.
        url: its text, or "" where none is known.
        commercial: whether it allows commercial use.
    """

    id: str
    title: str
    url: str
    commercial: bool


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model.

    Attributes:
        name: what `--model` calls it.
        description: one line for people.
        task: what it was trained for.
        homepage: where its authors describe it.
        citation: the paper to cite.
        weights: the denoiser.
        autoencoder: the weights of its autoencoder, where it has any.
        spec: how it is built and run; None where the metadata of `weights` says it.
        licences: the licences of its files, the denoiser's first.
    """

    name: str
    description: str
    task: Task
    homepage: str
    citation: str
    weights: WeightFile
    licences: tuple[Licence, ...]
    autoencoder: WeightFile | None = None
    spec: ModelSpec | None = None

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """Every file that it needs."""
        return (self.weights,) if self.autoencoder is None else (self.weights, self.autoencoder)

    @property
    def commercial(self) -> bool:
        """Whether all of its licences allow commercial use."""
        return all(licence.commercial for licence in self.licences)

    @property
    def licence(self) -> str:
        """The ids of its licences."""
        return ", ".join(dict.fromkeys(licence.id for licence in self.licences))


def shipped_registry() -> Path:
    """weights.toml: beside this file in an installed wheel, one folder up in a checkout."""
    beside = Path(str(files("resshift_cli"))) / "weights.toml"
    return beside if beside.exists() else beside.parent.parent / "weights.toml"


def own_registry() -> Path:
    """The file that `resshift models add` writes to; it need not exist."""
    import platformdirs

    named = os.environ.get(OWN_REGISTRY)
    return Path(named) if named else platformdirs.user_config_path("resshift") / "models.toml"


def models(extra: Path | None = None) -> dict[str, ModelEntry]:
    """Every model: the shipped ones, then the user's own, then those of `extra`; later ones win.

    Raises:
        InputMissingError: `extra` is missing, or a registry can't be read.
        SpecError: one is not TOML, or has a table that does not fit.
    """
    return _models(own_registry(), extra)


def find(name: str, extra: Path | None = None) -> ModelEntry:
    """Look a model up by name.

    Raises:
        UnknownModelError: there is none; the hint has the nearest name.
        InputMissingError, SpecError: as `models`.
    """
    known = models(extra)
    if name not in known:
        raise UnknownModelError(name, known)
    return known[name]


def of_file(path: Path, like: ModelEntry | None = None) -> ModelEntry:
    """A model made of a weight file of the user's own.

    Args:
        path: safetensors file.
        like: the model whose networks it fits; not needed where its metadata says it all.

    Raises:
        SpecError: it is no safetensors file by its name.
    """
    source = LocalSource(str(path))
    weights = WeightFile((source,), UNKNOWN_LICENCE, sha256="", bytes=0)
    if like is not None:
        inner = like.licences[1:]  # of the autoencoder, which is still the other model's
        return dataclasses.replace(like, name=path.name, weights=weights, licences=inner)
    return ModelEntry(
        name=path.name,
        description="a weight file of your own",
        task="real-world",
        homepage="",
        citation="",
        weights=weights,
        licences=(),
    )


def add(name: str, source: HubSource | LocalSource, *, like: str | None, licence: str) -> Path:
    """Write a model into the user's own registry; returns that file.

    Args:
        name: what `--model` will call it.
        source: where its weights are.
        like: the model that it has everything else of; None if the file's metadata says it.
        licence: id of a licence that a registry describes.

    Raises:
        UsageError: the name is taken or can't be one, or there is no such licence.
        UnknownModelError: there is no model to be `like`.
        SpecError: the user's registry, or what would be written, does not fit.
        OutputError: it can't be written.
    """
    path = own_registry()
    known = models()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"'{name}' can't be a model's name.",
            hint="Use letters, digits, dots, dashes and underscores.",
        )
    if name in known:
        raise UsageError(
            f"There is a model '{name}' already.",
            hint=f"Choose another name, or change its table in {path}.",
        )
    if like is not None:
        find(like)
    before = _content(path) if path.exists() else _OWN_HEADER
    text = before.rstrip() + b"\n\n" + _table(name, source, like, licence).encode()
    _read([("weights.toml", _content(shipped_registry())), (path.name, text)])  # or it is refused
    make_folder(path.parent)
    write(path, text)
    _models.cache_clear()
    return path


_OWN_HEADER = b"# Models of your own, in the form of the weights.toml of resshift."


def _table(name: str, source: HubSource | LocalSource, like: str | None, licence: str) -> str:
    """A model's table as TOML, whose basic strings are written like those of JSON."""
    base = {
        "description": f"a model of your own, {source.name}",
        "task": "real-world",
        "homepage": "",
        "citation": "",
    }
    if like is not None:
        base = {"like": like, "description": f"as {like}, with {source.name}"}
    where = ", ".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in dataclasses.asdict(source).items()
    )
    quoted = json.dumps(name)
    return "\n".join(
        [
            f"[models.{quoted}]",
            *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in base.items()),
            "",
            f"[models.{quoted}.weights]",
            f"sources = [{{ {where} }}]",
            f"licence = {json.dumps(licence)}",
            'sha256 = ""',
            "bytes = 0",
            "",
        ]
    )


@cache
def _models(own: Path, extra: Path | None) -> dict[str, ModelEntry]:
    paths = [shipped_registry()]
    paths += [own] if own.exists() else []
    paths += [extra] if extra is not None else []
    return read(paths)


def read(paths: Iterable[Path]) -> dict[str, ModelEntry]:
    """Read registries, of which later ones add to and override earlier ones.

    Raises:
        InputMissingError: a file is missing or can't be read.
        SpecError: not TOML, or a table that does not fit; the message names file and table.
    """
    return _read([(path.name, _content(path)) for path in paths])


def _read(texts: Iterable[tuple[str, bytes]]) -> dict[str, ModelEntry]:
    """As `read`, for (name, content) of the registries."""
    licences: dict[str, Licence] = {}
    tables: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for file, text in texts:
        content = _parse(file, text)
        for identifier, table in _section(content, "licences", file):
            where = f"{file}: [licences.{identifier}]"
            licences[identifier] = from_table(Licence, _with(table, where, id=identifier), where)
        for name, table in _section(content, "models", file):
            tables[name] = (f"{file}: [models.{name}]", table)
    return {name: _entry(name, tables, licences) for name in tables}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputMissingError(
            f"The registry {path} can't be read: {error.strerror}.",
            hint="--registry takes a file like the weights.toml of this package.",
        ) from error


def _parse(file: str, text: bytes) -> dict[str, Any]:
    try:
        content = tomllib.loads(text.decode("utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise SpecError(f"{file} is not TOML: {error}.", hint=_FIX_REGISTRY) from error
    if unknown := sorted(content.keys() - {"licences", "models"}):
        raise SpecError(
            f"{file} has the unknown table [{unknown[0]}].",
            hint="Models are [models.NAME], licences [licences.ID].",
        )
    return content


def _section(content: Mapping[str, Any], name: str, file: str) -> Iterable[tuple[str, Any]]:
    section = content.get(name, {})
    if not isinstance(section, Mapping):
        raise SpecError(f"{file}: [{name}] is not a table.", hint=_FIX_REGISTRY)
    return section.items()


def _with(table: Any, where: str, **more: Any) -> dict[str, Any]:
    """A table plus what its place says; the place's own keys can't stand in it as well."""
    if not isinstance(table, Mapping):
        raise SpecError(f"{where} is not a table.", hint=_FIX_REGISTRY)
    if twice := sorted(table.keys() & more.keys()):
        raise SpecError(f"{where} has the unknown key '{twice[0]}'.", hint=_FIX_REGISTRY)
    return {**table, **more}


def _entry(
    name: str,
    tables: Mapping[str, tuple[str, Mapping[str, Any]]],
    licences: Mapping[str, Licence],
) -> ModelEntry:
    where, _ = tables[name]
    table = _inherit(name, tables, ())
    used = []
    for part in ("weights", "autoencoder"):
        identifier = table[part].get("licence") if isinstance(table.get(part), Mapping) else None
        if isinstance(identifier, str):
            if identifier not in licences:
                raise SpecError(
                    f"{where}.{part} has the unknown licence '{identifier}'.",
                    hint=f"Describe it in a table [licences.{identifier}].",
                )
            used.append(licences[identifier])
    entry = from_table(ModelEntry, _with(table, where, name=name, licences=()), where)
    return dataclasses.replace(entry, licences=tuple(used))


def _inherit(
    name: str, tables: Mapping[str, tuple[str, Mapping[str, Any]]], seen: tuple[str, ...]
) -> dict[str, Any]:
    """A model's table with all that it takes over from the one that it is like."""
    where, own = tables[name]
    table = _with(own, where)
    base = table.pop("like", None)
    if base is None:
        return table
    if base not in tables or base in seen or base == name:
        problem = "itself in the end" if base in tables else f"'{base}', which is no model"
        raise SpecError(f"{where} is like {problem}.", hint="`like` names another model.")
    return merged(_inherit(base, tables, (*seen, name)), table)


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Own keys over the base's; tables are merged, but lists and all else replaced."""
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
