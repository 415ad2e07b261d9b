"""What is imported before it is needed: nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import resshift_cli

HEAVY = ("torch", "numpy", "PIL", "safetensors", "ray", "fsspec")
SCRIPT = f"""
import sys
from resshift_cli.commands import app as cli
code = cli.run(sys.argv[1:])
loaded = [name for name in {HEAVY} if name in sys.modules]
print("loaded:", code, *loaded)
"""


def loaded(*arguments: str, folder: Path | None = None) -> tuple[int, set[str]]:
    """Exit code of a command, and what it imported."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    _, code, *names = ran.stdout.splitlines()[-1].split()
    return int(code), set(names)


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "",
        "upscale --help",
        "batch --help",
        "eval --help",
        "train --help",
        "models --help",
        "models list --help",
    ],
)
def test_help_answers_without_anything_heavy(arguments: str) -> None:
    assert loaded(*arguments.split()) == (0, set())


@pytest.mark.parametrize("options", ["", "--devices cpu"])
def test_a_batch_imports_no_engine_and_no_store_that_was_not_asked_for(
    folder: Path, tiny_weights: Path, options: str
) -> None:
    model = ("--weights", str(tiny_weights), "--steps", "1")
    code, names = loaded("batch", str(folder), *model, *options.split())
    assert (code, names & {"torch", "ray", "fsspec"}) == (0, {"torch"})


@pytest.mark.parametrize("arguments", ["", "--json", "--quiet"])
def test_models_are_listed_without_torch(arguments: str) -> None:
    code, names = loaded("models", "list", *arguments.split())
    assert code == 0
    assert not names & {"torch", "PIL"}


@pytest.mark.parametrize(
    "arguments, code",
    [
        ("upscale --scale 17 photo.png", 2),
        ("upscale photo.png --device gpu", 2),
        ("upscale photo.png --model none", 2),
        ("upscale none.png --weights WEIGHTS", 3),
        ("upscale photo.png --weights none", 3),
        ("upscale text.png --weights WEIGHTS", 4),
        ("upscale photo.png -o done.png --weights WEIGHTS", 6),
        ("upscale photo.png --weights text.png", 7),
        ("batch none --weights WEIGHTS", 3),
        ("train none.toml --photos . --out run", 3),
    ],
)
def test_mistakes_that_show_early_do_not_wait_for_torch(
    tmp_path: Path, tiny_weights: Path, arguments: str, code: int
) -> None:
    for name in ("photo.png", "done.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    words = arguments.replace("WEIGHTS", str(tiny_weights)).split()
    ended, names = loaded(*words, folder=tmp_path)
    assert ended == code
    assert "torch" not in names


PACKAGE = Path(resshift_cli.__file__).parent


HEAVY_PACKAGES = ("torch", "numpy", "PIL", "safetensors", "rich", "huggingface_hub")
EARLY = ("errors", "commands", "system.progress", "system.digests")


def test_commands_import_the_rooms_of_the_library_late() -> None:
    """Within functions: help and mistakes in a command line are then told at once."""
    for path in (PACKAGE / "commands").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                assert name.split(".")[0] not in HEAVY_PACKAGES, (path.name, name)
                room = name.removeprefix("resshift_cli.")
                assert room in (name, "__version__") or room.startswith(EARLY), (path.name, name)
