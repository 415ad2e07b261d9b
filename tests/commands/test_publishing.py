"""Models published on the Hub, and training from what is published."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run
from goldens_support import golden_weights
from hub_server import Repository
from model_hosts import Hosts
from pictures import made_up_photo
from PIL import Image
from safetensors.torch import load_file
from tiny_run import RUN, toml

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
        assert large.size == (80, 48)


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
