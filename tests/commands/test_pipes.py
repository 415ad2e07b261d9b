"""`upscale -`: stdin and stdout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, files, make_photo, on_a_terminal, posix, start
from PIL import Image

from resshift_cli.commands import app as cli

# stdin and stdout


Piped = Callable[..., tuple[int, bytes]]


@pytest.fixture
def piped(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Piped:
    """Runs `upscale` between pipes in this process: exit code and stdout."""

    def run(*arguments: object, content: bytes = b"") -> tuple[int, bytes]:
        out = io.BytesIO()
        words = ("upscale", *arguments, "--weights", tiny_weights, "--steps", 1)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, write_through=True))
            code = cli.run([str(word) for word in words])
            return code, out.getvalue()

    return run


def test_in_a_pipe_only_the_result_goes_to_stdout(
    upscale: Run, photo: Path, tiny_weights: Path
) -> None:
    assert upscale(photo, "--steps", 1).code == 0
    large = photo.with_name("photo_x4.png")
    words = ("upscale", "-", "--weights", tiny_weights, "--steps", 1)
    command = [sys.executable, "-m", "resshift_cli", *map(str, words)]
    ran = subprocess.run(command, input=photo.read_bytes(), capture_output=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (0, large.read_bytes())
    assert b"<stdin> 20x12 -> <stdout> 80x48" in ran.stderr


@pytest.mark.parametrize(
    "source, options, expected",
    [
        ("a.jpg", [], "JPEG"),
        ("a.tif", [], "TIFF"),
        ("a.gif", [], "PNG"),
        ("a.png", ["--format", "webp"], "WEBP"),
    ],
)
def test_a_result_without_a_name_has_the_format_asked_for_or_that_of_the_input(
    tmp_path: Path, piped: Piped, source: str, options: list[str], expected: str
) -> None:
    content = make_photo(tmp_path / source, 8, 8).read_bytes()
    code, out = piped("-", *options, content=content)
    assert code == 0
    with Image.open(io.BytesIO(out)) as image:
        assert (image.format, image.size) == (expected, (32, 32))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_come_through_a_pipe(tmp_path: Path, piped: Piped, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.linspace(0, 65535, 240).reshape(12, 20).astype(np.uint16)).save(path)
    code, out = piped("-", content=path.read_bytes())
    assert code == 0
    with Image.open(io.BytesIO(out)) as image:
        assert len(np.unique(np.asarray(image))) > 256


def test_an_animation_comes_through_a_pipe(tmp_path: Path, piped: Piped) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=70)
    content = (tmp_path / "a.webp").read_bytes()
    code, out = piped("-", "-o", "-", content=content)
    assert code == 0
    with Image.open(io.BytesIO(out)) as image:
        assert (image.format, image.size, image.n_frames) == ("WEBP", (32, 32), 3)  # type: ignore[attr-defined]


def test_what_comes_in_can_go_to_a_file_and_a_file_to_stdout(photo: Path, piped: Piped) -> None:
    large = photo.with_name("large.png")
    assert piped("-", "-o", large, content=photo.read_bytes()) == (0, f"{large}\n".encode())
    assert piped(photo, "-o", "-") == (0, large.read_bytes())


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("- -", 2, "An image from stdin (-) has to be the only input."),
        ("- photo.png", 2, "has to be the only input"),
        ("photo.png done.png -o -", 2, "Several results can't all go to stdout."),
        ("- --json", 2, "The result and --json can't both go to stdout."),
        ("photo.png -o - --json", 2, "Give a file with -o, or leave out --json."),
        ("- -o folder", 2, "no name that its result could be called after. Name the file"),
        ("- -o new/", 2, "-o new/large.png"),
    ],
)
def test_what_can_not_go_through_a_pipe_is_refused_on_one_line(
    upscale: Run,
    troubles: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(troubles)
    before = files(troubles)
    ran = upscale(*arguments.split())
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    told = json.loads(ran.out)["errors"] if "--json" in arguments else []
    assert [error["exit_code"] for error in told] == [code] * len(told)
    assert bool(ran.out) == bool(told)
    assert words in ran.err
    assert files(troubles) == before


@pytest.mark.parametrize(
    "content, words",
    [(b"", "Nothing came in on stdin."), (b"Dear diary", "<stdin> is not an image")],
)
def test_nothing_or_no_image_on_stdin_gives_nothing_on_stdout(
    piped: Piped, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    assert piped("-", content=content) == (4, b"")
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


@posix
def test_an_image_is_neither_typed_nor_looked_at(photo: Path, tiny_weights: Path) -> None:
    assert "stdin is a terminal" in on_a_terminal("upscale", "-", "-o", "a.png")
    shown = on_a_terminal("upscale", photo, "-o", "-", "--weights", tiny_weights)
    assert "stdout is a terminal" in shown and "PNG" not in shown


@posix
def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word(
    photo: Path, tiny_weights: Path
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = ("upscale", photo, "-o", "-", "--weights", tiny_weights, "--quiet")
    process = start(*command, stdout=theirs)
    os.close(theirs)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (141, "")


@posix
@pytest.mark.parametrize("closed, code", [(0, 3), (1, 6)])
def test_a_closed_stdin_or_stdout_is_told(
    photo: Path, tiny_weights: Path, closed: int, code: int
) -> None:
    arguments = ("-", "-o", photo.with_name("a.png")) if closed == 0 else (photo, "-o", "-")
    process = start(
        *("upscale", *arguments, "--weights", tiny_weights),
        preexec_fn=lambda: os.close(closed),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert err.startswith(f"error: std{'out' if closed else 'in'} is closed.")


def test_a_file_that_is_called_like_stdin_can_be_named(
    upscale: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    photo.rename("-")
    assert upscale("./-", "-o", "a.png").code == 0
