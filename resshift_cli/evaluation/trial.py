"""What `resshift bench` measures: a job as `Upscaler` does it, in one of several ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.settings import Settings
from resshift_cli.weights.store import Files


@dataclass(frozen=True, slots=True)
class Way:
    """How networks are run.

    Attributes:
        precision: fp32, bf16 or fp16.
        plain: whether they run as they would without anything done for speed, see `unoptimised`;
            only with fp32.
        compiled: whether they are compiled.
    """

    precision: str
    plain: bool = False
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What they are given to do.

    Attributes:
        tile: side of the tiles in pixels of the input, by default as the model says.
        batch: tiles per call of a network.
        size: side of a square image that is cut with the usual overlap, in pixels of the input.
            By default the image is one batch of tiles, side by side, that have nothing in common.
        steps: of the chain, by default as the model says.
    """

    tile: int | None = None
    batch: int = 1
    size: int | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to measure, with nothing left open and nothing but what JSON can hold.

    Attributes:
        model: what it is called.
        spec: the model, as `specs.to_json` writes it.
        weights: its file, or None for random numbers.
        autoencoder: likewise.
        device: see `device.choose_device`.
        precision: see `Way`.
        plain: likewise.
        compiled: likewise.
        tile: side of the tiles, in pixels of the input, as all that follow.
        overlap: of the tiles.
        batch: tiles per call of a network.
        width: of the image.
        height: of the image.
        steps: of the chain.
    """

    model: str
    spec: str
    weights: str | None
    autoencoder: str | None
    device: str
    precision: str
    plain: bool
    compiled: bool
    tile: int
    overlap: int
    batch: int
    width: int
    height: int
    steps: int

    @property
    def title(self) -> str:
        """For people."""
        precision = "plain fp32" if self.plain else self.precision
        if self.compiled:
            precision += ", compiled"
        tiles = "1 tile" if self.batch == 1 else f"{self.batch} tiles"
        return f"{self.model}, {precision}, {tiles} of {self.tile} px"

    def read_spec(self) -> ModelSpec:
        """The model."""
        return specs.from_json(self.spec, "The trial")

    def settings(self) -> Settings:
        """How the image is enlarged."""
        return plan.settings(
            self.read_spec(),
            name=self.model,
            steps=self.steps,
            tile=self.tile,
            overlap=self.overlap,
        )


def plan_trial(
    model: str, spec: ModelSpec, files: Files | None, *, device: torch.device, way: Way, load: Load
) -> Trial:
    """Fill in what the model says.

    Args:
        model: what it is called.
        spec: how it is run, by its table and what its file's header adds.
        files: its weights, or None for random ones.
        device: where to compute.
        way: how to.
        load: what.

    Raises:
        UsageError: what the model can't do.
    """
    settings = plan.settings(
        spec, name=model, steps=load.steps, tile=load.tile, overlap=None if load.size else 0
    )
    side = load.size
    width, height = (side, side) if side else (settings.tile * load.batch, settings.tile)
    return Trial(
        model=model,
        spec=specs.to_json(spec),
        weights=None if files is None else str(files.weights),
        autoencoder=None if files is None or files.autoencoder is None else str(files.autoencoder),
        device=str(device),
        precision=way.precision,
        plain=way.plain,
        compiled=way.compiled,
        tile=settings.tile,
        overlap=settings.overlap,
        batch=load.batch,
        width=width,
        height=height,
        steps=settings.steps,
    )
