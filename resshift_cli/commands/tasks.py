"""What a command has to do: which inputs, where each result goes, and whether all that can be."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from resshift_cli.commands import pages
from resshift_cli.errors import OutputError, ResShiftError, UsageError, printable

if TYPE_CHECKING:
    from resshift_cli.imaging.files import Handling, Loaded, Loader
    from resshift_cli.imaging.formats import SaveOptions
    from resshift_cli.imaging.sources import Source
    from resshift_cli.restoration.size import Box
    from resshift_cli.system.storage import Remote


def check_streams(
    inputs: Sequence[str], output: str | None, *, as_json: bool, each: int = 1
) -> bool:
    """Find out whether stdin and stdout can be what - means; whether the result goes to stdout.

    Args:
        inputs: as they were given.
        output: where results go, likewise.
        as_json: whether a report goes to stdout.
        each: results of every input.
    """
    from resshift_cli.imaging import sources, targets

    from_stdin = "-" in inputs
    to_stdout = output == "-" or (from_stdin and output is None)
    if len(inputs) > 1 and from_stdin:
        raise UsageError(
            "An image from stdin (-) has to be the only input.",
            hint="Give the others to a command of their own.",
        )
    if len(inputs) * each > 1 and to_stdout:
        raise UsageError(
            "Several results can't all go to stdout.", hint="Give a folder, such as: -o results/"
        )
    if to_stdout and as_json:
        raise UsageError(
            "The result and --json can't both go to stdout.",
            hint="Give a file with -o, or leave out --json.",
        )
    if from_stdin and targets.output_folder(output, several=False) is not None:
        raise UsageError(
            "An image from stdin has no name that its result could be called after.",
            hint=f"Name the file, such as: -o {printable(output).rstrip('/')}/large.png",
        )
    if from_stdin:
        sources.check_stdin()
    if to_stdout:
        targets.check_stdout()
    return to_stdout


@contextmanager
def opened(inputs: Sequence[str]) -> Iterator[list[Source]]:
    """The inputs; what comes in on stdin, or from elsewhere, is kept until the work is done."""
    from resshift_cli.imaging import sources
    from resshift_cli.system.storage import Remote, is_url

    with ExitStack() as stack:

        def source(name: str) -> Source:
            if name == "-":
                return stack.enter_context(sources.stdin())
            if is_url(name):
                return stack.enter_context(sources.elsewhere(Remote(name)))
            return sources.Source(Path(name))

        yield [source(name) for name in inputs]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of every input.

    Attributes:
        output: where results go, as it was given; None for beside the inputs.
        mark: what stands behind the inputs' names in those of the results.
        scale: output size over input size, unless a box says it.
        box: what results are to fill.
        handling: how files are read and written.
        overwrite: whether results may replace files.
        skip_existing: whether to leave inputs alone whose result is there.
        compare: whether to write a page beside every result that shows it and its input.
        seed: start of the random numbers.
        refuse: raises what speaks against an input.
        beside: files that are no inputs of their own, and not to be replaced either.
    """

    output: str | None
    mark: str
    scale: float
    box: Box | None
    handling: Handling
    overwrite: bool
    skip_existing: bool
    compare: bool
    seed: int
    refuse: Callable[[Loaded], object] = lambda loaded: None
    beside: tuple[Path, ...] = ()

    def scale_of(self, size: tuple[int, int], name: str) -> float:
        """The scale of an image of (height, width); `name` is what messages call it.

        Raises:
            UsageError: it can't fill the box.
        """
        return self.scale if self.box is None else self.box.scale(*size, name)


@dataclass(frozen=True, slots=True)
class Task:
    """One result to be made.

    Attributes:
        source: the input.
        scale: output size over input size.
        seed: start of the random numbers.
        target: the result, or what messages call it; of one elsewhere, its name.
        options: how it is encoded.
        overwrite: whether it may replace a file; None if it goes to stdout.
        page: where the two are compared, if they are.
        remote: the result, if it is not to be on this machine.
    """

    source: Source
    scale: float
    seed: int
    target: Path
    options: SaveOptions
    overwrite: bool | None
    page: Path | None = None
    remote: Remote | None = None

    @property
    def said(self) -> str:
        """What reports call the result."""
        return str(self.target) if self.remote is None else self.remote.shown


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is to be done, and what is left alone.

    Attributes:
        several: whether several results are asked for, whatever becomes of their inputs.
        sources: those that are no results of ours.
        results: those that are, see `own.among`.
        todo: what is to be done.
        sizes: how many images and frames of every height and width those have.
        finished: inputs whose results are there, and those.
    """

    several: bool
    sources: Sequence[Source]
    results: Sequence[Source]
    todo: list[Task] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    finished: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, sources: Sequence[Source], each: int = 1) -> Tasks:
        """What inputs, with so many results each, are before they are checked."""
        from resshift_cli.imaging import own

        results = own.among(sources)
        kept = [source for source in sources if source not in results]
        return cls(len(sources) * each > 1, kept, results)

    def check(
        self,
        outputs: Sequence[Path | Remote] | None,
        wanted: Wanted,
        loader: Loader,
        fail: Callable[[str, ResShiftError], None],
    ) -> None:
        """Find out before the work whether every input can be read and every result written.

        Inputs are decoded, which takes little beside enlarging them, so that a damaged one is known
        now and not hours later. Small ones stay with the loader.

        Args:
            outputs: where the results go; None for stdout.
            wanted: what is wanted of all.
            loader: what reads them.
            fail: told of the input with which it ends, if one does.

        Raises:
            ResShiftError: something can't be done.
        """
        for number, source in enumerate(self.sources):
            target = None if outputs is None else outputs[number]
            if target is not None and self._is_finished(target, wanted):
                said = str(target) if isinstance(target, Path) else target.shown
                self.finished.append((source.said, said))
                continue
            try:
                self._check(source, target, wanted, loader)
            except ResShiftError as error:
                fail(source.said, error)
                raise
        if wanted.compare:
            self._add_pages()

    def _is_finished(self, target: Path | Remote, wanted: Wanted) -> bool:
        """Whether a result is there and to stay: it is asked for, or was itself an input."""
        from resshift_cli.imaging import targets

        if wanted.overwrite:
            return False
        if not isinstance(target, Path):
            return wanted.skip_existing and target.exists()
        there = {targets.identity(source.path) for source in self.results if not source.spool}
        asked = wanted.skip_existing and os.path.lexists(target)
        return asked or targets.identity(target) in there

    def _check(
        self, source: Source, target: Path | Remote | None, wanted: Wanted, loader: Loader
    ) -> None:
        from resshift_cli.imaging import files, targets
        from resshift_cli.restoration.size import target_size

        loaded, options = loader.load(source), wanted.handling.options
        wanted.refuse(loaded)
        scale = wanted.scale_of(loaded.size, source.name)
        if target is None:
            options = files.without_a_name(loaded, options)
            task = Task(source, scale, wanted.seed, targets.STDOUT, options, None)
        elif not isinstance(target, Path):
            task = Task(
                *(source, scale, wanted.seed, Path(target.name), options, wanted.overwrite),
                remote=target,
            )
            options.format_of(task.target)
            if not wanted.overwrite and target.exists():
                raise OutputError(
                    f"{target.shown} exists already.",
                    hint="Use --overwrite to replace it, or give another name with -o.",
                )
        else:
            if self.several and not wanted.overwrite and os.path.lexists(target):
                raise OutputError(
                    f"{printable(target)} exists already.",
                    hint="Use --overwrite to replace it, --skip-existing to do what is missing, "
                    "or give another folder with -o.",
                )
            task = Task(source, scale, wanted.seed, target, options, wanted.overwrite)
            targets.check_writable(target, overwrite=wanted.overwrite, options=options)
        size = target_size(*loaded.size, scale)
        files.check(loaded, task.target, size=size, options=options)
        self.todo.append(task)
        self.sizes[loaded.size] += loaded.frames

    def _add_pages(self) -> None:
        """Give every task a page beside its result.

        Raises:
            UsageError: two pages would have the same name.
            OutputError: one can't be written.
        """
        from resshift_cli.imaging import targets

        found: dict[Path, Task] = {}
        for task in self.todo:
            page = pages.name_for(task.target, "_compare.html")
            if page in found:
                raise UsageError(
                    f"{printable(found[page].target)} and {printable(task.target)} would both be "
                    f"compared in {printable(page)}.",
                    hint="Do them one by one, or run `resshift compare` afterwards with -o.",
                )
            targets.check_place(page, overwrite=bool(task.overwrite))
            found[page] = replace(task, page=page)
        self.todo[:] = found.values()

    def told(self) -> Iterator[str]:
        """What was left alone, in sentences."""
        if count := len(self.results):
            of, are = f"{count} of {count + len(self.sources)} inputs", "are results"
            if count == 1:
                are = "is a result"
            yield f"{of} {are} of resshift, and left alone; given alone, such are enlarged again."
        if count := len(self.finished):
            has = "1 image has its result" if count == 1 else f"{count} images have their results"
            yield f"{has} already; --overwrite makes them anew."

    def skipped(self) -> list[dict[str, str]]:
        """The same for --json."""
        results = [{"input": source.said, "why": "result"} for source in self.results]
        return results + [
            {"input": source, "output": target, "why": "exists"} for source, target in self.finished
        ]


@contextmanager
def planned(
    tasks: Tasks, wanted: Wanted, *, to_stdout: bool
) -> Iterator[Sequence[Path | Remote] | None]:
    """Where the results go, None being stdout; a new folder that got nothing is removed again."""
    from resshift_cli.imaging import targets
    from resshift_cli.system.storage import Remote, is_url

    if to_stdout:
        yield None
        return
    if wanted.output is not None and is_url(wanted.output):
        yield _elsewhere(tasks, wanted, Remote(wanted.output))
        return
    outputs = targets.plan_outputs(
        [source.path for source in tasks.sources],
        mark=wanted.mark,
        destination=wanted.output,
        several=tasks.several,
        options=wanted.handling.options,
        beside=wanted.beside,
    )
    folder = targets.output_folder(wanted.output, several=tasks.several)
    with targets.made_folder(folder):
        yield outputs


def _elsewhere(tasks: Tasks, wanted: Wanted, place: Remote) -> list[Remote]:
    """Where the results go in a place that is not on this machine.

    Raises:
        UsageError: as `targets.plan_outputs`, or pages can't be written beside them.
    """
    from resshift_cli.imaging import targets
    from resshift_cli.imaging.formats import FORMATS

    if wanted.compare:
        raise UsageError(
            "Results are compared (--compare) where they are on this machine.",
            hint="Leave out --compare, or give a folder of this machine with -o.",
        )
    if place.name and not tasks.several:
        return [place]
    if FORMATS.get(Path(place.name).suffix.lower()) is not None:
        raise UsageError(
            f"Several results can't all go to the file {place.shown}.",
            hint="Give a folder, which ends with a slash.",
        )
    named = targets.plan_outputs(
        [source.path for source in tasks.sources],
        mark=wanted.mark,
        destination=f"{tempfile.gettempdir()}/resshift-results/",
        options=wanted.handling.options,
    )
    return [place.below(path.name) for path in named]
