"""Which model does the work, and what is told of the time that it will take.

A model that was named is never replaced. The default one is, by the bundled one, where fetching it
is impossible, or nobody would want to wait for it unasked; one line says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from resshift_cli.commands import console, defaults, ready
from resshift_cli.commands.groups import Machine, Model, Sampling
from resshift_cli.commands.values import UPSCALE, Work
from resshift_cli.errors import ModelUnavailableError, UsageError

if TYPE_CHECKING:
    from resshift_cli.diffusion.specs import ModelSpec
    from resshift_cli.restoration.rates import Machine as Measured
    from resshift_cli.restoration.settings import Settings
    from resshift_cli.weights.registry import ModelEntry

REACHABLE_WITHIN = 3.0  # seconds that the default model's sources get to answer
LONG = 120.0  # seconds of work that are worth a line
UNASKED = 600.0  # seconds of work that a model nobody named is fetched for
QUICK = 2e6  # pixels times steps that a small network does sooner on any machine
FEWER_STEPS = (4, 1)  # what is worth naming in place of more
WORTH = 0.7  # of the time is what something faster may take to be named


@dataclass(frozen=True)
class Job:
    """Images that something is made of, as far as the time depends on it.

    Attributes:
        sizes: how many there are of every height and width.
        computation: what is asked for.
        machine: where it is computed.
        share: what of an image's tiles is computed.
    """

    sizes: Mapping[tuple[int, int], int]
    computation: Sampling
    machine: Machine
    share: Callable[[ModelSpec, Settings], float] = lambda spec, settings: 1.0

    @property
    def pixels(self) -> int:
        """Of all images."""
        return sum(count * height * width for (height, width), count in self.sizes.items())

    @cached_property
    def measured(self) -> Measured:
        """How fast the machine is."""
        ready.import_torch()
        from resshift_cli.restoration import rates
        from resshift_cli.system.device import choose_device, choose_dtype

        device = choose_device(self.machine.device)
        with console.waiting("Measuring this machine"):
            return rates.measure(device, choose_dtype(self.machine.precision, device))

    def seconds(
        self, spec: ModelSpec, *, steps: int | None = None, scale: float | None = None
    ) -> float:
        """About what a model takes for it, in as many steps as are asked for or it has."""
        measured = self.measured
        from resshift_cli.restoration import estimate, settings

        steps = min(spec.steps, steps or self.computation.steps or spec.steps)
        box, total = None if scale else self.computation.box(), 0.0
        for (height, width), count in self.sizes.items():
            wanted = box.scale(height, width) if box else scale or self.computation.factor()
            how = settings.settings(spec, name="the model", scale=wanted, steps=steps)
            expected = estimate.estimate(spec, measured, how, height=height, width=width)
            total += count * expected.seconds * self.share(spec, how)
        return total


def candidate(which: Model) -> ModelEntry:
    """The model that a command's options mean; no network is touched.

    Raises:
        UsageError: no such model, or one of another task; a weight file that fits several.
        InputMissingError, ModelUnavailableError: a weight file that can't be used.
    """
    from resshift_cli.weights import registry, store

    if which.weights is not None:
        like = registry.find(which.model, which.registry) if which.model else None
        return store.own(which.weights, like, registry.models(which.registry).values())
    work = which.work
    entry = registry.find(which.model or usual(work, which.registry), which.registry)
    if entry.task not in work.tasks:
        raise UsageError(
            f"'{entry.name}' is for {entry.task}, which `resshift {work.command}` does not do.",
            hint=f"`resshift models list --task {work.command}` shows the models that do.",
        )
    return entry


def settle(
    entry: ModelEntry, which: Model, job: Job | None = None, steps: int | None = None
) -> ModelEntry:
    """The candidate, or what takes the place of a default model that is not here.

    Where nothing can, the model is fetched, with a word about its size and terms.

    Args:
        entry: the candidate.
        which: the options that it comes from.
        job: what is to be done, where that is known.
        steps: that are asked for, where it is not.

    Raises:
        ModelUnavailableError: nothing can, and it is not to be had.
    """
    from resshift_cli.weights import store

    if _named(which) or which.weights is not None or store.located(entry):
        return entry
    spec = ready.known_spec(entry)
    bundled = _bundled(which, steps or (job.computation.steps if job else None))
    seconds = job.seconds(spec) if job and spec and bundled else 0.0
    time = f"would take about {console.duration(seconds)} here" if seconds else ""
    if which.offline:
        why = "can't be fetched offline"
    elif seconds > UNASKED and bundled is not None:
        why = "nobody named it"
    elif not store.reachable(entry, within=REACHABLE_WITHIN):
        why = "its sources can't be reached"
    else:
        why = ""
    size = console.size(sum(file.bytes for file in entry.files))
    terms = entry.licence if entry.commercial else f"{entry.licence}, no commercial use"
    facts = ", ".join(filter(None, (f"{size} to fetch", terms, time)))
    if bundled is None:
        needed = f"`resshift {which.work.command}` takes {entry.name} ({facts}), which is not here"
        if why:
            raise ModelUnavailableError(
                f"{needed} and {why}.",
                hint=f"`resshift models pull {entry.name}` fetches it where there is a network.",
            )
        console.note(f"{needed} yet.")
        return entry
    if not why:
        return entry
    console.note(
        f"{entry.name}, the default model, is not here and {why}: using {bundled.name}, which is "
        f"bundled. The other one ({facts}) is fetched by `resshift models pull {entry.name}`, or "
        f"named with --model."
    )
    return bundled


def choose(which: Model, steps: int | None = None) -> ModelEntry:
    """The model to be used for work whose extent is not known; see `candidate` and `settle`."""
    return settle(candidate(which), which, steps=steps)


def _bundled(which: Model, steps: int | None) -> ModelEntry | None:
    """The best bundled model for the work that walks as many steps, where so many are asked for."""
    from resshift_cli.weights import registry

    able = [entry for entry in registry.bundled() if entry.task in which.work.tasks]
    for entry in able:
        spec = ready.known_spec(entry)
        if steps is None or spec is None or steps <= spec.steps:
            return entry
    return able[0] if able else None


def several(
    names: Sequence[str] | None,
    weights: Sequence[Path] | None,
    common: Model,
    job: Job | None = None,
) -> list[ModelEntry]:
    """The models of options that may be repeated, or the default one.

    Args:
        names: of models.
        weights: files of one's own.
        common: what else is said of all of them.
        job: what is to be done, where that is known.
    """
    which = [replace(common, model=name) for name in names or ()]
    entries = [settle(candidate(each), each, job) for each in which]
    for path in weights or ():
        try:
            entries.append(candidate(replace(common, weights=path)))
        except UsageError as error:  # here --model does not say what a file is like
            hint = "Have it say so: resshift models convert FILE OUT.safetensors --like MODEL."
            raise UsageError(str(error), hint=hint) from error
    return entries or [settle(candidate(common), common, job)]


def announce(entry: ModelEntry, spec: ModelSpec, settings: Settings, job: Job) -> None:
    """Before work of many minutes, say what it will take, and what is faster.

    Args:
        entry: the model.
        spec: how it is run.
        settings: how the images are enlarged.
        job: what is to be done.
    """
    small = spec.autoencoder.kind != "vq"
    if small and job.pixels * settings.calls < QUICK:
        return
    expected = job.seconds(spec)
    if expected < LONG:
        return
    ways = [
        f"{way} (about {console.duration(seconds)})"
        for way, seconds in _faster(entry, spec, settings, job)
        if seconds < WORTH * expected
    ]
    advice = f" Faster: {'; '.join(ways)}." if ways else ""
    console.note(f"This will take about {console.duration(expected)} on this machine.{advice}")


def _faster(
    entry: ModelEntry, spec: ModelSpec, settings: Settings, job: Job
) -> Iterator[tuple[str, float]]:
    """What else could be asked for, and what it would take."""
    from resshift_cli.weights import registry

    for steps in FEWER_STEPS:
        if steps < settings.steps:
            yield f"--steps {steps}", job.seconds(spec, steps=steps)
    if settings.scale > spec.scale and job.computation.box() is None:
        yield f"--scale {spec.scale}", job.seconds(spec, scale=spec.scale)
    for known in registry.shipped().values():
        other = ready.known_spec(known) if known.commercial and known.name != entry.name else None
        if other is not None and known.task == entry.task:
            yield f"--model {known.name}, {_remark(known, other)}", job.seconds(other)


def _remark(entry: ModelEntry, spec: ModelSpec) -> str:
    """What speaks for a model that anybody may use."""
    if entry.weights.sources[0].kind == "bundled":
        return "bundled"
    return f"{spec.steps} steps, free for commercial use"


def usual(work: Work, registry_file: Path | None = None) -> str:
    """The model that does a kind of work where none is named on the command line."""
    return _preferred(work, registry_file) or work.default


def _named(which: Model) -> str | None:
    """The model that somebody named, on the command line or for all commands that it can serve."""
    return which.model or _preferred(which.work, which.registry)


def _preferred(work: Work, registry_file: Path | None) -> str | None:
    """The model that variable or file name, if it can do the work; `upscale` is what they mean."""
    from resshift_cli.weights import registry

    named = defaults.default_model()
    if named is None or work is UPSCALE:
        return named
    return named if registry.find(named, registry_file).task in work.tasks else None
