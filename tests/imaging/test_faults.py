"""The whole command among damaged files, on full and closed disks, killed, and short of memory.

The bar is the same everywhere: no traceback, the exit code of the table, nothing on stderr but our
own lines, no file half-written, lost or left over. RESSHIFT_FAULTS=20 does twenty times as much.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import damage
import numpy as np
import pytest
from command_line import Ran
from damage import Damaged
from PIL import Image

from resshift_cli.batch import ledger, worker
from resshift_cli.commands import app as cli
from resshift_cli.errors import ImageUnreadableError, ResShiftError, UnsupportedImageError
from resshift_cli.imaging import read
from resshift_cli.imaging.picture import Picture
from resshift_cli.system.journal import Journal

FAULTS = int(os.environ.get("RESSHIFT_FAULTS", "1"))
OURS = (ledger.NAME, ledger.LOCK)
COUNTS: Counter[str] = Counter()

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, limits and disks of Unix")


@pytest.fixture(scope="module", autouse=True)
def counts() -> Iterator[None]:
    """Tell in the end what was done, where the output is shown (`pytest -s`)."""
    yield
    for what, number in sorted(COUNTS.items()):
        print(f"{number:7} {what}")


# What all tests have in common


ROW_BY_ROW = """
from resshift_cli import __main__
from resshift_cli.batch import worker
from resshift_cli.imaging import files
files.LARGE, worker.SPARE = 0, -(10**9)
__main__.main()
"""
"""The command with every result taken for a large one, and every disk for one that has room."""


def command(*arguments: object, program: str = "") -> list[str]:
    start = ["-c", program] if program else ["-m", "resshift_cli"]
    return [sys.executable, *start, *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, so that many processes at once do not wait for each other."""
    return os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def as_from_a_shell() -> None:
    """Ctrl-C is heeded, even where whatever runs the tests ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def begin(
    *arguments: object,
    env: dict[str, str] | None = None,
    preexec_fn: Callable[[], None] = as_from_a_shell,
    program: str = "",
) -> subprocess.Popen[str]:
    """Start a command; what is no UTF-8 in its output stays visible as such."""
    return subprocess.Popen(
        command(*arguments, program=program),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        env=env or environment(),
        preexec_fn=preexec_fn,
    )


def run(
    *arguments: object,
    env: dict[str, str] | None = None,
    preexec_fn: Callable[[], None] = as_from_a_shell,
    program: str = "",
) -> Ran:
    process = begin(*arguments, env=env, preexec_fn=preexec_fn, program=program)
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


def found_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but what a batch keeps for itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in OURS
    }


def errors_only(err: str) -> list[str]:
    """The lines of stderr, which with --quiet are errors of ours, one line each."""
    lines = err.splitlines()
    for line in lines:
        assert re.match(r"error: \S.*[.)`'/]|and \d+ more, see ", line), err
    return lines


def make(path: Path, height: int = 10, width: int = 14, seed: int = 0) -> Path:
    """A photo of noise, which no format makes much smaller."""
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def options(weights: Path) -> tuple[object, ...]:
    """What makes either command quick."""
    return ("--weights", weights, "--steps", 1, "--device", "cpu", "--quiet")


@pytest.fixture
def quick(tiny_weights: Path) -> tuple[object, ...]:
    """What makes either command quick."""
    return options(tiny_weights)


@pytest.fixture
def dozen(tmp_path: Path) -> Path:
    """Twelve photos in a folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        make(folder / f"{number:02}.png", 20 + number, 30 - number, seed=number)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system in memory with mount options such as `size=100k`; told twice, it changes.

    It is skipped where that is not permitted.
    """
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        options = f"remount,{options}" if mounted else options
        tell = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        try:
            subprocess.run(tell, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("file systems may not be mounted here")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", place], check=True)


# Damaged files


def among(folder: Path, files: Sequence[Damaged]) -> None:
    for file in files:
        (folder / file.name).write_bytes(file.content)


def no_files(folder: Path) -> None:
    """What has an image's name but is no regular file."""
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("nothing")
    (folder / "itself.png").symlink_to("itself.png")
    with socket.socket(socket.AF_UNIX) as plug:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may not be long
        try:
            plug.bind("socket.png")
        finally:
            os.chdir(here)


NO_FILES = {"pipe.png": 2, "device.png": 2, "socket.png": 2, "nowhere.png": 3, "itself.png": 3}


def test_a_batch_does_every_good_file_among_hundreds_of_bad_ones(
    tmp_path: Path, quick: tuple[object, ...]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    liars = islice(damage.lying(), 0, None, 1 if FAULTS > 1 else 3)
    bad = {file.name: file for file in (*damage.spoilt(FAULTS), *liars, *damage.strange())}
    among(folder, list(bad.values()))
    no_files(folder)
    good = [f"good_{sample.kind.replace(' ', '_')}{sample.suffix}" for sample in damage.whole()]
    for name, sample in zip(good, damage.whole(), strict=True):
        (folder / name).write_bytes(sample.content)

    ran = run("batch", folder, "-o", output, *quick)

    assert (ran.code, ran.err.count("more, see")) == (1, 1)
    errors_only(ran.err)
    records = {}
    for line in map(ledger._parse, Journal(output / ledger.NAME, hint="").lines()):
        assert line is not None
        records[line.input] = line
    assert records.keys() == {*bad, *good, *NO_FILES}
    done = {record.output: name for name, record in records.items() if record.status == "done"}
    assert found_in(output).keys() == done.keys()
    assert ran.out == ""
    for name, record in records.items():
        code = record.exit_code if record.status == "failed" else 0
        if name in good:
            assert code == 0, record.error
        else:
            ends = bad[name].ends if name in bad else {NO_FILES[name]}
            assert code in ends, f"{name}: {code}, {record.error}"
        COUNTS[f"files in a batch, exit code {code}"] += 1
    for name in done:
        with Image.open(output / name) as image:
            image.load()


def test_upscale_refuses_or_does_a_damaged_file_and_leaves_nothing_behind(
    tmp_path: Path, quick: tuple[object, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    every = [*damage.spoilt(FAULTS, first=10_000), *damage.strange()]
    for file in random.Random(FAULTS).sample(every, min(len(every), 100 * FAULTS)):
        source, output = tmp_path / file.name, tmp_path / "out"
        source.write_bytes(file.content)
        code = cli.run([str(word) for word in ("upscale", source, "-o", f"{output}/", *quick)])
        out, err = capfd.readouterr()
        assert code in file.ends, f"{file.name}: {code}, {err}"
        assert len(errors_only(err)) == (code != 0), err
        assert len(out.splitlines()) == 0
        assert (len(found_in(output)) if output.exists() else -1) == (1 if code == 0 else -1)
        shutil.rmtree(output, ignore_errors=True)
        source.unlink()
        COUNTS[f"files by upscale, exit code {code}"] += 1


def kept(picture: Picture) -> tuple[object, ...]:
    return picture.icc, picture.exif, picture.xmp, picture.iptc, picture.dpi, picture.text


def test_a_file_without_its_end_is_refused_or_all_that_is_missing_is_of_no_consequence(
    tmp_path: Path,
) -> None:
    path = tmp_path / "image"
    whole = {}
    for sample in damage.whole():
        path.write_bytes(sample.content)
        whole[sample.kind] = read.read(path, first_frame=True)
    for file in damage.spoilt(4 * FAULTS, first=20_000):
        if file.cut and file.of is not None and not file.of.moves:
            path.write_bytes(file.content)
            before = whole[file.of.kind]
            with suppress(ImageUnreadableError, UnsupportedImageError):  # its profile is gone
                after = read.read(path)
                assert np.array_equal(after.pixels, before.pixels), file.name
                assert kept(after) == kept(before), file.name
            COUNTS["files cut short"] += 1


def test_no_decoder_speaks_for_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.tif"
    for file in damage.spoilt(4 * FAULTS, first=30_000):
        if file.of is not None and file.of.suffix == ".tif":
            path.write_bytes(file.content)
            with suppress(ResShiftError):
                read.read(path)
            assert capfd.readouterr() == ("", ""), file.name
            COUNTS["damaged TIFFs read in silence"] += 1


@pytest.mark.parametrize(
    "name, code", [*NO_FILES.items(), ("folder.png", 2), ("none.png", 3), ("long", 3)]
)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    no_files(tmp_path)
    (tmp_path / "folder.png").mkdir()
    source = tmp_path / (f"{'n' * 300}.png" if name == "long" else name)
    assert cli.run(["upscale", str(source), "--model", "tiny-x4", "--quiet"]) == code
    assert len(errors_only(capfd.readouterr().err)) == 1
    assert found_in(tmp_path) == {}


@pytest.mark.parametrize("name", ["bomb.png", "text_bomb.png", "zip.png", "tags_of_nothing.tif"])
def test_in_a_process_of_its_own_a_strange_file_is_refused_just_so(
    tmp_path: Path, name: str
) -> None:
    file = next(file for file in damage.strange() if file.name == name)
    (tmp_path / name).write_bytes(file.content)
    ran = run("upscale", tmp_path / name, "--model", "tiny-x4", "--quiet")
    assert (ran.code in file.ends, ran.out, len(errors_only(ran.err))) == (True, "", 1)
    assert list(found_in(tmp_path)) == [name]


# Disks


def no_file_beyond(size: int) -> Callable[[], None]:
    def limit() -> None:
        import resource

        as_from_a_shell()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


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
    ran = run(
        *("upscale", photo, "-o", old, "--overwrite", *quick), preexec_fn=no_file_beyond(9000)
    )
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
    ran = run("batch", dozen, "-o", output, *quick, preexec_fn=no_file_beyond(40_000))
    assert (ran.code, len(errors_only(ran.err))) == (1, 1)
    assert "large.png can't be written: File too large" in ran.err
    assert found_in(output).keys() == {path.name for path in dozen.iterdir()} - {"large.png"}
    assert run("batch", dozen, "-o", output, *quick) == Ran(0, "", "")
    assert run("batch", dozen, "-o", tmp_path / "whole", *quick).code == 0
    assert found_in(output) == found_in(tmp_path / "whole")


# Closed doors


def without_rights(*arguments: object) -> Ran:
    """Run the command with no more rights than the files give; root may else do everything."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read and write everything, and there is no setpriv")
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    ran = subprocess.run(
        [*prefix, *command(*arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=600,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


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
    ran = run("batch", folder, "-o", output, *loud, env=env)
    assert (ran.code, len(ran.out.splitlines())) == (0, len(NAMES)), ran
    assert {os.fsencode(path.name) for path in output.glob("*.png")} == set(NAMES)
    # Their results have longer names: that of 255 bytes can't be one's beginning.
    sources = [folder / os.fsdecode(name) for name in NAMES if len(name) < 250]
    alone = run("upscale", *sources, "-o", f"{tmp_path}/alone/", *loud, env=env)
    assert (alone.code, len(alone.out.splitlines())) == (0, len(sources)), alone
    for source in sources:
        result = tmp_path / "alone" / f"{source.stem}_x4.png"
        assert result.read_bytes() == (output / source.name).read_bytes()
    long = run("upscale", folder / os.fsdecode(NAMES[-1]), *quick, env=env)
    assert (long.code, len(errors_only(long.err))) == (6, 1)
    for told in (ran.out, ran.err, alone.out, alone.err, long.err):
        assert all(c == "\n" or c.isprintable() for c in told)
    COUNTS["odd names"] += 2 * len(NAMES)


# Kill, and go on


def kill_after(seconds: float, *arguments: object) -> int:
    """Kill a command some time after it was started; returns its exit code."""
    process = begin(*arguments)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)
    process.kill()
    process.communicate()
    return process.returncode


def seconds_of(*arguments: object) -> float:
    started = time.monotonic()
    ran = run(*arguments)
    assert ran.code == 0, ran
    return time.monotonic() - started


def test_a_batch_killed_again_and_again_gets_to_the_same_results(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    output, whole = tmp_path / "out", tmp_path / "whole"
    span = seconds_of("batch", dozen, "-o", whole, *quick)
    reference = found_in(whole)
    chance = random.Random(FAULTS)
    kept: dict[str, int] = {}
    for number in range(4 * FAULTS):
        if number % 8 == 7:  # by then most is done: start anew
            shutil.rmtree(output, ignore_errors=True)
            kept = {}
        kill_after(chance.uniform(0.3, 1.1) * span, "batch", dozen, "-o", output, *quick)
        records = ledger.Ledger(output).results if output.exists() else {}
        for name, record in records.items():
            result = output / record.output
            assert result.read_bytes() == reference[name]
            assert kept.setdefault(name, result.stat().st_mtime_ns) == result.stat().st_mtime_ns
        assert kept.keys() == records.keys()  # what was finished stays so
        for path in output.glob("*.png"):  # and what has a result's name is whole, known or not
            assert path.read_bytes() == reference[path.name]
        COUNTS["batches killed"] += 1
    assert run("batch", dozen, "-o", output, *quick) == Ran(0, "", "")
    assert found_in(output) == reference


def test_upscale_killed_again_and_again_leaves_nothing_that_looks_finished_and_is_not(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    sources, output, whole = sorted(dozen.iterdir()), tmp_path / "out", tmp_path / "whole"
    span = seconds_of("upscale", *sources, "-o", f"{whole}/", *quick)
    reference = found_in(whole)
    chance = random.Random(FAULTS)
    for _ in range(3 * FAULTS):
        kill_after(
            chance.uniform(0.3, 1.1) * span,
            *("upscale", *sources, "-o", f"{output}/", "--overwrite", *quick),
        )
        for path in output.glob("*.png"):
            assert path.read_bytes() == reference[path.name]
        COUNTS["upscales killed"] += 1
    ran = run("upscale", *sources, "-o", f"{output}/", "--overwrite", *quick)
    assert ran == Ran(0, "", "")
    assert found_in(output) == reference


# Ctrl-C and SIGTERM


def is_awake(process: subprocess.Popen[str]) -> bool:
    """Whether the command has seen to SIGTERM; before that there is only Python starting up."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def stop_after(seconds: float, number: int, output: Path, *arguments: object, wait: bool) -> Ran:
    """Send a command a signal some time after it has begun, or after it has finished an image."""
    process = begin(*arguments, "-o", f"{output}/")
    while process.poll() is None and not (
        is_awake(process) and (not wait or [*output.glob("*.png")])
    ):
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell when Python is up")
@pytest.mark.parametrize("job", ["batch", "upscale"])
def test_a_signal_at_any_moment_ends_it_on_one_line_and_leaves_nothing(
    dozen: Path, tmp_path: Path, quick: tuple[object, ...], job: str
) -> None:
    whole = tmp_path / "whole"
    inputs = [dozen] if job == "batch" else sorted(dozen.iterdir())
    span = seconds_of(job, *inputs, "-o", f"{whole}/", *quick)
    reference = found_in(whole)
    count = 9 * FAULTS

    def stop(number: int) -> str:
        output = tmp_path / f"out{number}"
        which, code = [(signal.SIGINT, 130), (signal.SIGTERM, 143)][number % 2]
        word = {130: "Interrupted", 143: "Terminated"}[code]
        wait = number % 3 == 2  # every third one is sent when the first result is there
        delay = span * number / count / (10 if wait else 1)
        ran = stop_after(delay, which, output, job, *inputs, *quick, wait=wait)
        where = f"{which.name} after {delay:.3f} s: {ran}"
        assert ran.code in (0, code), where
        assert ran.out == "", where
        told = re.fullmatch(rf"{word}; [^\n]+\.\n", ran.err)
        assert (ran.err == "") if ran.code == 0 else told, where
        results = found_in(output) if output.exists() else {}
        assert results.items() <= reference.items(), where
        assert ran.code or len(results) == 12, where
        stage = "before" if not results else "within" if len(results) < 12 else "after"
        if job == "batch":
            last = run(job, *inputs, "-o", f"{output}/", *quick) if number % 9 == 8 else None
            assert last is None or (last.code, found_in(output)) == (0, reference)
        elif not results:
            assert not output.exists(), where
        shutil.rmtree(output, ignore_errors=True)
        return f"{job} stopped by {which.name} {stage} the writing"

    with ThreadPoolExecutor(2) as pool:
        for stage in pool.map(stop, range(count)):
            COUNTS[stage] += 1


# Results that are written as their rows come


def is_writing(process: subprocess.Popen[str], folder: Path) -> bool:
    """Whether the command has a file of this folder open that has no name yet, or a hidden one."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):
            target = os.readlink(descriptor)
            if target.startswith(f"{folder}/") and target.endswith((" (deleted)", ".tmp")):
                return True
    return False


def stop_writing(number: int, seconds: float, output: Path, *arguments: object) -> Ran:
    """Send a command a signal some time after it has begun to write a result row by row."""
    process = begin(*arguments, "-o", f"{output}/", program=ROW_BY_ROW)
    while process.poll() is None and not is_writing(process, output):
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


needs_descriptors = pytest.mark.skipif(
    sys.platform != "linux", reason="needs /proc to tell when a result is being written"
)
SIGNALS = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Larger:
    """A folder of photos, and their results written row by row."""

    photos: Path
    results: dict[str, bytes]


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Larger:
    """Three photos in formats that are written so."""
    folder = tmp_path_factory.mktemp("larger")
    (folder / "in").mkdir()
    for seed, suffix in enumerate((".png", ".jpg", ".tif")):
        make(folder / "in" / f"a{suffix}", 100, 140, seed=seed)
    words = ("batch", folder / "in", "-o", folder / "out", *options(tiny_weights))
    assert run(*words, program=ROW_BY_ROW) == Ran(0, "", "")
    return Larger(folder / "in", found_in(folder / "out"))


@needs_descriptors
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_large_result_is_written_leaves_nothing(
    larger: Larger, tmp_path: Path, quick: tuple[object, ...], number: int
) -> None:
    chance = random.Random(number)
    output = tmp_path / "out"
    for source in (
        sorted(larger.photos.iterdir()) * FAULTS if FAULTS > 1 else [larger.photos / "a.png"]
    ):
        ran = stop_writing(number, chance.uniform(0, 0.1), output, "upscale", source, *quick)
        assert (ran.code, ran.out) == (SIGNALS[signal.Signals(number)], ""), ran
        if number == signal.SIGKILL:
            assert list(output.iterdir()) == []
            output.rmdir()
        else:
            assert re.fullmatch(r"(Interrupted|Terminated); nothing was written\.\n", ran.err)
        assert not output.exists()
        COUNTS["large results stopped, upscale"] += 1


@needs_descriptors
def test_a_batch_stopped_while_it_writes_large_results_gets_to_the_same_ones(
    larger: Larger, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    output = tmp_path / "out"
    chance = random.Random(FAULTS)
    for _ in range(FAULTS):
        for number, code in SIGNALS.items():
            span = chance.uniform(0, 0.1)
            ran = stop_writing(number, span, output, "batch", larger.photos, *quick)
            assert ran.code == code, ran
            assert len(ran.err.splitlines()) == (number != signal.SIGKILL), ran
            assert found_in(output).items() <= larger.results.items()
            COUNTS["large results stopped, batch"] += 1
        ran = run("batch", larger.photos, "-o", output, *quick, program=ROW_BY_ROW)
        assert (ran, found_in(output)) == (Ran(0, "", ""), larger.results)
        shutil.rmtree(output)


@needs_descriptors
def test_ctrl_c_does_not_wait_for_a_large_result_of_a_batch(
    tmp_path: Path, quick: tuple[object, ...]
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "a.png", 300, 300)
    output = tmp_path / "out"
    ran = stop_writing(signal.SIGINT, 0, output, "batch", tmp_path / "in", *quick)
    assert (ran.code, found_in(output)) == (130, {})
    assert "0 of 1 images are finished" in ran.err


def test_large_results_that_may_not_be_so_large_leave_the_old_files_as_they_were(
    larger: Larger, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    photos = sorted(larger.photos.iterdir())
    for photo in photos:
        make(tmp_path / "old.png", 4, 4).rename(tmp_path / f"{photo.stem}_x4{photo.suffix}")
    before = found_in(tmp_path)
    words = ("upscale", *photos, "-o", f"{tmp_path}/", "--overwrite", *quick)
    ran = run(*words, preexec_fn=no_file_beyond(30_000), program=ROW_BY_ROW)
    assert (ran.code, ran.out, len(errors_only(ran.err))) == (6, "", 3)
    assert ran.err.count("can't be written: File too large") == 3
    assert found_in(tmp_path) == before
    COUNTS["large results without room"] += 3


def test_a_disk_that_fills_up_under_a_large_result_ends_a_batch_that_can_be_gone_on_with(
    larger: Larger, quick: tuple[object, ...], disk: Callable[[str], Path]
) -> None:
    output = disk("size=1m") / "out"
    words = ("batch", larger.photos, "-o", output, *quick)
    ran = run(*words, program=ROW_BY_ROW)
    assert (ran.code, len(errors_only(ran.err))) == (6, 1), ran
    assert "Make room, then run the same command again" in ran.err
    assert 0 < len(found_in(output)) < 3
    disk("size=20m")
    assert run(*words, program=ROW_BY_ROW) == Ran(0, "", "")
    assert found_in(output) == larger.results
    COUNTS["large results without room"] += 1


# Memory

limits_memory = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems do not limit it so"
)


def no_memory_beyond(size: int) -> Callable[[], None]:
    def limit() -> None:
        import resource

        as_from_a_shell()
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    return limit


LIARS = ("bmp_of_26x2147483647.bmp", "endless.png")


@limits_memory
@pytest.mark.parametrize("name", LIARS)
def test_a_header_that_claims_the_absurd_costs_a_batch_no_more_than_that_file(
    tmp_path: Path, quick: tuple[object, ...], name: str
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    among(folder, [f for f in (*damage.lying(), *damage.strange()) if f.name == name])
    make(folder / "good.png")
    loud = [word for word in quick if word != "--quiet"]
    ran = run("batch", folder, "-o", output, *loud, preexec_fn=no_memory_beyond(600 << 20))
    assert list(found_in(output)) == ["good.png"]
    assert (ran.code, ran.err.count("error: ")) == (1, 1)


@limits_memory
@pytest.mark.parametrize("megabytes", range(400, 400 + 60 * min(FAULTS, 5), 60))
def test_what_memory_is_too_small_for_is_done_otherwise_or_refused(
    tmp_path: Path, quick: tuple[object, ...], megabytes: int
) -> None:
    """After a large image the allocators may have too little left for a small one as well."""
    (tmp_path / "in").mkdir()
    photos = [make(tmp_path / "in" / f"{side}.png", side, side) for side in (700, 12)]
    output = tmp_path / "out"
    for words in (
        ("batch", tmp_path / "in", "-o", output),
        ("upscale", *photos, "-o", f"{output}/"),
    ):
        ran = run(*words, *quick, "--tile", 700, preexec_fn=no_memory_beyond(megabytes << 20))
        told = errors_only(ran.err)
        assert all("not enough memory" in line for line in told), ran
        done = len(found_in(output)) if output.exists() else 0
        assert (ran.code, done) == (int(bool(told)), 2 - len(told))
        shutil.rmtree(output, ignore_errors=True)
        COUNTS["images beyond the memory"] += 1
