"""Whatever dies of a cluster: the files are those of one machine, and the ledger tells no lies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lossy_proxy
import psutil
import pytest
from batch_folder import CUTTING, results
from command_line import Ran, Run, make_photo, start
from ray_nodes import Nodes
from stores import SECRET

from resshift_cli import __version__
from resshift_cli.batch.ledger import Ledger

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_thread")]

Start = Callable[..., subprocess.Popen[str]]


ANOTHER_VERSION = """
from resshift_cli import __main__
from resshift_cli.batch import cluster
cluster.__version__ = "0.1"
__main__.main()
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Sixteen photos that take their time: ten that are padded to one size, and others."""
    folder = tmp_path / "slow"
    folder.mkdir()
    for number in range(10):
        make_photo(folder / f"{number}.png", 17 + number % 8, 25 + number % 5)
    for number in range(6):
        make_photo(folder / f"large{number}.png", 40 + 8 * number, 40)
    return folder


@pytest.fixture
def batch_on(cluster: Nodes, tiny_weights: Path) -> Start:
    """Begins a batch on the cluster, in a process of its own."""

    def begin(folder: Path | str, *options: object, program: str = "") -> subprocess.Popen[str]:
        mine = ("--weights", tiny_weights, "-o", Path(folder).with_name("out"), *options)
        where = ("--engine", "ray", "--address", cluster.address)
        begun = {"cwd": cluster.home, "environment": {"PYTHONPATH": os.getcwd()}}
        return start("batch", folder, "--steps", 1, *mine, *where, program=program, **begun)

    return begin


@pytest.fixture
def two(cluster: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Nodes:
    """The cluster with a second node."""
    if not cluster.others:
        cluster.add(tmp_path_factory.mktemp("node"))
    return cluster


def ended(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=240)
    return Ran(process.returncode, out, err)


def first_result(process: subprocess.Popen[str]) -> None:
    """Wait until something is done, and more is not."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.endswith(".png\n"), process.communicate()[1]


def check(batch: Run, folder: Path, *options: object, images: int = 16) -> None:
    """The files are those of one machine, nothing else is there, and the ledger proves it."""
    output, whole = folder.with_name("out"), folder.with_name("whole")
    batch(folder, "-o", whole, *options)
    ours, theirs = (
        {name: data for name, data in results(place).items() if "resshift-batch" not in name}
        for place in (output, whole)
    )
    assert ours == theirs
    ran = batch(folder, "-o", output, "--verify")
    assert f"{images} proven, 0 problems" in ran.err


@pytest.mark.parametrize(
    "address, code, words",
    [
        ("127.0.0.1:1", 8, "no Ray cluster at 127.0.0.1:1 that could be joined"),
        ("ray://127.0.0.1:1", 2, "is a client's address"),
    ],
)
def test_an_address_where_no_cluster_is_costs_no_time(
    folder: Path, tiny_weights: Path, address: str, code: int, words: str
) -> None:
    mine = ("--weights", tiny_weights, "--engine", "ray", "--address", address)
    ran = ended(start("batch", folder, *mine))
    assert (ran.code, words in ran.err, len(ran.err.splitlines())) == (code, True, 1)


def test_a_cluster_makes_what_one_machine_makes_and_its_logs_name_the_images(
    batch: Run, batch_on: Start, two: Nodes, slow: Path
) -> None:
    ran = ended(batch_on(slow))
    assert (ran.code, "16 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    check(batch, slow)
    logs = "".join(path.read_text() for path in two.logs.glob("worker-*.err"))
    assert "large3.png: begun" in logs and "large3.png: done" in logs
    assert two.workers() == []


def test_a_cluster_takes_images_from_a_store_that_lies_and_puts_results_there(
    batch: Run, batch_on: Start, two: Nodes, folder: Path, s3: Any, lossy: lossy_proxy.Lossy
) -> None:
    s3.put(str(folder), "photos/in", recursive=True)
    ran = ended(batch_on("s3://photos/in", "-o", "s3://photos/out"))
    assert (ran.code, "3 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    batch(folder)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        assert s3.cat(f"photos/out/{name}") == (folder.with_name("in_x4") / name).read_bytes()
    ran = batch("s3://photos/in", "-o", "s3://photos/out", "--verify")
    assert "3 proven, 0 problems" in ran.err
    assert len(two.store.faults) > 2 and len(lossy.faults) > 2  # told to workers, and to others
    assert not s3.glob("photos/out/.*")
    logs = [path.read_text(errors="replace") for path in two.logs.glob("*worker*")]
    assert any("a.png: done" in log for log in logs) and SECRET not in "".join(logs)


def test_a_worker_that_is_killed_costs_nothing(
    batch: Run, batch_on: Start, two: Nodes, slow: Path
) -> None:
    process = batch_on(slow)
    first_result(process)
    two.workers()[0].kill()
    ran = ended(process)
    assert (ran.code, "16 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    check(batch, slow)


@pytest.mark.parametrize("killed", [False, True])
def test_a_large_image_is_made_in_pieces_by_several_workers_whoever_dies(
    batch: Run, batch_on: Start, two: Nodes, tmp_path: Path, killed: bool
) -> None:
    output, folder, name = tmp_path / "out", tmp_path / "slow", f"tall-{killed}.png"
    folder.mkdir()
    make_photo(folder / name, 60, 1500)
    process = batch_on(folder, "--tile", 16, program=CUTTING)
    while killed and not [*output.glob(".tall-*.tmp")] and process.poll() is None:
        time.sleep(0.01)
    for worker in two.workers()[:killed]:
        worker.kill()
    ran = ended(process)
    assert (ran.code, "1 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    check(batch, folder, "--tile", 16, images=1)
    logs = [path.read_text() for path in two.logs.glob("worker-*.err")]
    took_part = [log.count(f"{name}: begun") for log in logs if name in log]
    assert len(took_part) >= 2 + killed and sum(took_part) > 9 + killed, took_part


def test_an_image_that_kills_every_worker_is_given_up_and_named(
    batch: Run, batch_on: Start, two: Nodes, slow: Path
) -> None:
    make_photo(slow / "poison.png", 9, 9)
    ran = ended(batch_on(slow))
    assert (ran.code, "16 done, 0 finished before, 1 failed" in ran.err) == (1, True), ran.err
    assert "poison.png was killed, and so were the next two" in ran.err
    assert list(Ledger(slow.with_name("out")).failures) == ["poison.png"]
    (slow / "poison.png").unlink()
    check(batch, slow)


def test_so_many_failures_are_enough(batch_on: Start, two: Nodes, slow: Path) -> None:
    for number in range(4):
        (slow / f"0{number}.png").touch()
    ran = ended(batch_on(slow, "--max-failures", 2))
    book = Ledger(slow.with_name("out"))
    assert (ran.code, len(book.failures) >= 2, len(book.results) < 16) == (1, True, True), ran.err
    assert two.workers() == []


def test_a_cluster_without_what_workers_take_is_told_of(
    batch_on: Start, two: Nodes, slow: Path
) -> None:
    ran = ended(batch_on(slow, "--device", "cuda", "--precision", "bf16"))
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (8, "", 1), ran.err
    assert "can have a worker: it takes one with a GPU" in ran.err


def test_workers_of_another_version_do_nothing(batch_on: Start, two: Nodes, slow: Path) -> None:
    ran = ended(batch_on(slow, program=ANOTHER_VERSION))
    assert (ran.code, ran.out) == (1, "")
    assert f"There is resshift {__version__} with torch" in ran.err
    assert "and resshift 0.1 with torch" in ran.err
    assert not [*slow.with_name("out").glob("*.png")]


@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_the_same_command_goes_on_when_the_driver_is_ended(
    batch: Run, batch_on: Start, two: Nodes, slow: Path, number: int, code: int
) -> None:
    process = batch_on(slow)
    first_result(process)
    process.send_signal(number)
    assert ended(process).code == code
    # Nobody needs the workers, as the cluster finds out; until then they finish what they have.
    assert psutil.wait_procs(two.workers(), timeout=120)[1] == []
    done = len(Ledger(slow.with_name("out")).results)
    assert 0 < done < 16
    ran = ended(batch_on(slow))
    assert f"{16 - done} done, {done} finished before" in ran.err
    check(batch, slow)


@pytest.mark.parametrize(
    "option, name, words",
    [
        ("--weights", "tiny.safetensors", "The weights of tiny.safetensors on node"),
        ("--output", "results", "results is another folder, or none, on node"),
    ],
)
def test_a_node_that_has_another_file_or_folder_of_the_name_is_left_alone(
    batch_on: Start, two: Nodes, slow: Path, tiny_weights: Path, option: str, name: str, words: str
) -> None:
    other = Path(two.others[-1].cwd())  # where its workers are, too
    (two.home / "tiny.safetensors").write_bytes(tiny_weights.read_bytes())
    (other / "tiny.safetensors").write_bytes(tiny_weights.read_bytes() + b" ")
    (other / "results").mkdir(exist_ok=True)
    ran = ended(batch_on(slow, option, f"/proc/self/cwd/{name}"))
    assert (ran.code, "16 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    assert words in ran.err
    assert not list(other.rglob("*.png"))


def test_a_node_that_is_killed_costs_nothing(
    batch: Run, batch_on: Start, two: Nodes, slow: Path
) -> None:
    process = batch_on(slow)
    first_result(process)
    two.kill_other()
    ran = ended(process)
    assert (ran.code, "16 done, 0 finished before, 0 failed" in ran.err) == (0, True), ran.err
    check(batch, slow)
