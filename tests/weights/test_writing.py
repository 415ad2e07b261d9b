"""Weight files as they are written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_model import tiny_spec

from resshift_cli.errors import OutputError
from resshift_cli.weights import checkpoint

SPEC = tiny_spec()


def test_what_was_written_is_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "a": torch.rand(3, 5).half(),
        "odd": torch.rand(7).bfloat16(),
        "scalar": torch.tensor(2.5),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "wide": torch.rand(2, 2).double(),
        "ä": torch.zeros(0, 4),
    }
    path = tmp_path / "any.safetensors"
    checkpoint.write(path, tensors, {"b": "ö", "a": "1"})
    read = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata == {"a": "1", "b": "ö"}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_bytes_do_not_depend_on_the_order_things_come_in(tmp_path: Path) -> None:
    tensors = {name: torch.ones(2, 3) for name in "abc"}
    metadata = {name: name for name in "xyz"}
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    checkpoint.write(paths[0], tensors, metadata)
    checkpoint.write(paths[1], dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("length", range(4))
def test_numbers_start_at_a_multiple_of_eight_bytes(length: int, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    checkpoint.write(path, {"a": torch.ones(2)}, {"a": "x" * length})
    assert (path.stat().st_size - 8) % 8 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(
    tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    code = """
import resource, sys
from pathlib import Path
from resshift_cli.diffusion import specs
from resshift_cli.weights import checkpoint
from resshift_cli.errors import OutputError
path = Path(sys.argv[1])
spec = specs.read_spec(path)
denoiser, _ = checkpoint.load(spec, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save_model(path, spec, denoiser.network)
except OutputError as error:
    print(error)
"""
    run = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} can't be written: File too large.\n"
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == tiny_weights.read_bytes()


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written") as caught:
        checkpoint.write(tmp_path / "none" / "file.safetensors", {}, {})
    assert "another folder" in caught.value.hint


def test_a_weight_file_is_as_readable_as_any_other(tiny_weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    assert tiny_weights.stat().st_mode == other.stat().st_mode
