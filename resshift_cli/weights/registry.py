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
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from resshift_cli.diffusion.tables import SpecError, from_table, written_by_the_user
from resshift_cli.errors import InputMissingError, UnknownModelError, UsageError, printable
from resshift_cli.system.atomic import make_folder, write
from resshift_cli.system.cache import locked
from resshift_cli.weights.entries import (
    FIX_REGISTRY,
    RUN_BY,
    BundledSource,
    HubSource,
    Licence,
    LocalSource,
    ModelEntry,
    ReleaseSource,
    Source,
    Task,
    WeightFile,
    task_of,
)

__all__ = [
    "RUN_BY",
    "BundledSource",
    "HubSource",
    "Licence",
    "LocalSource",
    "ModelEntry",
    "ReleaseSource",
    "Source",
    "Task",
    "WeightFile",
    "add",
    "bundled",
    "find",
    "finding_faces",
    "merged",
    "models",
    "of_file",
    "own_registry",
    "read",
    "shipped",
    "shipped_registry",
    "task_of",
]

OWN_REGISTRY = "RESSHIFT_REGISTRY"  # environment variable: the user's own file elsewhere
UNKNOWN_LICENCE = "unknown"
MOST_LIKES = 16  # models that one may be like, one after the other


def shipped_registry() -> Path:
    """weights.toml: beside this file in an installed wheel, one folder up in a checkout."""
    installed = Path(str(files("resshift_cli"))) / "weights.toml"
    return installed if installed.exists() else installed.parent.parent / "weights.toml"


def own_registry() -> Path:
    """The file that `resshift models add` writes to; it need not exist."""
    import platformdirs

    named = os.environ.get(OWN_REGISTRY)
    if named:
        return Path(named).expanduser()
    return platformdirs.user_config_path("resshift") / "models.toml"


def models(extra: Path | None = None) -> dict[str, ModelEntry]:
    """Every model: the shipped ones, then the user's own, then those of `extra`; later ones win.

    Raises:
        InputMissingError: `extra` is missing, or a registry can't be read.
        UsageError: one is not TOML, or has a table that does not fit.
    """
    return _models(own_registry(), extra)


@cache
def shipped() -> dict[str, ModelEntry]:
    """The models of weights.toml alone, whatever the user's own registry says."""
    return read([shipped_registry()])


def bundled(task: Task | None = None) -> list[ModelEntry]:
    """The models that lie within this package, and need no network; the best one first.

    Args:
        task: take only those that a command runs which runs models for this one.
    """
    found = [e for e in shipped().values() if isinstance(e.weights.sources[0], BundledSource)]
    if task is None:
        return found
    same = {each for tasks in RUN_BY.values() if task in tasks for each in tasks}
    return [entry for entry in found if entry.task in same]


def find(name: str, extra: Path | None = None) -> ModelEntry:
    """Look a model up by name.

    Raises:
        UnknownModelError: there is none; the hint has the nearest name.
        InputMissingError, UsageError: as `models`.
    """
    known = models(extra)
    if name not in known:
        raise UnknownModelError(name, known)
    return known[name]


def finding_faces(entry: ModelEntry) -> ModelEntry:
    """The same model with what finds faces for it: its own detector, or else the shipped one."""
    if entry.detector is not None:
        return entry
    known = (model.detector for model in shipped().values())
    return dataclasses.replace(entry, detector=next(file for file in known if file is not None))


def of_file(path: Path, like: ModelEntry | None = None, task: Task = "real-world") -> ModelEntry:
    """A model made of a weight file of the user's own.

    Args:
        path: safetensors file.
        like: the model whose networks it fits; not needed where its metadata says it all.
        task: what it is for, if it is like no other.

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
        task=task,
        homepage="",
        citation="",
        weights=weights,
        licences=(),
    )


def add(
    name: str,
    source: HubSource | LocalSource,
    *,
    like: str | None,
    licence: str,
    task: Task = "real-world",
) -> Path:
    """Write a model into the user's own registry; returns that file.

    Args:
        name: what `--model` will call it.
        source: where its weights are.
        like: the model that it has everything else of; None if the file's metadata says it.
        licence: id of a licence that a registry describes.
        task: what it is for, if it is like no other.

    Raises:
        UsageError: the name is taken or can't be one, there is no such licence, or the user's
            registry, or what would be written, does not fit.
        UnknownModelError: there is no model to be `like`.
        OutputError: it can't be written.
    """
    path = own_registry()
    with locked(f"registry-{sha256(str(path.absolute()).encode()).hexdigest()[:16]}"):
        _models.cache_clear()  # another process may have added one
        _refuse_name(name, path)
        if like is not None:
            find(like)
        before = _content(path) if path.exists() else _OWN_HEADER
        text = before.rstrip() + b"\n\n" + _table(name, source, like, licence, task).encode()
        shipped = "weights.toml", _content(shipped_registry())
        _read([shipped, (path.name, text)])  # or it is refused
        make_folder(path.parent)
        write(path, text)
    _models.cache_clear()
    return path


def _refuse_name(name: str, path: Path) -> None:
    """Refuse a name for a new model that is taken, or can't be one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"'{name}' can't be a model's name.",
            hint="Use letters, digits, dots, dashes and underscores.",
        )
    if name in models():
        raise UsageError(
            f"There is a model '{name}' already.",
            hint=f"Choose another name, or change its table in {path}.",
        )


_OWN_HEADER = b"# Models of your own, in the form of the weights.toml of resshift."


def _table(
    name: str, source: HubSource | LocalSource, like: str | None, licence: str, task: Task
) -> str:
    """A model's table as TOML, whose basic strings are written like those of JSON."""
    base = {
        "description": f"a model of your own, {source.name}",
        "task": task,
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
        UsageError: not TOML, or a table that does not fit; the message names file and table.
    """
    return _read([(path.name, _content(path)) for path in paths])


def _read(texts: Iterable[tuple[str, bytes]]) -> dict[str, ModelEntry]:
    """As `read`, for (name, content) of the registries."""
    licences: dict[str, Licence] = {}
    tables: dict[str, tuple[str, Mapping[str, Any]]] = {}
    with written_by_the_user():
        for file, text in texts:
            content = _parse(file, text)
            for identifier, table in _section(content, "licences", file):
                where = f"{file}: [licences.{identifier}]"
                full = _with(table, where, id=identifier)
                licences[identifier] = from_table(Licence, full, where)
            for name, table in _section(content, "models", file):
                tables[name] = (f"{file}: [models.{name}]", table)
        return {name: _entry(name, tables, licences) for name in tables}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputMissingError(
            f"The registry {printable(path)} can't be read: {error.strerror}.",
            hint="A registry (--registry) is a file like the weights.toml of this package.",
        ) from error


def _parse(file: str, text: bytes) -> dict[str, Any]:
    try:
        content = tomllib.loads(text.decode("utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise SpecError(f"{file} is not TOML: {error}.", hint=FIX_REGISTRY) from error
    if unknown := sorted(content.keys() - {"licences", "models"}):
        raise SpecError(
            f"{file} has the unknown table [{unknown[0]}].",
            hint="Models are [models.NAME], licences [licences.ID].",
        )
    return content


def _section(content: Mapping[str, Any], name: str, file: str) -> Iterable[tuple[str, Any]]:
    section = content.get(name, {})
    if not isinstance(section, Mapping):
        raise SpecError(f"{file}: [{name}] is not a table.", hint=FIX_REGISTRY)
    return section.items()


def _with(table: Any, where: str, **more: Any) -> dict[str, Any]:
    """A table plus what its place says; the place's own keys can't stand in it as well."""
    if not isinstance(table, Mapping):
        raise SpecError(f"{where} is not a table.", hint=FIX_REGISTRY)
    if twice := sorted(table.keys() & more.keys()):
        raise SpecError(f"{where} has the unknown key '{twice[0]}'.", hint=FIX_REGISTRY)
    return {**table, **more}


def _entry(
    name: str,
    tables: Mapping[str, tuple[str, Mapping[str, Any]]],
    licences: Mapping[str, Licence],
) -> ModelEntry:
    where, _ = tables[name]
    table = _inherited(name, tables)
    used = []
    for part in ("weights", "autoencoder", "detector"):
        identifier = table[part].get("licence") if isinstance(table.get(part), Mapping) else None
        if isinstance(identifier, str):
            if identifier not in licences:
                raise SpecError(
                    f"{where}.{part} has the unknown licence '{identifier}'.",
                    hint=f"Describe it in a table [licences.{identifier}].",
                )
            used.append(licences[identifier])
    entry = from_table(ModelEntry, _with(table, where, name=name, licences=()), where)
    if entry.spec is not None:
        entry.spec.schedule.build()  # or it is refused here, where the mistake is
    return dataclasses.replace(entry, licences=tuple(used))


def _inherited(name: str, tables: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A model's table with all that it takes over from the one that it is like."""
    where = tables[name][0]
    table: dict[str, Any] = {}
    seen: list[str] = []
    following: Any = name
    while following is not None:
        problem = None
        if not isinstance(following, str) or following not in tables:
            problem = f"'{following}', which is no model"
        elif following in seen:
            problem = "itself in the end"
        elif len(seen) > MOST_LIKES:
            problem = f"a model that is like another one, more than {MOST_LIKES} times in a row"
        if problem is not None:
            raise SpecError(f"{where} is like {problem}.", hint="`like` names another model.")
        seen.append(following)
        place, own = tables[following]
        table = merged(_with(own, place), table)
        following = table.pop("like", None)
    return table


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Own keys over the base's; tables are merged, but lists and all else replaced."""
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
