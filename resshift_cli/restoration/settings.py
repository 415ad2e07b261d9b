"""How an image is enlarged: its settings with nothing left open, its passes and its tiles."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import SupportsFloat, SupportsIndex, TypedDict, Unpack, cast, get_args

from resshift_cli.diffusion import noise
from resshift_cli.diffusion.chain import Ancestral, Sampler
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError
from resshift_cli.restoration import tiling
from resshift_cli.restoration.colour import ColourFix
from resshift_cli.restoration.size import MAX_SCALE, target_size
from resshift_cli.restoration.tiling import Frame, Grid
from resshift_cli.restoration.turning import turns
from resshift_cli.restoration.wrapping import WRAPS, Wrap

STRETCH = 1.25
"""What Lanczos may enlarge the last pass's result by: a pass more would cost as much as the one
before it, and have next to nothing to add."""

COLOUR_FIXES: tuple[str, ...] = get_args(ColourFix)


class Sampling(TypedDict, total=False):
    """How a chain may be asked to be walked, over an image cut into tiles.

    Attributes:
        steps: steps of the chain, 1 to the model's own number, which is the default.
        seed: 0 to 2^64 - 1, by default 0; the same seed gives the same result.
        tile: largest side of a tile in input pixels, rounded down to what the network takes; up to
            a third smaller where that covers the image with less work.
        overlap: input pixels that neighbouring tiles share.
        temperature: what the noise of the chain's steps, but not of its start, is multiplied by, 0
            to 1. At 1 the result is a draw of what the image may have been; below, it has less
            texture. By default as the model says.
        detail: how much of what the model makes up is kept, 0, the mean of all that the image may
            have been, to 1. By default as the model says.
        tta: average what is predicted of each tile turned and mirrored in eight ways: truer to
            the original by a little, with less texture, for eight times the work.
    """

    steps: SupportsIndex | None
    seed: SupportsIndex
    tile: SupportsIndex | None
    overlap: SupportsIndex | None
    temperature: SupportsFloat | None
    detail: SupportsFloat | None
    tta: bool


class Tuning(Sampling, total=False):
    """The same of an image all of which is made anew.

    Attributes:
        color_fix: `wavelet` gives the result the low frequencies of the image, and so its colours;
            `adain` matches mean and contrast around every pixel; `none`. By default as the model
            says.
    """

    color_fix: str | None


class Options(Tuning, total=False):
    """How an image may be asked to be enlarged.

    Attributes:
        scale: output size over input size, 1 to 16. By default the model's own factor. Smaller ones
            are reached by a Lanczos reduction, larger ones by further passes.
        consistency: how far the result is brought to where its reduction equals the image, 0, the
            default, to 1. It helps with clean images, and brings back the noise of others.
        keep_hidden: leave the colours under full transparency what they are, for textures that have
            data there. By default they take those of what can be seen beside them.
        wrap: `x`, `y` or `xy` for an image whose left and right, upper and lower, or all borders
            meet, as a tileable texture's do; those of the result do, too. By default `none`. With
            `y` the result is held in memory.
    """

    scale: SupportsFloat | None
    consistency: SupportsFloat
    keep_hidden: bool
    wrap: str


class Faithfulness(TypedDict):
    """How a result is made true to its input, see `colour.correct`."""

    fix: ColourFix
    consistency: float
    flat: float


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
        detail: how far the result is from the mean, 0, to what the chain gives, 1.
        color_fix: how the result gets the colours of the input, see `colour`.
        consistency: how far the result is projected to the input, 0 to 1.
        keep_hidden: whether colours under full transparency stay what they are.
        wrap: along which axes borders meet, see `wrapping`.
        tta: whether eight views of every tile are predicted from, see `turning`.
    """

    scale: float
    steps: int
    seed: int
    tile: int
    overlap: int
    temperature: float
    detail: float
    color_fix: ColourFix
    consistency: float
    keep_hidden: bool = False
    wrap: Wrap = "none"
    tta: bool = False

    @property
    def views(self) -> int:
        """Of every tile, that are predicted from."""
        return len(turns(self.tta))

    @property
    def calls(self) -> int:
        """Of the network for every tile."""
        return self.steps * self.views

    def faithfulness(self, spec: ModelSpec) -> Faithfulness:
        """What `colour.correct` is told of a model's results."""
        return {"fix": self.color_fix, "consistency": self.consistency, "flat": spec.flat}

    def sampler(self, spec: ModelSpec) -> Sampler:
        """How the chain of a model is walked."""
        schedule = spec.schedule.build().respaced(self.steps)
        return Ancestral(schedule, self.temperature, spec.prior)


def settings(spec: ModelSpec, *, name: str, **options: Unpack[Options]) -> Settings:
    """Check the options of `Upscaler`, and fill in what the model says.

    Args:
        spec: the model.
        name: what messages call it.
        options: see there.

    Raises:
        UsageError: an option outside its range.
        TypeError: an option that there is not.
    """
    refuse_unknown(options, Options)
    size, overlap = _tiles(spec, name, options.get("tile"), options.get("overlap"))
    steps = _steps(spec, name, options.get("steps"))
    return Settings(
        scale=_scale(spec, options.get("scale")),
        steps=steps,
        seed=_seed(options.get("seed", 0)),
        tile=size,
        overlap=overlap,
        temperature=_temperature(spec, options.get("temperature")),
        detail=_detail(spec, name, steps, options.get("detail")),
        color_fix=_color_fix(spec, options.get("color_fix")),
        consistency=_consistency(options.get("consistency", 0.0)),
        keep_hidden=bool(options.get("keep_hidden", False)),
        wrap=_wrap(options.get("wrap", "none")),
        tta=bool(options.get("tta", False)),
    )


def refuse_unknown(arguments: Mapping[str, object], known: type) -> None:
    """Refuse keyword arguments that a TypedDict has not, as Python does of a plain signature.

    Raises:
        TypeError: there is one.
    """
    for name in arguments.keys() - known.__annotations__.keys():
        raise TypeError(f"got an unexpected keyword argument '{name}'")


def _number(value: object, what: str) -> float:
    if isinstance(value, numbers.Real):
        return float(value)
    raise UsageError(f"The {what} is a number, not {value!r}.", hint=f"Give a number (--{what}).")


def _whole(value: object, what: str) -> int:
    if isinstance(value, numbers.Integral):
        return int(value)
    raise UsageError(
        f"The {what} is a whole number, not {value!r}.", hint=f"Give a whole number (--{what})."
    )


def _scale(spec: ModelSpec, wanted: SupportsFloat | None) -> float:
    scale = float(spec.scale) if wanted is None else _number(wanted, "scale")
    if not 1 <= scale <= MAX_SCALE:
        raise UsageError(
            f"A scale of {scale:g} is outside 1 to {MAX_SCALE}.",
            hint="Choose one of these, such as 4 (--scale).",
        )
    return scale


def _steps(spec: ModelSpec, name: str, wanted: SupportsIndex | None) -> int:
    steps = spec.steps if wanted is None else _whole(wanted, "steps")
    if not 1 <= steps <= spec.steps:
        own = "1 step" if spec.steps == 1 else f"1 to {spec.steps} steps"
        raise UsageError(
            f"'{name}' walks {own}, not {steps}.",
            hint="Leave the steps (--steps) out for the model's own, or use 1 for speed and "
            "fidelity.",
        )
    return steps


def _seed(wanted: SupportsIndex) -> int:
    seed = _whole(wanted, "seed")
    if not 0 <= seed <= noise.MAX_SEED:
        raise UsageError(
            f"The seed {seed} is outside 0 to 2^64 - 1.",
            hint="Choose one of these, such as 0 (--seed).",
        )
    return seed


def _tiles(
    spec: ModelSpec, name: str, tile: SupportsIndex | None, overlap: SupportsIndex | None
) -> tuple[int, int]:
    """Side and overlap."""
    multiple = _multiple(spec)
    wanted = spec.tile.size if tile is None else _whole(tile, "tile")
    size = wanted // multiple * multiple
    if size < multiple:
        raise UsageError(
            f"A tile of {wanted} px is smaller than '{name}' can work on.",
            hint=f"Choose {multiple} or more (--tile), or leave it out.",
        )
    shared = min(spec.tile.overlap, size // 4) if overlap is None else _whole(overlap, "overlap")
    tiling.check_overlap(size, shared)
    return size, shared


def _temperature(spec: ModelSpec, wanted: SupportsFloat | None) -> float:
    temperature = spec.temperature if wanted is None else _number(wanted, "temperature")
    if not 0 <= temperature <= 1:
        raise UsageError(
            f"A temperature of {temperature:g} is outside 0 to 1.",
            hint="Leave it (--temperature) out for the model's own.",
        )
    return temperature


def _detail(spec: ModelSpec, name: str, steps: int, wanted: SupportsFloat | None) -> float:
    has_dial = _has_dial(spec, steps)
    usual = spec.detail if has_dial else 1.0
    detail = usual if wanted is None else _number(wanted, "detail")
    if not 0 <= detail <= 1:
        raise UsageError(
            f"A detail of {detail:g} is outside 0 to 1.",
            hint="Choose one of these, such as 0 for nothing invented (--detail).",
        )
    if detail != usual and not has_dial:
        raise UsageError(
            f"One step of '{name}' is a single prediction, with nothing to blend it with.",
            hint="Leave the detail (--detail) out, or let a model of several steps walk them "
            "(--steps).",
        )
    return detail


def _has_dial(spec: ModelSpec, steps: int) -> bool:
    """Whether there is a mean beside the result: the first prediction, or weights of its own."""
    return spec.mean or steps > 1


def uninvented(spec: ModelSpec, settings: Settings) -> Settings:
    """The same with as little detail as there is, and true to the input: what opacity takes."""
    detail = 0.0 if _has_dial(spec, settings.steps) else settings.detail
    return replace(settings, consistency=1.0, detail=detail)


def _color_fix(spec: ModelSpec, fix: str | None) -> ColourFix:
    fix = spec.color_fix or "wavelet" if fix is None else fix
    if fix not in COLOUR_FIXES:
        raise UsageError(
            f"There is no colour fix '{fix}'.",
            hint="Choose none, wavelet or adain (--color-fix).",
        )
    return cast(ColourFix, fix)


def strength(wanted: SupportsFloat, what: str = "strength") -> float:
    """Check how far an image is to be replaced by what is made of it, 0 to 1.

    Args:
        wanted: it.
        what: what callers know it as.

    Raises:
        UsageError: it is something else.
    """
    found = _number(wanted, what)
    if not 0 <= found <= 1:
        raise UsageError(
            f"A {what} of {found:g} is outside 0 to 1.",
            hint=f"Choose one of these, such as 0.5 (--{what}).",
        )
    return found


def _consistency(wanted: SupportsFloat) -> float:
    consistency = _number(wanted, "consistency")
    if not 0 <= consistency <= 1:
        raise UsageError(
            f"A consistency of {consistency:g} is outside 0 to 1.",
            hint="Choose one of these, such as 1 (--consistency).",
        )
    return consistency


def _wrap(wanted: str) -> Wrap:
    if wanted not in WRAPS:
        raise UsageError(
            f"An image can't wrap along '{wanted}'.", hint="Choose none, x, y or xy (--wrap)."
        )
    return cast(Wrap, wanted)


def smaller_tile(spec: ModelSpec, settings: Settings) -> Settings | None:
    """The same with tiles of half the side, or None where the network can't take smaller ones."""
    multiple = _multiple(spec)
    size = settings.tile // 2 // multiple * multiple
    if size < multiple:
        return None
    return replace(settings, tile=size, overlap=min(settings.overlap, size // 4))


def pass_sizes(spec: ModelSpec, height: int, width: int, scale: float) -> list[tuple[int, int]]:
    """Input height and width of every pass.

    Each enlarges by the model's factor, and the last one reaches the target, or what Lanczos
    enlarges to it by `STRETCH` at most.
    """
    factor = spec.scale
    target = target_size(height, width, scale)
    sizes = [(height, width)]
    passes = 1
    if factor > 1:
        passes = max(1, math.ceil(math.log(scale / STRETCH, factor) - 1e-9))
    for left in range(passes - 2, -1, -1):
        shrink = factor ** (left + 1)
        sizes.append(
            (_round_up(target[0], shrink) // shrink, _round_up(target[1], shrink) // shrink)
        )
    return sizes


def grid(spec: ModelSpec, height: int, width: int, settings: Settings) -> Grid:
    """Tiles of an input of this size within its frame, counted in latent positions."""

    def axis(length: int, wraps: bool) -> tiling.Axis:
        side = _framed(spec, length, settings, wraps)
        largest = settings.tile
        if not wraps and length <= settings.tile:
            largest = max(side, settings.tile)
        return tiling.plan_axis(
            side // spec.lq_pixels,
            size=largest // spec.lq_pixels,
            overlap=-(-settings.overlap // spec.lq_pixels),
            multiple=spec.denoiser.size_multiple,
        )

    return Grid(axis(height, "y" in settings.wrap), axis(width, "x" in settings.wrap))


def frame(spec: ModelSpec, height: int, width: int, settings: Settings) -> Frame:
    """What an input of this size is grown to, in its pixels."""

    def axis(length: int, wraps: bool) -> tuple[int, int]:
        larger = _framed(spec, length, settings, wraps)
        if wraps:  # it begins at a whole latent position
            return (larger - length) // 2 // spec.lq_pixels * spec.lq_pixels, larger
        # Where there is no margin, as the authors of published models pad.
        return (larger - length) // 2 if spec.tile.margin else 0, larger

    top, down = axis(height, "y" in settings.wrap)
    left, across = axis(width, "x" in settings.wrap)
    return Frame(top, left, down, across, settings.wrap)


def wrapped_size(spec: ModelSpec, height: int, width: int, settings: Settings) -> tuple[int, int]:
    """The size at which an image goes through a pass: whole latent positions where it wraps."""
    down, across = (spec.lq_pixels if axis in settings.wrap else 1 for axis in "yx")
    return _round_up(height, down), _round_up(width, across)


def _framed(spec: ModelSpec, length: int, settings: Settings, wraps: bool) -> int:
    """The side that one is grown to.

    If it fits in one tile, that is a multiple of the network's; a longer one is covered by whole
    tiles and needs no more than whole latent positions.
    """
    wanted, multiple = length + 2 * spec.tile.margin, _multiple(spec)
    if wraps:  # what is shown twice is the overlap of the ring's ends
        wanted = max(wanted, length + max(settings.overlap, spec.lq_pixels))
        return _round_up(wanted, multiple if wanted <= settings.tile else spec.lq_pixels)
    if length > settings.tile:
        return _round_up(wanted, spec.lq_pixels)
    return min(_round_up(wanted, multiple), _largest(spec, settings))


def _largest(spec: ModelSpec, settings: Settings) -> int:
    """The largest side of a tile that holds a whole image: with its margin, if that is little."""
    multiple = _multiple(spec)
    little = spec.tile.margin > 0 and settings.tile >= 3 * multiple
    return settings.tile + multiple if little else settings.tile


def single_tile(
    spec: ModelSpec, height: int, width: int, settings: Settings
) -> tuple[int, int] | None:
    """Height and width that an image of a single pass and tile is grown to, in input pixels.

    None of an image that takes more, or wraps: those of one size can be computed at a time.
    """
    if settings.wrap != "none" or len(pass_sizes(spec, height, width, settings.scale)) > 1:
        return None
    if len(grid(spec, height, width, settings)) > 1:
        return None
    larger = frame(spec, height, width, settings)
    return larger.height, larger.width


def _multiple(spec: ModelSpec) -> int:
    """Sides of tiles are multiples of this, in input pixels."""
    return spec.denoiser.size_multiple * spec.lq_pixels


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
