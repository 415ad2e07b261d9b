"""stdout and stderr that are closed, full, stalled or of few characters, and signals meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import as_from_a_shell
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="shells and signals of Unix")
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")

COMMAND = f"'{sys.executable}' -m resshift_cli"


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which `resshift` is the command."""
    return subprocess.run(
        ["bash", "-c", line.replace("resshift", COMMAND)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        timeout=300,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a folder `in` of two photos, one of an unusual name."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "grün.png"):
        Image.effect_noise((20, 20), 50).convert("RGB").save(tmp_path / "in" / name)
    return tmp_path


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_work_is_done_whatever_is_closed(photos: Path, tiny_weights: Path, closed: str) -> None:
    ran = shell(f"resshift batch in -o out --weights '{tiny_weights}' --steps 1 {closed}", photos)
    assert ran.returncode == 0
    assert len(list((photos / "out").glob("*.png"))) == 2
    assert "error" not in ran.stderr


@pytest.mark.parametrize(
    "asked", ["models list", "upscale in/a.png --json", "upscale in/a.png -o -"]
)
def test_what_is_asked_for_on_a_closed_stdout_is_refused(photos: Path, asked: str) -> None:
    ran = shell(f"resshift {asked} >&-", photos)
    assert ran.returncode == 6
    assert ran.stderr.startswith("error: stdout is closed")
    assert len(ran.stderr.splitlines()) == 1
    assert os.listdir(photos) == ["in"]


def test_an_exit_code_is_told_where_messages_can_not_be(photos: Path) -> None:
    assert shell("resshift upscale none.png 2>&-", photos).returncode == 3


def test_a_file_that_is_opened_does_not_get_the_place_of_stderr(photos: Path) -> None:
    ran = shell("resshift upscale in/a.png --model tiny-x4 --steps 1 -o b.png >&- 2>&-", photos)
    assert ran.returncode == 0
    Image.open(photos / "b.png").load()


def test_what_libraries_print_past_python_does_not_land_in_a_file(tmp_path: Path) -> None:
    program = "from resshift_cli.commands import streams; streams.open_all(); import os"
    program += "; file = open('result', 'w'); os.write(2, b'noise'); os.write(1, b'noise')"
    line = f"'{sys.executable}' -c \"$0\" >&- 2>&-"
    assert subprocess.run(["bash", "-c", line, program], cwd=tmp_path).returncode == 0
    assert (tmp_path / "result").read_text() == ""


@full
@pytest.mark.parametrize("asked", ["models list", "--help", "models list --json"])
def test_a_full_disk_under_stdout_is_said(photos: Path, asked: str) -> None:
    ran = shell(f"resshift {asked} > /dev/full", photos)
    assert ran.returncode == 6
    assert ran.stderr.startswith("error: stdout can't be written: No space left on device.")
    assert len(ran.stderr.splitlines()) == 1


@full
def test_a_batch_says_that_its_stdout_is_full(photos: Path, tiny_weights: Path) -> None:
    command = f"resshift batch in -o out --weights '{tiny_weights}' --steps 1"
    ran = shell(f"{command} > /dev/full", photos)
    assert ran.returncode == 6
    assert "error: stdout can't be written: No space left on device." in ran.stderr
    again = shell(command, photos)
    assert again.returncode == 0 and "0 failed" in again.stderr


@full
def test_messages_that_do_not_fit_a_full_disk_stop_nothing(photos: Path) -> None:
    assert shell("resshift upscale none.png 2> /dev/full", photos).returncode == 3
    assert shell("resshift models path tiny-x4 2> /dev/full", photos).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_stdout_has_no_characters_for_are_escaped(
    photos: Path, tiny_weights: Path, encoding: str
) -> None:
    (photos / "in" / "grün.png").rename(photos / "in" / "日本.png")
    command = f"resshift batch in -o out --weights '{tiny_weights}' --steps 1"
    ran = shell(command, photos, PYTHONIOENCODING=encoding)
    assert ran.returncode == 0
    assert sorted(ran.stdout.split()) == ["out/\\u65e5\\u672c.png", "out/a.png"]


# Signals

STALLED_FOR = 10.0  # seconds in which a stalled command has to end


@pytest.fixture
def stalled() -> Iterator[int]:
    """The end to write to of a pipe that is full, and read by nobody."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        fcntl.fcntl(writing, fcntl.F_SETFL, 0)
    yield writing
    os.close(reading)
    os.close(writing)


def begin(
    *arguments: object,
    stdout: int,
    stderr: int | None = None,
    handler: signal.Handlers = signal.SIG_DFL,
) -> subprocess.Popen[str]:
    """Start the command where SIGINT does that."""
    return subprocess.Popen(
        [sys.executable, "-m", "resshift_cli", *map(str, arguments)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=stderr,
    )


def wait_until_it_waits(process: subprocess.Popen[str]) -> None:
    """Until a command heeds Ctrl-C and has done nothing for a second: it waits for its reader."""
    done = -1
    while process.poll() is None:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        before, done = done, int(fields[11]) + int(fields[12])  # of user and system
        if before == done and heeds(process, signal.SIGINT):
            return
        time.sleep(1)


def heeds(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_ctrl_c_is_enough_where_a_reader_has_stalled(
    photos: Path, tiny_weights: Path, stalled: int, stream: str
) -> None:
    process = begin(
        *("batch", photos / "in", "-o", photos / "out", "--weights", tiny_weights, "--steps", 1),
        stdout=stalled if stream == "stdout" else subprocess.DEVNULL,
        stderr=stalled if stream == "stderr" else subprocess.DEVNULL,
    )
    wait_until_it_waits(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(STALLED_FOR) == 130


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_torch_is_imported_is_heeded_and_aborts_nothing(
    photos: Path, number: int, code: int
) -> None:
    process = begin(
        *("upscale", photos / "in" / "a.png", "-o", f"{photos}/new/", "--model", "tiny-x4"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert said.splitlines()[-1].endswith("; nothing was written.")
    assert "terminate called" not in said
    assert os.listdir(photos) == ["in"]


DURING_IMPORT = """
import os, sys
from resshift_cli.commands import ready, signals
signals.heed()
def hook(event, what):  # C++ of torch's has it imported
    if event == "import" and what[0] == "torch.cuda":
        os.kill(os.getpid(), int(sys.argv[1]))
sys.addaudithook(hook)
try:
    ready.import_torch()
except KeyboardInterrupt as stopped:
    print(type(stopped).__name__, "torch" in sys.modules)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torch_is_imported_whole_before_a_signal_is_heeded(number: signal.Signals) -> None:
    command = [sys.executable, "-c", DURING_IMPORT, str(int(number))]
    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=as_from_a_shell)
    kind = {signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "Terminated"}[number]
    assert (ran.stdout, ran.stderr) == (f"{kind} True\n", "")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc")
def test_ctrl_c_while_the_command_is_imported_ends_on_one_line() -> None:
    process = begin("models", "list", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not heeds(process, signal.SIGTERM):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said == "Interrupted; nothing was written.\n"


def test_ctrl_c_before_there_is_a_handler_ends_on_one_line() -> None:
    program = "import resshift_cli.__main__\nraise KeyboardInterrupt"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (130, "Interrupted; nothing was written.\n")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc")
def test_a_job_in_the_background_goes_on_ignoring_ctrl_c() -> None:
    process = begin(*("models", "list", "--json"), handler=signal.SIG_IGN, stdout=subprocess.PIPE)
    while not heeds(process, signal.SIGTERM):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["models"]
