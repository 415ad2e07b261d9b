"""What may not be read or written, and names that nobody expects."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ran
from faults import (
    COUNTS,
    FAULTS,
    environment,
    errors_only,
    found_in,
    make,
    on_unix,
    run,
    run_from_nothing,
)

pytestmark = on_unix


def without_rights(*arguments: object) -> Ran:
    """Run the command with no more rights than the files give; root may else do everything."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read and write everything, and there is no setpriv")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    return run(*arguments, prefix=prefix)


def test_a_closed_folder_of_results_is_refused_before_the_work(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for words in (
        ("upscale", dozen / "00.png", "-o", closed / "a.png"),
        ("upscale", dozen / "00.png", dozen / "01.png", "-o", f"{closed}/new/"),
        ("batch", dozen, "-o", closed),
        ("batch", dozen, "-o", closed / "new"),
    ):
        ran = without_rights(*words, *quick)
        assert (ran.code, ran.out, len(errors_only(ran.err))) == (6, "", 1), ran
        assert list(closed.iterdir()) == []
        COUNTS["closed doors"] += 1


def test_a_disk_for_reading_only_is_refused_before_the_work(
    dozen: Path, quick: tuple[object, ...], disk: Callable[[str], Path]
) -> None:
    place = disk("size=1m")
    make(place / "old.png")
    before = found_in(place)
    disk("ro")
    for words in (
        ("upscale", dozen / "00.png", "-o", place / "a.png"),
        ("upscale", dozen / "00.png", "-o", place / "old.png", "--overwrite"),
        ("batch", dozen, "-o", place / "new"),
        ("batch", dozen, "-o", place),
    ):
        ran = run(*words, *quick)
        assert (ran.code, ran.out, len(errors_only(ran.err))) == (6, "", 1), ran
        assert found_in(place) == before
        COUNTS["closed doors"] += 1


def test_what_can_not_be_read_is_told_and_the_rest_is_done(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    (dozen / "shut").mkdir()
    make(dozen / "shut" / "inside.png")
    (dozen / "shut").chmod(0)
    (dozen / "00.png").chmod(0)
    output = tmp_path / "out"
    try:
        ran = without_rights("batch", dozen, "-o", output, *quick)
        alone = without_rights("upscale", dozen / "00.png", *quick)
        inside = without_rights("upscale", dozen / "shut" / "inside.png", *quick)
    finally:
        (dozen / "shut").chmod(0o755)
    assert (ran.code, len(errors_only(ran.err))) == (1, 2)
    assert len(found_in(output)) == 11
    for refused in (alone, inside):
        assert (refused.code, refused.out, len(errors_only(refused.err))) == (3, "", 1)
        assert "Permission denied" in refused.err
    assert not list(dozen.rglob("*_x4*"))
    COUNTS["closed doors"] += 4


NAMES = (
    b"line\nbreak.png",
    b"\x1b]0;title\x07\x1b[2J.png",
    "\N{GRINNING FACE}\N{ZERO WIDTH JOINER}\N{WOMAN}.png".encode(),
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png".encode(),
    b"not \xff\xfe utf-8.png",
    b" .png",
    b"-o.png",
    b"[bold]{0}%s$HOME.png",
    b"n" * 251 + b".png",
)


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"] if FAULTS > 1 else ["C"])
def test_no_name_is_too_odd_and_none_reaches_the_terminal_as_it_is(
    tmp_path: Path, quick: tuple[object, ...], locale: str
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        make(tmp_path / "a.png", 6, 6, seed=number).rename(folder / os.fsdecode(name))
    env = environment() | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    loud = [word for word in quick if word != "--quiet"]
    ran = run_from_nothing("batch", folder, "-o", output, *loud, env=env)
    assert (ran.code, len(ran.out.splitlines())) == (0, len(NAMES)), ran
    assert {os.fsencode(path.name) for path in output.glob("*.png")} == set(NAMES)
    # Their results have longer names: that of 255 bytes can't be one's beginning.
    sources = [folder / os.fsdecode(name) for name in NAMES if len(name) < 250]
    alone = run_from_nothing("upscale", *sources, "-o", f"{tmp_path}/alone/", *loud, env=env)
    assert (alone.code, len(alone.out.splitlines())) == (0, len(sources)), alone
    for source in sources:
        result = tmp_path / "alone" / f"{source.stem}_x4.png"
        assert result.read_bytes() == (output / source.name).read_bytes()
    long = run_from_nothing("upscale", folder / os.fsdecode(NAMES[-1]), *quick, env=env)
    assert (long.code, len(errors_only(long.err))) == (6, 1)
    for told in (ran.out, ran.err, alone.out, alone.err, long.err):
        assert all(c == "\n" or c.isprintable() for c in told)
    COUNTS["odd names"] += 2 * len(NAMES)
