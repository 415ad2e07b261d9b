"""Inputs: what is refused when it is opened, what changes while it is read, and stdin."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    UsageError,
)
from resshift_cli.imaging import read, sources
from resshift_cli.imaging.sources import Source


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def test_a_missing_file_is_reported_with_the_nearest_name(tmp_path: Path) -> None:
    saved(Image.new("RGB", (2, 2)), tmp_path / "Holiday_01.png")
    with pytest.raises(InputMissingError, match="no file") as caught:
        read.read(tmp_path / "holiday_1.png")
    assert "Holiday_01.png?" in caught.value.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError) as caught:
        read.read(tmp_path / "missing" / "a.png")
    assert f"no folder {tmp_path / 'missing'}" in caught.value.hint


def test_a_path_through_a_file_and_a_name_too_long_are_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for path in (tmp_path / "a.png" / "b.png", tmp_path / ("x" * 300)):
        with pytest.raises(InputMissingError):
            read.read(path)


def test_a_folder_is_refused_with_a_way_to_name_its_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder") as caught:
        read.read(tmp_path)
    assert f"`resshift batch {tmp_path}`" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UsageError, match="regular file"):
        read.read(tmp_path / "a.png")


def test_a_file_without_read_permission_is_refused(own_folder: Path) -> None:
    path = saved(Image.new("RGB", (2, 2)), own_folder / "a.png")
    path.chmod(0)
    with pytest.raises(InputMissingError, match="Permission denied"):
        read.read(path)


def test_a_file_name_can_not_write_on_the_terminal(tmp_path: Path) -> None:
    name = "a\n\x1b[31mHi\u202e.png"
    for path in (tmp_path / name, tmp_path / os.fsdecode(b"\xff.png")):
        with pytest.raises(InputMissingError) as caught:
            read.read(path)
        assert str(caught.value).isprintable()


def test_a_folder_that_can_not_be_entered_is_told(own_folder: Path) -> None:
    path = saved(Image.new("RGB", (2, 2)), own_folder / "a.png")
    own_folder.chmod(0)
    with pytest.raises(InputMissingError, match="Permission denied"):
        read.read(path)
    with pytest.raises(InputMissingError, match="Permission denied"):
        read.read(own_folder / "b.png")


# What changes


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)


@pytest.mark.parametrize("event", [append, touch, replace, Path.unlink])
def test_a_file_that_was_written_to_or_replaced_is_known(tmp_path: Path, event: Any) -> None:
    source = Source(saved(Image.new("RGB", (2, 2)), tmp_path / "a.png"))
    before = source.state()
    source.check_unchanged(before)
    event(source.path)
    with pytest.raises(ImageUnreadableError, match="a.png changed while it was read"):
        source.check_unchanged(before)


# stdin


class Stdin(io.TextIOWrapper):
    """A standard input that is, or is not, a terminal."""

    def __init__(self, content: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def spool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_what_comes_in_on_stdin_can_be_read_again_and_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = os.urandom(3 << 20)
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    sources.check_stdin()
    with sources.stdin() as source:
        before = source.state()
        for _ in range(2):
            with source.open() as file:
                assert file.fileno() > 2
                assert file.read() == content
        source.check_unchanged(before)
        assert source.name == "<stdin>"


@pytest.mark.skipif(os.name != "posix", reason="files without a name")
def test_it_has_no_name_that_could_be_left_behind(
    monkeypatch: pytest.MonkeyPatch, spool_folder: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"something"))
    with sources.stdin():
        assert list(spool_folder.iterdir()) == []


def test_an_empty_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin())
    with pytest.raises(ImageUnreadableError, match="Nothing came in on stdin"), sources.stdin():
        pass


def test_a_closed_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputMissingError, match="stdin is closed"), sources.stdin():
        pass


def test_nobody_types_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(terminal=True))
    with pytest.raises(UsageError, match="stdin is a terminal") as caught:
        sources.check_stdin()
    assert "< photo.png" in caught.value.hint


def test_a_stdin_that_can_not_be_kept_names_the_folder(
    monkeypatch: pytest.MonkeyPatch, spool_folder: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"something"))
    real = tempfile.TemporaryFile

    class Full:
        def __init__(self) -> None:
            self.file = real()

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(OutputError, match="No space left") as caught, sources.stdin():
        pass
    assert str(spool_folder) in str(caught.value) and "TMPDIR" in caught.value.hint


def test_more_than_is_sane_on_stdin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"something"))
    monkeypatch.setattr(sources, "MOST_STDIN", 5)
    with pytest.raises(ImageUnreadableError, match="came in on stdin"), sources.stdin():
        pass
