"""Options that commands have in common, in groups: each is declared once, and `spread` hands it on.

A command takes a group as one argument. Its help shows the group's options under a heading.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, get_args, get_type_hints

from resshift_cli.commands.file_options import (
    AllowTruncatedOption,
    AssumeProfileOption,
    CompressionOption,
    DepthOption,
    FirstFrameOption,
    FormatOption,
    LosslessOption,
    MaxPixelsOption,
    OverwriteOption,
    PaletteOption,
    QualityOption,
    StripOption,
)
from resshift_cli.commands.options import (
    ColorFixOption,
    CompileOption,
    ConsistencyOption,
    DebugOption,
    DetailOption,
    DeviceOption,
    FillingModelOption,
    FitOption,
    HeightOption,
    JsonOption,
    KeepHiddenOption,
    LongSideOption,
    MaxMemoryOption,
    ModelOption,
    OfflineOption,
    OverlapOption,
    PrecisionOption,
    QuietOption,
    RegistryOption,
    RestoringModelOption,
    ScaleOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TileOption,
    TtaOption,
    WeightsOption,
    WidthOption,
    WrapOption,
)
from resshift_cli.commands.values import INPAINT, MAX_PIXELS, RESTORE, UPSCALE, Work
from resshift_cli.errors import UsageError

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Handling
    from resshift_cli.restoration.size import Box


class Options:
    """A group of options: a dataclass whose fields are annotated as a command's parameters are.

    A field may be a group itself.

    Attributes:
        panel: the heading over its options in a command's help.
    """

    panel: ClassVar[str] = ""

    @classmethod
    def parameters(cls) -> Iterator[inspect.Parameter]:
        """What a command's signature has in place of the group."""
        for name, default, hint in cls._fields():
            if is_group(hint):
                yield from hint.parameters()
                continue
            kind, option = get_args(hint)
            option = copy(option)
            option.rich_help_panel = cls.panel
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind, option],
            )

    @classmethod
    def gathered(cls, values: dict[str, Any]) -> Self:
        """The group of the options among some values, which loses them."""
        return cls(
            **{
                name: hint.gathered(values) if is_group(hint) else values.pop(name)
                for name, _, hint in cls._fields()
            }
        )

    @classmethod
    def _fields(cls) -> Iterator[tuple[str, Any, Any]]:
        """Name, default and type of every field."""
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):  # type: ignore[arg-type]  # every group is a dataclass
            yield field.name, field.default, hints[field.name]


def is_group(kind: Any) -> bool:
    """Whether a parameter's type is a group of options."""
    return isinstance(kind, type) and issubclass(kind, Options)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function that takes groups into one that takes each option of them, as Typer asks."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Options]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if is_group(kind):
            groups[parameter.name] = kind
            parameters += kind.parameters()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def call(**values: Any) -> None:
        gathered = {name: kind.gathered(values) for name, kind in groups.items()}
        command(**values, **gathered)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


@dataclass(frozen=True, slots=True)
class Model(Options):
    """Which model is used, and from where; see `choice.candidate`.

    Attributes:
        work: what it is to do.
    """

    panel = "Which model"
    work: ClassVar[Work] = UPSCALE

    model: ModelOption = None
    weights: WeightsOption = None
    registry: RegistryOption = None
    offline: OfflineOption = False


@dataclass(frozen=True, slots=True)
class FillingModel(Model):
    """The same for holes."""

    work: ClassVar[Work] = INPAINT

    model: FillingModelOption = None


@dataclass(frozen=True, slots=True)
class RestoringModel(Model):
    """The same for photos that are mended."""

    work: ClassVar[Work] = RESTORE

    model: RestoringModelOption = None


SIZES = ("scale", "width", "height", "long_side", "fit")
"""Fields that say how large a result is, each on its own."""


@dataclass(frozen=True)  # what has two bases takes no slots
class Sampling(Options):
    """How a chain is walked; None is for the model to say."""

    panel = "What to compute"

    steps: StepsOption = None
    seed: SeedOption = 0
    tile: TileOption = None
    overlap: OverlapOption = None
    detail: DetailOption = None
    temperature: TemperatureOption = None
    tta: TtaOption = False

    def arguments(self) -> dict[str, Any]:
        """As `restoration.settings.settings` takes them."""
        return asdict(self)

    def factor(self) -> float | None:
        """What scale is asked for, if any."""
        return None

    def box(self) -> Box | None:
        """What results are to fill, where that is said in place of a scale."""
        return None


@dataclass(frozen=True)
class Tuning(Sampling):
    """The same where all of an image is made anew."""

    color_fix: ColorFixOption = None


@dataclass(frozen=True)
class Size(Options):
    """How large results are."""

    scale: ScaleOption = None
    width: WidthOption = None
    height: HeightOption = None
    long_side: LongSideOption = None
    fit: FitOption = None


@dataclass(frozen=True)
class Computation(Tuning, Size):
    """What is computed; None is for the model to say."""

    consistency: ConsistencyOption = 0.0
    keep_hidden: KeepHiddenOption = False
    wrap: WrapOption = "none"

    def arguments(self) -> dict[str, Any]:
        """As `restoration.settings.settings` takes them; see `box` for the rest."""
        values = asdict(self)
        for name in SIZES[1:]:
            del values[name]
        return values

    def factor(self) -> float | None:
        """See `Sampling.factor`."""
        return self.scale

    def box(self) -> Box | None:
        """What results are to fill, where that is said in place of a scale.

        Raises:
            UsageError: it is said twice.
        """
        from resshift_cli.restoration.size import Box

        given = [name for name in SIZES if getattr(self, name) is not None]
        if len(given) > 1:
            hint = "Give one of them."
            if given == ["width", "height"]:
                hint = f"`--fit {self.width}x{self.height}` keeps the proportions within both."
            first, second = (f"--{name.replace('_', '-')}" for name in given[:2])
            raise UsageError(f"{first} and {second} both say how large a result is.", hint=hint)
        if self.fit is not None:
            return Box(self.fit.width, self.fit.height)
        width, height = self.width or self.long_side, self.height or self.long_side
        return Box(width, height) if width or height else None


@dataclass(frozen=True, slots=True)
class Placement(Options):
    """Where it is computed."""

    panel = "Where to compute"

    device: DeviceOption = "auto"
    precision: PrecisionOption = "auto"


@dataclass(frozen=True, slots=True)
class Machine(Placement):
    """The same, with what may be taken of the machine."""

    max_memory: MaxMemoryOption = None
    compiled: CompileOption = False


@dataclass(frozen=True, slots=True)
class Reading(Options):
    """How image files are read."""

    panel = "How to read files"

    first_frame: FirstFrameOption = False
    max_pixels: MaxPixelsOption = MAX_PIXELS
    allow_truncated: AllowTruncatedOption = False
    assume_profile: AssumeProfileOption = None

    def handling(self) -> Handling:
        """As the rooms that handle image files take it.

        Raises:
            UsageError: a profile that is none.
            InputMissingError: there is no such profile.
        """
        from resshift_cli.imaging import assumed
        from resshift_cli.imaging.files import Handling

        told = self.assume_profile
        return Handling(
            first_frame=self.first_frame,
            max_pixels=self.max_pixels,
            allow_truncated=self.allow_truncated,
            assumed=assumed.USUAL if told is None else assumed.named(told),
        )


@dataclass(frozen=True, slots=True)
class Writing(Options):
    """How results are written."""

    panel = "How to write files"

    file_format: FormatOption = None
    quality: QualityOption = None
    lossless: LosslessOption = False
    compression: CompressionOption = None
    depth: DepthOption = None
    strip_metadata: StripOption = False
    palette: PaletteOption = False
    overwrite: OverwriteOption = False

    def handling(self, reading: Reading) -> Handling:
        """As the rooms that handle image files take both.

        Raises:
            UsageError: settings that no format has.
            ResShiftError: as `Reading.handling`.
        """
        from resshift_cli.imaging.formats import SaveOptions

        options = SaveOptions(
            format=self.file_format,
            quality=self.quality,
            lossless=self.lossless,
            compression=self.compression,
            depth=self.depth,
            strip_metadata=self.strip_metadata,
            palette=self.palette,
        )
        return replace(reading.handling(), options=options)


@dataclass(frozen=True, slots=True)
class Making(Options):
    """All that there is to say of how results are made."""

    model: Model
    computation: Sampling
    machine: Machine
    reading: Reading
    writing: Writing

    def handling(self) -> Handling:
        """How image files are read and written, as the rooms that do it take it.

        Raises:
            UsageError: settings that no format has.
        """
        return self.writing.handling(self.reading)


@dataclass(frozen=True, slots=True)
class Enlarging(Making):
    """The same of images that are enlarged."""

    computation: Computation


@dataclass(frozen=True, slots=True)
class Filling(Making):
    """The same of holes that are filled."""

    model: FillingModel


@dataclass(frozen=True, slots=True)
class Restoring(Making):
    """The same of photos that are mended."""

    model: RestoringModel
    computation: Tuning


@dataclass(frozen=True, slots=True)
class Reporting(Options):
    """What is told, and how."""

    panel = "How to report"

    quiet: QuietOption = False
    as_json: JsonOption = False
    debug: DebugOption = False
