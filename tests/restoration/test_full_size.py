"""The whole way with files of the published size: from a release page to an enlarged picture.

It takes minutes and a few gigabytes of disk: `pytest -m full_size`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens_support import manifests
from hub_server import HubServer, ReleaseServer
from PIL import Image
from recipe import weights
from server_faults import Cut

from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.weights import checkpoint, registry

pytestmark = pytest.mark.full_size

RELEASE = ("zsyOAOA/ResShift", "v2.0")
UNET, VQ = "resshift_realsrx4_s15_v2.pth", "autoencoder_vq_f4.pth"

# Programs that print their own peak of memory in the end: `ru_maxrss` of a child is at least that
# of its parent, which here holds the weights.
IMPORTS = "import torch; from resshift_cli.system import memory; print(memory.peak())"
RESSHIFT = """
import sys
from resshift_cli.commands import app
from resshift_cli.system import memory
code = app.run(sys.argv[1:])
print(memory.peak(), file=sys.stderr)
sys.exit(code)
"""


def publish(path: Path, manifest: str) -> dict[str, torch.Tensor]:
    """A checkpoint as its authors would have saved it, of made-up weights."""
    arrays = weights(manifests()[manifest], 1)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save({"state_dict": {f"module.{n}": t for n, t in tensors.items()}}, path)
    return tensors


def test_a_full_size_model_goes_from_the_release_page_to_an_enlarged_picture(
    tmp_path: Path,
) -> None:
    unet = publish(tmp_path / UNET, "unet_realsr_x4")
    vq = publish(tmp_path / VQ, "ae_vq_f4")
    largest = (tmp_path / UNET).stat().st_size
    assert largest > 470e6
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)

    with ReleaseServer() as release, HubServer() as hub:
        served = release.add_file(*RELEASE, UNET, tmp_path / UNET)
        served.faults.append(Cut(0.4, times=1))
        release.add_file(*RELEASE, VQ, tmp_path / VQ)
        environment = os.environ | {
            "HF_HOME": str(tmp_path / "huggingface"),
            "HF_HUB_OFFLINE": "0",
            "RESSHIFT_CACHE": str(tmp_path / "cache"),
            "HF_ENDPOINT": hub.url,
            "RESSHIFT_RELEASES": release.url,
            "NO_PROXY": "*",
        }

        def resshift(*arguments: object) -> tuple[str, int]:
            """What a command prints, and its peak memory in bytes."""
            command = [sys.executable, "-c", RESSHIFT, *map(str, arguments)]
            ran = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout, int(ran.stderr.splitlines()[-1])

        _, peak = resshift("models", "pull", "realsr-x4-v2")
        assert served.path.stat().st_size <= release.bytes_sent(f"{'/'.join(RELEASE)}/{UNET}")
        assert release.bytes_sent(f"{'/'.join(RELEASE)}/{UNET}") < 1.1 * largest  # it went on
        imports = int(subprocess.check_output([sys.executable, "-c", IMPORTS]))
        assert peak - imports <= 1.3 * largest
        paths, _ = resshift("models", "path", "realsr-x4-v2")
        resshift("models", "verify", "realsr-x4-v2")
        out, _ = resshift(
            "upscale", photo, "--model", "realsr-x4-v2", "--offline", "--precision", "fp32",
            "--device", "cpu", "--steps", "3", "--json",
        )  # fmt: skip
    assert [path.name for path in (tmp_path / "cache").rglob("*.pth*")] == []

    spec = registry.find("realsr-x4-v2").spec
    assert spec is not None
    denoiser, codec = checkpoint.load(spec, *map(Path, paths.splitlines()))
    for network, tensors in ((denoiser.network, unet), (codec, vq)):
        own = checkpoint.own_tensors(network)
        assert own.keys() == {n for n in tensors if not n.endswith(checkpoint.DERIVED)}
        assert all(torch.equal(own[name], tensors[name]) for name in own)
    direct = Upscaler(spec, denoiser, codec, name="direct", device="cpu", precision="fp32")
    (result,) = json.loads(out)["results"]
    assert (result["width"], result["height"], result["steps"]) == (256, 192, 3)
    with Image.open(photo) as image, Image.open(result["output"]) as enlarged:
        expected = np.asarray(direct(image, steps=3), dtype=int)
        assert np.abs(expected - np.asarray(enlarged)).max() <= 1
