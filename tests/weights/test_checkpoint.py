from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens_support import small_unet_spec, small_vq_spec
from memory import apart, needs_proc, peak_over
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import load_model, tiny_networks, tiny_spec
from torch import Tensor, nn

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.swin import SwinConvention, shift_mask
from resshift_cli.diffusion.tables import SpecError
from resshift_cli.errors import InputMissingError, ModelUnavailableError
from resshift_cli.weights import checkpoint
from resshift_cli.weights.registry import LocalSource, ModelEntry, WeightFile

SPEC = tiny_spec()
FIRST = "input_blocks.0.0.weight"
MASK = "middle_block.1.blocks.1.attn_mask"

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


def rewrite(
    path: Path, change: Callable[[dict[str, Tensor]], object], target: Path | None = None
) -> Path:
    """Write a changed weight file, over the old one unless told otherwise."""
    tensors, metadata = tensors_of(path)
    change(tensors)
    save_file(tensors, target or path, metadata)
    return target or path


def refused(path: Path) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        load_model(path)
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
    spec, denoiser, _ = load_model(path)
    assert spec == SPEC
    for name, tensor in checkpoint.own_tensors(network).items():
        loaded = denoiser.network.get_parameter(name)
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, tensor.half().float()), name


def test_a_loaded_model_runs_like_the_one_that_was_saved(tiny_weights: Path) -> None:
    torch.manual_seed(0)
    x_t, y0, lq = torch.randn(1, 48, 8, 8), torch.randn(1, 48, 8, 8), torch.rand(1, 3, 8, 8)
    schedule, t = SPEC.schedule.build(), torch.tensor([3])
    _, denoiser, codec = load_model(tiny_weights)
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
    _, loaded, _ = load_model(path)
    assert (loaded.predict, loaded.precondition) == (spec.predict, spec.precondition)


def test_a_vq_autoencoder_travels_under_its_prefix(tmp_path: Path) -> None:
    path = tmp_path / "vq.safetensors"
    denoiser, codec = tiny_networks(VQ_SPEC)
    checkpoint.save_model(path, VQ_SPEC, denoiser.network, codec)
    assert "autoencoder.quantize.embedding.weight" in load_file(path)
    spec, _, loaded = load_model(path)
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
    derived = {index: torch.zeros(1, dtype=torch.int64), MASK: torch.full((2, 2), torch.nan)}
    rewrite(path, lambda tensors: tensors.update(derived))
    _, loaded, _ = load_model(path)
    for name in (index, MASK):
        assert torch.equal(loaded.network.get_buffer(name), denoiser.network.get_buffer(name))


def test_a_network_is_filled_in_place_whatever_table_the_file_has(
    tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plain.safetensors"
    save_file(load_file(tiny_weights) | {"autoencoder.x": torch.zeros(1)}, path)
    network = SwinUNet(SPEC.denoiser)
    first = network.get_parameter(FIRST)
    checkpoint.load_network(network, path)
    assert network.get_parameter(FIRST) is first
    assert torch.equal(first, load_file(path)[FIRST].float())


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        checkpoint.save_model(path, SPEC, tiny_networks(SPEC)[0].network)
    assert len({path.read_bytes() for path in paths}) == 1


# A denoiser and an autoencoder in files of their own


def save_plain(path: Path, module: nn.Module, prefix: str = "") -> Path:
    """Write a network as others do, without a table."""
    save_file({prefix + name: t for name, t in module.state_dict().items()}, path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, Path]:
    """The files of `VQ_SPEC` in float32, masks included."""
    denoiser, codec = tiny_networks(VQ_SPEC)
    weights = save_plain(tmp_path / "unet.safetensors", denoiser.network)
    return weights, save_plain(tmp_path / "vq.safetensors", codec)


def test_two_files_fill_two_networks_to_the_bit(plain: tuple[Path, Path]) -> None:
    loaded = checkpoint.load(VQ_SPEC, *plain)
    made = tiny_networks(VQ_SPEC)
    for module, other in ((loaded[0].network, made[0].network), (loaded[1], made[1])):
        assert not module.training
        state, wanted = module.state_dict(), other.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_every_precision_become_float32(
    dtype: torch.dtype, plain: tuple[Path, Path]
) -> None:
    path = rewrite(
        plain[1], lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()})
    )
    _, codec = checkpoint.load(VQ_SPEC, plain[0], path)
    stored = load_file(path)
    for name, tensor in codec.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float()), name


def test_a_file_that_is_opened_again_for_each_tensor_gives_the_same(
    plain: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = checkpoint.load(VQ_SPEC, *plain)[1].state_dict()
    monkeypatch.setattr(checkpoint, "_MAPPED", 0)
    one_by_one = checkpoint.load(VQ_SPEC, *plain)[1].state_dict()
    assert all(torch.equal(one_by_one[name], tensor) for name, tensor in at_once.items())


def test_a_loaded_model_needs_its_files_no_more(plain: tuple[Path, Path]) -> None:
    _, codec = checkpoint.load(VQ_SPEC, *plain)
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    with plain[1].open("r+b") as file:  # in place: whatever is mapped changes with it
        file.write(bytes(plain[1].stat().st_size))
    assert all(torch.equal(codec.state_dict()[name], t) for name, t in before.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.module."])
def test_prefixes_of_wrappers_for_training_are_taken_away(
    prefix: str, plain: tuple[Path, Path]
) -> None:
    denoiser, codec = tiny_networks(VQ_SPEC)
    save_plain(plain[0], denoiser.network, prefix)
    save_plain(plain[1], codec, prefix)
    loaded, _ = checkpoint.load(VQ_SPEC, *plain)
    assert torch.equal(loaded.network.get_parameter(FIRST), denoiser.network.get_parameter(FIRST))


def test_names_that_become_the_same_are_refused(plain: tuple[Path, Path]) -> None:
    rewrite(plain[0], lambda tensors: tensors.update({f"module.{FIRST}": torch.zeros(1)}))
    with pytest.raises(ModelUnavailableError, match=f"unet.safetensors .* has {FIRST} twice"):
        checkpoint.load(VQ_SPEC, *plain)


def test_an_autoencoder_of_another_size_is_refused_by_its_file(plain: tuple[Path, Path]) -> None:
    spec = replace(VQ_SPEC, autoencoder=small_vq_spec(codes=16))
    with pytest.raises(ModelUnavailableError, match="vq.safetensors does not fit its network"):
        checkpoint.load(spec, *plain)


def test_an_autoencoder_that_is_nowhere_is_missed(plain: tuple[Path, Path]) -> None:
    with pytest.raises(ModelUnavailableError, match="unet.safetensors .* lacks autoencoder."):
        checkpoint.load(VQ_SPEC, plain[0])


def taken_by_loading(spec: ModelSpec, path: Path) -> int:
    return peak_over(lambda: checkpoint.load(spec, path))


@needs_proc
def test_loading_takes_the_parameters_memory_and_little_more(tmp_path: Path) -> None:
    sizes = small_unet_spec(
        latent_channels=48, model_channels=416, channel_mult=(1,), num_res_blocks=1, swin_levels=()
    )
    spec = tiny_spec(denoiser=sizes)
    path = tmp_path / "large.safetensors"
    checkpoint.write(path, {n: torch.zeros(s) for n, s in checkpoint.shapes(sizes).items()}, {})
    size = path.stat().st_size
    assert size > 100 << 20
    assert 0.9 * size < apart(taken_by_loading, spec, path) < 1.3 * size


# How windows shift


def with_masks(path: Path, convention: SwinConvention) -> Path:
    mask = shift_mask(64, 64, 8, convention)
    return rewrite(path, lambda tensors: tensors.update({MASK: mask}))


CONVENTIONS: list[SwinConvention] = ["reference", "standard"]


def vq_spec(convention: SwinConvention) -> ModelSpec:
    return replace(VQ_SPEC, denoiser=replace(VQ_SPEC.denoiser, swin=convention))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("told", CONVENTIONS)
def test_masks_in_a_file_must_be_those_of_the_table_s_convention(
    convention: SwinConvention, told: SwinConvention, plain: tuple[Path, Path]
) -> None:
    with_masks(plain[0], told)
    if convention == told:
        checkpoint.load(vq_spec(convention), *plain)
    else:
        with pytest.raises(ModelUnavailableError, match=f"shift the '{told}' way") as caught:
            checkpoint.load(vq_spec(convention), *plain)
        assert f'swin = "{told}"' in caught.value.hint


@pytest.mark.parametrize("told", CONVENTIONS)
def test_what_a_converted_file_tells_of_its_masks_counts_as_much(
    told: SwinConvention, tmp_path: Path
) -> None:
    network = tiny_networks(VQ_SPEC)[0].network
    path = tmp_path / "converted.safetensors"
    checkpoint.write(path, checkpoint.own_tensors(network), {checkpoint.SWIN_KEY: told})
    checkpoint.load_network(SwinUNet(vq_spec(told).denoiser), path)
    other = CONVENTIONS[1 - CONVENTIONS.index(told)]
    with pytest.raises(ModelUnavailableError, match=f"shift the '{told}' way"):
        checkpoint.load_network(SwinUNet(vq_spec(other).denoiser), path)


# Which model a file without a table belongs to


def entry(name: str, spec: ModelSpec | None) -> ModelEntry:
    weights = WeightFile((LocalSource(f"{name}.safetensors"),), "unknown", "", 0)
    return ModelEntry(name, "", "real-world", "", "", weights, (), spec=spec)


ENTRIES = [
    entry("reference", vq_spec("reference")),
    entry("standard", vq_spec("standard")),
    entry("deeper", replace(VQ_SPEC, denoiser=replace(VQ_SPEC.denoiser, num_res_blocks=2))),
    entry("other", SPEC),
    entry("own table", None),
]


def fitting(path: Path) -> list[str]:
    return [entry.name for entry in checkpoint.fitting(path, ENTRIES)]


def test_names_and_shapes_tell_which_models_a_file_fits(plain: tuple[Path, Path]) -> None:
    rewrite(plain[0], lambda tensors: tensors.pop(MASK))
    assert fitting(plain[0]) == ["reference", "standard"]


@pytest.mark.parametrize("told", CONVENTIONS)
def test_masks_tell_conventions_apart(told: SwinConvention, plain: tuple[Path, Path]) -> None:
    assert fitting(with_masks(plain[0], told)) == [told]


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop(FIRST),
        lambda tensors: tensors.update(extra=torch.zeros(1)),
        lambda tensors: tensors.update({FIRST: torch.zeros(32, 6, 1, 1)}),
    ],
    ids=["missing", "unknown", "other shape"],
)
def test_a_file_that_differs_in_one_tensor_fits_nothing(
    change: Callable[[dict[str, Tensor]], object], plain: tuple[Path, Path]
) -> None:
    assert fitting(rewrite(plain[0], change)) == []


def test_a_file_that_is_no_weight_file_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("These are no weights, but a sentence.\n")
    with pytest.raises(ModelUnavailableError, match="is not a whole safetensors file"):
        fitting(path)


def test_metadata_are_read_as_they_stand(tiny_weights: Path, plain: tuple[Path, Path]) -> None:
    assert specs.read_metadata(tiny_weights) == {specs.SPEC_KEY: specs.to_json(SPEC)}
    assert specs.read_metadata(plain[0]) == {}


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


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_numbers_of_another_kind_are_refused_by_name(
    copy_with: Callable[..., Path], dtype: torch.dtype
) -> None:
    path = copy_with(lambda tensors: tensors.update({FIRST: tensors[FIRST].to(dtype)}))
    assert f"it has {FIRST}, which holds no plain floating-point numbers." in refused(path)


def test_types_that_torch_has_no_test_for_are_tested_all_the_same(
    copy_with: Callable[..., Path],
) -> None:
    path = copy_with(
        lambda tensors: tensors.update({FIRST: tensors[FIRST].to(torch.float8_e4m3fn)})
    )
    load_model(path)


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
            load_model(path)


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
        load_model(path)
