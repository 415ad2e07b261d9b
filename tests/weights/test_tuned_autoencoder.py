"""Checkpoints whose training changed the autoencoder as well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_checkpoint import EXPECTED, SPEC, save, state
from tiny_model import tiny_networks
from torch import Tensor

from resshift_cli.errors import ModelUnavailableError
from resshift_cli.weights import checkpoint, convert
from resshift_cli.weights.registry import LocalSource, ModelEntry, WeightFile

WEIGHTS = WeightFile((LocalSource("x.safetensors"),), "unknown", "", 0)
PROVENANCE = {"source": "https://example.org/x.pth"}


def tuned(tmp_path: Path, entry: object) -> Path:
    """A converted file of `SPEC`'s denoiser, beside which `vae` lay in the checkpoint."""
    source = save({"state_dict": state(), "vae": entry}, tmp_path / "deblur.pth")
    target = tmp_path / "deblur.safetensors"
    codec = convert.shapes_of_autoencoder(SPEC)
    convert.convert(source, target, EXPECTED, tunable=codec, provenance={})
    return target


def codec_file(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """The autoencoder of `SPEC` in a file of its own, and its tensors."""
    tensors = checkpoint.own_tensors(tiny_networks(SPEC)[1])
    path = tmp_path / "codec.safetensors"
    checkpoint.write(path, tensors, {})
    return path, tensors


@pytest.mark.parametrize("part", ["decoder.", ""], ids=["the decoder alone", "all of it"])
def test_what_training_changed_in_the_autoencoder_takes_the_place_of_its_weights(
    tmp_path: Path, part: str
) -> None:
    path, before = codec_file(tmp_path)
    changed = {n: t + 1 for n, t in before.items() if n.startswith(part)}
    denoiser, codec = checkpoint.load(
        SPEC, tuned(tmp_path, {f"module.{n}": t for n, t in changed.items()}), path
    )
    after = checkpoint.own_tensors(codec)
    assert changed and all(torch.equal(after[n], changed.get(n, t)) for n, t in before.items())
    for name, tensor in checkpoint.own_tensors(denoiser.network).items():
        assert torch.equal(tensor, state()[name]), name


def test_a_checkpoint_without_one_is_converted_to_the_same_bytes(tmp_path: Path) -> None:
    source, target = save(state(), tmp_path / "in.pth"), tmp_path / "same.safetensors"
    convert.convert(source, target, EXPECTED, provenance=PROVENANCE)
    plain = target.read_bytes()
    codec = convert.shapes_of_autoencoder(SPEC)
    convert.convert(source, target, EXPECTED, tunable=codec, provenance=PROVENANCE)
    assert target.read_bytes() == plain


def test_a_model_with_a_tuned_autoencoder_still_fits_its_like(tmp_path: Path) -> None:
    entry = ModelEntry("x", "", "real-world", "", "", WEIGHTS, (), spec=SPEC)
    _, tensors = codec_file(tmp_path)
    assert checkpoint.fitting(tuned(tmp_path, tensors), [entry]) == [entry]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"decoder.unheard.of": torch.zeros(1)}, "has the unknown decoder.unheard.of"),
        ({"quantize.embedding.weight": torch.zeros(3)}, "of shape (3,) instead of"),
        ({"quantize.embedding.weight": "text"}, "which is no tensor"),
        ([1], "something else than weights by name"),
    ],
    ids=["unknown", "shape", "text", "list"],
)
def test_a_tuned_autoencoder_that_does_not_fit_is_refused(
    tmp_path: Path, entry: object, problem: str
) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        tuned(tmp_path, entry)
    assert problem in str(caught.value)
