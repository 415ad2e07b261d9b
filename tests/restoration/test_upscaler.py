from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plain_chain
import pytest
import torch
from PIL import Image
from tiny_model import tiny_spec, tiny_upscaler
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.diffusion import noise
from resshift_cli.diffusion.specs import VQSpec
from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.restoration import colour, tiling
from resshift_cli.restoration.engine import PLANES, PRIOR
from resshift_cli.restoration.tiling import Box, Grid
from resshift_cli.restoration.upscaler import Upscaler

# Every way in which a published model is run, with networks of the smallest size.
NETWORK = replace(tiny_spec().denoiser, latent_channels=3)
CODEC = VQSpec(32, (1, 1, 1), (1, 1, 1), z_channels=3, codes=64, quantize=False)
VQGAN = {"predict": "x0", "precondition": False, "denoiser": NETWORK, "autoencoder": CODEC}
STUDENT = VQGAN | {
    "denoiser": replace(NETWORK, noise_channels=1),
    "prior": "kappa",
    "condition": "latent",
    "max_steps": 1,
}
KINDS: dict[str, dict[str, Any]] = {
    "bundled": {},
    "quantised": VQGAN | {"autoencoder": replace(CODEC, quantize=True)},
    "clipped": VQGAN | {"clip_lq": True},
    "x2": VQGAN | {"scale": 2, "denoiser": replace(NETWORK, lq_ratio=2)},
    "x1": VQGAN | {"scale": 1, "denoiser": replace(NETWORK, lq_ratio=4)},
    "distilled": VQGAN | {"max_steps": 1},
    "student": STUDENT,
    "student-resized": STUDENT | {"condition": "resized"},
    "student-x2": STUDENT | {"scale": 2},
    "student-x2-resized": STUDENT | {"scale": 2, "condition": "resized"},
    "planes-at-every-step": STUDENT | {"max_steps": None},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def restore(
    upscaler: Upscaler, lq: Tensor, *, tile: int = 64, overlap: int = 16, seed: int = 0
) -> Tensor:
    with torch.inference_mode():
        return upscaler.restore(lq, upscaler.settings(tile=tile, overlap=overlap, seed=seed))


def random_lq(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def calls(upscaler: Upscaler) -> list[tuple[Any, ...]]:
    """What the denoiser is given at every call from now on: the arguments of its `forward`."""
    seen: list[tuple[Any, ...]] = []
    upscaler.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args))
    return seen


# Tiles


@every_kind
@pytest.mark.parametrize(("height", "width"), [(8, 16), (5, 19), (1, 1), (3, 64)])
def test_an_image_of_one_tile_equals_the_untiled_chain_exactly(
    kind: str, height: int, width: int
) -> None:
    upscaler = tiny_upscaler(**KINDS[kind])
    lq = random_lq(height, width)
    assert torch.equal(restore(upscaler, lq, seed=5), plain_chain.restore(upscaler, lq, seed=5))


@pytest.fixture(scope="module")
def tiled() -> tuple[Tensor, Tensor]:
    lq = random_lq(90, 70)
    return lq, restore(tiny_upscaler(), lq, tile=32, overlap=8)


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_the_result_does_not_depend_on_the_tiles_per_call(
    tiled: tuple[Tensor, Tensor], batch: int
) -> None:
    lq, expected = tiled
    assert_close(restore(tiny_upscaler(tile_batch=batch), lq, tile=32, overlap=8), expected)


@pytest.mark.full_size  # it takes a minute
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_compiled_networks_compute_the_same_and_are_kept(
    tiled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("RESSHIFT_CACHE", str(tmp_path))
    lq, expected = tiled
    upscaler = tiny_upscaler(tile_batch=5, compiled=True)
    assert_close(restore(upscaler, lq, tile=32, overlap=8), expected)
    assert any((tmp_path / "compiled").rglob("*.so"))


def test_a_compiled_network_is_given_as_many_tiles_in_every_call(
    tiled: tuple[Tensor, Tensor],
) -> None:
    lq, expected = tiled
    upscaler = tiny_upscaler(tile_batch=5)
    upscaler.engine.whole_batches = True
    seen = calls(upscaler)
    assert_close(restore(upscaler, lq, tile=32, overlap=8), expected)
    assert {len(call[0]) for call in seen} == {5}


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


@every_kind
def test_neighbouring_tiles_are_shown_the_same_where_they_overlap(kind: str) -> None:
    """The latent of every step, what there is of the image, and the planes of noise."""
    upscaler = tiny_upscaler(tile_batch=64, **KINDS[kind])
    seen = calls(upscaler)
    pixels = upscaler.spec.lq_pixels
    lq = random_lq(20 * pixels, 12 * pixels)
    restore(upscaler, lq, tile=8 * pixels, overlap=2 * pixels)
    grid = Grid(*(tiling.plan_axis(side, size=8, overlap=2) for side in (20, 12)))
    first, second = grid.boxes[:2]
    shared = first.left + first.width - second.left
    assert len(seen) == upscaler.spec.steps
    for x_t, y0, shown, _, _, planes in seen:
        for image in (x_t, y0, shown) if planes is None else (x_t, y0, shown, planes):
            width = shared * image.shape[-1] // first.width
            assert torch.equal(image[0, ..., -width:], image[1, ..., :width])


# Not the quantised one: rounding may change one code for another as near.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "quantised"])
def test_seams_do_not_depend_on_the_tiles_per_call(kind: str) -> None:
    pixels = tiny_upscaler(**KINDS[kind]).spec.lq_pixels
    lq = random_lq(19 * pixels, 11 * pixels)
    one, many = (
        restore(tiny_upscaler(tile_batch=n, **KINDS[kind]), lq, tile=8 * pixels, overlap=2 * pixels)
        for n in (1, 5)
    )
    assert one.shape[-1] == lq.shape[-1] * tiny_spec(**KINDS[kind]).scale
    assert_close(one, many, rtol=0, atol=1e-4)


# Reproducibility


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    upscaler = tiny_upscaler()
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    first = upscaler(image, seed=3)
    assert np.array_equal(upscaler(image, seed=3), first)
    assert np.array_equal(tiny_upscaler()(image, seed=3), first)
    assert not np.array_equal(upscaler(image, seed=4), first)


def test_one_step_from_a_blind_start_is_the_same_for_every_seed() -> None:
    upscaler = tiny_upscaler(blind_start=True)
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    one = upscaler(image, steps=1, seed=3)
    assert np.array_equal(upscaler(image, steps=1, seed=4), one)
    assert not np.array_equal(upscaler(image, steps=2, seed=3), upscaler(image, steps=2, seed=4))


# Sizes and scales


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 100), (2, 3), (31, 33), (64, 64), (65, 63), (130, 20)]
)
@pytest.mark.parametrize("kind", ["bundled", "x1", "x2", "student-x2-resized"])
def test_any_size_comes_out_as_many_times_as_large_as_the_model_s_scale(
    kind: str, height: int, width: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    upscaler = tiny_upscaler(**KINDS[kind])
    scale = upscaler.spec.scale
    result = upscaler(image, steps=1, tile=32, overlap=8)
    assert result.shape == (scale * height, scale * width, 3)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3.999, 4, 5, 8, 16])
def test_any_scale_gives_the_size_asked_for(scale: float) -> None:
    image = np.zeros((7, 10), dtype=np.uint8)
    result = tiny_upscaler()(image, scale=scale, steps=1)
    assert result.shape == (round(7 * scale), round(10 * scale))


@pytest.mark.parametrize(
    ("own", "scale", "passes"),
    [
        (2, 1, 1),
        (2, 1.5, 1),
        (2, 2, 1),
        (2, 2.01, 2),
        (2, 3, 2),
        (2, 4, 2),
        (2, 4.5, 3),
        (2, 8, 3),
        (2, 16, 4),
        (4, 4, 1),
        (4, 4.5, 2),
        (4, 16, 2),
        (1, 3, 1),
    ],
)
def test_a_scale_takes_as_few_passes_as_reach_it(own: int, scale: float, passes: int) -> None:
    upscaler = tiny_upscaler(**KINDS[f"x{own}"] if own < 4 else {})
    seen = calls(upscaler)
    result = upscaler(np.zeros((3, 5), dtype=np.uint8), scale=scale, steps=1, tile=64)
    assert result.shape == (round(3 * scale), round(5 * scale))
    assert len(seen) == passes


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
    assert totals == {tiny_spec().schedule.steps}


def test_alpha_is_enlarged_like_a_gray_image() -> None:
    rng = np.random.default_rng(0)
    colour, alpha = rng.random((9, 8, 3)), rng.random((9, 8, 1))
    upscaler = tiny_upscaler()
    result = upscaler(np.concatenate([colour, alpha], axis=2))
    assert np.allclose(result[..., :3], upscaler(colour), atol=1e-6)
    assert np.allclose(result[..., 3:], upscaler(alpha, consistency=1.0), atol=1e-6)


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


@pytest.mark.parametrize("steps", [0, 2, 15])
def test_a_model_distilled_to_one_step_walks_one(steps: int) -> None:
    upscaler = tiny_upscaler(**KINDS["distilled"])
    assert upscaler.settings().steps == upscaler.settings(steps=1).steps == 1
    with pytest.raises(UsageError, match=f"walks 1 step, not {steps}") as caught:
        upscaler.settings(steps=steps)
    assert "--steps" in caught.value.hint


def test_a_model_that_needs_a_mask_is_refused_before_anything_is_computed() -> None:
    network = replace(NETWORK, lq_ratio=4, lq_mask=True)
    with pytest.raises(UsageError, match="'tiny' fills holes: it needs a mask") as caught:
        tiny_upscaler(**KINDS["x1"] | {"denoiser": network})
    assert "models list" in caught.value.hint


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_result_that_is_not_finite_is_never_returned(precision: str) -> None:
    told: list[str] = []
    upscaler = tiny_upscaler(precision, tell=told.append)
    with torch.no_grad():
        upscaler.denoiser.network.get_parameter("out.2.bias")[0] = float("nan")
    with pytest.raises(ResShiftError, match="not finite") as caught:
        upscaler(np.zeros((8, 8, 3), dtype=np.uint8))
    assert "models verify" in caught.value.hint
    assert len(told) == (precision == "fp16")


@pytest.mark.parametrize("tile_batch", [1, 3])
def test_tiles_that_overflow_in_half_precision_are_computed_in_float32(tile_batch: int) -> None:
    """Those, and no others; it is told once."""
    lq, told = random_lq(30, 30), list[str]()
    upscaler = tiny_upscaler("fp16", tile_batch=tile_batch, tell=told.append)
    half = restore(upscaler, lq, tile=16, overlap=4)
    exact = restore(tiny_upscaler(), lq, tile=16, overlap=4)
    computed: list[torch.dtype] = []

    def overflow(_: object, args: tuple[Tensor, ...], output: Tensor) -> None:
        computed.append(args[0].dtype)
        if args[0].dtype == torch.float16 and len(computed) == 2:
            output[0, 0, 3, 3] = float("inf")

    upscaler.denoiser.network.register_forward_hook(overflow)
    mended = restore(upscaler, lq, tile=16, overlap=4)
    assert computed.count(torch.float32) == 1
    assert len(told) == 1 and "float32" in told[0]
    assert_close(mended, half, atol=0.05, rtol=0)
    assert_close(mended, exact, atol=0.05, rtol=0)


# Memory


def short_of_memory(upscaler: Upscaler, largest: int) -> list[int]:
    """Let the denoiser fail as torch does on batches of more latent positions than that.

    Returns:
        The latent positions of every call, failed ones included.
    """
    sizes: list[int] = []

    def allocate(_: object, args: tuple[Tensor, ...]) -> None:
        sizes.append(args[0].shape[0] * args[0].shape[-2] * args[0].shape[-1])
        if sizes[-1] > largest:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 999999999999 bytes. Error code 12 (Cannot allocate memory)"
            )

    upscaler.denoiser.network.register_forward_pre_hook(allocate)
    return sizes


def test_when_memory_runs_out_fewer_tiles_are_computed_at_a_time() -> None:
    lq, told = random_lq(60, 60), list[str]()
    upscaler = tiny_upscaler(tile_batch=8, tell=told.append)
    sizes = short_of_memory(upscaler, 2 * 16 * 16)
    result = restore(upscaler, lq, tile=16, overlap=4)
    assert_close(result, restore(tiny_upscaler(), lq, tile=16, overlap=4))
    assert [size for size in sizes if size > 2 * 16 * 16] == [5 * 16 * 16], "no call is repeated"
    assert told == ["Memory ran out: going on with 2 tiles at a time."]


def test_whole_batches_get_smaller_too() -> None:
    lq, told = random_lq(60, 60), list[str]()
    upscaler = tiny_upscaler(tile_batch=8, tell=told.append)
    upscaler.engine.whole_batches = True
    sizes = short_of_memory(upscaler, 2 * 16 * 16)
    result = restore(upscaler, lq, tile=16, overlap=4)
    assert_close(result, restore(tiny_upscaler(), lq, tile=16, overlap=4))
    assert set(sizes) == {8 * 16 * 16, 4 * 16 * 16, 2 * 16 * 16}


def test_when_memory_does_not_hold_one_tile_smaller_ones_are_taken() -> None:
    image, told = np.random.default_rng(0).random((60, 50, 3), dtype=np.float32), list[str]()
    upscaler = tiny_upscaler(tile_batch=2, tell=told.append)
    short_of_memory(upscaler, 16 * 16)
    result = upscaler(image, tile=64)
    assert_close(result, tiny_upscaler()(image, tile=16, overlap=4))
    assert told[-1] == "Memory ran out: beginning anew with tiles of 16 px."


def test_when_memory_does_not_hold_the_smallest_tile_it_is_given_up() -> None:
    upscaler = tiny_upscaler(tell=lambda text: None)
    short_of_memory(upscaler, 0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        upscaler(np.zeros((20, 20, 3), np.float32))


# Bands


def in_bands(image: np.ndarray[Any, Any], *heights: int) -> list[np.ndarray[Any, Any]]:
    return np.split(image, np.cumsum(heights))


@pytest.mark.parametrize("scale", [4, 2.5, 10])
def test_an_image_that_comes_in_bands_gives_the_same_result(scale: float) -> None:
    image = np.random.default_rng(0).random((70, 33, 3), dtype=np.float32)
    upscaler = tiny_upscaler()
    settings = upscaler.settings(scale=scale, tile=16, overlap=4)
    whole = upscaler.enlarge(image, settings)
    bands = list(upscaler.stream(in_bands(image, 1, 40), image.shape, settings))
    assert len(bands) > 1
    assert_close(np.concatenate(bands), whole)


def test_only_a_few_rows_are_read_ahead_of_those_that_are_done() -> None:
    """However high the image is: a row of tiles per step, and the parts that tiles share."""
    upscaler = tiny_upscaler()
    settings = upscaler.settings(tile=16, overlap=4)
    read = done = most = 0

    def rows() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal read
        for _ in range(100):
            read += 8
            yield np.zeros((8, 16, 3), np.float32)

    for band in upscaler.stream(rows(), (800, 16, 3), settings):
        most = max(most, read - done)
        done += len(band) // 4
    assert done == 800
    assert most <= (settings.steps + 1) * (16 + noise.BLOCK) + noise.BLOCK


def test_no_step_holds_the_rows_that_it_has_handed_on() -> None:
    """Of a large image the latents of a dozen steps are most of what memory holds."""
    upscaler = tiny_upscaler()
    settings = upscaler.settings(tile=16, overlap=4)
    lq = random_lq(160, 16)
    with torch.inference_mode():
        bands = upscaler.engine.restore([lq], 160, 16, settings)
        handed = []
        for band in bands:
            handed.append(weakref.ref(band))
            del band
            assert [ref() for ref in handed] == [None] * len(handed)
    assert len(handed) > 2


def test_images_of_one_size_are_computed_together_as_they_are_alone() -> None:
    upscaler, lq = tiny_upscaler(), torch.cat([random_lq(20, 30), -random_lq(20, 30)])
    both = restore(upscaler, lq, tile=16, overlap=4)
    for image, alone in zip(both, lq, strict=True):
        assert_close(image[None], restore(upscaler, alone[None], tile=16, overlap=4))


# Several images at a time


def small_images(count: int) -> list[np.ndarray[Any, Any]]:
    """Of several sizes and kinds, all of which are padded to 24x32."""
    rng = np.random.default_rng(0)
    shapes = [(24, 32, 3), (17, 25, 3), (20, 30, 1), (24, 27, 3), (18, 32, 1)]
    return [rng.random(shape, dtype=np.float32) for shape in (shapes * count)[:count]]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", ["bundled", "quantised", "planes-at-every-step"])
def test_a_result_depends_neither_on_its_neighbours_nor_on_its_place(
    kind: str, precision: str
) -> None:
    upscaler = tiny_upscaler(precision, **KINDS[kind])
    images, settings = small_images(4), upscaler.settings(seed=3)
    expected = upscaler.together(images, settings, 4)
    others = [1 - image for image in images]
    for place, image in enumerate(images):
        (alone,) = upscaler.together([image], settings, 4)
        moved = upscaler.together([*others[:2], image], settings, 4)[2]
        assert np.array_equal(alone, expected[place])
        assert np.array_equal(moved, expected[place])


@pytest.mark.parametrize("changes", [{}, {"scale": 2.5}, {"color_fix": "adain"}, {"steps": 1}])
def test_images_at_a_time_become_what_they_become_alone(changes: dict[str, Any]) -> None:
    upscaler, images = tiny_upscaler(), small_images(5)
    settings = upscaler.settings(consistency=0.5, **changes)
    told: list[tuple[int, int]] = []
    results = upscaler.together(images, settings, 5, lambda *about: told.append(about))
    for image, result in zip(images, results, strict=True):
        np.testing.assert_allclose(result, upscaler.enlarge(image, settings), atol=1e-5)
    assert told == [(step + 1, settings.steps) for step in range(settings.steps)]


@pytest.mark.parametrize(
    "images",
    [
        [],
        small_images(3),
        [np.zeros((24, 32, 3), np.float32), np.zeros((25, 32, 3), np.float32)],
        [np.zeros((24, 32, 4), np.float32)],
        [np.zeros((70, 32, 3), np.float32)],
    ],
    ids=["none", "too many", "of two sizes", "with alpha", "of two tiles"],
)
def test_other_images_are_not_computed_at_a_time(images: list[Any]) -> None:
    upscaler = tiny_upscaler()
    with pytest.raises(ValueError, match="not 1 to 2 images"):
        upscaler.together(images, upscaler.settings(), 2)


def test_an_image_that_overflows_leaves_its_neighbours_as_they_are() -> None:
    upscaler, images = tiny_upscaler("fp16", tell=lambda text: None), small_images(3)
    settings = upscaler.settings()
    expected = upscaler.together(images, settings, 3)

    def overflow(_: object, args: tuple[Tensor, ...], output: Tensor) -> None:
        if args[0].dtype == torch.float16:
            output[1, 0, 3, 3] = float("inf")

    upscaler.denoiser.network.register_forward_hook(overflow)
    mended = upscaler.together(images, settings, 3)
    assert np.array_equal(mended[0], expected[0])
    assert np.array_equal(mended[2], expected[2])
    assert not np.array_equal(mended[1], expected[1])
    np.testing.assert_allclose(mended[1], expected[1], atol=0.05)


# Precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_to_full_precision(precision: str) -> None:
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    exact = tiny_upscaler()(image)
    error = np.square(tiny_upscaler(precision=precision)(image) - exact).mean()
    assert 10 * np.log10(1 / error) > 40


# What the denoiser is given


def test_one_step_is_told_the_last_timestep_of_the_whole_schedule() -> None:
    upscaler = tiny_upscaler(**KINDS["distilled"])
    timesteps: list[list[int]] = []
    upscaler.denoiser.network.register_forward_pre_hook(
        lambda _, args: timesteps.append(args[1].tolist())
    )
    restore(upscaler, random_lq(8, 8))
    assert timesteps == [[tiny_spec().schedule.steps - 1]]


def test_every_draw_of_an_image_is_made_once_whatever_the_tiles() -> None:
    """One start, and a draw for every step but the last; planes of noise are a tile's own."""
    upscaler = tiny_upscaler(**KINDS["planes-at-every-step"])
    seen, rows = calls(upscaler), dict[tuple[int, int], list[int]]()

    def field(seed: int, step: int, channels: int, **window: int) -> Tensor:
        assert seed == 7
        if step != PLANES:
            top = window["top"]
            rows.setdefault((step, channels), []).extend(range(top, top + window["height"]))
        return noise.field(seed, step, channels, **window)

    settings = upscaler.settings(tile=8, overlap=2, seed=7)
    with torch.inference_mode():
        upscaler.restore(random_lq(20, 8), settings, field=field)
    assert rows == {(step, 3): list(range(20)) for step in (PRIOR, 2, 3, 4)}
    tiles = len(seen) // upscaler.spec.steps
    planes = noise.field(7, PLANES, 1, top=0, left=0, height=20, width=8)
    tops = {step: iter((0, 6, 12)) for step in range(1, 5)}
    assert tiles == 3
    for *_, t, shown in seen:
        top = next(tops[int(t)])
        assert torch.equal(shown, planes[..., top : top + 8, :])


def test_the_enlarged_image_is_clipped_where_the_model_asks_for_it() -> None:
    lq = random_lq(8, 8).sign()  # black and white: bicubic interpolation overshoots
    for kind, overshoots in (("planes-at-every-step", True), ("clipped", False)):
        upscaler = tiny_upscaler(**KINDS[kind])
        seen: list[Tensor] = []
        upscaler.autoencoder.get_submodule("encoder").register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        restore(upscaler, lq)
        assert (seen[0].abs().max() > 1.01) == overshoots


# Temperature


def test_the_noise_of_the_steps_but_not_of_the_start_is_multiplied_by_the_temperature() -> None:
    lq = random_lq(16, 16)
    upscaler = tiny_upscaler()

    def fainter(seed: int, step: int, channels: int, **window: int) -> Tensor:
        return noise.field(seed, step, channels, **window) * (1.0 if step == PRIOR else 0.5)

    with torch.inference_mode():
        half = upscaler.restore(lq, upscaler.settings(temperature=0.5))
        expected = upscaler.restore(lq, upscaler.settings(), field=fainter)
    assert_close(half, expected)
    assert not np.allclose(restore(upscaler, lq), half, atol=1e-3)


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


# Faithfulness


@pytest.mark.parametrize("color_fix", ["none", "wavelet", "adain"])
@pytest.mark.parametrize("consistency", [0.0, 0.7])
def test_a_correction_sees_no_difference_between_bands_and_a_whole_image(
    color_fix: Any, consistency: float
) -> None:
    image = np.random.default_rng(0).random((150, 20, 3), dtype=np.float32)
    upscaler = tiny_upscaler()
    settings = upscaler.settings(
        tile=16, overlap=4, color_fix=color_fix, consistency=consistency, steps=1
    )
    lq = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    with torch.inference_mode():
        plain = upscaler.restore(lq, settings)
    expected = colour.correct(plain, lq, fix=color_fix, consistency=consistency) / 2 + 0.5
    result = upscaler.enlarge(image, settings)
    assert_close(torch.from_numpy(result), expected[0].permute(1, 2, 0), atol=1e-5, rtol=0)


def test_by_default_a_result_has_the_mean_colours_of_the_image() -> None:
    image = np.tile(np.array([0.2, 0.5, 0.7], np.float32), (40, 40, 1))
    upscaler = tiny_upscaler()
    with torch.no_grad():
        upscaler.denoiser.network.get_parameter("out.2.bias").add_(0.5)
    without, with_fix = upscaler(image, color_fix="none"), upscaler(image)
    assert np.abs(without.mean((0, 1)) - image[0, 0]).min() > 0.02
    assert np.abs(with_fix.mean((0, 1)) - image[0, 0]).max() < 0.001


@pytest.mark.parametrize("wrong", [{"consistency": 1.5}, {"color_fix": "wavelets"}])
def test_a_correction_that_does_not_exist_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="consistency|colour fix") as caught:
        tiny_upscaler()(np.zeros((8, 8, 3), np.float32), **wrong)
    assert "--co" in caught.value.hint
