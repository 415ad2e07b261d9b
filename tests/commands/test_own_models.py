"""Weight files and models of one's own: converted, run and named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run
from model_hosts import Hosts

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


def test_a_trained_file_is_taken_by_the_commands_that_it_is_for(
    run: Run, fills: Path, photo: Path
) -> None:
    added = run("models", "add", "mends", "--file", fills)
    assert "resshift restore photo.jpg --model mends" in added.err
    assert run("restore", photo, "--model", "mends", "--steps", "1").code == 0
    assert run("inpaint", photo, "--model", "mends", "--steps", "1", "--box", "0,0,3,3").code == 0
    assert run("upscale", photo, "--model", "mends").code == 2
    assert "mends" in run("models", "list", "--task", "inpaint", "-q").out.split()


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
