"""Results: their names, what is refused before the work, and nothing but whole files."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resshift_cli.errors import OutputError, ResShiftError, UsageError
from resshift_cli.imaging import encode, targets
from resshift_cli.imaging.picture import Picture
from resshift_cli.system import atomic, held

PICTURE = Picture(np.zeros((5, 7, 3), np.float32))

# What results are called


@pytest.mark.parametrize("name, scale, expected", [
    ("photo.png", 4, "photo_x4.png"), ("photo.jpg", 4.0, "photo_x4.jpg"),
    ("photo.JPEG", 2.5, "photo_x2.5.JPEG"), ("a.b.webp", 16, "a.b_x16.webp"),
    ("photo.tif", 4, "photo_x4.tif"), ("photo.gif", 4, "photo_x4.png"),
    ("photo", 4, "photo_x4.png"), ("photo.data", 4, "photo_x4.png"),
])  # fmt: skip
def test_a_result_is_named_after_its_input_and_scale(
    name: str, scale: float, expected: str
) -> None:
    path = targets.output_path(
        Path("in") / name, mark=f"_x{scale:g}", destination=None, several=False
    )
    assert path == Path("in") / expected


def test_a_destination_is_a_folder_if_it_is_one_or_ends_like_one(tmp_path: Path) -> None:
    source = Path("in/a.png")
    assert targets.output_path(source, mark="_x4", destination=tmp_path) == tmp_path / "a_x4.png"
    assert targets.output_path(source, mark="_x4", destination="new/") == Path("new/a_x4.png")
    assert targets.output_path(source, mark="_x4", destination="new") == Path("new")
    assert targets.output_path(source, mark="_x4", destination="b.jpg") == Path("b.jpg")
    several = targets.plan_outputs([source, Path("b.gif")], mark="_x2", destination="new")
    assert several == [Path("new/a_x2.png"), Path("new/b_x2.png")]


@pytest.mark.parametrize("destination", ["b.png", "file"])
def test_several_results_do_not_go_to_one_file(tmp_path: Path, destination: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Several results"):
        targets.plan_outputs(
            [Path("a.png"), Path("b.png")], mark="_x4", destination=tmp_path / destination
        )


def test_two_inputs_with_the_same_result_are_both_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one/a\.png and two/a\.png"):
        targets.plan_outputs(
            [Path("one/a.png"), Path("two/a.png")], mark="_x4", destination=f"{tmp_path}/"
        )
    with pytest.raises(UsageError, match=r"a\.gif and a\.png"):
        targets.plan_outputs([Path("a.gif"), Path("a.png")], mark="_x4")


def test_a_result_never_replaces_an_input(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.touch()
    (tmp_path / "link.png").symlink_to(source)
    for destination in (source, tmp_path / "link.png", f"{tmp_path}/./a.png"):
        with pytest.raises(UsageError, match="replace the input"):
            targets.plan_outputs([source], mark="_x4", destination=destination)
    with pytest.raises(UsageError, match="replace the input"):
        targets.plan_outputs([source, tmp_path / "a_x4.png"], mark="_x4")


# Before the work


def test_a_writable_place_passes_and_nothing_stays_behind(tmp_path: Path) -> None:
    targets.check_writable(tmp_path / "a.png", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_255_bytes_is_written_and_a_longer_one_refused_before_the_work(
    tmp_path: Path,
) -> None:
    path = tmp_path / ("é" * 125 + "x.png")
    targets.check_writable(path, overwrite=False)
    targets.save(b"new", path, overwrite=False)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="too long"):
        targets.check_writable(tmp_path / ("x" * 252 + ".png"), overwrite=False)


@pytest.mark.parametrize("check", [
    lambda path: targets.check_writable(path, overwrite=False),
    lambda path: encode.write(PICTURE, path, overwrite=False),
])  # fmt: skip
@pytest.mark.parametrize("place, error, message", [
    ("a.xyz", UsageError, "extension .xyz"), ("a", UsageError, "without an extension"),
    ("there.png", OutputError, "exists already"),
    ("folder.png", OutputError, "is a folder"), ("missing/a.png", OutputError, "no folder"),
    ("there.png/a.png", OutputError, "not a folder"),
])  # fmt: skip
def test_an_impossible_target_is_refused_with_a_hint(
    tmp_path: Path, place: str, error: type[ResShiftError], message: str, check: Any
) -> None:
    (tmp_path / "there.png").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(error, match=message) as caught:
        check(tmp_path / place)
    assert caught.value.hint
    assert (tmp_path / "there.png").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_or_pipe_is_not_replaced_even_with_overwrite(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OutputError, match="regular file"):
        targets.check_writable(tmp_path / "a.png", overwrite=True)


def test_a_file_or_folder_without_write_permission_is_refused(own_folder: Path) -> None:
    path = own_folder / "a.png"
    path.touch()
    path.chmod(0o444)
    with pytest.raises(OutputError, match="write-protected"):
        targets.check_writable(path, overwrite=True)
    own_folder.chmod(0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        targets.check_writable(own_folder / "b.png", overwrite=False)
    own_folder.chmod(0)
    with pytest.raises(OutputError, match="Permission denied"):
        targets.check_writable(own_folder / "b.png", overwrite=False)


def test_a_folder_is_created_with_those_above_it(tmp_path: Path) -> None:
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.make_folder(tmp_path / "a" / "b")
    targets.check_writable(tmp_path / "a" / "b" / "c.png", overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be made"):
        atomic.make_folder(tmp_path / "file" / "b")


# Saving


def has_unnamed(folder: Path) -> bool:
    with held.opened(folder) as place:
        file = place.nameless()
        if file is not None:
            file.close()
        return file is not None


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    targets.save(b"new", tmp_path / "a.png", overwrite=False)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_a_link_and_what_it_points_at_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    targets.save(b"new", tmp_path / "link.png", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"new"


@pytest.mark.parametrize("way", ["unnamed", "hard links", "neither"])
def test_a_file_that_appears_during_the_save_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = tmp_path / "a.png"
    link = os.link

    def link_late(*arguments: Any, **options: Any) -> None:
        path.write_bytes(b"precious")
        if way == "neither":
            raise PermissionError
        link(*arguments, **options)

    if way != "unnamed":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(os, "link", link_late)
    with pytest.raises(OutputError, match="exists already"):
        targets.save(b"new", path, overwrite=False)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_hard_links_is_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str, **folders: Any) -> None:
        raise PermissionError

    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(os, "link", refuse)
    targets.save(b"new", tmp_path / "a.png", overwrite=False)
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_or_ctrl_c_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool, step: str, failure: BaseException
) -> None:
    if named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not has_unnamed(tmp_path):
        pytest.skip("no unnamed files here")

    def fail(*arguments: Any, **folders: Any) -> None:
        assert len(list(tmp_path.glob(".a.png.*.tmp"))) == (named or step == "replace")
        raise failure

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        targets.save(b"new", tmp_path / "a.png", overwrite=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "é" * 120 + ".png"]
    stale = [atomic.temporary(tmp_path / name) for name in names]
    others = [tmp_path / name for name in (".a.png.tmp", ".a.png.0123abcX.tmp", ".c.0123abcd.tmp")]
    for path in (*stale, *others):
        path.touch()
    (tmp_path / ".a.png.01234567.tmp").mkdir()
    atomic.remove_temporaries(tmp_path / name for name in (*names, "missing/d.png"))
    assert set(tmp_path.iterdir()) == {*others, tmp_path / ".a.png.01234567.tmp"}


# stdout


class Stdout(io.TextIOWrapper):
    """A standard output that is, or is not, a terminal."""

    def __init__(self, raw: Any, *, terminal: bool = False) -> None:
        super().__init__(raw)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_bytes_go_to_stdout_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Stdout(raw))
    targets.check_stdout()
    targets.to_stdout(b"\x89PNG\r\n\x1a\n\0\xff")
    assert raw.getvalue() == b"\x89PNG\r\n\x1a\n\0\xff"


def test_no_image_is_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Stdout(io.BytesIO(), terminal=True))
    with pytest.raises(UsageError, match="stdout is a terminal") as caught:
        targets.check_stdout()
    assert "-o" in caught.value.hint


def test_a_closed_stdout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="stdout is closed"):
        targets.check_stdout()


@pytest.mark.parametrize(
    "failure, expected",
    [(BrokenPipeError(), BrokenPipeError), (OSError(28, "No space left on device"), OutputError)],
)
def test_a_stdout_that_fails_is_told_apart_from_one_that_nobody_reads(
    monkeypatch: pytest.MonkeyPatch, failure: OSError, expected: type[Exception]
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise failure

    monkeypatch.setattr(sys, "stdout", Stdout(Full()))
    with pytest.raises(expected):
        targets.to_stdout(b"image")
