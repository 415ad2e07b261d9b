"""Models on the command line: listed, fetched, checked, used and deleted, from real servers.

The registry of these tests has models of the published kinds with narrow networks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Ran, Run
from goldens_support import golden_unet, golden_weights
from hub_server import HubServer, ReleaseServer, Repository
from pictures import made_up_photo
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file
from server_faults import Status
from tiny_run import RUN, toml

from resshift_cli import __version__
from resshift_cli.diffusion import autoencoder
from resshift_cli.diffusion.denoiser import Denoiser, SwinUNet
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.weights import registry

PUBLISHED = set(registry.read([registry.shipped_registry()])) - {"tiny-x4"}

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
        ran = subprocess.run(
            [sys.executable, "-m", "resshift_cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=inherited
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
        assert "Traceback" not in ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return command


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def note_in(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.getexif()[ExifTags.Base.ProcessingSoftware])


# What exists


def test_every_model_is_listed_with_its_facts_and_whether_it_is_here(resshift: Run) -> None:
    header, *lines = resshift("models", "list").out.splitlines()
    assert " ".join(header.split()) == "NAME TASK SCALE STEPS SIZE LICENCE HERE"
    rows = {line.split()[0]: re.split(r"\s{2,}", line.strip()) for line in lines}
    assert rows.keys() == PUBLISHED | {"tiny-x4"}
    assert rows["tiny-x4"][1:4] == ["real-world", "x4", "15"]
    assert rows["tiny-x4"][5:7] == ["Apache-2.0", "bundled"]
    assert rows["rsd-x2"][1:7] == ["real-world", "x2", "1", "699 MB", "RSD, S-Lab-1.0", "no"]


def test_models_are_listed_by_task_and_as_bare_names(resshift: Run) -> None:
    assert resshift("models", "list", "--task", "face", "--quiet").out == "face\n"
    assert set(resshift("models", "list", "-q").out.split()) == PUBLISHED | {"tiny-x4"}
    refused = resshift("models", "list", "--task", "faces")
    assert refused.code == 2
    assert "inpainting" in refused.err


def test_models_are_listed_as_json(resshift: Run) -> None:
    listed = json.loads(resshift("models", "list", "--json").out)
    models = {model["name"]: model for model in listed["models"]}
    assert listed["version"] == __version__
    assert models.keys() == PUBLISHED | {"tiny-x4"}
    assert models["tiny-x4"]["commercial"] is True
    assert models["sinsr-x4"]["commercial"] is False
    assert models["sinsr-x4"]["files"][0]["path"] is None


@pytest.mark.parametrize("name", ["tiny-x4", "nacre-x4"])
def test_everything_about_a_model_is_told(resshift: Run, name: str) -> None:
    entry = registry.find(name)
    told = resshift("models", "info", name).out
    for licence in entry.licences:
        assert licence.url in told
    assert entry.citation in told
    assert all(source.address in told for file in entry.files for source in file.sources)
    assert "512x512 pixels take about" in told
    facts = json.loads(resshift("models", "info", name, "--json").out)
    assert facts["citation"] == entry.citation
    assert facts["on_this_machine"]["seconds"] > 0
    assert facts["on_this_machine"]["bytes"] > 1e6


def test_a_registry_of_one_s_own_joins_in(resshift: Run, home: Path) -> None:
    listed = resshift("models", "list", "-q", "--registry", home / "models.toml").out.split()
    assert {"free-x4", "nacre-x4"} <= set(listed)


def test_the_shell_completes_model_names() -> None:
    words = "resshift upscale --model realsr"
    ran = subprocess.run(
        [sys.executable, "-m", "resshift_cli"],
        env=os.environ
        | {
            "_RESSHIFT_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["realsr-x4-v1", "realsr-x4-v2", "realsr-x4-v3"]


# Fetching and using


def test_a_published_model_is_fetched_once_converted_and_run_as_its_networks_say(
    run: Run, home: Path, hosts: Hosts, photo: Path
) -> None:
    pulled = run("models", "pull", "realsr-x4-v2")
    assert pulled.code == 0
    assert "S-Lab License 1.0, non-commercial use only" in pulled.err
    paths = [Path(line) for line in run("models", "path", "realsr-x4-v2").out.splitlines()]
    assert [path.suffix for path in paths] == [".safetensors"] * 2
    assert run("models", "verify", "realsr-x4-v2").code == 0

    upscaled = run("upscale", photo, "--offline", "--precision", "fp32", "--device", "cpu")
    assert (upscaled.code, upscaled.out) == (0, f"{photo.with_name('photo_x4.png')}\n")
    note = "realsr-x4-v2 (S-Lab-1.0, non-commercial use only), 3 steps, seed 0"
    assert note_in(photo.with_name("photo_x4.png")) == f"resshift {__version__}: {note}"

    spec = registry.find("realsr-x4-v2", home / "models.toml").spec
    assert spec is not None
    network, codec = SwinUNet(spec.denoiser), autoencoder.build(spec.autoencoder)
    network.load_state_dict(golden_weights("unet_small"), strict=False)
    codec.load_state_dict(golden_weights("vq_small"))
    denoiser = Denoiser(network, predict="x0", precondition=False)
    direct = Upscaler(spec, denoiser, codec, name="direct", device="cpu", precision="fp32")
    with Image.open(photo) as image, Image.open(photo.with_name("photo_x4.png")) as result:
        expected = np.asarray(direct(image), dtype=int)
        assert np.abs(expected - np.asarray(result)).max() <= 1

    assert run("models", "pull", "realsr-x4-v2").code == 0
    assert len(hosts.release.asked("a/b/v1/unet_v2.pth")) == 1
    assert not hosts.hub.requests


def test_files_of_the_hub_are_used_where_its_cache_has_them(run: Run, home: Path) -> None:
    assert run("models", "pull", "free-x4", "--quiet") == Ran(0, "", "")
    paths = [Path(line) for line in run("models", "path", "free-x4").out.splitlines()]
    assert all(path.is_relative_to(home / "huggingface") for path in paths)


def test_the_mirror_is_asked_when_the_release_fails(run: Run, hosts: Hosts) -> None:
    for name in ("unet_v1.pth", "vq.pth"):
        hosts.release.files[f"a/b/v1/{name}"].faults.append(Status(404))
    assert run("models", "pull", "realsr-x4-v1").code == 0
    assert hosts.hub.bytes_sent("mirror/files/unet_v1.pth")


def test_what_every_source_said_is_told_in_the_end(run: Run, hosts: Hosts) -> None:
    hosts.release.files["a/b/v1/unet_v1.pth"].faults.append(Status(404))
    hosts.hub.files["mirror/files/unet_v1.pth"].faults.append(Status(403, "GatedRepo"))
    ran = run("models", "pull", "realsr-x4-v1")
    assert ran.code == 7
    assert "404" in ran.err
    assert "HF_TOKEN" in ran.err


def test_a_model_named_on_the_command_line_is_fetched_by_upscaling(run: Run, photo: Path) -> None:
    ran = run("upscale", photo, "--model", "free-x4", "--json")
    assert ran.code == 0
    (result,) = json.loads(ran.out)["results"]
    assert (result["steps"], result["width"], result["height"]) == (4, 96, 80)
    assert "non-commercial" not in ran.err


def test_the_default_model_is_fetched_where_its_sources_answer(run: Run, photo: Path) -> None:
    ran = run("upscale", photo)
    assert ran.code == 0
    assert "realsr-x4-v2, 3 steps" in ran.err
    assert "non-commercial use only" in ran.err


@pytest.mark.parametrize("offline", [True, False])
def test_without_network_the_default_gives_way_to_the_bundled_model_and_says_so(
    run: Run, photo: Path, offline: bool
) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "RESSHIFT_RELEASES": "http://127.0.0.1:9"}
    ran = run("upscale", photo, *(["--offline"] if offline else []), **nowhere)
    assert ran.code == 0
    (line,) = [line for line in ran.err.splitlines() if "using tiny-x4" in line]
    assert "resshift models pull realsr-x4-v2" in line
    assert "tiny-x4 (Apache-2.0)" in note_in(photo.with_name("photo_x4.png"))


@pytest.mark.parametrize("chosen", ["option", "variable"])
def test_a_model_that_was_chosen_never_gives_way(run: Run, photo: Path, chosen: str) -> None:
    ran = (
        run("upscale", photo, "--offline", "--model", "free-x4")
        if chosen == "option"
        else run("upscale", photo, "--offline", RESSHIFT_MODEL="free-x4")
    )
    assert (ran.code, ran.out) == (7, "")
    assert "resshift models pull" in ran.err
    assert "tiny-x4" in ran.err
    assert not photo.with_name("photo_x4.png").exists()


def test_missing_inputs_are_noticed_before_anything_is_fetched(
    run: Run, hosts: Hosts, tmp_path: Path
) -> None:
    assert run("upscale", tmp_path / "none.png", "--model", "free-x4").code == 3
    assert not hosts.hub.requests


@pytest.mark.parametrize("name", ["face", "inpaint-imagenet"])
def test_models_for_other_tasks_are_not_run_by_upscaling(
    resshift: Run, photo: Path, name: str
) -> None:
    ran = resshift("upscale", photo, "--model", name)
    assert ran.code == 2
    assert "resshift models list" in ran.err


# Checking and deleting


def test_a_file_that_changed_on_the_disk_is_found_and_mended(run: Run) -> None:
    assert run("models", "pull", "realsr-x4-v1", "free-x4").code == 0
    broken = Path(run("models", "path", "realsr-x4-v1").out.splitlines()[0])
    with broken.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    checked = run("models", "verify")
    assert checked.code == 7
    assert f"error: {broken}" in checked.err
    assert "free-x4" in checked.err  # which is as it should be
    broken.unlink()
    assert run("models", "pull", "realsr-x4-v1").code == 0
    assert run("models", "verify").code == 0


def test_deleting_a_model_leaves_what_others_use(run: Run) -> None:
    assert run("models", "pull", "realsr-x4-v1", "realsr-x4-v2").code == 0
    weights, autoencoder = map(Path, run("models", "path", "realsr-x4-v1").out.splitlines())
    assert run("models", "rm", "realsr-x4-v1").code == 0
    assert (weights.exists(), autoencoder.exists()) == (False, True)
    assert run("models", "path", "realsr-x4-v1").code == 7
    assert run("models", "path", "realsr-x4-v2").code == 0
    assert "nothing freed" in run("models", "rm", "realsr-x4-v1").err
    assert run("models", "rm", "realsr-x4-v2").code == 0
    assert not autoencoder.exists()


def test_deleting_a_model_of_the_hub_frees_its_cache(run: Run, home: Path) -> None:
    run("models", "pull", "free-x4")
    freed = run("models", "rm", "free-x4")
    assert re.search(r"\d+ (kB|MB) freed", freed.err)
    left = [p for p in (home / "huggingface").rglob("*.safetensors")]
    assert left == []


def test_the_bundled_model_can_not_be_deleted(resshift: Run) -> None:
    assert "nothing freed" in resshift("models", "rm", "tiny-x4").err
    assert resshift("models", "verify", "tiny-x4").code == 0


@pytest.mark.parametrize("command", ["pull", "rm"])
def test_commands_want_to_know_which_model(resshift: Run, command: str) -> None:
    assert resshift("models", command).code == 2


# Files and models of one's own


def test_a_converted_file_is_run_with_the_autoencoder_that_fits_it(
    run: Run, weights: Path, tmp_path: Path, photo: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    ran = run("models", "convert", weights / "unet_v1.pth", mine, "--like", "free-x4")
    assert (ran.code, ran.out) == (0, f"{mine}\n")
    upscaled = run("upscale", photo, "--weights", mine, "--json")
    (result,) = json.loads(upscaled.out)["results"]
    assert result["steps"] == 4


def test_an_autoencoder_is_converted_as_one(run: Run, weights: Path, tmp_path: Path) -> None:
    vq = tmp_path / "vq.safetensors"
    arguments = ("models", "convert", weights / "vq.pth", vq, "--like", "free-x4")
    assert "--autoencoder" in run(*arguments).err
    assert run(*arguments, "--autoencoder").code == 0


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_a_file_that_carries_code_is_refused_and_nothing_is_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pth")
    ran = run("models", "convert", "evil.pth", "out.safetensors", "--like", "free-x4")
    assert ran.code == 7
    assert "carries code" in ran.err
    assert {path.name for path in tmp_path.glob("*.*")} == {"evil.pth"}
    assert not Path("executed").exists()


def test_a_file_that_was_not_converted_is_not_run(
    resshift: Run, weights: Path, photo: Path
) -> None:
    ran = resshift("upscale", photo, "--weights", weights / "unet_v1.pth")
    assert ran.code == 7
    assert "resshift models convert" in ran.err


def test_a_web_page_in_place_of_weights_is_refused_until_it_is_deleted(
    run: Run, hosts: Hosts, weights: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    page.write_text("<html>Log in to this network</html>")
    served = hosts.release.files["a/b/v1/unet_v1.pth"]
    served.replace(page)
    ran = run("models", "pull", "realsr-x4-v1")
    assert ran.code == 7
    assert "`resshift models rm realsr-x4-v1`" in ran.err
    served.replace(weights / "unet_v1.pth")
    assert run("models", "pull", "realsr-x4-v1").code == 7
    assert run("models", "rm", "realsr-x4-v1").code == 0
    assert run("models", "pull", "realsr-x4-v1").code == 0


def test_an_existing_file_is_converted_over_only_when_asked(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.safetensors"
    target.write_text("precious")
    arguments = ("models", "convert", weights / "unet_v1.pth", target, "--like", "free-x4")
    assert run(*arguments).code == 6
    assert target.read_text() == "precious"
    assert run(*arguments, "--overwrite").code == 0


def test_a_file_that_fits_several_models_needs_to_be_told_which(
    run: Run, weights: Path, photo: Path
) -> None:
    file = weights / "free.safetensors"
    unsure = run("upscale", photo, "--weights", file.rename(file.with_name("some.safetensors")))
    file.with_name("some.safetensors").rename(file)
    assert unsure.code == 2
    assert "free-x4" in unsure.err
    assert "--model" in unsure.err
    told = run("upscale", photo, "--weights", file, "--model", "free-x4", "--json")
    assert json.loads(told.out)["results"][0]["steps"] == 4


def test_a_model_of_one_s_own_gets_a_name(
    run: Run, hosts: Hosts, weights: Path, photo: Path
) -> None:
    hosts.hub.add_file("me/mine", "x.safetensors", weights / "free.safetensors")
    arguments = ("models", "add", "mine", "--like", "free-x4")
    assert run(*arguments, "--hub", "me/mine/x.safetensors", "--licence", "MIT").code == 0
    assert "mine" in run("models", "list", "-q").out.split()
    ran = run("upscale", photo, "--model", "mine", "--json")
    assert json.loads(ran.out)["model"] == "mine"
    assert run(*arguments, "--hub", "me/mine/x.safetensors").code == 2  # the name is taken


def test_a_trained_file_gets_a_name_without_saying_what_it_is_like(
    run: Run, tiny_weights: Path, photo: Path
) -> None:
    assert run("models", "add", "trained", "--file", tiny_weights).code == 0
    assert run("upscale", photo, "--model", "trained").code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--hub", "me/x.safetensors"], 2),
        ([], 2),
        (["--file", "none.safetensors"], 3),
        (["--file", "photo.png"], 7),
    ],
)
def test_models_that_can_t_be_added_are_refused(
    resshift: Run, photo: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(photo.parent)
    assert resshift("models", "add", "mine", *arguments).code == code


# Publishing

PUBLISH = {"HF_TOKEN": "hf_writer", "HF_HUB_DISABLE_XET": "1"}  # there is no Xet store here


@pytest.fixture
def trained(tiny_weights: Path, tmp_path: Path) -> Path:
    """The folder of a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(tiny_weights, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\nA model.\n")
    return folder


def test_a_run_is_published_with_its_card(run: Run, hosts: Hosts, trained: Path) -> None:
    done = run("models", "publish", trained, "--repo", "user/net", "--message", "First", **PUBLISH)
    assert done.code == 0, done.err
    assert done.out == f"{hosts.hub.url}/user/net\n"
    assert "resshift models add NAME --hub user/net/model.safetensors" in done.err
    published = hosts.hub.repositories["user/net"]
    assert published.files == {
        name: (trained / name).read_bytes() for name in ("model.safetensors", "README.md")
    }
    assert published.messages == ["First"] and not published.private


def test_what_was_published_can_be_added_and_used(
    run: Run, hosts: Hosts, trained: Path, photo: Path, tmp_path: Path
) -> None:
    assert run("models", "publish", trained, "--repo", "user/net", **PUBLISH).code == 0
    served = tmp_path / "served.safetensors"
    served.write_bytes(hosts.hub.repositories["user/net"].files["model.safetensors"])
    hosts.hub.add_file("user/net", "model.safetensors", served)
    assert run("models", "add", "mine", "--hub", "user/net/model.safetensors").code == 0
    done = run("upscale", photo, "--model", "mine", "-o", tmp_path / "large.png")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (96, 80)


def test_a_file_alone_is_published_under_its_own_name(
    run: Run, hosts: Hosts, tiny_weights: Path
) -> None:
    done = run("models", "publish", tiny_weights, "--repo", "user/net", "--private", **PUBLISH)
    assert done.code == 0, done.err
    published = hosts.hub.repositories["user/net"]
    assert published.private
    assert published.files == {"tiny.safetensors": tiny_weights.read_bytes()}


def test_a_repository_that_exists_gets_another_version(
    run: Run, hosts: Hosts, trained: Path
) -> None:
    hosts.hub.repositories["user/net"] = Repository(private=True, files={"notes": b"kept"})
    done = run("models", "publish", trained, "--repo", "user/net", "--private", **PUBLISH)
    assert done.code == 0, done.err
    assert set(hosts.hub.repositories["user/net"].files) == {
        "notes",
        "model.safetensors",
        "README.md",
    }


def test_a_public_repository_does_not_get_what_is_to_be_private(
    run: Run, hosts: Hosts, trained: Path
) -> None:
    hosts.hub.repositories["user/net"] = Repository(private=False)
    refused = run("models", "publish", trained, "--repo", "user/net", "--private", **PUBLISH)
    assert refused.code == 2
    assert "user/net exists already, and is public" in refused.err
    assert not hosts.hub.uploads and not hosts.hub.repositories["user/net"].files


def test_a_card_without_a_licence_is_pointed_out(run: Run, hosts: Hosts, trained: Path) -> None:
    (trained / "README.md").write_text("---\nlicense: unknown  # to be filled in\n---\n")
    done = run("models", "publish", trained, "--repo", "user/net", **PUBLISH)
    assert done.code == 0, done.err
    assert "README.md has no licence yet" in done.err


@pytest.mark.parametrize(
    ("environment", "message", "hint"),
    [
        ({"HF_TOKEN": ""}, "Publishing needs a token of your account", "variable HF_TOKEN"),
        ({"HF_TOKEN": "stale"}, "the token is not valid (401)", "variable HF_TOKEN"),
        ({"HF_TOKEN": "hf_reader"}, "the token may not write there (403)", "variable HF_TOKEN"),
        ({"HF_HUB_OFFLINE": "1"}, "Nothing can be published offline", "Unset HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9: no connection", "tries again"),
    ],
)
def test_what_keeps_a_model_from_being_published_is_told(
    run: Run, hosts: Hosts, trained: Path, environment: dict[str, str], message: str, hint: str
) -> None:
    failed = run("models", "publish", trained, "--repo", "user/net", **PUBLISH | environment)
    assert failed.code == 1 and failed.out == ""
    assert message in failed.err and hint in failed.err
    assert len(failed.err.splitlines()) == 1
    assert not hosts.hub.repositories


def test_nothing_is_published_under_somebody_else_s_name(
    run: Run, hosts: Hosts, trained: Path
) -> None:
    failed = run("models", "publish", trained, "--repo", "someone/net", **PUBLISH)
    assert failed.code == 1
    assert "someone/net can't be published: the token may not write there (403)" in failed.err


def test_front_matter_that_the_hub_refuses_is_told(run: Run, hosts: Hosts, trained: Path) -> None:
    hosts.hub.refuse_readme = True
    failed = run("models", "publish", trained, "--repo", "user/net", **PUBLISH)
    assert failed.code == 1
    assert "the Hub does not take the front matter of README.md" in failed.err


@pytest.mark.parametrize("repo", ["no such/name", "net", "a/b/c"])
def test_a_name_that_no_repository_can_have_is_refused(run: Run, trained: Path, repo: str) -> None:
    refused = run("models", "publish", trained, "--repo", repo, **PUBLISH)
    assert refused.code == 2
    assert f"'{repo}' can't be the name of a repository" in refused.err


def test_a_file_that_does_not_say_what_it_is_is_not_published(
    run: Run, hosts: Hosts, weights: Path, tmp_path: Path
) -> None:
    refused = run("models", "publish", weights / "free.safetensors", "--repo", "user/net")
    assert refused.code == 7
    assert "does not say which network it belongs to" in refused.err
    (tmp_path / "empty").mkdir()
    assert run("models", "publish", tmp_path / "empty", "--repo", "user/net").code == 3
    assert not hosts.hub.repositories


# Training from what is published


def configured(folder: Path, **model: Any) -> tuple[Path, ...]:
    """The arguments of a run of one step whose model is like the narrow ones."""
    photos = folder / "photos"
    photos.mkdir()
    for i, side in enumerate([256, 300]):
        Image.fromarray(made_up_photo(i, side)).save(photos / f"{i}.png")
    table = ", ".join(f"{key} = {toml(value)}" for key, value in model.items())
    train = toml(asdict(RUN.train) | {"steps": 1, "samples": 0, "crop": 256, "batch": 1})
    config = folder / "run.toml"
    config.write_text(
        f'photos = ""\nautoencoder = "free-x4"\nmodel = {{ {table} }}\ntrain = {train}\n'
    )
    return config, folder / "run", photos


def test_a_run_starts_from_a_model_and_an_autoencoder_of_the_registry(
    run: Run, hosts: Hosts, tmp_path: Path
) -> None:
    config, out, photos = configured(tmp_path, like="free-x4", denoiser={"swin": "reference"})
    command = ("train", config, "--photos", photos, "--out", out, "--init", "free-x4")
    done = run(*command, "--device", "cpu")
    assert done.code == 0, done.err
    assert hosts.hub.bytes_sent("free/net/deep/free.safetensors")
    assert hosts.hub.bytes_sent("free/net/vq.safetensors")
    made, given = load_file(out / "model.safetensors"), golden_weights("unet_small")
    name = "input_blocks.1.0.in_layers.2.weight"
    assert torch.allclose(made[name].float(), given[name], atol=2e-3)  # after one small step
    vq = golden_weights("vq_small")
    for name, tensor in vq.items():
        assert torch.equal(made[f"autoencoder.{name}"], tensor.half())


def test_a_run_does_not_start_from_a_model_of_another_kind_or_name(
    run: Run, hosts: Hosts, tmp_path: Path
) -> None:
    config, out, photos = configured(tmp_path, like="free-x4", predict="residual")
    command = ("train", config, "--photos", photos, "--out", out, "--device", "cpu", "--init")
    for source, code, message in (
        ("free-x4", 7, "free-x4 was trained with predict = 'x0', and this run has 'residual'"),
        ("free-x5", 2, "no model named 'free-x5'"),
        (tmp_path / "lost.safetensors", 3, "There is no file"),
    ):
        refused = run(*command, source)
        assert refused.code == code, refused.err
        assert message in refused.err
        assert not out.exists()
