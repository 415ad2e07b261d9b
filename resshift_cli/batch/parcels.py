"""How many groups a hand is given at a time: small ones by the parcel, large ones alone.

Which images are in a group is settled before: a parcel is only what goes on one way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.groups import Group

SHARE = 2  # parcels that each hand could still have, of what is left: the last ones are small


class Parcels:
    """Groups in their order, and how many of them make a parcel.

    Args:
        groups: what there is to do.
        gauge: knows what all of it takes, and what a job does whose work is not known.
        most: work of a parcel, as `Job.work`; a group that takes more goes alone.
    """

    def __init__(self, groups: Iterable[Group], gauge: Gauge, most: float) -> None:
        self._groups = iter(groups)
        self._following: Group | None = None
        self._first: deque[Group] = deque()
        self._usual, self._left, self._most = gauge.usual, gauge.work, most

    def put(self, group: Group) -> None:
        """Have a group go next, alone."""
        self._first.append(group)

    def are_over(self) -> bool:
        """Whether there is no group any more."""
        self._following = self._following or next(self._groups, None)
        return self._following is None and not self._first

    def take(self, hands: int) -> list[Group]:
        """The next parcel; it is empty if there is none.

        Args:
            hands: among how many what is left is to be shared out.
        """
        if self._first:
            return [self._first.popleft()]
        most = min(self._most, self._left / (SHARE * max(hands, 1)))
        parcel: list[Group] = []
        held = 0.0
        while not self.are_over() and self._following is not None:
            work = sum(job.work or self._usual for job in self._following.jobs)
            if parcel and held + work > most:
                break
            parcel.append(self._following)
            held, self._following = held + work, None
        self._left -= held
        return parcel
