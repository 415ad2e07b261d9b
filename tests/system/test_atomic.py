"""Files without a name, which become whole files or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from resshift_cli.errors import OutputError
from resshift_cli.imaging import targets
from resshift_cli.system import atomic


@pytest.fixture
def unnamed(tmp_path: Path) -> Iterator[BinaryIO]:
    file = atomic.unnamed(tmp_path)
    if file is None:
        pytest.skip("no unnamed files on this system or file system")
    with file:
        yield file


def test_an_unnamed_file_is_nowhere_to_be_seen_until_it_gets_its_name_and_then_whole(
    tmp_path: Path, unnamed: BinaryIO
) -> None:
    unnamed.write(b"begun, ")
    unnamed.seek(0, os.SEEK_END)  # as TIFF goes to and fro
    unnamed.write(b"done")
    unnamed.flush()
    assert list(tmp_path.iterdir()) == []
    atomic.name(unnamed, tmp_path / "a")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"begun, done"]


def test_it_has_the_permissions_of_any_new_file(tmp_path: Path, unnamed: BinaryIO) -> None:
    (tmp_path / "plain").touch()
    atomic.name(unnamed, tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_that_is_taken_is_not_given_to_it(tmp_path: Path, unnamed: BinaryIO) -> None:
    (tmp_path / "a").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            atomic.name(unnamed, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_is_killed_leaves_nothing_of_it(tmp_path: Path, unnamed: BinaryIO) -> None:
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, overwrite: bool
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(95, "Operation not supported")

    if lacks == "the system":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif lacks == "the file system":
        monkeypatch.setattr(os, "open", refuse)
    else:
        monkeypatch.setattr(os.path, "isdir", lambda path: not str(path).startswith("/proc"))
    assert atomic.unnamed(tmp_path) is None
    seen: list[str] = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        seen.extend(path.name for path in tmp_path.glob(".a.png.*.tmp"))

    targets.save(write, tmp_path / "a.png", overwrite=overwrite)
    assert len(seen) == 1
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"new")]


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert atomic.unnamed(tmp_path / "missing") is None


def test_a_file_that_takes_anothers_place_has_reached_the_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*given: object) -> object:
            done.append(name)
            return real(*given)

        monkeypatch.setattr(os, name, call)

    noted("fsync")
    noted("replace")
    atomic.write(tmp_path / "a", b"new")
    assert done == ["fsync", "replace", "fsync"]  # the content, its name, the folder
    assert (tmp_path / "a").read_bytes() == b"new"


def test_only_the_file_itself_is_said_to_be_unwritable(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "a"):
        (tmp_path / "another").read_bytes()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="a can't be written"):
        atomic.write(tmp_path / "none" / "a", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of files' sizes")
def test_a_full_disk_is_told_by_the_name_that_the_file_would_have(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from resshift_cli.errors import OutputError; from resshift_cli.system import atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: atomic.write(Path(sys.argv[1]), bytes(1 << 20))\n"
        "except OutputError as error: print(error, atomic.is_full(error))"
    )
    (tmp_path / "a").write_bytes(b"old")
    told = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "a")], text=True)
    assert told == f"{tmp_path / 'a'} can't be written: File too large. True\n"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
