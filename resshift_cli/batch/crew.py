"""Does the groups of a plan with several hands: processes, here or on other machines.

A hand is a `Runner` like any other: it asks for one parcel of groups after the other, and enters in
a file of its own what became of them. It asks once before it has that file: whoever is slow to load
is killed when all is done, and a hand that is killed with its file's lock would leave that behind.
The crew hands out parcels, tells of what is done, and sees to what a hand had when it died: that is
done once more with nothing beside it, then image by image, and an image that three hands died of is
entered as a failure.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from resshift_cli.batch.groups import Group, Piece
from resshift_cli.batch.ledger import Ledger, Part, locked_part
from resshift_cli.batch.parcels import Parcels
from resshift_cli.batch.pieces import Pieces
from resshift_cli.batch.places import Place
from resshift_cli.batch.recipe import Recipe
from resshift_cli.batch.record import Record
from resshift_cli.batch.resume import Job, Judge
from resshift_cli.batch.runner import Runner, Watch, failed_record
from resshift_cli.batch.shards import Shard
from resshift_cli.batch.survey import Leftovers
from resshift_cli.errors import ResShiftError
from resshift_cli.imaging.elsewhere import inputs_at
from resshift_cli.weights.store import Files

NEXT = "next"
"""What a hand says when it wants a parcel."""

_SOON: Sequence[Group] = [Group([])]
"""A parcel for who is to ask again."""

ENDED = None
"""What is heard of a hand that has ended, however that came."""

TRIES = 3  # hands that may die of an image before it is given up
LOOK = 10.0  # seconds after which a crew looks for hands that are lacking, whatever is heard


@dataclass(frozen=True, slots=True)
class Task:
    """What a hand has to know before it asks for work.

    Attributes:
        recipe: how results are made; the device is the hand's own.
        files: of the model.
        resources: what the craft's `load` is told but the device.
        folder: of the inputs, as the ledger has it.
        output: where the results go, closed.
        parts: the shard, and the hand among its like.
    """

    recipe: Recipe
    files: Files
    resources: Mapping[str, Any]
    folder: str
    output: Place
    parts: tuple[Shard, ...]


@dataclass(eq=False)
class Hand(ABC):
    """Who works, and what it was given.

    Attributes:
        machine: where, for messages and for who works beside whom.
        part: which of the crew it is; its file of the ledger is called by that.
        held: groups of what it has not told of yet, by the names of results and of pieces.
        is_loaded: whether it has asked for the first time, and may have its file.
        has_begun: whether it has asked again, as it has that.
        is_idle: whether it waits for work, with nothing in hand.
        is_done: whether it was told that there is no more.
    """

    machine: str
    part: Shard
    held: dict[str, Group] = field(default_factory=dict, init=False)
    is_loaded: bool = field(default=False, init=False)
    has_begun: bool = field(default=False, init=False)
    is_idle: bool = field(default=False, init=False)
    is_done: bool = field(default=False, init=False)

    @abstractmethod
    def say(self, parcel: Sequence[Group] | None) -> None:
        """Give it some groups, or None: there is no more."""

    @abstractmethod
    def interrupt(self) -> None:
        """Have it write what is computed, and end."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once, if it has not ended, and let go of what it takes here."""

    @abstractmethod
    def last_words(self) -> str:
        """Where it was and how it ended, in a few words."""

    def groups(self) -> Iterator[Group]:
        """What it has not told of, group by group."""
        for group in {id(group): group for group in self.held.values()}.values():
            yield replace(group, jobs=[job for job in group.jobs if job.output in self.held])


class Crew(ABC):
    """An `Engine` of several hands.

    Args:
        task: what they have to know, for a shard of which each is a part.
        book: of the folder of results; what no hand could do is entered there.
        watch: what is told meanwhile.
        tell: is told what hands have to say besides.

    Attributes:
        hands: that are at work, or begin.
        inbox: what they say.
        most_deaths: of hands, one after another, before the batch is given up.
    """

    def __init__(
        self,
        task: Task,
        book: Ledger,
        watch: Watch,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.task, self.book, self.watch, self.tell = task, book, watch, tell
        self.hands: list[Hand] = []
        self.inbox: queue.Queue[tuple[Hand, Any]] = queue.Queue()
        self.most_deaths = 3
        inputs, recipe = inputs_at(task.folder), task.recipe
        self._judge = Judge(inputs, book, recipe.identity(), recipe.craft, overwrite=False)
        self._stops = False
        self._deaths = 0  # of hands, since the last result, but of those with something on trial
        self._leftovers = Leftovers(task.output)
        self._pieces = Pieces(task.output)
        self._lost = _Lost(self._pieces)
        self._groups = Parcels((), watch.gauge, 0.0)

    @abstractmethod
    def hire(self) -> Iterable[Hand]:
        """Start hands that are lacking; called often.

        Raises:
            ResShiftError: there are none, and there will be none.
        """

    def refused(self, hand: Hand, error: ResShiftError) -> None:
        """Hear that a hand could not begin.

        Raises:
            ResShiftError: the others should not go on without it.
        """
        raise error

    def begun(self, hand: Hand) -> None:  # noqa: B027
        """Hear that a hand has its file, and wants its first parcel."""

    def run(self, groups: Iterable[Group]) -> None:
        """As `runner.Engine` says."""
        with closing(self.watch.gauge):
            try:
                tile, every = _tile(self.task.recipe), self._pieces.cut(groups)
                self._groups = Parcels(every, self.watch.gauge, tile)
                self._do()
            except BaseException:
                self._stop()
                raise
            finally:
                self._pieces.forget()

    def _do(self) -> None:
        while True:
            for hand in self.hands:
                if hand.is_idle:
                    self._hand_out(hand)
            if self._is_over():
                self._dismiss()
                return self._leftovers.remove()
            if not self._stops:
                self.hands += self.hire()
            try:
                hand, message = self.inbox.get(timeout=LOOK)
            except queue.Empty:
                continue
            if message == NEXT:
                self._asked(hand)
            elif message is ENDED:
                self._bury(hand)
            else:
                self._hear(hand, message)

    def _asked(self, hand: Hand) -> None:
        if not hand.is_loaded:
            hand.is_loaded = True
            return hand.say(_SOON)
        if not hand.has_begun:
            hand.has_begun = True
            self.begun(hand)
        hand.is_idle = not hand.is_done

    def _is_over(self) -> bool:
        if any(hand.held for hand in self.hands):
            return False
        return self._stops or (not self._lost.groups and self._groups.are_over())

    def _hand_out(self, hand: Hand) -> None:
        """Give work to a hand that asks for it."""
        parcel: Sequence[Group] = () if self._stops else self._groups.take(len(self.hands))
        if not parcel and hand.held:
            parcel = _SOON  # it asks ahead; what it has is to be told of first
        elif not parcel and self._lost.groups and not self._stops and self._is_alone(hand):
            parcel = [self._lost.groups.popleft()]
        if parcel:
            hand.is_idle = False
            hand.held |= {job.output: group for group in parcel for job in group.jobs}
            hand.say(parcel)

    def _is_alone(self, hand: Hand) -> bool:
        """Whether nobody works beside a hand, whose death would have another reason then."""
        return not any(each.held for each in self.hands if each.machine == hand.machine)

    def _hear(self, hand: Hand, message: object) -> None:
        """Take note of what a hand says but that it wants more."""
        if isinstance(message, ResShiftError):
            if hand.has_begun:
                raise message
            hand.is_done = True
            self.refused(hand, message)
        elif isinstance(message, Record):
            self._told(hand, message)
            self._deaths = 0
        elif isinstance(message, Piece):
            self._made(hand, message)
            self._deaths = 0
        else:
            self.tell(str(message))

    def _told(self, hand: Hand, record: Record) -> None:
        group = hand.held.pop(record.output)
        self._tell(next(job for job in group.jobs if job.output == record.output), record)

    def _made(self, hand: Hand, piece: Piece) -> None:
        """Take note of a piece, and go on with the image if it was the last one."""
        group = hand.held.pop(piece.name)
        self.watch.gauge.part(group.jobs[0].work)
        following = self._pieces.made(piece)
        if following is not None:
            self._groups.put(following)

    def _tell(self, job: Job, record: Record) -> None:
        self.watch.record(record)
        if record.status == "failed":
            self.watch.gauge.fail()
        self.watch.gauge.finish(job)
        self._pieces.forget(job.output)
        self._stops |= self.watch.is_enough()

    def _let_go(self, hand: Hand) -> None:
        self.hands.remove(hand)
        hand.kill()

    def _bury(self, hand: Hand) -> None:
        """See to what a hand had when it ended."""
        self._let_go(hand)
        is_trial = self._lost.had(hand.held)
        had = [*hand.groups()]
        whole = [job for group in had if not group.piece for job in group.jobs]
        if whole:
            inputs = {job.input for job in whole}
            self.book.take_over(Part(self.task.output, *self.task.parts, hand.part), inputs)
        for job in whole:
            if self._judge.is_finished(job.input):  # it was entered, and nobody was told
                self._told(hand, self.book.results[job.input])
        for group in hand.groups():
            jobs = group.jobs if group.piece else [self._once_more(job) for job in group.jobs]
            self._lose(replace(group, jobs=jobs))
        if hand.is_done:
            return
        if not hand.has_begun:
            self.refused(hand, _died(hand))
        elif not is_trial:
            self._deaths += 1
            if self._deaths >= self.most_deaths:
                raise _died(hand)

    def _once_more(self, job: Job) -> Job:
        """The same job; a result that is there already may be replaced if the hand has made it."""
        if job.replaces:
            return job
        what = self._judge.look(job.input, job.output)
        return replace(job, replaces=isinstance(what, Job) and what.replaces)

    def _lose(self, group: Group) -> None:
        """Have a group done again whose hand has died."""
        if not self._pieces.is_wanted(group):
            return
        for job in group.jobs:
            self._leftovers.add(job.output)
        for job in self._lost.add(group):
            self._give_up(job)

    def _give_up(self, job: Job) -> None:
        """Enter an image that its hand died of every time."""
        error = ResShiftError(
            f"The process that enlarged {job.source.name} was killed, and so were the next two.",
            hint="Memory may have run out: use a smaller --tile, or `resshift upscale` to see.",
        )
        names = {"input": job.input, "output": job.output}
        recipe = self.task.recipe
        record = failed_record({"folder": self.task.folder, **recipe.facts(), **names}, error)
        self.book.append(record)
        self._tell(job, record)

    def _dismiss(self) -> None:
        """Have all hands end that have nothing in hand; those that still load, at once."""
        for hand in [*self.hands]:
            if hand.is_loaded:
                hand.is_done = True
                hand.say(None)
            else:
                self._let_go(hand)
        while self.hands:
            hand, message = self.inbox.get()
            if message is ENDED and hand in self.hands:
                self._let_go(hand)

    def _stop(self) -> None:
        """Have all hands write what is computed, and end; at a second Ctrl-C, at once."""
        self._stops = True
        try:
            for hand in self.hands:
                hand.is_done = True
                hand.interrupt()
            while self.hands:
                hand, message = self.inbox.get()
                if message == NEXT:
                    hand.say(None)
                elif isinstance(message, Record) and message.output in hand.held:
                    self._told(hand, message)
                elif message is ENDED:
                    self._let_go(hand)
        finally:
            for hand in self.hands:
                hand.kill()


class _Lost:
    """Groups whose hands have died, to be done once more: whole, then image by image.

    Args:
        pieces: of images that are cut.

    Attributes:
        groups: these.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.groups: deque[Group] = deque()
        self._pieces = pieces
        self._died_of: Counter[str] = Counter()  # by results and pieces

    def had(self, names: Iterable[str]) -> bool:
        """Whether a hand has died of one of these results and pieces."""
        return any(self._died_of[name] for name in names)

    def add(self, group: Group) -> list[Job]:
        """Have a group done again.

        Returns:
            Images that hands died of every time, and that are given up.
        """
        self._died_of.update(job.output for job in group.jobs)
        deaths = max(self._died_of[job.output] for job in group.jobs)
        if deaths >= TRIES:
            jobs = (self._pieces.give_up(job.output) for job in group.jobs)
            over = [job for job in jobs if job] if group.piece else [*group.jobs]
            self.groups = deque(filter(self._pieces.is_wanted, self.groups))
            return over
        if deaths == TRIES - 1:  # each by itself, with the bits that it has among others
            self.groups += (replace(group, jobs=[job]) for job in group.jobs)
        else:
            self.groups.append(group)
        return []


def work(
    task: Task, device: str, groups: Iterator[Group], watch: Watch, tell: Callable[[object], None]
) -> None:
    """Be a hand: do groups as they come.

    Args:
        task: what there is to know.
        device: where to compute.
        groups: one after the other; the first is an empty one.
        watch: what is told of them.
        tell: is told what a model has to say of memory, and of pieces.

    Raises:
        As `Craft.load`, `ledger.locked_part` and `Runner.run`.
    """
    craft, resources = task.recipe.craft, {"device": device, "tell": tell, **task.resources}
    model = craft.load(task.recipe.entry, task.files, **resources)
    if next(groups, None) is None:
        return  # others have done it all
    recipe = replace(task.recipe, device=model.device)
    facts = {"folder": task.folder, **recipe.facts()}
    with locked_part(task.output, *task.parts), task.output.opened() as place:
        part = Part(place, *task.parts)
        Runner(model, recipe, facts, part, replace(watch, piece=tell)).run(groups)


def _tile(recipe: Recipe) -> float:
    """What the largest tile takes, as `Job.work`."""
    return float((recipe.settings.tile // recipe.spec.lq_pixels) ** 2)


def _died(hand: Hand) -> ResShiftError:
    return ResShiftError(
        f"The process {hand.last_words()}.",
        hint="Memory may have run out: use a smaller --tile, or fewer processes. The same command "
        "goes on from here.",
    )
