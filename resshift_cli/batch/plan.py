"""What is to be done of a folder, page by page, looked at but not begun.

Inputs.images -> shards.pages -> Judge.is_finished -> names.name_outputs -> Judge.look -> units

Whoever goes through a plan twice, to count and then to work, sees the same: a page depends on what
is there and on the ledger alone, and so do the groups in it, whatever is done of them elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from resshift_cli.batch import names
from resshift_cli.batch.groups import Group, Size, Unit, units
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.places import Place
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.resume import Failure, Job, Judge
from resshift_cli.batch.shards import WHOLE, Shard, pages
from resshift_cli.errors import ResShiftError, expected
from resshift_cli.imaging import animation, encode, files, own
from resshift_cli.imaging.folders import Beside, Inputs
from resshift_cli.imaging.formats import Format
from resshift_cli.imaging.opening import Header, read_header
from resshift_cli.restoration import cuts, settings
from resshift_cli.restoration.size import target_size

LARGE = files.LARGE
"""Results of more pixels may be cut into bands: those that are written as they are computed."""

AtOnce = Callable[[Size], int]
"""How many images of a size, see `settings.single_tile`, are computed at a time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at an image tells of it.

    Attributes:
        header: of its file.
        computed: how many whole images are computed for it, see `Craft.computed`.
    """

    header: Header
    computed: float

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.header.height, self.header.width


@dataclass(frozen=True, slots=True)
class Section:
    """A page of a plan, or what a shard does of it.

    Attributes:
        groups: what is to be done.
        finished: inputs of what is.
        failures: what can't be done, unreadable folders included.
        seen: what the files of the jobs say of their images, or why they can't be done, by
            their paths within the folder.
    """

    groups: list[Group] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seen: Mapping[str, Seen | ResShiftError] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A folder, and what is to become of it.

    Attributes:
        inputs: the images.
        ledger: of the folder of results.
        recipe: how they are made.
        at_once: how many images of a size are computed at a time: a result depends on it, so that
            it must not depend on what is free on a machine.
        overwrite: whether to replace files that are there.
        shard: the part of the work that is done here.
    """

    inputs: Inputs
    ledger: Ledger
    recipe: Recipe
    at_once: AtOnce
    overwrite: bool = False
    shard: Shard = WHOLE

    @property
    def output(self) -> Place:
        """Where the results go."""
        return self.ledger.place

    def facts(self) -> dict[str, Any]:
        """What the ledger is told with every image."""
        return {"folder": self.inputs.root, **self.recipe.facts()}

    def sections(self, beside: Beside | None = None) -> Iterator[Section]:
        """Go through it, a page in memory at a time.

        Args:
            beside: is told what there is beside images.

        Raises:
            OutputError: as `Judge.look`.
        """
        beside = beside or Beside()
        recipe, overwrite = self.recipe, self.overwrite
        about = (self.inputs, self.ledger, recipe.identity(), recipe.craft)
        judge = Judge(*about, overwrite=overwrite)
        for page in pages(self.inputs.images(beside)):
            share = self.shard.share(page)
            if share is not None:
                yield self._section(page, share, judge, beside)
        if self.shard.number == 1:
            yield Section(
                failures=[Failure(place, "", why) for place, why in beside.unreadable.items()]
            )

    def _section(self, page: Sequence[str], share: range, judge: Judge, beside: Beside) -> Section:
        finished = dict.fromkeys(filter(judge.is_finished, page))
        left: Sequence[str] = [name for name in page if name not in finished]
        if left:
            self.inputs.ahead(page)
        if left and not self._results_are_meant:
            left = list(own.apart_from_results(self.inputs, left, beside))
        if not left:
            return Section(finished=[name for at, name in enumerate(finished) if at in share])
        found = {
            name: judge.look(name, output) for name, output in self._name_outputs(left).items()
        }
        images = [name for name in page if name in finished or name in found]
        # Of what is finished, the size tells what it was computed with.
        together = self.recipe.craft.is_done_together
        seen = {name: self._look(name) for name in images if together or name in found}
        sizes = [self._size(seen[name]) if together else None for name in images]
        section = Section(seen=seen)
        for place, unit in enumerate(units(images, sizes, self.at_once)):
            if place in share:
                self._add(section, unit, found)
        return section

    def _add(
        self,
        section: Section,
        unit: Unit,
        found: Mapping[str, Job | Failure],
    ) -> None:
        """Add a unit to a section: a group of what is to be done of it, if there is any."""
        jobs = []
        for name in unit.names:
            what = found.get(name)
            if what is None:
                section.finished.append(name)
            elif isinstance(what, Failure):
                section.failures.append(what)
            else:
                jobs.append(replace(what, work=self._work(section.seen[name])))
        if jobs:
            bands = () if unit.size else self._bands(section.seen[jobs[0].input])
            section.groups.append(Group(jobs, unit.count, unit.size, bands))

    @cached_property
    def _results_are_meant(self) -> bool:
        """Whether there are only results of ours among the inputs, which are left out else."""
        return own.are_all(self.inputs)

    def _name_outputs(self, inputs: Sequence[str]) -> dict[str, str]:
        handling = self.recipe.handling

        def can_hold(name: str, kind: Format) -> bool:
            source = self.inputs.header(name)
            return encode.can_hold(
                kind, source, max_pixels=handling.max_pixels, assumed=handling.assumed
            )

        return names.name_outputs(
            inputs, options=handling.options, can_hold=can_hold, is_input=self.inputs.has
        )

    def _look(self, name: str) -> Seen | ResShiftError:
        source, recipe = self.inputs.header(name), self.recipe
        handling = recipe.handling
        try:
            header = read_header(
                source,
                max_pixels=handling.max_pixels,
                first_frame=handling.first_frame,
                assumed=handling.assumed,
            )
            if header.frames > 1:
                target = names.name_outputs([name], options=handling.options)[name]
                animation.check_target(Path(target), options=handling.options)
            how = recipe.settings_for(header.height, header.width, source.name)
            return Seen(header, recipe.craft.of(name).computed(header, recipe.spec, how))
        except Exception as error:  # decoders raise nearly anything on a damaged file
            return expected(error)

    def _work(self, seen: Seen | ResShiftError) -> float:
        """Latent positions of an image's tiles; 0 if its size is unknown."""
        if isinstance(seen, ResShiftError):
            return 0.0
        spec = self.recipe.spec
        chosen = self.recipe.settings_for(*seen.size)
        grids = [
            settings.grid(spec, *size, chosen)
            for size in settings.pass_sizes(spec, *seen.size, chosen.scale)
        ]
        area = sum(len(grid.boxes) * grid.rows.size * grid.columns.size for grid in grids)
        return float(area * seen.computed)

    def _bands(self, seen: Seen | ResShiftError) -> Sequence[range]:
        """Rows of the bands of an image that is large enough to be cut, and can be."""
        recipe = self.recipe
        if isinstance(seen, ResShiftError) or seen.header.frames > 1 or not recipe.craft.is_cut:
            return ()
        spec, how = recipe.spec, recipe.settings_for(*seen.size)
        if math.prod(target_size(*seen.size, how.scale)) <= LARGE:
            return ()
        channels = 4 if seen.header.alpha else 3
        is_possible = cuts.can_be_cut(spec, seen.size, channels, how)
        return cuts.cuts(spec, seen.size, how) if is_possible else ()

    def _size(self, seen: Seen | ResShiftError) -> Size | None:
        recipe = self.recipe
        if recipe.box is not None:  # those of a group have one scale
            return None
        if isinstance(seen, ResShiftError) or seen.header.alpha or seen.header.frames > 1:
            return None
        return settings.single_tile(recipe.spec, *seen.size, recipe.settings)
