"""Files appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import posix

from resshift_cli.errors import OutputError
from resshift_cli.system import atomic


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


@posix
def test_what_takes_the_place_of_a_private_file_is_as_private(tmp_path: Path) -> None:
    (tmp_path / "models.toml").touch(0o600)
    atomic.write(tmp_path / "models.toml", b"new")
    assert (tmp_path / "models.toml").stat().st_mode & 0o777 == 0o600
