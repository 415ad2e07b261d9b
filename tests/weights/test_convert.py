"""`.pth` files: what is taken from them, what is refused, and that nothing in them runs."""

from __future__ import annotations

import builtins
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import (
    UNET_SPECS,
    VQ_SPECS,
    manifests,
    small_unet_spec,
)
from memory import apart, needs_proc, peak_over
from recipe import DERIVED
from safetensors import safe_open
from safetensors.torch import load_file
from small_checkpoint import EXPECTED, SPEC, save, state
from tiny_model import tiny_networks, tiny_spec
from torch import Tensor, nn

from resshift_cli.diffusion.swin import SwinConvention, shift_mask
from resshift_cli.diffusion.tables import SpecError
from resshift_cli.errors import InputMissingError, ModelUnavailableError, OutputError
from resshift_cli.weights import checkpoint, convert

FIRST = "input_blocks.0.0.weight"
MASK = "middle_block.1.blocks.1.attn_mask"
PROVENANCE = {"source": "https://example.org/x.pth", "sha256": "0" * 64, "licence": "MIT"}

FORMATS = pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
Convert = Callable[..., Path]


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Save something and convert it."""

    def run(content: object, *, archive: bool = True) -> Path:
        source = save(content, tmp_path / "in.pth", archive)
        target = tmp_path / "out.safetensors"
        convert.convert(source, target, EXPECTED, provenance=PROVENANCE)
        return target

    return run


def refused(source: Path, expected: Mapping[str, tuple[int, ...]] = EXPECTED) -> str:
    """The message; nothing is left behind, and what was there before stays."""
    target = source.with_name("out.safetensors")
    target.write_text("as it was")
    before = sorted(source.parent.iterdir())
    with pytest.raises(ModelUnavailableError) as caught:
        convert.convert(source, target, expected, provenance={})
    assert sorted(source.parent.iterdir()) == before
    assert target.read_text() == "as it was"
    message = str(caught.value)
    assert str(source) in message
    assert "\n" not in message and caught.value.hint
    return message


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Same names, but for what follows from the layout; same types; same bits."""
    wanted = {name: t for name, t in expected.items() if not name.endswith(DERIVED)}
    assert actual.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert actual[name].dtype == tensor.dtype
        assert torch.equal(actual[name], tensor), name


# What is taken


@FORMATS
def test_weights_come_over_to_the_bit(archive: bool, converted: Convert) -> None:
    assert_same(load_file(converted(state(), archive=archive)), state())


def test_every_tensor_keeps_its_type(converted: Convert) -> None:
    dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
    content = {name: t.to(dtypes[i % 4]) for i, (name, t) in enumerate(state().items())}
    assert_same(load_file(converted(content)), content)


def test_parameters_and_any_order_in_memory_are_taken(converted: Convert) -> None:
    content = state()
    content[FIRST] = nn.Parameter(content[FIRST].to(memory_format=torch.channels_last))
    assert_same(load_file(converted(content)), state())


@FORMATS
@pytest.mark.parametrize("wrapper", ["state_dict", "params", "params_ema"])
def test_weights_may_lie_under_a_name_beside_other_things(
    wrapper: str, archive: bool, converted: Convert
) -> None:
    content = {"epoch": 7, "optimizer": {"lr": 1e-4}, wrapper: state()}
    assert_same(load_file(converted(content, archive=archive)), state())


def test_averaged_weights_are_preferred(converted: Convert) -> None:
    zeros = {name: torch.zeros_like(t) for name, t in state().items()}
    path = converted({"params": zeros, "params_ema": state(), "state_dict": zeros})
    assert_same(load_file(path), state())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."]
)
def test_prefixes_of_wrappers_for_training_are_taken_away(prefix: str, converted: Convert) -> None:
    path = converted({"state_dict": {prefix + name: t for name, t in state().items()}})
    assert_same(load_file(path), state())


def test_an_empty_tensor_is_taken_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "in.pth", tmp_path / "out.safetensors"
    save({"a": torch.zeros(0, 4)}, source)
    convert.convert(source, target, {"a": (0, 4)}, provenance={})
    assert load_file(target)["a"].shape == (0, 4)


def test_a_converted_model_loads(converted: Convert, tmp_path: Path) -> None:
    denoiser, codec = tiny_networks(SPEC)
    vq = tmp_path / "vq.safetensors"
    source = save(codec.state_dict(), tmp_path / "vq.pth")
    convert.convert(source, vq, convert.shapes_of_autoencoder(SPEC), provenance={})
    loaded, loaded_codec = checkpoint.load(SPEC, converted(state()), vq)
    assert_same(checkpoint.own_tensors(loaded.network), denoiser.network.state_dict())
    assert_same(loaded_codec.state_dict(), codec.state_dict())


def test_the_metadata_say_where_it_comes_from_and_how_windows_shift(converted: Convert) -> None:
    assert metadata_of(converted(state())) == PROVENANCE | {"swin": "reference"}


@pytest.mark.parametrize("convention", ["reference", "standard"])
def test_masks_tell_how_windows_shift(convention: SwinConvention, converted: Convert) -> None:
    path = converted(state() | {MASK: shift_mask(64, 64, 8, convention)})
    assert metadata_of(path)["swin"] == convention


@pytest.mark.parametrize(
    "mask", [None, "none", torch.full((4, 2, 2), torch.nan), torch.eye(4), torch.eye(4)[None]]
)
def test_masks_that_are_none_tell_nothing(mask: object, converted: Convert) -> None:
    content = {name: t for name, t in state().items() if name != MASK}
    path = converted(content if mask is None else content | {MASK: mask})
    assert metadata_of(path) == PROVENANCE


def test_the_same_file_is_converted_to_the_same_bytes(converted: Convert) -> None:
    assert len({converted(state()).read_bytes() for _ in range(4)}) == 1


# What a layout expects


@pytest.mark.parametrize("name", UNET_SPECS)
def test_the_shapes_of_every_published_denoiser_are_known(name: str) -> None:
    wanted = {n: s for n, s in manifests()[name].items() if not n.endswith(DERIVED)}
    assert checkpoint.shapes(UNET_SPECS[name]) == wanted


@pytest.mark.parametrize("name", VQ_SPECS)
def test_the_shapes_of_every_published_autoencoder_are_known(name: str) -> None:
    assert checkpoint.shapes(VQ_SPECS[name]) == manifests()[name]


def test_a_model_s_shapes_are_those_of_its_networks() -> None:
    denoiser, codec = tiny_networks(SPEC)
    assert {
        name: tuple(t.shape) for name, t in checkpoint.own_tensors(denoiser.network).items()
    } == EXPECTED
    assert convert.shapes_of_autoencoder(SPEC) == {
        name: tuple(t.shape) for name, t in codec.state_dict().items()
    }
    assert convert.shapes_of_autoencoder(tiny_spec()) == {}


def test_sizes_that_make_no_network_have_no_shapes() -> None:
    odd = tiny_spec(denoiser=small_unet_spec(latent_channels=48, model_channels=30))
    with pytest.raises(SpecError, match="make no network"):
        convert.shapes_of_denoiser(odd)


# What does not fit


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = state()
    change(content)
    return save(content, tmp_path / "in.pth")


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda s: s.pop(FIRST), f"it lacks {FIRST}."),
        (lambda s: s.update(extra=torch.zeros(1)), "it has the unknown extra."),
        (lambda s: s.update(epoch=3), "it has epoch, which is no tensor."),
        (lambda s: s.update({FIRST: [1.0]}), f"it has {FIRST}, which is no tensor."),
        (
            lambda s: s.update({FIRST: torch.zeros(32, 6, 1, 1)}),
            f"it has {FIRST} of shape (32, 6, 1, 1) instead of (32, 6, 3, 3).",
        ),
        (
            lambda s: s.update({f"module.{FIRST}": s[FIRST]}),
            f"it has {FIRST} twice.",
        ),
    ],
    ids=["missing", "unknown", "number", "list", "shape", "twice"],
)
def test_what_differs_is_named(
    change: Callable[[dict[str, Any]], object], problem: str, tmp_path: Path
) -> None:
    assert problem in refused(changed(tmp_path, change))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_values_that_are_not_finite_are_refused_by_name(
    value: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    weight = state()[FIRST]
    weight[5, 4, 1, 2] = value
    path = changed(tmp_path, lambda s: s.update({FIRST: weight.to(dtype)}))
    assert f"it has values in {FIRST} that are not finite." in refused(path)


@pytest.mark.parametrize(
    "other",
    [
        lambda t: t.int(),
        lambda t: t.to(torch.complex64),
        lambda t: t.to_sparse(),
        lambda t: t.to("meta"),
    ],
    ids=["integers", "complex", "sparse", "meta"],
)
def test_tensors_of_another_kind_are_refused(
    other: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    path = changed(tmp_path, lambda s: s.update({FIRST: other(s[FIRST])}))
    assert f"it has {FIRST}, which holds no plain floating-point numbers." in refused(path)


def test_the_first_three_differences_are_named_and_the_others_counted(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for name in sorted(EXPECTED)[:5]:
            del content[name]

    message = refused(changed(tmp_path, change))
    assert message.count("lacks") == 3
    assert "(and 2 more differences)" in message


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], 7, {7: torch.zeros(3)}, {"state_dict": {7: 7}}],
    ids=["tensor", "list", "number", "numbered", "numbered within"],
)
def test_something_else_than_weights_by_name_is_refused(content: object, tmp_path: Path) -> None:
    message = refused(save(content, tmp_path / "in.pth"))
    assert "something else than weights by name" in message


# What carries code


class Call:
    """What a pickle makes of this is a call."""

    def __init__(self, function: Callable[..., object], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


def payload(name: str, marker: Path) -> Call:
    if name == "system":
        return Call(os.system, f"echo > {marker}")
    return Call(builtins.exec, f"open({str(marker)!r}, 'w').close()")


@FORMATS
@pytest.mark.parametrize("place", ["beside", "within", "alone"])
@pytest.mark.parametrize("name", ["system", "exec"])
def test_code_in_a_file_is_named_and_never_runs(
    name: str, place: str, archive: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "it-ran"
    call = payload(name, marker)
    content = {
        "beside": {"epoch": call, "state_dict": state()},
        "within": state() | {FIRST: call},
        "alone": call,
    }[place]
    source = save(content, tmp_path / "in.pth", archive)
    message = refused(source)
    assert "carries code (" in message and f"{name})" in message
    assert not marker.exists()
    assert capfd.readouterr() == ("", "")
    torch.load(source, weights_only=False)  # the file is as bad as it looks
    assert marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_never_runs_either(
    protocol: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, marker = tmp_path / "in.pth", tmp_path / "it-ran"
    source.write_bytes(pickle.dumps(payload("exec", marker), protocol))
    refused(source)
    assert not marker.exists()
    assert capfd.readouterr() == ("", "")
    pickle.loads(source.read_bytes())
    assert marker.exists()


# What is damaged, or no such file


@FORMATS
@pytest.mark.parametrize("kept", [0, 4, 1000, 0.5, -1])
def test_a_truncated_file_is_refused(kept: float, archive: bool, tmp_path: Path) -> None:
    source = save(state(), tmp_path / "in.pth", archive)
    whole = source.read_bytes()
    source.write_bytes(whole[: int(len(whole) * kept) if 0 < kept < 1 else int(kept)])
    assert "is no checkpoint of PyTorch, or a damaged one" in refused(source)


@pytest.mark.parametrize(
    "content",
    [
        b"These are no weights, but a sentence.\n",
        b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n",
        b"\x80\x02}q\x00.",
        bytes(5000),
        os.urandom(5000),
    ],
    ids=["text", "web page", "empty pickle", "zeros", "noise"],
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "in.pth"
    source.write_bytes(content)
    assert "is no checkpoint of PyTorch, or a damaged one" in refused(source)


def test_an_archive_of_other_things_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    assert "is no checkpoint of PyTorch" in refused(tmp_path / "in.pth")


def test_a_compressed_archive_is_not_taken_for_numbers(tmp_path: Path) -> None:
    source = save({"a": torch.zeros(8)}, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(source) as stored,
        zipfile.ZipFile(tmp_path / "in.pth", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in stored.namelist():
            compressed.writestr(name, stored.read(name))
    mapped = torch.load(tmp_path / "in.pth", weights_only=True, mmap=True)["a"]
    assert mapped.isfinite().all() and mapped.any()  # rubbish that nothing else would notice
    assert "is no checkpoint of PyTorch" in refused(tmp_path / "in.pth", {"a": (8,)})


def test_a_file_that_can_t_be_read_is_said_to_be_missing(tmp_path: Path) -> None:
    for source in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(InputMissingError, match="can't be read") as caught:
            convert.convert(source, tmp_path / "out.safetensors", EXPECTED, provenance={})
        assert str(source) in str(caught.value)


def test_a_target_that_can_t_be_written_is_an_output_error(tmp_path: Path) -> None:
    source = save(state(), tmp_path / "in.pth")
    target = tmp_path / "none" / "out.safetensors"
    with pytest.raises(OutputError, match="can't be written"):
        convert.convert(source, target, EXPECTED, provenance={})


def test_torch_s_warnings_stay_with_torch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.pth"
    torch.save(state(), source, pickle_protocol=3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        convert.convert(source, tmp_path / "out.safetensors", EXPECTED, provenance={})
    assert not seen
    assert capfd.readouterr() == ("", "")


# Memory


def taken_by_converting(source: Path, target: Path, expected: dict[str, tuple[int, ...]]) -> int:
    return peak_over(lambda: convert.convert(source, target, expected, provenance={}))


@needs_proc
@FORMATS
def test_converting_holds_the_file_once_and_little_more(archive: bool, tmp_path: Path) -> None:
    tensors = {str(i): torch.full((1 << 20,), float(i)) for i in range(24)}
    source = save(tensors, tmp_path / "in.pth", archive)
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    target = tmp_path / "out.safetensors"
    size = source.stat().st_size
    assert 0.9 * size < apart(taken_by_converting, source, target, expected) < 1.3 * size
    assert_same(load_file(target), tensors)
