"""What is to be done of a folder, looked at but not begun.

folders.find -> names.name_outputs -> resume.sort_out -> Plan -> groups.grouped
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from resshift_cli.batch import names
from resshift_cli.batch.groups import Group, grouped
from resshift_cli.batch.ledger import Ledger, Record
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.resume import Failure, Job, Links, sort_out
from resshift_cli.errors import ResShiftError, expected, printable
from resshift_cli.imaging import animation, encode
from resshift_cli.imaging.folders import Found
from resshift_cli.imaging.formats import Format
from resshift_cli.imaging.opening import Header, read_header
from resshift_cli.restoration import settings
from resshift_cli.system import atomic

Headers = Mapping[str, Header | ResShiftError]
"""What files say of their images, or why they can't be read, by their paths within the folder."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A folder, sorted.

    Attributes:
        folder: of the inputs.
        output: folder of the results.
        recipe: how they are made.
        jobs: what is to be done.
        finished: records of what is.
        failures: what can't be done, unreadable folders included.
        others: how many files were left alone because of their names, by extension.
    """

    folder: Path
    output: Path
    recipe: Recipe
    jobs: list[Job]
    finished: list[Record]
    failures: list[Failure]
    others: Mapping[str, int]

    @property
    def images(self) -> int:
        """How many were found."""
        refused = sum(bool(failure.output) for failure in self.failures)
        return len(self.jobs) + len(self.finished) + refused

    def facts(self) -> dict[str, Any]:
        """What the ledger is told with every image."""
        return {"folder": os.path.realpath(self.folder), **self.recipe.facts()}

    def headers(self, inputs: Iterable[str]) -> dict[str, Header | ResShiftError]:
        """What files say of their images, for `groups` and `forecast`."""
        return {name: self._header(self.folder / name) for name in inputs}

    def _header(self, source: Path) -> Header | ResShiftError:
        handling = self.recipe.handling
        try:
            header = read_header(
                source,
                max_pixels=handling.max_pixels,
                first_frame=handling.first_frame,
                assumed=handling.assumed,
            )
            if header.frames > 1:
                target = names.name_outputs([source.name], options=handling.options)[source.name]
                animation.check_target(Path(target), options=handling.options)
            self.recipe.settings_for(header.height, header.width, printable(source))
            return header
        except Exception as error:  # decoders raise nearly anything on a damaged file
            return expected(error)

    def groups(self, known: Headers, at_once: Callable[[tuple[int, int]], int]) -> list[Group]:
        """The jobs, small images of one padded size together.

        Args:
            known: headers of all images, those that are finished included, see `grouped`.
            at_once: see `grouped`.
        """
        jobs = [replace(job, work=self._work(known[job.input])) for job in self.jobs]
        return grouped(jobs, {name: self._size(known[name]) for name in known}, at_once)

    def _work(self, header: Header | ResShiftError) -> float:
        """Latent positions of an image's tiles; 0 if its size is unknown."""
        if isinstance(header, ResShiftError):
            return 0.0
        spec = self.recipe.spec
        chosen = self.recipe.settings_for(header.height, header.width)
        grids = [
            settings.grid(spec, *size, chosen)
            for size in settings.pass_sizes(spec, header.height, header.width, chosen.scale)
        ]
        area = sum(len(grid.boxes) * grid.rows.size * grid.columns.size for grid in grids)
        return float(area * computations(header))

    def _size(self, header: Header | ResShiftError) -> tuple[int, int] | None:
        recipe = self.recipe
        if recipe.box is not None:  # those of a group have one scale
            return None
        if isinstance(header, ResShiftError) or header.alpha or header.frames > 1:
            return None
        return settings.single_tile(recipe.spec, header.height, header.width, recipe.settings)

    def remove_leftovers(self, ledger: Ledger) -> None:
        """Remove what a killed batch left half-written."""
        under_way = [record.output for record in ledger.begun.values()]
        to_do = [job.output for job in self.jobs]
        links = Links(self.output)
        atomic.remove_temporaries(
            self.output / name
            for name in (*under_way, *to_do)
            if _is_below(name) and links.on_the_way_to(name) is None
        )


def _is_below(name: str) -> bool:
    """Whether a path that a file says is one within a folder."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def computations(header: Header) -> int:
    """How many images are computed for a file: alpha is enlarged beside the colours."""
    return (2 if header.alpha else 1) * header.frames


def make(folder: Path, ledger: Ledger, recipe: Recipe, found: Found, *, overwrite: bool) -> Plan:
    """Sort out what was found in a folder.

    Args:
        folder: of the inputs.
        ledger: of the folder of results.
        recipe: how they are to be made.
        found: what is in `folder`.
        overwrite: whether to replace files that are there.

    Raises:
        OutputError: as `resume.sort_out`.
    """
    output = ledger.path.parent
    handling = recipe.handling

    def can_hold(name: str, kind: Format) -> bool:
        return encode.can_hold(
            kind, folder / name, max_pixels=handling.max_pixels, assumed=handling.assumed
        )

    outputs = names.name_outputs(found.images, options=handling.options, can_hold=can_hold)
    state = sort_out(folder, output, outputs, ledger, recipe.identity(), overwrite=overwrite)
    closed = [Failure(place, "", error) for place, error in found.unreadable.items()]
    failures = closed + state.failures
    return Plan(folder, output, recipe, state.jobs, state.finished, failures, found.others)
