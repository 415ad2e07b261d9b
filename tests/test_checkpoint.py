from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import small_unet_spec, small_vq_spec
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import tiny_networks, tiny_spec
from torch import Tensor

from resshift_cli import checkpoint, specs
from resshift_cli.denoiser import SwinUNet
from resshift_cli.errors import InputMissingError, ModelUnavailableError, OutputError
from resshift_cli.specs import ModelSpec, SpecError

SPEC = tiny_spec()
FIRST = "input_blocks.0.0.weight"

# Small enough to build and write in a moment. The window is below the map's 64 positions, so that
# the `reference` layout has masks.
VQ_SPEC = tiny_spec(
    predict="x0",
    precondition=False,
    denoiser=small_unet_spec(channel_mult=(1,), num_res_blocks=1, swin_levels=()),
    autoencoder=small_vq_spec(ch_mult=(1, 1, 1), num_res_blocks=(1, 1, 1), codes=16),
)


def tensors_of(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return load_file(path), metadata


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], object], target: Path) -> Path:
    """Write a changed copy of a weight file."""
    tensors, metadata = tensors_of(path)
    change(tensors)
    save_file(tensors, target, metadata)
    return target


def refused(path: Path) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        checkpoint.load_model(path)
    assert str(path) in str(caught.value)
    assert "tiny-x4" in caught.value.hint
    return str(caught.value)


@pytest.fixture
def copy_with(tiny_weights: Path, tmp_path: Path) -> Callable[..., Path]:
    def copy(change: Callable[[dict[str, Tensor]], object]) -> Path:
        return rewrite(tiny_weights, change, tmp_path / "changed.safetensors")

    return copy


# There and back


def test_what_was_saved_is_loaded_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    network = tiny_networks(SPEC)[0].network
    checkpoint.save_model(path, SPEC, network)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    spec, denoiser, _ = checkpoint.load_model(path)
    assert spec == SPEC
    for name, tensor in checkpoint.own_tensors(network).items():
        loaded = denoiser.network.get_parameter(name)
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, tensor.half().float()), name


def test_a_loaded_model_runs_like_the_one_that_was_saved(tiny_weights: Path) -> None:
    torch.manual_seed(0)
    x_t, y0, lq = torch.randn(1, 48, 8, 8), torch.randn(1, 48, 8, 8), torch.rand(1, 3, 8, 8)
    schedule, t = SPEC.schedule.build(), torch.tensor([3])
    _, denoiser, codec = checkpoint.load_model(tiny_weights)
    assert not denoiser.training and not codec.training
    with torch.inference_mode():
        x0 = denoiser(x_t, y0, lq, schedule, t)
        torch.testing.assert_close(
            x0, tiny_networks(SPEC)[0](x_t, y0, lq, schedule, t), rtol=0.0, atol=5e-3
        )
        assert codec.decode(x0).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("spec", [SPEC, VQ_SPEC], ids=["preconditioned", "plain"])
def test_the_table_decides_what_the_network_s_output_means(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    denoiser, codec = tiny_networks(spec)
    checkpoint.save_model(path, spec, denoiser.network, codec)
    _, loaded, _ = checkpoint.load_model(path)
    assert (loaded.predict, loaded.precondition) == (spec.predict, spec.precondition)


def test_a_vq_autoencoder_travels_under_its_prefix(tmp_path: Path) -> None:
    path = tmp_path / "vq.safetensors"
    denoiser, codec = tiny_networks(VQ_SPEC)
    checkpoint.save_model(path, VQ_SPEC, denoiser.network, codec)
    assert "autoencoder.quantize.embedding.weight" in load_file(path)
    spec, _, loaded = checkpoint.load_model(path)
    assert spec == VQ_SPEC
    state = loaded.state_dict()
    for name, tensor in codec.state_dict().items():
        assert torch.equal(state[name], tensor.half().float()), name


def test_what_follows_from_the_layout_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "vq.safetensors"
    denoiser, codec = tiny_networks(VQ_SPEC)
    assert any(name.endswith(".attn_mask") for name in denoiser.network.state_dict())
    checkpoint.save_model(path, VQ_SPEC, denoiser.network, codec)
    assert not [name for name in load_file(path) if name.endswith(checkpoint.DERIVED)]


def test_files_that_have_it_load_and_it_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "vq.safetensors"
    denoiser, codec = tiny_networks(VQ_SPEC)
    checkpoint.save_model(path, VQ_SPEC, denoiser.network, codec)
    index = "middle_block.1.blocks.0.attn.relative_position_index"
    mask = "middle_block.1.blocks.1.attn_mask"
    derived = {index: torch.zeros(1, dtype=torch.int64), mask: torch.full((2, 2), torch.nan)}
    rewrite(path, lambda tensors: tensors.update(derived), path)
    _, loaded, _ = checkpoint.load_model(path)
    for name in (index, mask):
        assert torch.equal(loaded.network.get_buffer(name), denoiser.network.get_buffer(name))


def test_a_network_can_be_filled_from_a_file_with_another_table(
    tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plain.safetensors"
    save_file(load_file(tiny_weights) | {"autoencoder.x": torch.zeros(1)}, path)
    network = SwinUNet(SPEC.denoiser)
    checkpoint.load_network(network, path)
    assert torch.equal(network.get_parameter(FIRST), load_file(path)[FIRST].float())


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        checkpoint.save_model(path, SPEC, tiny_networks(SPEC)[0].network)
    assert len({path.read_bytes() for path in paths}) == 1


# Tensors that do not fit


def test_a_missing_tensor_is_named(copy_with: Callable[..., Path]) -> None:
    assert f"it lacks {FIRST}." in refused(copy_with(lambda tensors: tensors.pop(FIRST)))


def test_an_unknown_tensor_is_named(copy_with: Callable[..., Path]) -> None:
    path = copy_with(lambda tensors: tensors.update(extra=torch.zeros(1)))
    assert "it has the unknown extra." in refused(path)


def test_a_tensor_of_another_shape_is_named_with_both(copy_with: Callable[..., Path]) -> None:
    path = copy_with(lambda tensors: tensors.update({FIRST: torch.zeros(32, 51, 1, 1)}))
    message = f"it has {FIRST} of shape (32, 51, 1, 1) instead of (32, 51, 3, 3)."
    assert message in refused(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused_by_name(
    copy_with: Callable[..., Path], value: float
) -> None:
    path = copy_with(lambda tensors: tensors[FIRST][5, 6, 1, 2].fill_(value))
    assert f"it has values in {FIRST} that are not finite." in refused(path)


def test_types_that_torch_has_no_test_for_are_tested_all_the_same(
    copy_with: Callable[..., Path],
) -> None:
    path = copy_with(
        lambda tensors: tensors.update({FIRST: tensors[FIRST].to(torch.float8_e4m3fn)})
    )
    checkpoint.load_model(path)


def test_the_first_three_differences_are_named_and_the_others_counted(
    copy_with: Callable[..., Path],
) -> None:
    def drop_five(tensors: dict[str, Tensor]) -> None:
        for name in sorted(tensors)[:5]:
            del tensors[name]

    message = refused(copy_with(drop_five))
    assert message.count("lacks") == 3
    assert "(and 2 more differences)" in message


def test_a_missing_autoencoder_is_named_with_its_prefix(tmp_path: Path) -> None:
    path = tmp_path / "vq.safetensors"
    checkpoint.save_model(path, VQ_SPEC, tiny_networks(VQ_SPEC)[0].network)
    assert "it lacks autoencoder.decoder." in refused(path)


def test_an_autoencoder_where_none_belongs_is_unknown(copy_with: Callable[..., Path]) -> None:
    path = copy_with(lambda tensors: tensors.update({"autoencoder.x": torch.zeros(1)}))
    assert "it has the unknown autoencoder.x." in refused(path)


def test_a_network_is_filled_as_strictly(copy_with: Callable[..., Path]) -> None:
    path = copy_with(lambda tensors: tensors.pop(FIRST))
    with pytest.raises(ModelUnavailableError, match=f"lacks {FIRST}"):
        checkpoint.load_network(SwinUNet(SPEC.denoiser), path)


# Files that are no weight files


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputMissingError, match="There is no weight file"):
            checkpoint.load_model(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tiny_weights: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny_weights.read_bytes()[:kept])
    assert "is not a whole safetensors file" in refused(path)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("These are no weights, but a sentence.\n")
    assert "is not a whole safetensors file" in refused(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_without_a_table_is_refused(
    tiny_weights: Path, tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(load_file(tiny_weights), path, metadata)
    assert "does not say which network it belongs to" in refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_channels": 30},
        {"model_channels": -32},
        {"channel_mult": ()},
        {"num_head_channels": 0},
        {"window": -8},
    ],
    ids=str,
)
def test_sizes_that_make_no_network_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    spec = tiny_spec(denoiser=small_unet_spec(latent_channels=48, **changes))
    save_file({"a": torch.zeros(1)}, path, {specs.SPEC_KEY: specs.to_json(spec)})
    with pytest.raises(SpecError, match="make no network"):
        checkpoint.load_model(path)


# Writing


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(
    tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    code = """
import resource, sys
from pathlib import Path
from resshift_cli import checkpoint
from resshift_cli.errors import OutputError
path = Path(sys.argv[1])
spec, denoiser, _ = checkpoint.load_model(path)
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
        checkpoint.write_atomically(tmp_path / "none" / "file", b"")
    assert "--out" in caught.value.hint


def test_a_weight_file_is_as_readable_as_any_other(tiny_weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    assert tiny_weights.stat().st_mode == other.stat().st_mode
