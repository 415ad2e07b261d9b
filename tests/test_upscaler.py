from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from goldens_support import (
    BUNDLED,
    COMPLETE,
    DECODED,
    golden_unet,
    golden_vq,
    needs_complete,
    small_unet_spec,
    small_vq_spec,
)
from PIL import Image
from safetensors.torch import load_file
from tiny_model import tiny_spec, tiny_upscaler
from torch import Tensor
from torch.testing import assert_close

from resshift_cli import chain, noise, tiling
from resshift_cli.degrade import enlarge
from resshift_cli.denoiser import Denoiser
from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.specs import ModelSpec, ScheduleSpec, TileSpec
from resshift_cli.tiling import Box, Grid
from resshift_cli.upscaler import Upscaler

T15 = ScheduleSpec(steps=15, kappa=2.0, p=0.3, min_noise=0.04, sqrt_eta_end=0.99)
T4 = replace(T15, steps=4, min_noise=0.2)


def golden_upscaler(schedule: ScheduleSpec, *, quantize: bool) -> Upscaler:
    """The goldens' small networks behind the same door as every model."""
    spec = ModelSpec(
        scale=4,
        predict="x0",
        precondition=False,
        clip_lq=False,
        temperature=1.0,
        tile=TileSpec(128, 16),
        schedule=schedule,
        denoiser=small_unet_spec(),
        autoencoder=small_vq_spec(quantize=quantize),
    )
    network = copy.deepcopy(golden_unet("unet_small"))
    codec = copy.deepcopy(golden_vq("vq_small", quantize=quantize))
    denoiser = Denoiser(network, predict="x0", precondition=False)
    return Upscaler(spec, denoiser, codec, name="golden", device="cpu", precision="fp32")


def use_noise(monkeypatch: pytest.MonkeyPatch, first: Tensor, others: Tensor, steps: int) -> None:
    """Let the chain draw the reference's noise; `others` are in the order of the walk."""

    def field(seed: int, step: int, channels: int, **window: int) -> Tensor:
        return first if step == chain.PRIOR else others[steps - step]

    monkeypatch.setattr(noise, "field", field)


def restore(
    upscaler: Upscaler, lq: Tensor, *, tile: int = 64, overlap: int = 16, seed: int = 0
) -> Tensor:
    with torch.inference_mode():
        return upscaler.restore(lq, upscaler.settings(tile=tile, overlap=overlap, seed=seed))


# The reference


def test_the_whole_path_gives_the_reference_s_image(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = load_file(BUNDLED / "chain15.safetensors")
    use_noise(monkeypatch, golden["noise_init"], golden["noise_steps"], 15)
    image = restore(golden_upscaler(T15, quantize=True), golden["y"])
    expected = golden["decoded"].clamp(-1, 1)
    # A code whose two nearest neighbours are equally far may flip: it changes its surroundings.
    far = (image - expected).abs() > 1e-3 * expected.std()
    assert far.float().mean() < 0.01


@needs_complete
def test_an_image_of_odd_size_is_padded_and_cropped_as_the_reference_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert COMPLETE is not None
    golden = load_file(COMPLETE / "chain4_padded.safetensors")
    assert torch.equal(tiling.pad_by_reflection(golden["y"], 64, 64), golden["y_padded"])
    use_noise(monkeypatch, golden["noise_init"], golden["noise_steps"], 4)
    image = restore(golden_upscaler(T4, quantize=True), golden["y"])
    assert image.shape == golden["out"].shape
    far = (image - golden["out"]).abs() > 1e-3 * golden["out"].std()
    assert far.float().mean() < 0.01
    smooth = restore(golden_upscaler(T4, quantize=False), golden["y"])
    expected = golden["decoded_noquant"][..., :160, :224].clamp(-1, 1)
    assert_close(smooth, expected, rtol=0, atol=20 * DECODED)


# Tiles


def untiled(upscaler: Upscaler, lq: Tensor, seed: int) -> Tensor:
    """The chain as the paper writes it, without a thought of tiles."""
    multiple = upscaler.spec.denoiser.size_multiple
    height, width = (-(-side // multiple) * multiple for side in lq.shape[-2:])
    padded = tiling.pad_by_reflection(lq, height, width)
    schedule = upscaler.schedule
    with torch.inference_mode():
        y0 = upscaler.autoencoder.encode(enlarge(padded, 4))
        states = chain.walk(
            y0,
            lambda x_t, t: upscaler.denoiser(x_t, y0, padded, schedule, torch.tensor([t])),
            lambda t: noise.field(seed, t, y0.shape[1], top=0, left=0, height=height, width=width),
            schedule,
        )
        image = upscaler.autoencoder.decode(list(states)[-1].x0)
    return image[..., : lq.shape[-2] * 4, : lq.shape[-1] * 4].clamp(-1, 1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 56), (1, 1), (3, 64)])
def test_an_image_of_one_tile_equals_the_untiled_chain_exactly(height: int, width: int) -> None:
    upscaler = tiny_upscaler()
    lq = torch.rand(1, 3, height, width) * 2 - 1
    assert torch.equal(restore(upscaler, lq, seed=5), untiled(upscaler, lq, 5))


def test_the_vqgan_path_of_one_tile_equals_the_untiled_chain_exactly() -> None:
    upscaler = golden_upscaler(T4, quantize=True)
    lq = torch.rand(1, 3, 40, 56) * 2 - 1
    assert torch.equal(restore(upscaler, lq, seed=5), untiled(upscaler, lq, 5))


@pytest.fixture(scope="module")
def tiled() -> tuple[Tensor, Tensor]:
    lq = torch.rand(1, 3, 90, 70, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return lq, restore(tiny_upscaler(), lq, tile=32, overlap=8)


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_the_result_does_not_depend_on_the_tiles_per_call(
    tiled: tuple[Tensor, Tensor], batch: int
) -> None:
    lq, expected = tiled
    assert_close(restore(tiny_upscaler(tile_batch=batch), lq, tile=32, overlap=8), expected)


def test_the_result_does_not_depend_on_the_order_of_the_tiles(
    tiled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    lq, expected = tiled
    in_order = Grid.boxes.fget  # type: ignore[attr-defined]  # a property's function

    def backwards(self: Grid) -> list[Box]:
        return list(reversed(in_order(self)))

    monkeypatch.setattr(Grid, "boxes", property(backwards))
    assert_close(restore(tiny_upscaler(), lq, tile=32, overlap=8), expected)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_result_does_not_depend_on_the_number_of_threads(
    tiled: tuple[Tensor, Tensor], threads: Callable[[int], None]
) -> None:
    lq, expected = tiled
    for count in (1, 2):
        threads(count)
        assert_close(restore(tiny_upscaler(), lq, tile=32, overlap=8), expected)


def test_neighbouring_tiles_agree_during_the_chain(
    tiled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step starts from one common latent: tiles cut from it are equal where they overlap."""
    lq, _ = tiled
    upscaler = tiny_upscaler(tile_batch=64)
    seen: list[Tensor] = []
    forward = upscaler.denoiser.forward

    def spy(x_t: Tensor, *args: Any) -> Tensor:
        seen.append(x_t)
        return forward(x_t, *args)

    monkeypatch.setattr(upscaler.denoiser, "forward", spy)
    restore(upscaler, lq, tile=32, overlap=8)
    grid = Grid(*(tiling.plan_axis(side, size=32, overlap=8) for side in (90, 70)))
    first, second = grid.boxes[:2]
    shared = first.left + first.width - second.left
    assert len(seen) == upscaler.schedule.steps
    for x_t in seen:
        assert torch.equal(x_t[0, ..., -shared:], x_t[1, ..., :shared])


# Reproducibility


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    upscaler = tiny_upscaler()
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    first = upscaler(image, seed=3)
    assert np.array_equal(upscaler(image, seed=3), first)
    assert np.array_equal(tiny_upscaler()(image, seed=3), first)
    assert not np.array_equal(upscaler(image, seed=4), first)


# Sizes and scales


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 100), (2, 3), (31, 33), (64, 64), (65, 63), (130, 20)]
)
def test_any_size_comes_out_four_times_as_large(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert tiny_upscaler()(image, tile=32, overlap=8).shape == (4 * height, 4 * width, 3)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3.999, 4, 5, 8, 16])
def test_any_scale_gives_the_size_asked_for(scale: float) -> None:
    image = np.zeros((7, 10), dtype=np.uint8)
    result = tiny_upscaler()(image, scale=scale, steps=1)
    assert result.shape == (round(7 * scale), round(10 * scale))


def test_an_image_twice_as_large_is_a_reduction_of_the_one_four_times_as_large() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    upscaler = tiny_upscaler()
    reduced = upscaler(image).resize((60, 40), Image.Resampling.LANCZOS)
    difference = np.asarray(upscaler(image, scale=2), dtype=int) - np.asarray(reduced, dtype=int)
    assert np.abs(difference).mean() < 0.5  # rounded to 8 bits once rather than twice


def test_progress_counts_to_the_end_over_several_passes_and_layers() -> None:
    calls: list[tuple[int, int]] = []
    image = np.random.default_rng(0).random((40, 33, 4), dtype=np.float32)
    tiny_upscaler()(image, scale=8, tile=32, overlap=8, progress=lambda *c: calls.append(c))
    totals = {total for _, total in calls}
    assert len(totals) == 1
    assert [done for done, _ in calls] == list(range(1, totals.pop() + 1))


# Kinds of images


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_array_comes_back_as_the_same_kind_of_array(channels: int, dtype: type) -> None:
    image = (np.random.default_rng(0).random((9, 8, channels)) * 255).astype(np.uint8)
    given = image if dtype == np.uint8 else (image / 255).astype(dtype)
    result = tiny_upscaler()(given, steps=1)
    assert result.shape == (36, 32, channels)
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= (255 if dtype == np.uint8 else 1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_picture_comes_back_in_its_own_mode(mode: str) -> None:
    result = tiny_upscaler()(Image.new(mode, (8, 9), 100), steps=1)
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == (mode, (32, 36))


@pytest.mark.parametrize("shape", [(3, 9, 8), (1, 3, 9, 8)])
def test_a_tensor_comes_back_as_a_tensor(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, dtype=torch.float16)
    result = tiny_upscaler()(image, steps=1)
    assert result.dtype == torch.float16
    assert result.shape == (*shape[:-2], 36, 32)


def test_array_and_tensor_and_picture_give_the_same_image() -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    upscaler = tiny_upscaler()
    expected = upscaler(array)
    assert np.array_equal(np.asarray(upscaler(Image.fromarray(array))), expected)
    tensor = upscaler(torch.from_numpy(array).permute(2, 0, 1).float() / 255)
    assert np.array_equal((tensor.permute(1, 2, 0) * 255).round().numpy(), expected)


def test_gray_is_what_the_network_makes_of_three_equal_channels() -> None:
    gray = np.random.default_rng(0).random((9, 8, 1), dtype=np.float32)
    upscaler = tiny_upscaler()
    colour = upscaler(np.repeat(gray, 3, axis=2))
    assert np.allclose(upscaler(gray)[..., 0], colour.mean(axis=2), atol=1e-6)


def test_constant_alpha_stays_constant_and_costs_no_network_call() -> None:
    image = np.full((9, 8, 4), 128, dtype=np.uint8)
    totals = set()
    result = tiny_upscaler()(image, progress=lambda done, total: totals.add(total))
    assert set(result[..., 3].flatten().tolist()) == {128}
    assert totals == {tiny_upscaler().schedule.steps}


def test_alpha_is_enlarged_like_a_gray_image() -> None:
    rng = np.random.default_rng(0)
    colour, alpha = rng.random((9, 8, 3)), rng.random((9, 8, 1))
    upscaler = tiny_upscaler()
    result = upscaler(np.concatenate([colour, alpha], axis=2))
    assert np.allclose(result[..., :3], upscaler(colour), atol=1e-6)
    assert np.allclose(result[..., 3:], upscaler(alpha), atol=1e-6)


# Refusals


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"scale": 0.5}, "scale"),
        ({"scale": 17}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"steps": 0}, "steps"),
        ({"steps": 16}, "steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"tile": 7}, "tile"),
        ({"tile": -64}, "tile"),
        ({"tile": 32, "overlap": 32}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1.1}, "temperature"),
    ],
)
def test_arguments_out_of_range_are_refused_with_a_way_out(
    options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        tiny_upscaler()(np.zeros((8, 8, 3), dtype=np.uint8), **options)
    assert f"--{what}" in caught.value.hint


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 5), dtype=np.uint8),
        np.zeros(8, dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        np.zeros((8, 8, 3), dtype=np.int32),
        torch.zeros(1, 8, 8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 0, 8),
        "photo.png",
    ],
)
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        tiny_upscaler()(image)


def test_a_result_that_is_not_finite_is_never_returned() -> None:
    upscaler = tiny_upscaler()
    with torch.no_grad():
        upscaler.denoiser.network.get_parameter("out.2.bias")[0] = float("nan")
    with pytest.raises(ResShiftError, match="not finite") as caught:
        upscaler(np.zeros((8, 8, 3), dtype=np.uint8))
    assert "--precision fp32" in caught.value.hint


# Precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_to_full_precision(precision: str) -> None:
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    exact = tiny_upscaler()(image)
    error = np.square(tiny_upscaler(precision=precision)(image) - exact).mean()
    assert 10 * np.log10(1 / error) > 40


# Temperature


def test_the_noise_of_the_steps_but_not_of_the_start_is_multiplied_by_the_temperature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    half = tiny_upscaler()(image, temperature=0.5)
    field = noise.field

    def fainter(seed: int, step: int, channels: int, **window: int) -> Tensor:
        return field(seed, step, channels, **window) * (1.0 if step == chain.PRIOR else 0.5)

    assert not np.allclose(tiny_upscaler()(image), half, atol=1e-3)
    monkeypatch.setattr(noise, "field", fainter)
    assert np.allclose(tiny_upscaler()(image), half, atol=1e-6)


def test_a_single_step_is_the_same_at_every_temperature() -> None:
    image = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    upscaler = tiny_upscaler()
    first = upscaler(image, steps=1, temperature=0)
    assert np.array_equal(upscaler(image, steps=1, temperature=1), first)


# Fewer steps


def test_fewer_steps_start_from_the_same_prior_and_end_with_the_last_timestep() -> None:
    upscaler = tiny_upscaler()
    seen: list[list[int]] = []
    network = upscaler.denoiser.network
    network.register_forward_pre_hook(lambda _, args: seen.append(args[1].tolist()))
    upscaler(np.zeros((8, 8, 3), dtype=np.uint8), steps=2)
    last = tiny_spec().schedule.steps - 1
    assert seen[0] == [last]
    assert len(seen) == 2
