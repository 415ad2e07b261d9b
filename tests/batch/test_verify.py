"""A finished folder is proven: every input has its result, and every digest is right."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Run, make_photo, posix
from command_line import files as files_of

from resshift_cli.batch.table import Row, write
from resshift_cli.restoration.upscaler import Upscaler

pytestmark = posix


@pytest.fixture
def output(batch: Run, folder: Path) -> Path:
    """Results of `folder`."""
    assert batch(folder).code == 0
    return folder.with_name("in_x4")


def test_a_finished_folder_is_proven_without_a_model(
    batch: Run, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(folder.parent)
    monkeypatch.setattr(Upscaler, "load", None)
    ran = batch(folder, "--verify", "--weights", "nowhere")
    assert (ran.code, ran.err.splitlines()[-1]) == (
        0,
        f"3 images in {folder}: 3 proven, 0 problems. Results are in {output}",
    )
    assert files_of(folder.parent) == before


def touched(path: Path) -> None:
    """As large as before, and as old."""
    content, state = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "where, event, words",
    [
        ("in", touched, "a.png was changed since its result was made"),
        ("in_x4", touched, "a.png has a result that was changed since it was made"),
        ("in_x4", Path.unlink, "a.png has lost its result"),
        ("in_x4", linked, "a.png has a link, or no file, for a result"),
    ],
)
def test_what_is_not_as_it_was_is_told_of(
    batch: Run, folder: Path, output: Path, where: str, event: Callable[[Path], None], words: str
) -> None:
    event(folder.with_name(where) / "a.png")
    ran = batch(folder, "--verify")
    assert ran.code == 1
    assert words in ran.err and "2 proven, 1 problem" in ran.err


def test_inputs_without_a_result_are_not_proven_and_those_that_are_gone_are_counted(
    batch: Run, folder: Path, output: Path
) -> None:
    (folder / "b.jpg").unlink()
    (folder / "bad.png").touch()
    batch(folder)
    make_photo(folder / "new.png", 5, 5)
    report = json.loads(batch(folder, "--verify", "--json", "-q").out)
    assert report["counts"] == {"found": 4, "proven": 2, "problems": 2, "without_input": 1}
    messages = {problem["input"]: problem["message"] for problem in report["problems"]}
    assert messages["new.png"] == "has no result"
    assert "is empty" in messages["bad.png"] and messages["bad.png"][-1] != "."


@pytest.mark.parametrize("suffix", [".csv", ".html"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_report_tells_people_of_every_image(
    batch: Run, folder: Path, output: Path, suffix: str, verify: bool
) -> None:
    (folder / "bad.png").touch()
    (folder / "<b>&.png").write_bytes(make_photo(folder / "=1+1.png", 5, 5).read_bytes())
    path = folder.with_name(f"report{suffix}")
    ran = batch(folder, "--report", path, *(["--verify"] if verify else []))
    assert ran.code == 1
    text = path.read_text()
    if suffix == ".csv":
        rows = {row["input"]: row for row in csv.DictReader(text.splitlines())}
        assert set(rows) == {"a.png", "b.jpg", "sub/c.png", "bad.png", "<b>&.png", "'=1+1.png"}
        assert rows["a.png"]["status"] == ("proven" if verify else "finished before")
        assert len(rows["a.png"]["output_sha256"]) == 64
    else:
        assert "&lt;b&gt;&amp;.png" in text and "<b>" not in text
        assert text.count("<tr") == 7


@pytest.mark.parametrize("name", ["=cmd", "+1", "-1", "@a"])
def test_no_name_becomes_a_formula(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.csv", [Row(name, "new\rline", "done", remark=name)], "")
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["input"], row["output"], row["remark"]) == (f"'{name}", "new\\rline", f"'{name}")
