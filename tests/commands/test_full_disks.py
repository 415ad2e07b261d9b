"""A full disk costs nothing that was there or done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ran
from faults import COUNTS, errors_only, found_in, make, no_file_beyond, on_unix, run

from resshift_cli.batch import worker
from resshift_cli.commands import app as cli

pytestmark = on_unix


def test_upscale_on_a_full_disk_leaves_the_old_file_as_it_was(
    tmp_path: Path, quick: tuple[object, ...], disk: Callable[[str], Path]
) -> None:
    photo = make(tmp_path / "photo.png", 40, 40)
    place = disk("size=32k")
    old = make(place / "old.png", 4, 4)
    before = found_in(place)
    for target in (old, place / "new.png"):
        ran = run("upscale", photo, "-o", target, "--overwrite", *quick)
        assert (ran.code, ran.out) == (6, "")
        assert "can't be written: No space left on device" in errors_only(ran.err)[-1]
        assert found_in(place) == before
        COUNTS["full disks, upscale"] += 1


def test_upscale_that_may_write_no_file_so_large_leaves_the_old_one_as_it_was(
    tmp_path: Path, quick: tuple[object, ...]
) -> None:
    photo, old = make(tmp_path / "photo.png", 40, 40), make(tmp_path / "old.png", 4, 4)
    before = found_in(tmp_path)
    ran = run("upscale", photo, "-o", old, "--overwrite", *quick, program=no_file_beyond(9000))
    assert (ran.code, len(errors_only(ran.err))) == (6, 1)
    assert "File too large" in ran.err
    assert found_in(tmp_path) == before


def test_a_batch_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(
    tmp_path: Path, dozen: Path, quick: tuple[object, ...], disk: Callable[[str], Path]
) -> None:
    whole = tmp_path / "whole"
    assert run("batch", dozen, "-o", whole, *quick).code == 0
    need = sum(map(len, found_in(whole).values()))
    place = disk(f"size={worker.SPARE + need // 2}")
    ran = run("batch", dozen, "-o", place / "out", *quick)
    assert (ran.code, len(errors_only(ran.err))) == (6, 1)
    assert "the disk is full, or nearly so. Make room" in ran.err
    halfway = found_in(place / "out")
    assert 0 < len(halfway) < 12
    assert halfway.items() <= found_in(whole).items()
    disk(f"size={worker.SPARE + 4 * need}")
    assert run("batch", dozen, "-o", place / "out", *quick) == Ran(0, "", "")
    assert found_in(place / "out") == found_in(whole)
    COUNTS["full disks, batch"] += 1


@pytest.mark.parametrize("size", [28_000, 60_000, 150_000])
def test_a_disk_that_turns_out_to_be_full_costs_a_batch_nothing_that_was_done(
    dozen: Path,
    quick: tuple[object, ...],
    disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    size: int,
) -> None:
    def go(output: Path) -> Ran:
        code = cli.run([str(word) for word in ("batch", dozen, "-o", output, *quick)])
        return Ran(code, *capfd.readouterr())

    monkeypatch.setattr(worker, "SPARE", -(10**9))  # as if others had filled it meanwhile
    place = disk(f"size={size}")
    ran = go(place / "out")
    assert (ran.code, len(errors_only(ran.err))) == (6, 1)
    assert "Make room, then run the same command again" in ran.err
    assert not list(place.rglob("*.tmp"))
    disk("size=10m")
    assert go(place / "out") == Ran(0, "", "")
    assert go(dozen.with_name("whole")).code == 0
    assert found_in(place / "out") == found_in(dozen.with_name("whole"))
    COUNTS["full disks, batch"] += 1


def test_a_batch_that_may_write_no_file_so_large_does_the_small_ones_and_then_the_rest(
    tmp_path: Path, dozen: Path, quick: tuple[object, ...]
) -> None:
    make(dozen / "large.png", 60, 60)
    output = tmp_path / "out"
    ran = run("batch", dozen, "-o", output, *quick, program=no_file_beyond(40_000))
    assert (ran.code, len(errors_only(ran.err))) == (1, 1)
    assert "large.png can't be written: File too large" in ran.err
    assert found_in(output).keys() == {path.name for path in dozen.iterdir()} - {"large.png"}
    assert run("batch", dozen, "-o", output, *quick) == Ran(0, "", "")
    assert run("batch", dozen, "-o", tmp_path / "whole", *quick).code == 0
    assert found_in(output) == found_in(tmp_path / "whole")
