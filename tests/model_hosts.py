"""A registry of narrow models of the published kinds, and servers that have their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import forked
import pytest
import torch
from command_line import Ran, Run
from goldens_support import golden_unet, golden_weights
from hub_server import HubServer, ReleaseServer
from PIL import ExifTags, Image
from safetensors.torch import save_file

NARROW = """
[models.realsr-x4-v2]
like = "realsr-x4-v1"
[models.realsr-x4-v2.weights]
sources = [
  { kind = "release", url = "https://github.com/a/b/releases/download/v1/unet_v2.pth" },
  { kind = "hub", repo = "mirror/files", file = "unet_v2.pth", revision = "main" },
]

[models.free-x4]
like = "realsr-x4-v1"
spec = { schedule = { steps = 4, min_noise = 0.2 }, autoencoder = { quantize = false } }
[models.free-x4.weights]
sources = [{ kind = "hub", repo = "free/net", file = "deep/free.safetensors", revision = "main" }]
licence = "Apache-2.0"
[models.free-x4.autoencoder]
sources = [{ kind = "hub", repo = "free/net", file = "vq.safetensors", revision = "main" }]
licence = "MIT"

[models.realsr-x4-v1]
description = "narrow"
task = "real-world"
homepage = "https://example.org"
citation = "nobody"
[models.realsr-x4-v1.weights]
sources = [
  { kind = "release", url = "https://github.com/a/b/releases/download/v1/unet_v1.pth" },
  { kind = "hub", repo = "mirror/files", file = "unet_v1.pth", revision = "main" },
]
licence = "S-Lab-1.0"
sha256 = ""
bytes = 0
[models.realsr-x4-v1.autoencoder]
sources = [
  { kind = "release", url = "https://github.com/a/b/releases/download/v1/vq.pth" },
  { kind = "hub", repo = "mirror/files", file = "vq.pth", revision = "main" },
]
licence = "S-Lab-1.0"
sha256 = ""
bytes = 0
[models.realsr-x4-v1.spec]
scale = 4
predict = "x0"
precondition = false
clip_lq = false
temperature = 1.0
tile = { size = 64, overlap = 16 }
schedule = { steps = 3, kappa = 2.0, p = 0.3, min_noise = 0.04, sqrt_eta_end = 0.99 }
[models.realsr-x4-v1.spec.denoiser]
latent_channels = 3
model_channels = 32
channel_mult = [1, 2, 2, 4]
num_res_blocks = 2
swin_levels = [0, 1, 2, 3]
swin_depth = 2
swin_embed_dim = 32
num_head_channels = 16
window = 8
mlp_ratio = 4
swin = "reference"
lq_ratio = 1
lq_mask = false
noise_channels = 0
[models.realsr-x4-v1.spec.autoencoder]
kind = "vq"
ch = 32
ch_mult = [1, 2, 4]
num_res_blocks = [2, 2, 2]
z_channels = 3
codes = 256
quantize = true
"""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files as their authors publish them."""
    folder = tmp_path_factory.mktemp("published")
    unet, vq = golden_weights("unet_small"), golden_weights("vq_small")
    for version in ("v1", "v2"):
        # As training wrote it: nested, wrapped, and with the masks that nobody needs.
        state = {f"module.{n}": t for n, t in golden_unet("unet_small").state_dict().items()}
        torch.save({"state_dict": state, "epoch": version}, folder / f"unet_{version}.pth")
    torch.save(vq, folder / "vq.pth")
    save_file(unet, folder / "free.safetensors")
    save_file(vq, folder / "vq.safetensors")
    return folder


@dataclass(frozen=True)
class Hosts:
    hub: HubServer
    release: ReleaseServer


@pytest.fixture
def hosts(weights: Path) -> Iterator[Hosts]:
    with HubServer() as hub, ReleaseServer() as release:
        for name in ("unet_v1.pth", "unet_v2.pth", "vq.pth"):
            release.add_file("a/b", "v1", name, weights / name)
            hub.add_file("mirror/files", name, weights / name)
        hub.add_file("free/net", "deep/free.safetensors", weights / "free.safetensors")
        hub.add_file("free/net", "vq.safetensors", weights / "vq.safetensors")
        yield Hosts(hub, release)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    (path / "models.toml").write_text(NARROW)
    return path


@pytest.fixture
def run(home: Path, hosts: Hosts) -> Run:
    """Runs a command in a process of its own, with a home of its own and these hosts."""

    def command(*arguments: object, **environment: str) -> Ran:
        inherited = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        inherited.pop("RESSHIFT_MODEL", None)
        ran = forked.run(
            *arguments,
            environment=inherited
            | {
                "HF_HOME": str(home / "huggingface"),
                "RESSHIFT_CACHE": str(home / "cache"),
                "RESSHIFT_REGISTRY": str(home / "models.toml"),
                "HF_ENDPOINT": hosts.hub.url,
                "RESSHIFT_RELEASES": hosts.release.url,
                "NO_PROXY": "*",
            }
            | environment,
        )
        assert "Traceback" not in ran.err
        return ran

    return command


def note_in(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.getexif()[ExifTags.Base.ProcessingSoftware])
