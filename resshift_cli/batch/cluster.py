"""Does the groups of a plan with workers on the nodes of a Ray cluster.

A worker is an actor: one for each GPU of the cluster, or for as many cores as this process computes
with. It has the model loaded, from files on its own node, and is given groups and asked what became
of them; pictures never go through Ray. Inputs and results lie in folders that all nodes share, or
in stores.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from resshift_cli import __version__
from resshift_cli.batch.crew import ENDED, NEXT, Crew, Hand, Task, work
from resshift_cli.batch.gauge import Gauge
from resshift_cli.batch.groups import Group
from resshift_cli.batch.ledger import Ledger, lock_name
from resshift_cli.batch.places import Folder
from resshift_cli.batch.plan import Plan
from resshift_cli.batch.record import Record
from resshift_cli.batch.resume import Job
from resshift_cli.batch.runner import Watch
from resshift_cli.batch.shards import Shard
from resshift_cli.errors import (
    DeviceError,
    InputMissingError,
    ModelUnavailableError,
    OutputError,
    ResShiftError,
    UsageError,
    counted,
    expected,
    printable,
)
from resshift_cli.imaging.sources import Source, State
from resshift_cli.restoration import provenance
from resshift_cli.weights import store

USUAL_PORT = 6379  # of a cluster's head
ANSWER = 10.0  # seconds that it has to answer
LOCAL_STORE = 80 << 20  # bytes of Ray's store of objects, of a cluster that is begun here
MOST_STARTS = 3  # workers that may die as they begin, before their node is left alone
PATIENCE = 300.0  # seconds in which a node may come back after the last one is gone
_LOG = logging.getLogger(__name__)
SETTLE = 1.0  # seconds between two looks at the nodes, and of a worker at its own


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a worker on another machine has to find there.

    Attributes:
        tasks: how many workers can share the work at most.
        sample: an input.
        state: what that is like where the batch was begun.
        offline: whether to touch no network for the model.
        threads: of a CPU that compute, on which the last bits depend; None on a GPU.
    """

    tasks: int
    sample: Source
    state: State | None
    offline: bool
    threads: int | None

    @classmethod
    def of(cls, plan: Plan, tasks: int, *, offline: bool) -> Elsewhere:
        """What the work of a plan takes.

        Args:
            plan: with an input at least.
            tasks, offline: as the attributes.
        """
        sample = plan.inputs.source(next(iter(plan.inputs.images())))
        sample = replace(sample, known=None)  # nodes have to ask the store themselves
        threads = provenance.threads(plan.recipe.device)
        return cls(tasks, sample, sample.state(), offline, threads)

    def needs(self) -> dict[str, float]:
        """What of a node one worker takes, as Ray calls it."""
        return {"CPU": 1, "GPU": 1} if self.threads is None else {"CPU": self.threads}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be at work in a cluster.

    Args:
        address: host or host:port, `auto` for the one that this machine belongs to; without it what
            $RAY_ADDRESS says, or a cluster of this machine alone, for as long as this takes.

    Raises:
        UsageError: it is the address of a proxy.
        DeviceError: there is no cluster, or none that this process can join.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # of a busy machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later versions have it
    address = _found(address or os.environ.get("RAY_ADDRESS") or "local")
    begun = {"include_dashboard": False, "object_store_memory": LOCAL_STORE}
    options = begun if address == "local" else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        raise _no_cluster(address, why) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _found(address: str) -> str:
    """An address as Ray takes it, where somebody answers: Ray itself would ask for minutes."""
    if address in ("auto", "local"):
        return address
    if "://" in address:
        raise UsageError(
            f"{printable(address)} is a client's address, and batch works within the cluster.",
            hint="Start it on one of the nodes, with --address auto or HOST:PORT.",
        )
    host, _, port = address.partition(":")
    try:
        number = int(port or USUAL_PORT)
        socket.create_connection((host, number), timeout=ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error
    return f"{host}:{number}"


def _no_cluster(address: str, why: str) -> DeviceError:
    where = "here" if address in ("auto", "local") else f"at {printable(address)}"
    return DeviceError(
        f"There is no Ray cluster {where} that could be joined: {printable(why).rstrip('.')}.",
        hint="`ray start --head` begins one, and `ray status` shows what there is.",
    )


@dataclass(eq=False)
class _Remote(Hand):
    """A worker on a node.

    Attributes:
        place: its node, for people.
        actor: it.
        end: how it ended.
    """

    place: str
    actor: Any
    end: str = field(default="ended", init=False)

    def say(self, parcel: Sequence[Group] | None) -> None:
        self.actor.give.remote(parcel)

    def interrupt(self) -> None:
        if self.is_loaded:
            self.actor.stop.remote()
        else:
            self.kill()

    def kill(self) -> None:
        with suppress(Exception):  # it is gone
            ray.kill(self.actor)

    def last_words(self) -> str:
        return f"on {self.place} {self.end}"


class Cluster(Crew):
    """An `Engine` of workers on the nodes of a cluster.

    Args:
        task: what they have to know, for a shard of which each is a part.
        elsewhere: what they have to find.
        address: of the cluster, as `connected` takes it.
        book: of the folder of results; what no worker could do is entered there.
        watch: what is told meanwhile.
        tell: is told of nodes that can't take part.
    """

    def __init__(
        self,
        task: Task,
        elsewhere: Elsewhere,
        address: str | None,
        book: Ledger,
        watch: Watch,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(task, book, watch, tell)
        self.elsewhere, self.address = elsewhere, address
        self._refusals: dict[str, ResShiftError] = {}
        self._failed_starts: Counter[str] = Counter()
        self._hired = 0
        self._looked = -SETTLE
        self._last_seen: float | None = None  # a worker

    def run(self, groups: Iterable[Group]) -> None:
        """As `runner.Engine` says.

        Raises:
            UsageError, DeviceError: as `connected`, or no node can have a worker.
        """
        with connected(self.address):
            super().run(groups)

    def hire(self) -> Iterator[Hand]:
        """A worker wherever there is room for one and none."""
        now = time.monotonic()
        if now < self._looked + SETTLE:
            return
        self._looked = now
        nodes = [node for node in ray.nodes() if node["Alive"]]
        there = Counter(hand.machine for hand in self.hands)
        count = len(self.hands)
        for node in nodes:
            if node["NodeID"] not in self._refusals:
                lacking = self._room(node) - there[node["NodeID"]]
                for _ in range(min(lacking, self.elsewhere.tasks - count)):
                    count += 1
                    yield self._start(node)
        if count:
            self._last_seen = now
            self.most_deaths = max(self.most_deaths, 2 * count + 3)  # a node dies with many
        else:
            self._want(nodes, now)

    def _room(self, node: dict[str, Any]) -> int:
        """How many workers a node can have."""
        has = node["Resources"]
        return int(min(has.get(name, 0) / much for name, much in self.elsewhere.needs().items()))

    def _want(self, nodes: Sequence[dict[str, Any]], now: float) -> None:
        """See whether it is of any use to wait for nodes.

        Raises:
            ResShiftError: it is not.
        """
        if any(node["NodeID"] in self._refusals for node in nodes):
            raise [*self._refusals.values()][-1]
        if self._last_seen is not None and now < self._last_seen + PATIENCE:
            return
        needs = "one with a GPU"
        if self.elsewhere.threads is not None:
            needs = f"one with {counted(self.elsewhere.threads, 'core')}"
        raise DeviceError(
            f"None of the cluster's {counted(len(nodes), 'node')} can have a worker: it takes "
            f"{needs}.",
            hint="OMP_NUM_THREADS says how many cores one takes, --device whether it is a GPU.",
        )

    def refused(self, hand: Hand, error: ResShiftError) -> None:
        """Leave alone a node whose worker could not begin; the others go on."""
        if not hand.is_done:  # it died, which another one need not
            self._failed_starts[hand.machine] += 1
            if self._failed_starts[hand.machine] < MOST_STARTS:
                return
        if hand.machine not in self._refusals:
            self._refusals[hand.machine] = error
            self.tell(f"A node can't take part. {error} {error.hint}")

    def begun(self, hand: Hand) -> None:
        """Make sure that a worker's folder of results is this one: its lock is seen here, too."""
        place, lock = self.task.output, lock_name(*self.task.parts, hand.part)
        assert isinstance(hand, _Remote)
        if isinstance(place, Folder) and not (place.path / lock).exists():
            hand.is_done = True
            self.refused(hand, _not_shared(place, hand.place))
            hand.kill()

    def _start(self, node: dict[str, Any]) -> Hand:
        # A number is used once: who had it may be cut off, and still be writing.
        self._hired += 1
        part = Shard(self._hired, max(self._hired, 2))
        address, node_id = node["NodeManagerAddress"], node["NodeID"]
        place = f"node {address} ({node_id[:6]})"
        needs = self.elsewhere.needs()
        task = replace(self.task, parts=(*self.task.parts, part))
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=needs["CPU"],
                num_gpus=needs.get("GPU", 0),
                max_concurrency=3,  # its three methods
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote((__version__, torch.__version__), place, pickle.dumps((task, self.elsewhere)))
        )
        hand = _Remote(node_id, part, place, actor)
        stream = actor.run.options(num_returns="streaming").remote()
        threading.Thread(target=self._listen, args=(hand, stream), daemon=True).start()
        return hand

    def _listen(self, hand: _Remote, stream: Any) -> None:
        """Put what a worker says into the inbox."""
        try:
            for reference in stream:
                self.inbox.put((hand, ray.get(reference)))
        except BaseException as error:  # SystemExit among them, when this process lets go of Ray
            hand.end = f"is gone: {_reason(error)}"
        self.inbox.put((hand, ENDED))


class Worker:
    """The actor: does groups that it is given, in a thread, and streams what it has to say.

    Args:
        versions: of resshift and torch that it should have.
        place: its node, for people.
        packed: a `Task` and an `Elsewhere`, pickled.
    """

    def __init__(self, versions: tuple[str, str], place: str, packed: bytes) -> None:
        self.versions, self.place, self.packed = versions, place, packed
        self._come: queue.SimpleQueue[Sequence[Group] | None] = queue.SimpleQueue()
        self._go: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stops = threading.Event()

    def run(self) -> Iterator[object]:
        """Say what is to be said, until there is no more work."""
        threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        while (message := self._go.get()) is not ENDED:
            yield message
        thread.join()

    def give(self, parcel: Sequence[Group] | None) -> None:
        """Take some groups, or None: there is no more."""
        self._come.put(parcel)

    def stop(self) -> None:
        """Write what is computed, and end."""
        self._stops.set()
        self._come.put(None)

    def _run(self) -> None:
        logging.basicConfig(format="%(asctime)s %(message)s", force=True)
        _LOG.setLevel(logging.INFO)  # what packages say of every request is for nobody
        try:
            with suppress(KeyboardInterrupt):
                self._work()
        except Exception as error:
            self._go.put(expected(error))
        finally:
            self._go.put(ENDED)

    def _work(self) -> None:
        here = (__version__, torch.__version__)
        if here != self.versions:
            have, want = (
                "resshift {} with torch {}".format(*each) for each in (here, self.versions)
            )
            raise ResShiftError(
                f"There is {have} on {self.place}, and {want} where the batch was begun.",
                hint="Install the same on all nodes: results would differ.",
            )
        task, elsewhere = pickle.loads(self.packed)
        if elsewhere.threads is not None:
            torch.set_num_threads(elsewhere.threads)
        _check_folders(task, elsewhere, self.place)
        task = replace(task, files=_own_files(task, elsewhere, self.place))
        gauge = _Told(self._stops)
        work(task, task.recipe.device.type, self._groups(), Watch(self._told, gauge), self._go.put)

    def _groups(self) -> Iterator[Group]:
        while not self._stops.is_set():
            self._go.put(NEXT)
            parcel = self._come.get()
            if parcel is None:
                return
            for group in parcel:
                if self._stops.is_set():
                    return
                yield group

    def _told(self, record: Record) -> None:
        _LOG.info("%s: %s", printable(record.input), record.error or record.status)
        self._go.put(record)


def _leave_with(node: int) -> None:
    """End with the process that stands for the node: others get the work, and Ray waits for it."""
    while os.getppid() == node:
        time.sleep(SETTLE)
    os._exit(1)


class _Told(Gauge):
    """Enters in the worker's log what is begun, and heeds Ctrl-C between two tiles."""

    def __init__(self, stops: threading.Event) -> None:
        super().__init__()
        self._stops = stops

    def begin(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            _LOG.info("%s: begun", printable(job.input))
        super().begin(jobs)

    def advance(self, place: int, share: float) -> None:
        if self._stops.is_set():
            raise KeyboardInterrupt
        super().advance(place, share)


def _check_folders(task: Task, elsewhere: Elsewhere, place: str) -> None:
    """Make sure that a node sees the folders, as far as that can be told from there."""
    sample, state = elsewhere.sample, elsewhere.sample.state()
    if state is None or elsewhere.state is None or state.size != elsewhere.state.size:
        raise InputMissingError(
            f"{sample.name} is not what it is elsewhere, or not there, on {place}.",
            hint="All nodes have to share the folder of inputs, under the same path.",
        )
    if isinstance(task.output, Folder) and not task.output.path.is_dir():
        raise _not_shared(task.output, place)


def _not_shared(output: Folder, place: str) -> OutputError:
    return OutputError(
        f"{printable(output.said)} is another folder, or none, on {place}.",
        hint="All nodes have to share the folder of results, under the same path.",
    )


def _own_files(task: Task, elsewhere: Elsewhere, place: str) -> store.Files:
    """The model's files of this node, fetched if need be, and the same as everywhere."""
    entry = task.recipe.entry
    files = store.obtain(entry, offline=elsewhere.offline)
    if files.digest() != task.recipe.weights:
        raise ModelUnavailableError(
            f"The weights of {entry.name} on {place} are not those of where the batch was begun.",
            hint=f"`resshift models rm {entry.name}` there has them fetched anew.",
        )
    return files


def _reason(error: BaseException) -> str:
    """Why a worker is gone, in a line of what Ray says at length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error:" in line] or lines[:1] or [type(error).__name__]
    return printable(told[-1]).rstrip(".")
