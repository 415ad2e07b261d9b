"""Fixtures that several rooms use."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Ran, Run, make_photo
from faults import COUNTS, make, options
from image_files import half_floats
from pictures import made_up_photo
from PIL import Image
from tiny_model import tiny_fills, tiny_networks, tiny_spec
from tiny_run import VQ_RUN, Start, write_config

from resshift_cli.commands import app as cli
from resshift_cli.diffusion import autoencoder
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.training import train
from resshift_cli.weights import checkpoint

# Nothing of the user's own is read or written, and no network touched, unless a test says so. It
# has to stand in the environment before huggingface_hub is imported.
_HOME = tempfile.mkdtemp(prefix="resshift-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "HF_HOME": f"{_HOME}/huggingface",
    "HF_HUB_OFFLINE": "1",
    "RESSHIFT_CACHE": f"{_HOME}/cache",
    "RESSHIFT_CONFIG": f"{_HOME}/resshift.toml",
    "RESSHIFT_REGISTRY": f"{_HOME}/models.toml",
    "RESSHIFT_MODEL": "tiny-x4",
}

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared out among processes
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes import the same

pytest_plugins = [
    "browser_pages",
    "download_bench",
    "model_hosts",
    "serving_bench",
    "stores",
    "ray_nodes",  # which imports the one before
]

NOBODY = 65534  # a user who is not root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole weight file of `tiny_model`."""
    return saved(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny_spec())


@pytest.fixture(scope="session")
def fills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of one that fills holes."""
    return saved(tmp_path_factory.mktemp("weights") / "fills.safetensors", tiny_fills())


@pytest.fixture(scope="session")
def mends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of one that mends."""
    spec = replace(tiny_fills(), denoiser=replace(tiny_fills().denoiser, lq_mask=False))
    return saved(tmp_path_factory.mktemp("weights") / "mends.safetensors", spec)


def saved(path: Path, spec: ModelSpec) -> Path:
    denoiser, _ = tiny_networks(spec)
    checkpoint.save_model(path, spec, denoiser.network)
    return path


@pytest.fixture
def resshift(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, where torch is loaded already."""

    def run(*arguments: object) -> Ran:
        code = cli.run([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def upscale(resshift: Run, tiny_weights: Path) -> Run:
    def run(*arguments: object) -> Ran:
        return resshift("upscale", "--weights", tiny_weights, *arguments)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return make_photo(tmp_path / "photo.png", 20, 12)


@pytest.fixture
def troubles(tmp_path: Path, tiny_weights: Path) -> Path:
    """A folder with a good photo and all that can be wrong with one."""
    photo = make_photo(tmp_path / "photo.png", 20, 12)
    data = photo.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "cut.safetensors").write_bytes(tiny_weights.read_bytes()[:5000])
    Image.new("1", (11_000, 11_000)).save(tmp_path / "large.png")
    (tmp_path / "hdr.dds").write_bytes(half_floats())
    make_photo(tmp_path / "done.png", 4, 4)
    make_photo(tmp_path / "done_x4.png", 4, 4)
    return tmp_path


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of a user who is not root: permissions stop nobody else."""
    if not hasattr(os, "setresuid"):
        pytest.skip("needs Unix permissions")
    with tempfile.TemporaryDirectory() as name:
        before = os.getresuid()
        if before[1] == 0:
            os.chown(name, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield Path(name)
        finally:
            os.setresuid(*before)
            os.chmod(name, 0o700)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos; the first by name is held out, and just large enough for it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, side in enumerate([256, 96, 100]):
        Image.fromarray(made_up_photo(i, side)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def start(photos: Path, tmp_path: Path) -> Start:
    def start(out: str, *, seed: int = 0, **changes: Any) -> Iterator[dict[str, float]]:
        config = write_config(tmp_path / "run.toml", **changes)
        return train.train(config, [photos], tmp_path / out, seed=seed)

    return start


@pytest.fixture
def vq_weights(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    codec = autoencoder.build(VQ_RUN.model.autoencoder)
    path = tmp_path / "vq.safetensors"
    checkpoint.write(path, checkpoint.own_tensors(codec), {})
    return path


@pytest.fixture
def batch(resshift: Run, tiny_weights: Path) -> Run:
    """Runs `resshift batch` in this process."""
    return partial(resshift, "batch", "--weights", tiny_weights, "--steps", "1")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results depend on the number of threads, by rounding."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    make_photo(folder / "a.png", 12, 9)
    make_photo(folder / "b.jpg", 9, 12)
    make_photo(folder / "sub" / "c.png", 8, 8)
    return folder


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Ten images that are padded to 24x32, two of another size, and one with alpha."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(10):
        make_photo(folder / f"{number}.png", 17 + number % 8, 25 + number % 5)
    make_photo(folder / "0a.png", 40, 40)
    make_photo(folder / "3a.png", 40, 40)
    veil = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(veil).save(folder / "4a.png")
    return folder


@pytest.fixture(scope="module")
def counts() -> Iterator[None]:
    """Tell in the end what was done, where the output is shown (`pytest -s`)."""
    yield
    for what, number in sorted(COUNTS.items()):
        print(f"{number:7} {what}")


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
