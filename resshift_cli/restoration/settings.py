"""How an image is enlarged: its settings with nothing left open, its passes and its tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack, cast, get_args

from resshift_cli.diffusion import noise
from resshift_cli.diffusion.chain import Ancestral, Sampler
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError
from resshift_cli.restoration import tiling
from resshift_cli.restoration.colour import ColourFix
from resshift_cli.restoration.tiling import Grid

MAX_SCALE = 16

COLOUR_FIXES: tuple[str, ...] = get_args(ColourFix)


class Options(TypedDict, total=False):
    """How an image may be asked to be enlarged, see `Upscaler.__call__`."""

    scale: float | None
    steps: int | None
    seed: int
    tile: int | None
    overlap: int | None
    temperature: float | None
    color_fix: str
    consistency: float


class Faithfulness(TypedDict):
    """How a result is made true to its input, see `colour.correct`."""

    fix: ColourFix
    consistency: float


@dataclass(frozen=True, slots=True)
class Settings:
    """How an image is enlarged, with nothing left open.

    Attributes:
        scale: output size over input size, 1 to 16.
        steps: steps of the chain.
        seed: of the noise field.
        tile: largest side of a tile in input pixels, a multiple of what the network takes.
        overlap: input pixels that neighbouring tiles share.
        temperature: what the noise of the chain's steps is multiplied by.
        color_fix: how the result gets the colours of the input, see `colour`.
        consistency: how far the result is projected to the input, 0 to 1.
    """

    scale: float
    steps: int
    seed: int
    tile: int
    overlap: int
    temperature: float
    color_fix: ColourFix
    consistency: float

    @property
    def faithfulness(self) -> Faithfulness:
        """What `colour.correct` is told."""
        return {"fix": self.color_fix, "consistency": self.consistency}

    def sampler(self, spec: ModelSpec) -> Sampler:
        """How the chain of a model is walked."""
        schedule = spec.schedule.build().respaced(self.steps)
        return Ancestral(schedule, self.temperature, spec.prior)


def settings(spec: ModelSpec, *, name: str, **options: Unpack[Options]) -> Settings:
    """Check the options of `Upscaler`, and fill in what the model says.

    Args:
        spec: the model.
        name: what messages call it.
        options: see `Upscaler.__call__`.

    Raises:
        UsageError: an option outside its range.
        TypeError: an option that there is not.
    """
    refuse_unknown(options, Options)
    size, overlap = _tiles(spec, name, options.get("tile"), options.get("overlap"))
    return Settings(
        scale=_scale(spec, options.get("scale")),
        steps=_steps(spec, name, options.get("steps")),
        seed=_seed(options.get("seed", 0)),
        tile=size,
        overlap=overlap,
        temperature=_temperature(spec, options.get("temperature")),
        color_fix=_color_fix(options.get("color_fix", "wavelet")),
        consistency=_consistency(options.get("consistency", 0.0)),
    )


def refuse_unknown(arguments: Mapping[str, object], known: type) -> None:
    """Refuse keyword arguments that a TypedDict has not, as Python does of a plain signature.

    Raises:
        TypeError: there is one.
    """
    for name in arguments.keys() - known.__annotations__.keys():
        raise TypeError(f"got an unexpected keyword argument '{name}'")


def _scale(spec: ModelSpec, scale: float | None) -> float:
    scale = float(spec.scale) if scale is None else scale
    if not 1 <= scale <= MAX_SCALE:
        raise UsageError(
            f"A scale of {scale:g} is outside 1 to {MAX_SCALE}.",
            hint="Choose one of these, such as 4 (--scale).",
        )
    return scale


def _steps(spec: ModelSpec, name: str, steps: int | None) -> int:
    steps = spec.steps if steps is None else steps
    if not 1 <= steps <= spec.steps:
        own = "1 step" if spec.steps == 1 else f"1 to {spec.steps} steps"
        raise UsageError(
            f"'{name}' walks {own}, not {steps}.",
            hint="Leave the steps (--steps) out for the model's own, or use 1 for speed and "
            "fidelity.",
        )
    return steps


def _seed(seed: int) -> int:
    if not 0 <= seed <= noise.MAX_SEED:
        raise UsageError(
            f"The seed {seed} is outside 0 to 2^64 - 1.",
            hint="Choose one of these, such as 0 (--seed).",
        )
    return seed


def _tiles(spec: ModelSpec, name: str, tile: int | None, overlap: int | None) -> tuple[int, int]:
    """Side and overlap."""
    multiple = _multiple(spec)
    size = (spec.tile.size if tile is None else tile) // multiple * multiple
    if size < multiple:
        raise UsageError(
            f"A tile of {tile} px is smaller than '{name}' can work on.",
            hint=f"Choose {multiple} or more (--tile), or leave it out.",
        )
    overlap = min(spec.tile.overlap, size // 4) if overlap is None else overlap
    tiling.check_overlap(size, overlap)
    return size, overlap


def _temperature(spec: ModelSpec, temperature: float | None) -> float:
    temperature = spec.temperature if temperature is None else temperature
    if not 0 <= temperature <= 1:
        raise UsageError(
            f"A temperature of {temperature:g} is outside 0 to 1.",
            hint="Leave it (--temperature) out for the model's own.",
        )
    return temperature


def _color_fix(fix: str) -> ColourFix:
    if fix not in COLOUR_FIXES:
        raise UsageError(
            f"There is no colour fix '{fix}'.",
            hint="Choose none, wavelet or adain (--color-fix).",
        )
    return cast(ColourFix, fix)


def _consistency(consistency: float) -> float:
    if not 0 <= consistency <= 1:
        raise UsageError(
            f"A consistency of {consistency:g} is outside 0 to 1.",
            hint="Choose one of these, such as 1 (--consistency).",
        )
    return consistency


def smaller_tile(spec: ModelSpec, settings: Settings) -> Settings | None:
    """The same with tiles of half the side, or None where the network can't take smaller ones."""
    multiple = _multiple(spec)
    size = settings.tile // 2 // multiple * multiple
    if size < multiple:
        return None
    return replace(settings, tile=size, overlap=min(settings.overlap, size // 4))


def target_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of the result, at least one pixel each."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def pass_sizes(spec: ModelSpec, height: int, width: int, scale: float) -> list[tuple[int, int]]:
    """Input height and width of every pass.

    Each enlarges by the model's factor, and the last one reaches the target.
    """
    factor = spec.scale
    target = target_size(height, width, scale)
    sizes = [(height, width)]
    passes = max(1, math.ceil(math.log(scale, factor) - 1e-9)) if factor > 1 else 1
    for left in range(passes - 2, -1, -1):
        shrink = factor ** (left + 1)
        sizes.append(
            (_round_up(target[0], shrink) // shrink, _round_up(target[1], shrink) // shrink)
        )
    return sizes


def grid(spec: ModelSpec, height: int, width: int, settings: Settings) -> Grid:
    """Tiles of an input of this size, counted in latent positions.

    A side that fits in one tile grows to the network's multiple; a longer one is covered by whole
    tiles and needs no more than whole latent positions.
    """
    ratio = spec.lq_pixels

    def axis(length: int) -> tiling.Axis:
        fits = length <= settings.tile
        padded = _round_up(length, _multiple(spec) if fits else ratio)
        return tiling.plan_axis(
            padded // ratio,
            size=settings.tile // ratio,
            overlap=-(-settings.overlap // ratio),
            multiple=spec.denoiser.size_multiple,
        )

    return Grid(axis(height), axis(width))


def single_tile(
    spec: ModelSpec, height: int, width: int, settings: Settings
) -> tuple[int, int] | None:
    """Height and width that an image of a single pass and tile is padded to, in input pixels.

    None of an image that takes more: those of one size can be computed at a time.
    """
    if len(pass_sizes(spec, height, width, settings.scale)) > 1:
        return None
    tiles = grid(spec, height, width, settings)
    if len(tiles) > 1:
        return None
    return tiles.rows.length * spec.lq_pixels, tiles.columns.length * spec.lq_pixels


def _multiple(spec: ModelSpec) -> int:
    """Sides of tiles are multiples of this, in input pixels."""
    return spec.denoiser.size_multiple * spec.lq_pixels


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
