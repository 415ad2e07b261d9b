"""Which images the networks are given at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from resshift_cli.batch.resume import Job


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that are computed at a time.

    Attributes:
        jobs: one, or small images that are padded to one size.
        count: how many images the networks are given, whatever became of some of them: a result
            depends on it, by rounding.
        size: what they are padded to; None of a job alone.
    """

    jobs: list[Job]
    count: int = 1
    size: tuple[int, int] | None = None


def grouped(
    jobs: Sequence[Job],
    sizes: Mapping[str, tuple[int, int] | None],
    at_once: Callable[[tuple[int, int]], int],
) -> list[Group]:
    """Put jobs of one size together, in the same way whatever was finished before.

    Images of a size make up whole groups, in the order of their names; what is left over is done
    one by one. A group of which some are finished stays a group.

    Args:
        jobs: in the order in which they are to be done, but for those that others draw ahead.
        sizes: of all images, those that are finished included: what they are padded to, or None
            if they can't be in a group.
        at_once: how many images of a size are best computed at a time.
    """
    alike: dict[tuple[int, int], list[str]] = {}
    for name in sorted(sizes):
        size = sizes[name]
        if size is not None:
            alike.setdefault(size, []).append(name)
    members: dict[str, Group] = {}
    for size, names in alike.items():
        count = at_once(size)
        for first in range(0, len(names) - count + 1, count) if count > 1 else ():
            members |= dict.fromkeys(names[first : first + count], Group([], count, size))
    groups: list[Group] = []
    for job in jobs:
        group = members.get(job.input)
        if group is None:
            groups.append(Group([job]))
            continue
        if not group.jobs:
            groups.append(group)
        group.jobs.append(job)
    return groups
