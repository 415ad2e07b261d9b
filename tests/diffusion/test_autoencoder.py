"""VQGAN against the official one, and space-to-depth."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from goldens_support import (
    CODE_MARGIN,
    DECODED,
    NETWORK,
    VQ_SPECS,
    Golden,
    assert_module_parity,
    assert_parity,
    cases,
    channels_last,
    error,
    golden_vq,
    load,
    manifests,
    shapes,
    small_vq_spec,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from resshift_cli.diffusion import autoencoder
from resshift_cli.diffusion.autoencoder import Attention, Codebook, SpaceToDepth, VQAutoencoder
from resshift_cli.diffusion.specs import SpaceToDepthSpec, VQSpec

HALVES = [torch.bfloat16, torch.float16]
TINY = small_vq_spec(ch_mult=(1, 2), num_res_blocks=(1, 1))
DEPTH = SpaceToDepthSpec(factor=4, latent_scale=10.0)

every_vq_golden = pytest.mark.parametrize("golden", cases("vq_small", "vq_f8_small"))


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Remembers the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def watched() -> LargestTensor:
    return LargestTensor()  # type: ignore[no-untyped-call]  # torch has no types here


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tiny_vq(quantize: bool = True) -> VQAutoencoder:
    torch.manual_seed(0)
    spec = small_vq_spec(ch_mult=(1, 2), num_res_blocks=(1, 1), quantize=quantize)
    return VQAutoencoder(spec).eval().requires_grad_(False)


@pytest.mark.parametrize("name", VQ_SPECS)
def test_every_published_layout_has_the_official_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        network = VQAutoencoder(VQ_SPECS[name])
    assert shapes(network) == manifests()[name]


def test_every_published_layout_is_listed() -> None:
    assert set(VQ_SPECS) == {name for name in manifests() if not name.startswith("unet")}


@every_vq_golden
def test_encode_gives_the_official_continuous_latent(golden: Golden) -> None:
    g = load(golden)
    with torch.inference_mode():
        latent = golden_vq(golden[0].stem).encode(g["image"])
    assert_parity(latent, g["z"], NETWORK)


@every_vq_golden
def test_decode_without_snapping_is_the_official_one(golden: Golden) -> None:
    g = load(golden)
    network = golden_vq(golden[0].stem, quantize=False)
    with torch.inference_mode():
        assert_parity(network.decode(g["z"]), g["decoded_noquant"], DECODED)
        assert_parity(network.decode(g["z_q"]), g["decoded"], DECODED)


@every_vq_golden
def test_decode_snaps_to_the_official_codes(golden: Golden) -> None:
    g = load(golden)
    network = golden_vq(golden[0].stem)
    clear = g["code_margin"] > CODE_MARGIN
    assert torch.equal(network.quantize.nearest(g["z"])[clear], g["codes"][clear])
    with torch.inference_mode():
        assert_parity(network.decode(g["z_q"] + 1e-4), g["decoded"], DECODED)


@pytest.mark.parametrize(
    "name, path",
    [
        ("vq_res_same", "encoder.down.0.block.0"),
        ("vq_res_diff", "encoder.down.1.block.0"),
        ("vq_down", "encoder.down.0.downsample"),
        ("vq_attn", "encoder.mid.attn_1"),
        ("vq_up", "decoder.up.2.upsample"),
    ],
)
def test_a_part_computes_what_the_official_one_does(name: str, path: str) -> None:
    assert_module_parity(golden_vq("vq_small"), path, name)


@pytest.mark.parametrize(
    "spec, factor, channels", [(TINY, 2, 3), (VQ_SPECS["vq_f8_small"], 8, 8), (DEPTH, 4, 48)]
)
def test_both_kinds_share_one_interface(
    spec: VQSpec | SpaceToDepthSpec, factor: int, channels: int
) -> None:
    network = autoencoder.build(spec).eval()
    assert (network.factor, network.channels) == (factor, channels)
    with torch.inference_mode():
        latent = network.encode(random(2, 3, 16, 24).half())
        pixels = network.decode(latent.half())
    assert latent.shape == (2, channels, 16 // factor, 24 // factor)
    assert pixels.shape == (2, 3, 16, 24)
    assert latent.dtype == pixels.dtype == torch.float32


@pytest.mark.parametrize("spec", [TINY, DEPTH], ids=["vq", "space-to-depth"])
@pytest.mark.parametrize("height, width", [(17, 16), (16, 17)])
def test_sides_that_do_not_divide_are_refused(
    spec: VQSpec | SpaceToDepthSpec, height: int, width: int
) -> None:
    with pytest.raises(ValueError, match=f"{height}x{width}"):
        autoencoder.build(spec).encode(torch.zeros(1, 3, height, width))


def test_snapping_is_a_property_of_the_checkpoint() -> None:
    code = tiny_vq().quantize.embedding.weight[7].view(1, 3, 1, 1).repeat(1, 1, 4, 4)
    near = code + 1e-3
    snapping, continuous = tiny_vq(), tiny_vq(quantize=False)
    assert torch.equal(snapping.decode(near), snapping.decode(code))
    assert not torch.equal(continuous.decode(near), continuous.decode(code))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("autocast", [False, True])
def test_codes_are_found_in_float32_whatever_the_weights(
    dtype: torch.dtype, autocast: bool
) -> None:
    torch.manual_seed(0)
    book = Codebook(512, 3).to(dtype)
    latent = random(2, 3, 24, 24)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = book.nearest(latent)
    positions = latent.movedim(1, -1).reshape(-1, 3).double()
    distances = torch.cdist(positions, book.embedding.weight.double()).square()
    best, second = distances.topk(2, largest=False).values.T
    clear = second - best > CODE_MARGIN
    assert torch.equal(found.flatten()[clear], distances.argmin(1)[clear])


def test_codes_do_not_depend_on_how_many_positions_are_looked_up_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book = Codebook(64, 8)
    latent = random(1, 8, 7, 9)
    at_once = book.nearest(latent)
    monkeypatch.setitem(autoencoder.LOOKUP_BYTES, "cpu", 64 * 4 * 10)
    assert torch.equal(book.nearest(latent), at_once)


def test_a_large_latent_is_looked_up_in_bounded_memory() -> None:
    with watched() as largest:
        Codebook(8192, 3).nearest(random(1, 3, 64, 64))
    assert largest.elements * 4 <= 1 << 20


def test_attention_never_holds_the_table_of_all_pairs() -> None:
    attention = Attention(32).requires_grad_(False)
    for layout in (torch.contiguous_format, torch.channels_last):
        with watched() as largest:
            attention(random(1, 32, 48, 48).contiguous(memory_format=layout))
        assert largest.elements < (48 * 48) ** 2 / 8


@pytest.mark.parametrize("dtype", HALVES)
def test_attention_survives_products_beyond_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = Attention(128).requires_grad_(False)
    for part in (attention.q, attention.k):
        assert part.bias is not None
        part.weight.zero_()
        part.bias.fill_(40.0)  # each product sums to 204800; float16 ends at 65504
    x = random(1, 128, 8, 8)
    expected = attention(x)
    actual = copy.deepcopy(attention).to(dtype)(x.to(dtype))
    assert error(actual, expected) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_half_precision_stays_finite_and_near(dtype: torch.dtype, size: float) -> None:
    pixels, latent = size * random(1, 3, 32, 32), size * random(1, 3, 16, 16)
    exact, half = tiny_vq(quantize=False), tiny_vq(quantize=False).to(dtype)
    for actual, expected in [
        (half.encode(pixels), exact.encode(pixels)),
        (half.decode(latent), exact.decode(latent)),
    ]:
        assert error(actual, expected) < 20 * torch.finfo(dtype).eps


def test_channels_last_computes_the_same() -> None:
    network = copy.deepcopy(golden_vq("vq_small", quantize=False))
    pixels, latent = random(1, 3, 64, 32), random(1, 3, 16, 8)
    encoded, decoded = network.encode(pixels), network.decode(latent)
    channels_last(network)
    pixels, latent = (
        part.contiguous(memory_format=torch.channels_last) for part in (pixels, latent)
    )
    assert_parity(network.encode(pixels), encoded, NETWORK)
    assert_parity(network.decode(latent), decoded, DECODED)


def test_space_to_depth_gathers_a_square_of_each_colour_in_row_major_order() -> None:
    pixels = torch.arange(3 * 8 * 8).view(1, 3, 8, 8) / 100
    latent = SpaceToDepth(DEPTH).encode(pixels)
    square = pixels[0, 1, 4:8, 0:4].flatten() * 10
    torch.testing.assert_close(latent[0, 16:32, 1, 0], square)


@pytest.mark.parametrize("levels", [256, 65536])
def test_space_to_depth_loses_no_level_of_an_image(levels: int) -> None:
    image = torch.arange(3 * 256 * 256).view(1, 3, 256, 256) % levels
    network = SpaceToDepth(DEPTH)
    pixels = network.decode(network.encode(image / (levels - 1) * 2 - 1))
    assert torch.equal(((pixels + 1) / 2 * (levels - 1)).round().long(), image)
