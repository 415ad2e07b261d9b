"""Folders held open: what is done in them is done there, and through no link."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from command_line import posix

from resshift_cli.errors import OutputError
from resshift_cli.imaging import targets
from resshift_cli.system import held, locks
from resshift_cli.system.held import HeldFolder
from resshift_cli.system.journal import Journal


@pytest.fixture
def here(tmp_path: Path) -> Iterator[HeldFolder]:
    with held.opened(tmp_path) as folder:
        yield folder


@pytest.fixture
def unnamed(here: HeldFolder) -> Iterator[BinaryIO]:
    file = here.nameless()
    if file is None:
        pytest.skip("no unnamed files on this system or file system")
    with file:
        yield file


def test_an_unnamed_file_is_nowhere_to_be_seen_until_it_gets_its_name_and_then_whole(
    tmp_path: Path, here: HeldFolder, unnamed: BinaryIO
) -> None:
    unnamed.write(b"begun, ")
    unnamed.seek(0, os.SEEK_END)  # as TIFF goes to and fro
    unnamed.write(b"done")
    unnamed.flush()
    assert list(tmp_path.iterdir()) == []
    here.give_name(unnamed, "a")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"begun, done"]


def test_it_has_the_permissions_of_any_new_file(
    tmp_path: Path, here: HeldFolder, unnamed: BinaryIO
) -> None:
    (tmp_path / "plain").touch()
    here.give_name(unnamed, "a")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_that_is_taken_is_not_given_to_it(
    tmp_path: Path, here: HeldFolder, unnamed: BinaryIO
) -> None:
    (tmp_path / "a").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            here.give_name(unnamed, name)
    assert (tmp_path / "a").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_is_killed_leaves_nothing_of_it(
    tmp_path: Path, here: HeldFolder, unnamed: BinaryIO
) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from resshift_cli.imaging import targets\n"
        "def write(file):\n"
        "    file.write(bytes(1000)); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "targets.save(write, Path(sys.argv[1]), overwrite=True)"
    )
    (tmp_path / "a.png").write_bytes(b"old")
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")])
    assert ran.returncode == -9
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("lacks", ["the system", "the file system", "proc"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_where_there_are_none_a_result_is_written_under_a_hidden_name(
    tmp_path: Path, here: HeldFolder, monkeypatch: pytest.MonkeyPatch, lacks: str, overwrite: bool
) -> None:
    open_file = os.open

    def refuse(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if path == ".":
            raise OSError(95, "Operation not supported")
        return open_file(path, flags, *rest, **options)

    if lacks == "the system":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif lacks == "the file system":
        monkeypatch.setattr(os, "open", refuse)
    else:
        monkeypatch.setattr(os.path, "isdir", lambda path: not str(path).startswith("/proc"))
    assert here.nameless() is None
    seen: list[str] = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        seen.extend(path.name for path in tmp_path.glob(".a.png.*.tmp"))

    targets.save(write, tmp_path / "a.png", overwrite=overwrite)
    assert len(seen) == 1
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"new")]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the user's own, elsewhere."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / ".bashrc"
    path.write_text("precious")
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def plant(kind: str, path: Path, outside: Path) -> None:
    """Put something in the place of a file of ours."""
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "broken link":
        path.symlink_to(outside.with_name("new"))
    elif kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")


KINDS = {
    "link": "is a link",
    "broken link": "is a link",
    "hard link": "has another name",
    "pipe": "is not a regular file",
    "device": "is a link",
}


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_is_a_file_of_its_own_or_refused_at_once(
    results: Path, outside: Path, kind: str
) -> None:
    plant(kind, results / "j.jsonl", outside)
    journal = Journal(results / "j.jsonl", hint="")
    with pytest.raises(OutputError, match=KINDS[kind]):
        list(journal.lines())
    with pytest.raises(OutputError, match=KINDS[kind]):
        journal.append({"a": "$(touch pwned)"})
    assert outside.read_text() == "precious"
    assert [path.name for path in outside.parent.iterdir()] == [".bashrc"]


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_is_a_file_of_its_own_or_refused_at_once(
    results: Path, outside: Path, kind: str
) -> None:
    plant(kind, results / "lock", outside)
    with (
        pytest.raises(OutputError, match=KINDS[kind]),
        locks.at_once(results / "lock", busy="", hint=""),
    ):
        pass
    assert outside.read_text() == "precious"


@posix
def test_a_file_of_another_user_is_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(results / "j.jsonl", hint="").append({})
    monkeypatch.setattr(os, "geteuid", lambda: (results / "j.jsonl").stat().st_uid + 1)
    with pytest.raises(OutputError, match="belongs to another user"):
        list(Journal(results / "j.jsonl", hint="").lines())


@posix
def test_results_stay_in_their_folder_whatever_links_are_in_it(
    results: Path, outside: Path
) -> None:
    (results / "sub").symlink_to(outside.parent)
    (results / "a.png").symlink_to(outside)
    with held.opened(results) as place:
        with pytest.raises(OutputError, match="sub is a link"):
            targets.save_below(b"new", place, "sub/.bashrc", overwrite=True)
        with pytest.raises(OutputError, match="exists already"):
            targets.save_below(b"new", place, "a.png", overwrite=False)
        targets.save_below(b"new", place, "a.png", overwrite=True)
        targets.save_below(b"new", place, "deep/er/b.png", overwrite=False)
    assert outside.read_text() == "precious"
    assert not (results / "a.png").is_symlink() and (results / "a.png").read_bytes() == b"new"
    assert (results / "deep" / "er" / "b.png").read_bytes() == b"new"


@posix
def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(
    results: Path, outside: Path
) -> None:
    def swap(file: BinaryIO) -> None:
        file.write(b"new")
        (results / "sub").rename(results / "was")
        (results / "sub").symlink_to(outside.parent)

    with held.opened(results) as place:
        targets.save_below(swap, place, "sub/.bashrc", overwrite=True)
    assert outside.read_text() == "precious"
    assert (results / "was" / ".bashrc").read_bytes() == b"new"


@posix
def test_a_folder_knows_when_it_is_called_otherwise(results: Path) -> None:
    with held.opened(results) as place:
        assert place.is_still_there()
        results.rename(results.with_name("moved"))
        assert not place.is_still_there()
        results.mkdir()
        assert not place.is_still_there()


@posix
def test_what_replaces_a_file_is_as_accessible_as_that_was(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    targets.save(b"new", path, overwrite=True)
    after = path.stat()
    assert path.read_bytes() == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


@posix
def test_special_permissions_are_not_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    path.chmod(0o6755)
    targets.save(b"new", path, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
