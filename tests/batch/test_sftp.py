"""Batches between folders of another machine, by SFTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sftp_server
from batch_folder import results
from command_line import Run, raises
from fsspec.implementations.sftp import SFTPFileSystem

from resshift_cli.batch import ledger
from resshift_cli.system import atomic


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder that the server has."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def server(there: Path) -> Iterator[str]:
    with sftp_server.serving(there) as url:
        yield url
        for system in SFTPFileSystem._cache.values():
            system.client.close()
        SFTPFileSystem.clear_instance_cache()


def test_results_are_those_of_folders_here_and_no_login_is_told_of(
    batch: Run, folder: Path, server: str, there: Path
) -> None:
    shutil.copytree(folder, there / "in")
    ran = batch(f"{server}/in", "-o", f"{server}/deep/out")
    assert (ran.code, "3 done" in ran.err) == (0, True), ran.err
    assert batch(folder).code == 0
    made, here = results(there / "deep" / "out"), results(folder.with_name("in_x4"))
    assert {name: made[name] for name in here} == here
    assert "0 done, 3 finished before" in batch(f"{server}/in", "-o", f"{server}/deep/out").err
    proof = batch(f"{server}/in", "-o", f"{server}/deep/out", "--verify")
    assert (proof.code, "3 proven, 0 problems" in proof.err) == (0, True)
    told = ran.out + ran.err + proof.err + str([*ledger.Ledger(there / "deep" / "out").texts()])
    assert "in" in told and sftp_server.PASSWORD not in told and f"{sftp_server.USER}:" not in told
    assert not list(there.rglob(".*"))


def test_what_was_killed_or_failed_leaves_nothing_half_there(
    batch: Run, folder: Path, server: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "out").mkdir()
    for name in ("a.png", "resshift-batch.20261129T200000-01234567.000001.jsonl.gz"):
        (there / "out" / atomic.temporary_name(name)).touch()
    monkeypatch.setattr(SFTPFileSystem, "mv", raises(PermissionError("not now")))
    assert batch(folder, "-o", f"{server}/out").code == 6
    monkeypatch.undo()
    assert batch(folder, "-o", f"{server}/out").code == 0
    assert not list(there.rglob(".*"))


def test_a_login_that_is_wrong_is_said_in_a_line(batch: Run, server: str) -> None:
    wrong = server.replace(sftp_server.PASSWORD, "guess")
    ran = batch(f"{wrong}/in")
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "can't be listed" in ran.err and "login" in ran.err and "guess" not in ran.err
    traced = batch(f"{wrong}/in", "--debug").err
    assert "Traceback" in traced and "guess" not in traced
