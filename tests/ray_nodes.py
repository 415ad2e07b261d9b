"""A Ray cluster on this machine: nodes that can be added, and killed, by tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import lossy_proxy
import psutil
import pytest
import stores

# What begins the cluster in a process of its own: a line of stdin is the working folder of one more
# node, whose process' number goes to stdout, and the end of stdin is the end of all.
_PROGRAM = """
import json, os, sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_log_monitor": False}
quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 20}
head = {"include_dashboard": False, "no_monitor": True, "_system_config": quick}
cluster = Cluster(initialize_head=True, head_node_args=node | head)
said = {"address": cluster.address, "logs": cluster.head_node.get_logs_dir_path()}
print(json.dumps(said), flush=True)
for line in sys.stdin:
    os.chdir(line.rstrip("\\n"))
    added = cluster.add_node(**node)
    print(json.dumps(added.all_processes["raylet"][0].process.pid), flush=True)
cluster.shutdown()
"""

# What workers run when they start: they are killed by what is poison, and are slow at what is slow.
_HOOK = """
import os, sys, time

def hook(event, what):
    if event == "open" and isinstance(what[0], str) and what[0].endswith(".png"):
        if "poison" in what[0]:
            os.kill(os.getpid(), 9)
        if "slow" in what[0]:
            time.sleep(0.1)

sys.addaudithook(hook)
"""


@dataclass
class Nodes:
    """A cluster: a head with a core, and other nodes with one.

    Attributes:
        host: the process that has begun it.
        home: the folder that the head works in.
        address: where it is.
        logs: folder of what workers write.
        store: what its workers have to ask for what is in the store.
        others: process numbers of the other nodes.
    """

    host: subprocess.Popen[str]
    home: Path
    address: str
    logs: Path
    store: lossy_proxy.Lossy
    others: list[psutil.Process] = field(default_factory=list)

    def add(self, folder: Path) -> psutil.Process:
        """One more node, which works in a folder."""
        assert self.host.stdin is not None and self.host.stdout is not None
        self.host.stdin.write(f"{folder}\n")
        self.host.stdin.flush()
        node = psutil.Process(json.loads(self.host.stdout.readline()))
        self.others.append(node)
        return node

    def workers(self) -> list[psutil.Process]:
        """The processes that enlarge."""
        found = psutil.Process(self.host.pid).children(recursive=True)
        return [process for process in found if _title(process).startswith("ray::Worker")]

    def kill_other(self) -> None:
        """Kill a node that is not the head; all that it had started ends by itself."""
        node = self.others.pop()
        had = node.children(recursive=True)
        node.kill()
        assert psutil.wait_procs(had, timeout=120)[1] == []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, s3_server: tuple[str, int]
) -> Iterator[Nodes]:
    """A cluster of its head alone, which knows of a store that lies; nothing is left in the end."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with lossy_proxy.before(*s3_server) as store:
        yield from _begun(tmp_path_factory, store)


def _begun(tmp_path_factory: pytest.TempPathFactory, store: lossy_proxy.Lossy) -> Iterator[Nodes]:
    place, home = tmp_path_factory.mktemp("hook"), tmp_path_factory.mktemp("home")
    (place / "sitecustomize.py").write_text(_HOOK)
    environment = os.environ | {
        **stores.environment(store.url),
        "PYTHONPATH": os.pathsep.join([str(place), os.getcwd()]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
        "OMP_NUM_THREADS": "1",
    }
    with (home / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            env=environment,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdin is not None and process.stdout is not None
        line = process.stdout.readline()
        assert line, (home / "errors").read_text()
        said = json.loads(line)
        yield Nodes(process, home, said["address"], Path(said["logs"]), store)
    finally:
        left = psutil.Process(process.pid).children(recursive=True)
        try:
            process.communicate(timeout=60)  # which ends its stdin
        finally:
            process.kill()
            for each in left:
                if each.is_running():
                    each.kill()
