"""`resshift models`: listed, fetched, checked, used and deleted, from real servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Ran, Run
from goldens_support import golden_weights
from model_hosts import Hosts, note_in
from PIL import Image
from server_faults import Status

from resshift_cli import __version__
from resshift_cli.diffusion import autoencoder
from resshift_cli.diffusion.denoiser import Denoiser, SwinUNet
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.weights import registry

BUNDLED = {"tiny-x4", "chain-x4", "tiny-x1"}
PUBLISHED = set(registry.read([registry.shipped_registry()])) - BUNDLED


# What exists


def test_every_model_is_listed_with_its_facts_and_whether_it_is_here(resshift: Run) -> None:
    header, *lines = resshift("models", "list").out.splitlines()
    assert " ".join(header.split()) == "NAME FOR SCALE STEPS SIZE COMMERCIAL HERE"
    rows = {line.split()[0]: re.split(r"\s{2,}", line.strip()) for line in lines}
    assert rows.keys() == PUBLISHED | BUNDLED
    assert rows["tiny-x4"][1:4] == ["upscale, default", "x4", "1"]
    assert rows["tiny-x4"][5:7] == ["yes", "bundled"]
    assert rows["rsd-x2"][1:7] == ["upscale", "x2", "1", "699 MB", "no", "no"]
    assert rows["inpaint-imagenet"][1:4] == ["inpaint, default", "x1", "4"]
    assert rows["tiny-x1"][1:4] == ["inpaint; restore, default", "x1", "1"]
    assert rows["face"][1:5] == ["face, default", "x1", "4", "787 MB"]


def test_models_for_the_same_command_stand_beside_each_other(resshift: Run) -> None:
    listed = json.loads(resshift("models", "list", "--json").out)["models"]
    commands = [model["for"] for model in listed]
    assert list(dict.fromkeys(commands)) == ["upscale", "inpaint", "restore", "face"]
    assert commands == sorted(commands, key=["upscale", "inpaint", "restore", "face"].index)
    usual = [model["name"] for model in listed if model["default"]]
    assert usual == [
        "tiny-x4",
        "inpaint-imagenet",
        "tiny-x1",
        "face",
    ]  # RESSHIFT_MODEL names the first
    two = [model["run_by"] for model in listed if model["name"] == "tiny-x1"]
    assert two == [["inpaint", "restore"]]


def test_how_long_a_photo_takes_is_told_if_it_is_asked(resshift: Run) -> None:
    header, *lines = resshift("models", "list", "--speed", "--task", "restore").out.splitlines()
    assert " ".join(header.split()) == "NAME FOR SCALE STEPS SIZE SPEED COMMERCIAL HERE"
    own, published = lines
    assert re.search(r"tiny-x1 .* MB +[\d.]+ s +yes +bundled", own)
    assert re.search(r"deblur .* MB +[\d.]+ (s|min|h) +no +no", published)


def test_models_are_listed_by_task_and_as_bare_names(resshift: Run) -> None:
    assert resshift("models", "list", "--task", "face", "--quiet").out == "face\n"
    inpaint = resshift("models", "list", "--task", "inpaint", "-q").out.split()
    assert inpaint == ["inpaint-imagenet", "inpaint-face", "tiny-x1"]
    assert resshift("models", "list", "--task", "inpainting", "-q").out.split() == inpaint[:2]
    assert set(resshift("models", "list", "-q").out.split()) == PUBLISHED | BUNDLED
    refused = resshift("models", "list", "--task", "faces")
    assert refused.code == 2
    assert "inpainting" in refused.err


def test_models_are_listed_as_json(resshift: Run) -> None:
    listed = json.loads(resshift("models", "list", "--json").out)
    models = {model["name"]: model for model in listed["models"]}
    assert listed["version"] == __version__
    assert models.keys() == PUBLISHED | BUNDLED
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
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count != 1)}"
    note = "realsr-x4-v2 (S-Lab-1.0, non-commercial use only), 3 steps, detail 1, seed 0, fp32"
    assert note_in(photo.with_name("photo_x4.png")) == f"resshift {__version__}: {note}, {threads}"

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
    assert (result["steps"], result["width"], result["height"]) == (4, 80, 48)
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
