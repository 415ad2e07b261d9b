"""What is in the folder of results leads nowhere else, whoever put it there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from batch_folder import lines
from command_line import Run, make_photo, posix

from resshift_cli.batch import ledger
from resshift_cli.imaging import targets
from resshift_cli.system import digests

pytestmark = posix


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of the user's, with a file that is read by a shell."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".bashrc").write_text("precious")
    return tmp_path / "home"


@pytest.fixture
def output(folder: Path) -> Path:
    output = folder.with_name("in_x4")
    output.mkdir()
    return output


def untouched(home: Path) -> bool:
    return [(path.name, path.read_text()) for path in home.iterdir()] == [(".bashrc", "precious")]


@pytest.mark.parametrize("name", [ledger.NAME, ledger.LOCK])
@pytest.mark.parametrize("kind", ["link", "broken", "hard", "pipe", "device"])
def test_a_ledger_or_lock_that_is_another_file_is_refused_at_once(
    batch: Run, folder: Path, output: Path, home: Path, name: str, kind: str
) -> None:
    path = output / name
    if kind == "hard":
        path.hardlink_to(home / ".bashrc")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        to = {"link": home / ".bashrc", "broken": home / "new", "device": Path("/dev/zero")}
        path.symlink_to(to[kind])
    ran = batch(folder)
    assert ran.code == 6
    assert f"{name} {'is' if kind != 'hard' else 'has'} " in ran.err
    assert untouched(home) and set(os.listdir(output)) <= {name, ledger.LOCK}
    if name == ledger.NAME:
        assert batch(folder, "--dry-run").code == 6


def test_no_result_is_written_through_a_linked_folder(
    batch: Run, folder: Path, output: Path, home: Path
) -> None:
    (output / "sub").symlink_to(home)
    for options in ([], ["--overwrite"]):
        ran = batch(folder, *options)
        assert ran.code == 1
        assert "in_x4/sub is a link" in ran.err
        assert untouched(home)
    assert {line["input"] for line in lines(output) if line["status"] == "done"} == {
        "a.png",
        "b.jpg",
    }


def test_a_linked_result_is_replaced_itself_and_only_when_asked(
    batch: Run, folder: Path, output: Path, home: Path
) -> None:
    (output / "a.png").symlink_to(home / ".bashrc")
    refused = batch(folder)
    assert "a.png exists already" in refused.err and "2 done" in refused.err
    assert batch(folder, "--overwrite").code == 0
    assert untouched(home) and not (output / "a.png").is_symlink()


def test_no_forged_line_has_a_link_or_what_it_leads_to_replaced(
    batch: Run, folder: Path, output: Path, home: Path
) -> None:
    batch(folder)
    (output / "a.png").unlink()
    (output / "a.png").symlink_to(home / ".bashrc")
    forged = lines(output)[0] | {
        "output_sha256": digests.digest(home / ".bashrc"),
        "output_bytes": 8,
        "input_sha256": "0",
    }
    with (output / ledger.NAME).open("a") as file:
        for status in ("done", "writing"):
            file.write(json.dumps(forged | {"status": status}) + "\n")
    ran = batch(folder)
    assert ran.code == 1
    assert untouched(home) and (output / "a.png").is_symlink()


def test_no_forged_line_has_a_file_replaced_that_a_batch_did_not_make(
    batch: Run, folder: Path, output: Path
) -> None:
    batch(folder)
    forged = lines(output)[0] | {"status": "writing"}
    del forged["output_sha256"], forged["output_bytes"]
    with (output / ledger.NAME).open("a") as file:
        file.write(json.dumps(forged) + "\n")
    (output / "a.png").write_bytes(b"precious")
    ran = batch(folder)
    assert (ran.code, (output / "a.png").read_bytes()) == (1, b"precious")


def test_no_forged_line_has_files_elsewhere_removed(
    batch: Run, folder: Path, output: Path, home: Path
) -> None:
    batch(folder)
    line = lines(output)[0] | {"status": "writing", "input": "z.png"}
    kept = [home / ".z.png.01234567.tmp", output / ".z.png.01234567.tmp"]
    for path in kept:
        path.touch()
    (output / "way").symlink_to(home)
    with (output / ledger.NAME).open("a") as file:
        for place in ("../home/z.png", str(home / "z.png"), "way/z.png"):
            file.write(json.dumps(line | {"output": place, "input": place}) + "\n")
    assert batch(folder).code == 0
    assert all(path.exists() for path in kept)


def test_a_folder_of_results_that_is_moved_meanwhile_is_not_made_anew(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, output = targets.save_below, folder.with_name("in_x4")
    saved: list[str] = []

    def saving(*given: object, **options: object) -> None:
        if saved:
            output.rename(output.with_name("moved"))
        saved.append("")
        save(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(targets, "save_below", saving)
    ran = batch(folder)
    monkeypatch.undo()
    assert ran.code == 6
    assert "in_x4 was moved or removed while results were written to it" in ran.err
    assert not output.exists()
    again = batch(folder, "-o", output.with_name("moved"))
    assert (again.code, "1 finished before" in again.err) == (0, True)


def test_what_is_replaced_stays_as_accessible_as_it_was(
    batch: Run, folder: Path, output: Path
) -> None:
    make_photo(output / "a.png", 9, 9).chmod(0o600)
    assert batch(folder, "--overwrite").code == 0
    assert (output / "a.png").stat().st_mode & 0o777 == 0o600
