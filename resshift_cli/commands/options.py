"""Options of the command line, each declared once; about image files: `file_options`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from resshift_cli.commands import values

# `readable=False` leaves it to the rooms that read to say what can't be read.
InputsArgument = Annotated[
    list[str],  # a Path would take ./- for -
    typer.Argument(
        metavar="INPUT",
        help="Images to enlarge; - reads one from stdin.",
        show_default=False,
    ),
]


def _output(result: str) -> Any:
    return typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="Where the result goes: a file, or a folder, which is created if it ends with a "
        f"slash, or - for stdout, or a URL such as s3://bucket/large/. By default photo.jpg "
        f"becomes {result} beside it, what came from a URL goes to the folder where you are, and "
        "what came from stdin to stdout.",
    )


def _suffix(example: str, usual: str) -> Any:
    return typer.Option(
        metavar="TEXT",
        show_default=False,
        callback=values.part_of_a_name,
        help="What results are called behind the name of their input, where -o names no file: "
        f"{example} makes photo{example}.jpg of photo.jpg. By default {usual}.",
    )


# A Path would lose the slash at its end.
OutputOption = Annotated[str | None, _output("photo_x4.jpg")]
FilledOutputOption = Annotated[str | None, _output("photo_filled.jpg")]
RestoredOutputOption = Annotated[str | None, _output("photo_restored.jpg")]
FacesOutputOption = Annotated[str | None, _output("photo_faces.jpg")]
SuffixOption = Annotated[str | None, _suffix("_large", "_x4, or what the size says")]
FilledSuffixOption = Annotated[str, _suffix("_whole", "_filled")]
RestoredSuffixOption = Annotated[str, _suffix("_clean", "_restored")]
FacesSuffixOption = Annotated[str, _suffix("_people", "_faces")]
SkipExistingOption = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave images alone whose result is there already."),
]
FolderArgument = Annotated[
    str,
    typer.Argument(
        metavar="DIR",
        callback=values.place,
        help="The folder of images, or its URL, such as s3://bucket/photos.",
        show_default=False,
    ),
]
ResultsOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        callback=values.place,
        help="The folder of the results, with the same folders in it, or its URL. By default "
        "DIR_x4, or DIR_restored and the like, beside DIR.",
    ),
]
StrengthOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        callback=values.within(0, 1),
        help="How far a photo is replaced by what the model makes of it, 0 to 1.",
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Take only files like this, such as '*.png' or 'trip/*'; may be repeated. By default "
        "what has an image's extension.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Leave out files and folders like this, such as '*_small.*'; may be repeated.",
    ),
]
HiddenOption = Annotated[
    bool, typer.Option("--hidden", help="Take files and folders that begin with a dot, too.")
]
FailFastOption = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")
]
MaxFailuresOption = Annotated[
    int | None,
    typer.Option(
        "--max-failures",
        metavar="N",
        min=1,
        help="Stop when so many images have failed. By default the others are done, however many.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Tell what would be done, and about what time, memory and disk space it would take.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        callback=values.shard,
        help="Do one part of N, I from 1 to N; others do theirs at the same time, with the same "
        "folders. auto/N takes I from Slurm's $SLURM_ARRAY_TASK_ID or Kubernetes' "
        "$JOB_COMPLETION_INDEX.",
    ),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        callback=values.device_names,
        help="A process for each of several devices of one kind: cuda:0,cuda:1, or all for every "
        "GPU.",
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="Who works: this machine, or all GPUs (or cores) of a Ray cluster, whose nodes share "
        "the folders.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST",
        help="Where the cluster's head is, with its port or 6379; auto: the cluster that this "
        "machine belongs to. Without it, $RAY_ADDRESS, or else one of this machine alone.",
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Prove that the folder is finished, by its ledger, without a model: every image has a "
        "result that is as it was made, of an input that is as it was.",
    ),
]
TableOption = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE.html|csv",
        callback=values.place,
        help="Write what became of every image to a file for people, too.",
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        parser=values.factor,
        callback=values.within(1, 16),
        help="Output over input size along each side, any number from 1 to 16. By default the "
        "model's own factor, mostly 4.",
    ),
]
WidthOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=values.within(1, math.inf),
        help="Width of the results, in place of --scale; the height follows.",
    ),
]
HeightOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=values.within(1, math.inf),
        help="Height of the results, in place of --scale; the width follows.",
    ),
]
LongSideOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=values.within(1, math.inf),
        help="Width or height of the results, whichever is larger, in place of --scale.",
    ),
]
FitOption = Annotated[
    values.Sides | None,
    typer.Option(
        metavar="WxH",
        parser=values.sides,
        help="Make results as large as fits in so many pixels across and down, such as "
        "1920x1080, in place of --scale.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=values.UPSCALE.models,
        help=f"One of `resshift models list`, fetched when it is first used. By default "
        f"${values.DEFAULT_VARIABLE} or {values.UPSCALE.taken}. With --weights: the model whose "
        "networks the file fits.",
    ),
]


def _model(work: values.Work) -> Any:
    return typer.Option(
        metavar="NAME",
        autocompletion=work.models,
        help=f"One of `resshift models list --task {work.command}`, fetched when it is first used; "
        f"by default {work.taken}. With --weights: the model whose networks the file fits.",
    )


FillingModelOption = Annotated[str | None, _model(values.INPAINT)]
RestoringModelOption = Annotated[str | None, _model(values.RESTORE)]
FaceModelOption = Annotated[str | None, _model(values.FACE)]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=values.UPSCALE.models,
        help="One of `resshift models list`, fetched when it is first used; may be repeated. By "
        "default the one that `resshift upscale` uses. With --weights: the model whose networks "
        "the file fits.",
    ),
]
MeasuredModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=values.UPSCALE.models,
        help="A model to measure, fetched when it is first used; may be repeated. By default the "
        "one that `resshift upscale` uses.",
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=values.model_names,
        help="A model's name.",
        show_default=False,
    ),
]
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", autocompletion=values.model_names, help="Models' names.", show_default=False
    ),
]
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FILE.toml",
        readable=False,
        help="A file like this package's weights.toml, with more models or other ones.",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Touch no network; HF_HUB_OFFLINE=1 does the same.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.safetensors",
        readable=False,
        help="A weight file of your own, as `resshift train` writes it.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=values.within(1, math.inf),
        help="Steps of the chain, from 1 (smooth, fast) to the number that the model was trained "
        "with (detailed; the default).",
    ),
]
StepCountsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--steps",
        metavar="N",
        callback=values.each_within(1, math.inf),
        help="Steps of the chain, a row for each; may be repeated. By default as many as each "
        "model was trained with.",
    ),
]
WholeScaleOption = Annotated[
    int | None,
    typer.Option(
        "--scale",
        metavar="N",
        callback=values.within(2, 16),
        help="Side of an original over its partner's, 2 to 16. By default the models' own factor.",
    ),
]
CropOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=values.within(32, math.inf),
        help="Measure the middle of every original only, so many pixels square; 32 or more.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", callback=values.within(1, math.inf), help="Take the first N originals only."
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=values.within(0, 2**64 - 1),
        help="Start of the random numbers, 0 to 2^64 - 1; the same seed gives the same result.",
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=values.within(1, math.inf),
        help="Largest side of the tiles that large images are cut into, in pixels of the input; "
        "smaller ones need less memory. By default as the model says.",
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=values.within(0, math.inf),
        help="What neighbouring tiles share, in pixels of the input; less than --tile. By default "
        "as the model says.",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        callback=values.within(0, 1),
        help="What the noise of the chain's steps is multiplied by, 0 to 1: lower is cleaner, "
        "higher has more texture. By default as the model says.",
    ),
]
TtaOption = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Average what is predicted of each tile turned and mirrored in eight ways: truer by a "
        "little, and eight times the work. For --detail 0, since it takes texture away.",
    ),
]
DetailOption = Annotated[
    float | None,
    typer.Option(
        metavar="AMOUNT",
        callback=values.within(0, 1),
        help="How much of what a model makes up is kept: 0, nothing invented, to 1, all of it. By "
        "default as the model says.",
    ),
]
DetailsOption = Annotated[
    list[float] | None,
    typer.Option(
        "--detail",
        metavar="AMOUNT",
        callback=values.each_within(0, 1),
        help="As for upscale; may be repeated, for a row each.",
    ),
]
ColorFixOption = Annotated[
    str | None,
    typer.Option(
        "--color-fix",
        metavar="WAY",
        autocompletion=values.completed(*values.COLOUR_FIXES),
        callback=values.colour_fix,
        help="How results keep the colours of their input: wavelet (the low frequencies are the "
        "input's), adain (mean and contrast around every pixel are), or none. By default as the "
        "model says.",
    ),
]
ConsistencyOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        callback=values.within(0, 1),
        help="How far a result is brought to where its reduction equals the input, 0 to 1. Good "
        "for clean images; brings back the noise of others.",
    ),
]
KeepHiddenOption = Annotated[
    bool,
    typer.Option(
        "--keep-hidden",
        help="Enlarge colours under full transparency as they are, for textures that have data "
        "there. Otherwise they take those of what can be seen beside them: no fringe shows.",
    ),
]
WrapOption = Annotated[
    str,
    typer.Option(
        metavar="AXES",
        autocompletion=values.completed(*values.WRAPS),
        callback=values.wrap,
        help="For tileable textures: x where left and right border meet, y where upper and lower "
        "do, or xy. Those of the result meet, too, without a seam.",
    ),
]
MaxMemoryOption = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=values.byte_count,
        help="What to take of the device's memory at most, such as 4G or 800M: tiles and batches "
        "are chosen by that. By default by what is free.",
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Have torch compile the networks, and on an NVIDIA card record them as CUDA graphs: "
        "minutes at the first image, and for every other size of tile, but kept for later runs. A "
        "CPU is faster without it.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        autocompletion=values.completed(*values.DEVICES),
        callback=values.device_name,
        help="Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N (NVIDIA, AMD), "
        "mps (Apple) or xpu (Intel).",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        autocompletion=values.completed(*values.PRECISIONS),
        callback=values.precision_name,
        help="What to compute in: auto (the fastest that is safe on the device), fp32, bf16 or "
        "fp16.",
    ),
]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="TYPE",
        autocompletion=values.completed(*values.PRECISIONS),
        callback=values.precision_names,
        help="auto, fp32, bf16 or fp16; may be repeated. By default fp32 and auto.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
JsonOption = Annotated[
    bool,
    typer.Option("--json", callback=values.goes_to_stdout, help="Print one JSON object on stdout."),
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", is_eager=True, callback=values.set_debug, help="Show the traceback of an error."
    ),
]
