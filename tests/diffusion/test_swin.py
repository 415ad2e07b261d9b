"""Window attention: masks, shifts and precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldens_support import (
    BUNDLED,
    COMPLETE,
    assert_module_parity,
    error,
    golden_unet,
    needs_complete,
)
from safetensors.torch import load_file
from torch import Tensor

from resshift_cli.diffusion import swin
from resshift_cli.diffusion.layers import GroupNorm
from resshift_cli.diffusion.swin import SwinBlock, SwinConvention, WindowAttention

HALVES = [torch.bfloat16, torch.float16]


def block(
    convention: SwinConvention = "standard", *, odd: bool = True, resolution: int = 64
) -> SwinBlock:
    torch.manual_seed(0)
    return SwinBlock(
        32,
        window=8,
        head_dim=16,
        mlp_ratio=2,
        odd=odd,
        convention=convention,
        resolution=resolution,
    )


def check_masks(masks: dict[str, Tensor]) -> None:
    assert torch.equal(swin.relative_position_index(8), masks.pop("relative_position_index").long())
    for name, apart in masks.items():
        height, width = map(int, name.removeprefix("shift4.").split("x"))
        mask = swin.shift_mask(height, width, 8, "reference")
        assert torch.equal(mask, apart.float() * -100), name


def test_reference_masks_are_those_of_the_official_code() -> None:
    check_masks(load_file(BUNDLED / "swin_masks.safetensors"))


@needs_complete
def test_all_reference_masks_are_those_of_the_official_code() -> None:
    assert COMPLETE is not None
    check_masks(load_file(COMPLETE / "swin_masks.safetensors"))


@pytest.mark.parametrize("height, width", [(16, 16), (24, 16), (16, 32)])
def test_standard_masks_separate_what_only_the_roll_brought_together(
    height: int, width: int
) -> None:
    y = torch.arange(height).roll(-4).view(-1, 1).expand(height, width)
    x = torch.arange(width).roll(-4).view(1, -1).expand(height, width)
    windows = [
        grid.reshape(height // 8, 8, width // 8, 8).transpose(1, 2).reshape(-1, 64)
        for grid in (y, x)
    ]
    gaps = [(w[:, :, None] - w[:, None, :]).abs() for w in windows]
    apart = (gaps[0] >= 8) | (gaps[1] >= 8)
    assert torch.equal(swin.shift_mask(height, width, 8, "standard") != 0, apart)


@pytest.mark.parametrize(
    "name, path",
    [
        ("unet_swin_shifted", "input_blocks.1.1"),
        ("unet_swin_block1", "input_blocks.1.1.blocks.1"),
        ("unet_swin_deep", "input_blocks.10.1"),
    ],
)
def test_a_layer_computes_what_the_official_one_does(name: str, path: str) -> None:
    assert_module_parity(golden_unet("unet_small"), path, name)


def test_reference_blocks_shift_by_the_layouts_resolution_whatever_the_map() -> None:
    assert block("reference", resolution=16).shifts(8, 8)
    assert not block("reference", resolution=8).shifts(64, 64)
    assert not block("reference", odd=False).shifts(64, 64)


def test_standard_blocks_shift_where_the_map_exceeds_a_window_both_ways() -> None:
    assert block("standard", resolution=8).shifts(16, 16)
    assert not block("standard").shifts(8, 64)
    assert not block("standard", odd=False).shifts(64, 64)


@pytest.mark.parametrize("convention", ["reference", "standard"])
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(
    convention: SwinConvention,
) -> None:
    images = torch.randn(3, 32, 24, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = block(convention)(images)
        alone = block(convention)(images[1:2])
    torch.testing.assert_close(together[1:2], alone)


def test_a_mask_is_built_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counted(height: int, width: int, *others: Any) -> Tensor:
        sizes.append((height, width))
        return shift_mask(height, width, *others)

    shift_mask = swin.shift_mask
    layer = block()
    monkeypatch.setattr(swin, "shift_mask", counted)
    for _ in range(3):
        layer(torch.zeros(1, 32, 40, 104))
    assert sizes == [(40, 104)]


def test_bias_and_mask_are_combined_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def counted(self: WindowAttention, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        built.append(None if mask is None else tuple(mask.shape))
        return build(self, mask, dtype)

    build = WindowAttention._build_bias
    monkeypatch.setattr(WindowAttention, "_build_bias", counted)
    layer = block()
    with torch.inference_mode():
        for images in (1, 1, 3):
            layer(torch.zeros(images, 32, 40, 104))
    assert built == [(65, 64, 64)]


def test_a_kept_bias_that_another_thread_replaces_meanwhile_is_given_all_the_same() -> None:
    attention = WindowAttention(32, 8, 16)
    mask, another = torch.zeros(1, 64, 64), torch.full((1, 64, 64), swin.MASKED)

    class Key(tuple[object, ...]):
        def __ne__(self, other: object) -> bool:  # the other thread's turn comes within the look
            attention._kept = None
            attention.bias(another, torch.float32)
            return super().__ne__(other)

    with torch.inference_mode():
        expected = attention.bias(mask, torch.float32)
        assert attention._kept is not None
        attention._kept = (Key(attention._kept[0]), *attention._kept[1:])
        assert attention.bias(mask, torch.float32) is expected


@pytest.mark.parametrize("images", [1, 3])
def test_a_kept_bias_computes_what_a_new_one_does(images: int) -> None:
    x = torch.randn(images, 32, 24, 16, generator=torch.Generator().manual_seed(1))
    layer = block()
    learning = layer(x)  # with gradients nothing is kept
    with torch.inference_mode():
        layer(x)
        torch.testing.assert_close(layer(x), learning)


def test_a_table_that_changes_is_combined_anew() -> None:
    layer, other = block(), block()
    x = torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(1))
    state = {
        name: tensor + 0.1 * torch.randn_like(tensor) if "table" in name else tensor
        for name, tensor in layer.state_dict().items()
    }
    other.load_state_dict(state)
    with torch.no_grad():
        layer(x)
        layer.load_state_dict(state)
        torch.testing.assert_close(layer(x), other(x))
        before = layer(x)
        torch.testing.assert_close(layer.double()(x.double()).float(), before)


def test_a_map_that_is_not_made_of_whole_windows_is_refused() -> None:
    with pytest.raises(RuntimeError):
        block(odd=False)(torch.zeros(1, 32, 12, 16))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_survives_sums_beyond_half_precision(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = 100 + 10 * torch.randn(1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    x = x.to(dtype).contiguous(memory_format=layout)  # squares sum to 8e7; float16 ends at 65504
    actual = GroupNorm(64).to(dtype)(x)
    expected = GroupNorm(64).double()(x.double())
    assert actual.dtype == dtype
    assert error(actual, expected) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALVES)
def test_attention_survives_scores_beyond_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(64, window=8, head_dim=64).requires_grad_(False)
    attention.qkv.weight[:128] = 0.0
    attention.qkv.bias[:128] = 40.0  # each product sums to 102400; float16 ends at 65504
    x = torch.randn(4, 64, 64)
    expected = attention(x, None)
    actual = attention.to(dtype)(x.to(dtype), None)
    assert error(actual, expected) < 20 * torch.finfo(dtype).eps
