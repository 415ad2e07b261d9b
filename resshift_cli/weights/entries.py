"""What a registry says: models, their weight files, sources and licences, as frozen types."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.tables import SpecError, Within
from resshift_cli.weights.addresses import without_login

Task = Literal["real-world", "bicubic", "inpainting", "deblurring", "mending", "face"]
RUN_BY: dict[str, tuple[Task, ...]] = {
    "upscale": ("real-world", "bicubic"),
    "inpaint": ("inpainting", "mending"),
    "restore": ("deblurring", "mending"),
    "face": ("face",),
}
"""Tasks of the models that a command runs."""


def task_of(spec: ModelSpec) -> Task:
    """What a model of one's own is for, as far as its table tells."""
    return "mending" if spec.scale == 1 else "real-world"


FIX_REGISTRY = "Compare its keys and values with the models in weights.toml."


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
        """Where a browser finds it; records and messages have it, so without any login."""
        return without_login(self.url)

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
    bytes: Annotated[int, Within(0, 1 << 50)]

    def __post_init__(self) -> None:
        """Refuse a file that can't be had."""
        if not self.sources:
            raise SpecError("A weight file has no sources.", hint=FIX_REGISTRY)
        if any(isinstance(s, LocalSource) and _is_pickle(s.name) for s in self.sources):
            raise SpecError(
                f"{self.name} is no safetensors file.",
                hint=f"Convert it first: resshift models convert {self.name} OUT.safetensors.",
            )
        if self.sha256 and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise SpecError(
                f"'{self.sha256}' is no SHA-256: it needs 64 hexadecimal digits.",
                hint=FIX_REGISTRY,
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
    return not name.endswith((".safetensors", ".onnx"))


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
        detector: what finds faces in a photo for it, where it is for faces.
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
    detector: WeightFile | None = None
    spec: ModelSpec | None = None

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """Every file that it needs."""
        every = (self.weights, self.autoencoder, self.detector)
        return tuple(file for file in every if file is not None)

    @property
    def commercial(self) -> bool:
        """Whether all of its licences allow commercial use."""
        return all(licence.commercial for licence in self.licences)

    @property
    def licence(self) -> str:
        """The ids of its licences."""
        return ", ".join(dict.fromkeys(licence.id for licence in self.licences))
