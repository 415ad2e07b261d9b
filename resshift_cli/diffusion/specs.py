"""A model's networks and chain as frozen types, from TOML or from a file's metadata; no torch.

Every type here is one table: its fields are the table's keys, and a table that lacks a key or has
one that no code reads is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.diffusion.tables import FIX_TABLE, SpecError, Within, from_table
from resshift_cli.errors import InputMissingError, ModelUnavailableError

LATENT_SIDE = 64  # the latent size that the published layouts' tables are written for
SPEC_KEY = "resshift"  # metadata entry of a weight file that holds the model's table as JSON

Condition = Literal["pixels", "latent", "resized"]
Norm = Literal["group", "none"]


_NO_NETWORK = "other sizes make no network"
WIDEST, DEEPEST = 4096, 256  # channels of a layer and Swin blocks of a network, at most
Channels = Annotated[int, Within(1, 4096, _NO_NETWORK)]
Factor = Annotated[int, Within(1, 64, _NO_NETWORK)]
Blocks = Annotated[int, Within(1, 16, _NO_NETWORK)]
Level = Annotated[int, Within(0, 5, _NO_NETWORK)]
PerLevel = Within(0, 6, _NO_NETWORK)
Pixels = Annotated[int, Within(0, 1 << 20)]


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """The numbers of `ShiftSchedule.geometric`."""

    steps: Annotated[int, Within(1, 1000)]
    kappa: Annotated[float, Within(0, 100)]
    p: Annotated[float, Within(-100, 100)]
    min_noise: Annotated[float, Within(1e-6, 100)]
    sqrt_eta_end: Annotated[float, Within(0, 1)]

    def build(self) -> ShiftSchedule:
        """Compute the schedule.

        Raises:
            SpecError: the numbers give no rising schedule.
        """
        try:
            return ShiftSchedule.geometric(**dataclasses.asdict(self))
        except (ValueError, ArithmeticError) as error:
            raise SpecError(f"A schedule can't be used: {error}.", hint=FIX_TABLE) from error


@dataclass(frozen=True, slots=True)
class DenoiserSpec:
    """Sizes of a Swin U-Net.

    Attributes:
        latent_channels: channels of x_t and of the output.
        model_channels: width that `channel_mult` multiplies; the time embedding is 4x as wide.
        channel_mult: one factor per level, the finest first.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        swin_levels: indices of the levels that have a Swin layer; the middle always has one.
        swin_depth: Swin blocks per layer.
        swin_embed_dim: channels within Swin layers.
        num_head_channels: channels of one attention head.
        window: side of an attention window, in latent positions.
        mlp_ratio: hidden width of the Swin MLP, in embedding widths.
        swin: how windows shift, see `swin.shift_mask`.
        lq_ratio: side of the low-quality image over the side of the latent: 1, 2, 4 or 8. Above
            1 a feature extractor of strided convolutions brings it down.
        lq_mask: the low-quality image has a fourth channel, the inpainting mask.
        noise_channels: extra input planes of noise (distilled students).
        norm: `group`, or `none`: without, what a place becomes depends on its neighbourhood alone,
            and nothing is divided by the deviation of a flat map.
    """

    latent_channels: Channels
    model_channels: Channels
    channel_mult: Annotated[tuple[Factor, ...], PerLevel]
    num_res_blocks: Blocks
    swin_levels: Annotated[tuple[Level, ...], PerLevel]
    swin_depth: Annotated[int, Within(0, 8, _NO_NETWORK)]
    swin_embed_dim: Channels
    num_head_channels: Channels
    window: Annotated[int, Within(1, 16, _NO_NETWORK)]
    mlp_ratio: Factor
    swin: Literal["reference", "standard"]
    lq_ratio: Factor
    lq_mask: bool
    noise_channels: Annotated[int, Within(0, 99)]
    norm: Norm = "group"

    @property
    def widest(self) -> int:
        """Channels of its widest layer."""
        return self.model_channels * max(self.channel_mult, default=0)

    @property
    def swin_blocks(self) -> int:
        """Swin blocks on the way down and up, without those in the middle."""
        return (2 * self.num_res_blocks + 1) * len(self.swin_levels) * self.swin_depth

    @property
    def size_multiple(self) -> int:
        """Latent height and width must be multiples of this."""
        return self.window << (len(self.channel_mult) - 1)

    @property
    def finest_width(self) -> int:
        """Channels of the finest level, where most of the time goes."""
        return self.model_channels * self.channel_mult[0]


@dataclass(frozen=True, slots=True)
class VQSpec:
    """Sizes of a VQGAN autoencoder.

    Attributes:
        ch: width that `ch_mult` multiplies.
        ch_mult: one factor per level, full resolution first.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
        z_channels: channels of the latent.
        codes: rows of the codebook.
        quantize: whether `decode` snaps the latent to the nearest codes first.
    """

    ch: Channels
    ch_mult: Annotated[tuple[Factor, ...], PerLevel]
    num_res_blocks: Annotated[tuple[Blocks, ...], PerLevel]
    z_channels: Annotated[int, Within(1, 256, _NO_NETWORK)]
    codes: Annotated[int, Within(1, 1 << 16, _NO_NETWORK)]
    quantize: bool
    kind: Literal["vq"] = "vq"

    @property
    def widest(self) -> int:
        """Channels of its widest layer."""
        return self.ch * max(self.ch_mult, default=0)

    @property
    def factor(self) -> int:
        """Pixels per latent position, along each side."""
        return 1 << (len(self.ch_mult) - 1)

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return self.z_channels


@dataclass(frozen=True, slots=True)
class SpaceToDepthSpec:
    """The weightless autoencoder: pixel-unshuffle by `factor`, times `latent_scale`."""

    factor: Annotated[int, Within(1, 32, _NO_NETWORK)]
    latent_scale: Annotated[float, Within(1e-3, 1e3)]
    kind: Literal["space-to-depth"] = "space-to-depth"

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return 3 * self.factor**2

    @property
    def widest(self) -> int:
        """Channels of its widest layer."""
        return self.channels


@dataclass(frozen=True, slots=True)
class TileSpec:
    """How an image is cut, in pixels of the low-quality image.

    Attributes:
        size: largest side of a tile.
        overlap: what neighbouring tiles share.
        margin: what an image is grown by on every side, by reflection, so that the network sees as
            much around its borders as around its middle; less where a whole image just fits in one
            small tile.
    """

    size: Pixels
    overlap: Pixels
    margin: Pixels = 4


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a model's networks are built and run; written into the metadata of its weight file.

    Attributes:
        scale: output pixels per input pixel, along each side.
        predict: what the network returns: `x0`, or the `residual` y_0 - x_0.
        precondition: the network is shown x_t - y_0 and corrects the best linear estimate of
            the residual, see `denoiser.Denoiser`.
        clip_lq: clip the upsampled image to [-1, 1] before encoding.
        temperature: what the noise of the chain's steps is multiplied by; 1 is the chain as
            published.
        tile: default cut of large images.
        schedule: the residual-shift schedule that the network was trained with.
        denoiser: sizes of the Swin U-Net.
        autoencoder: sizes of the autoencoder.
        condition: what the denoiser is shown of the low-quality image: its `pixels`, the
            `latent` y_0, or the `resized` image, enlarged and brought back to the latent's size.
        prior: noise of the chain's start in standard deviations: kappa sqrt(eta_T) as in the
            paper (`shifted`), or `kappa`.
        blind_start: the first prediction is made from y_0 instead of x_T, see `denoiser.Denoiser`.
        color_fix: how results get the colours of their input, see `restoration.colour`; `wavelet`
            if absent.
        max_steps: steps walked by default and at most, where that is less than the schedule has,
            as in models distilled to one step.
        mean: the file has two sets of weights: those of samples and, under the prefix `mean.`,
            those of the mean, see `denoiser.Denoiser.at`.
        detail: how far results are from the mean by default, 0 to 1.
        flat: detail of the input, in levels of 255, below which hardly any is added, see
            `restoration.colour.calm`; 0 is without, as the authors' models are.
        prefill: holes hold what is around them before a network is shown them, see
            `restoration.prefill`; without, unknown pixels are black, as in the authors' models.

    Raises:
        SpecError: the parts do not fit each other.
    """

    scale: Annotated[int, Within(1, 64)]
    predict: Literal["x0", "residual"]
    precondition: bool
    clip_lq: bool
    temperature: Annotated[float, Within(0, 100)]
    tile: TileSpec
    schedule: ScheduleSpec
    denoiser: DenoiserSpec
    autoencoder: VQSpec | SpaceToDepthSpec
    condition: Condition = "pixels"
    prior: Literal["shifted", "kappa"] = "shifted"
    blind_start: bool = False
    max_steps: int | None = None
    color_fix: Literal["none", "wavelet", "adain"] | None = None
    mean: bool = False
    detail: Annotated[float, Within(0, 1)] = 1.0
    flat: Annotated[float, Within(0, 255)] = 0.0
    prefill: bool = False

    def __post_init__(self) -> None:
        """Refuse what would fail later, inside a network."""
        for problem in self._problems():
            raise SpecError(f"A model's table does not fit together: {problem}.", hint=FIX_TABLE)

    def _problems(self) -> Iterator[str]:
        inner, outer = self.denoiser, self.autoencoder
        if max(inner.widest, outer.widest) > WIDEST:
            yield f"layers of more than {WIDEST} channels make no network"
        if inner.swin_blocks > DEEPEST:
            yield f"{inner.swin_blocks} Swin blocks make no network"
        if inner.latent_channels != outer.channels:
            yield (
                f"the denoiser has {inner.latent_channels} latent_channels, "
                f"but the autoencoder makes {outer.channels}"
            )
        if outer.factor % self.scale:
            yield (
                f"scale {self.scale} does not divide the {outer.factor} pixels per latent position "
                "of the autoencoder"
            )
        if inner.lq_ratio != (self.lq_pixels if self.condition == "pixels" else 1):
            yield (
                f"lq_ratio {inner.lq_ratio} does not go with scale {self.scale}, condition "
                f"'{self.condition}' and the autoencoder's {outer.factor} pixels per position"
            )
        if self.condition == "latent" and inner.latent_channels != 3:
            yield "condition = 'latent' needs a latent of 3 channels, as many as the image has"
        yield from self._problems_of_masks()
        if self.precondition and self.predict != "residual":
            yield "precondition goes with predict = 'residual' only"
        if self.max_steps is not None and not 1 <= self.max_steps <= self.schedule.steps:
            yield f"max_steps {self.max_steps} is outside 1 to {self.schedule.steps}"

    def _problems_of_masks(self) -> Iterator[str]:
        if self.denoiser.lq_mask and self.condition != "pixels":
            yield f"a mask (lq_mask) goes with condition = 'pixels', not '{self.condition}'"
        if self.prefill and not self.denoiser.lq_mask:
            yield "prefill is for models that take a mask (lq_mask)"

    @property
    def steps(self) -> int:
        """Steps of the chain by default, and at most."""
        return self.schedule.steps if self.max_steps is None else self.max_steps

    @property
    def draws(self) -> bool:
        """Whether its results have anything random in them, so that seeds differ."""
        return self.steps > 1 or not self.blind_start or self.denoiser.noise_channels > 0

    @property
    def lq_pixels(self) -> int:
        """Low-quality pixels per latent position, along each side."""
        return self.autoencoder.factor // self.scale


_HEADER_CONDITIONS: dict[str, Condition] = {"latent": "latent", "pixel": "resized"}

_FIX_STUDENT = "`resshift models list` shows the distilled models that can be run."
_FIX_FILE = "`--model tiny-x4` needs no file; `resshift train` writes files that fit."


def to_json(spec: ModelSpec) -> str:
    """The spec as it stands in a weight file's metadata."""
    table = dataclasses.asdict(spec)
    # Files of models without what came later stay what they were.
    if spec.denoiser.norm == "group":
        del table["denoiser"]["norm"]
    absent: dict[str, object] = {"mean": False, "detail": 1.0, "flat": 0.0, "prefill": False}
    table = {k: v for k, v in table.items() if v is not None and v != absent.get(k)}
    return json.dumps(table)


def from_json(text: str, where: str) -> ModelSpec:
    """Read what `to_json` wrote.

    Raises:
        SpecError: not JSON, or not a model's table.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: nested without end
        raise SpecError(f"{where} is not JSON: {error}.", hint=FIX_TABLE) from error
    return from_table(ModelSpec, table, where)


@contextmanager
def open_weights(path: Path, framework: str) -> Iterator[Any]:
    """Open a safetensors file; its tensors are those of the framework, `pt` or `np`.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: it is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputMissingError(f"There is no weight file {path}.", hint=_FIX_FILE)
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"{path} is not a whole safetensors file: {error}.", hint=_FIX_FILE
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a weight file.

    Raises:
        InputMissingError, ModelUnavailableError: as `open_weights`.
    """
    with open_weights(path, "np") as file:
        return file.metadata() or {}


def read_spec(path: Path) -> ModelSpec:
    """The model's table in the metadata of a weight file.

    Raises:
        InputMissingError, ModelUnavailableError: as `open_weights`, or it has no table.
        SpecError: it has a table that does not fit.
    """
    metadata = read_metadata(path)
    if SPEC_KEY not in metadata:
        raise ModelUnavailableError(
            f"{path} does not say which network it belongs to (no '{SPEC_KEY}' in its metadata).",
            hint=_FIX_FILE,
        )
    return from_json(metadata[SPEC_KEY], f"The table in {path}")


def with_header(spec: ModelSpec, metadata: Mapping[str, str], where: str) -> ModelSpec:
    """A model's table with what the file of a distilled student says in its metadata.

    Args:
        spec: the table; without noise planes it is no student, and returned as it is.
        metadata: `noise_mode` is `concat`; `noise_channels` is how many planes of noise there
            are; `cond_lq` is `latent`, or `pixel` for the resized image. What is absent stays
            as the table has it.
        where: what messages call the file.

    Raises:
        SpecError: it says something else, or what does not fit the table.
    """
    if not spec.denoiser.noise_channels:
        return spec
    mode = metadata.get("noise_mode", "concat")
    planes = metadata.get("noise_channels", str(spec.denoiser.noise_channels))
    shown = metadata.get("cond_lq")
    problem = None
    if mode != "concat":
        problem = f"takes its noise in the mode '{mode}', and only 'concat' is supported"
    elif not re.fullmatch("[1-9][0-9]?", planes):
        problem = f"says noise_channels '{planes}', which is no number from 1 to 99"
    elif shown is not None and shown not in _HEADER_CONDITIONS:
        problem = f"says cond_lq '{shown}', which is neither 'latent' nor 'pixel'"
    if problem is not None:
        raise SpecError(f"{where} {problem}.", hint=_FIX_STUDENT)
    return dataclasses.replace(
        spec,
        condition=spec.condition if shown is None else _HEADER_CONDITIONS[shown],
        denoiser=dataclasses.replace(spec.denoiser, noise_channels=int(planes)),
    )
