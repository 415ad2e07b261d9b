from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import plain_chain
import pytest
import torch
from kinds import KINDS, calls, every_kind, random_lq
from tiny_model import restore, tiny_spec, tiny_upscaler
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.diffusion import chain, noise
from resshift_cli.diffusion.chain import NoiseSource
from resshift_cli.diffusion.noise import PLANES, PRIOR
from resshift_cli.restoration import pipeline, tiling
from resshift_cli.restoration.engine import Run
from resshift_cli.restoration.resize import enlarge
from resshift_cli.restoration.tiling import Box, Grid
from resshift_cli.system import progress

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
    lq = random_lq(60, 70)
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
    upscaler.engine.compiled = Path("compiled")
    seen = calls(upscaler)
    assert_close(restore(upscaler, lq, tile=32, overlap=8), expected)
    assert {len(call[0]) for call in seen} == {5}


def test_the_result_does_not_depend_on_the_order_of_the_tiles(
    tiled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    lq, expected = tiled
    in_order = Grid.row

    def backwards(self: Grid, row: int) -> list[Box]:
        return list(reversed(in_order(self, row)))

    monkeypatch.setattr(Grid, "row", backwards)
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


# Several images


def test_images_of_one_size_are_computed_together_as_they_are_alone() -> None:
    upscaler, lq = tiny_upscaler(), torch.cat([random_lq(20, 30), -random_lq(20, 30)])
    both = restore(upscaler, lq, tile=16, overlap=4)
    for image, alone in zip(both, lq, strict=True):
        assert_close(image[None], restore(upscaler, alone[None], tile=16, overlap=4))


# Bands


def test_no_step_holds_the_rows_that_it_has_handed_on() -> None:
    """Of a large image the latents of a dozen steps are most of what memory holds."""
    upscaler = tiny_upscaler()
    settings = upscaler.settings(tile=16, overlap=4)
    lq = random_lq(160, 16)
    with torch.inference_mode():
        run = Run(upscaler.engine, 1, progress.silent())
        bands = pipeline.restore(run, [lq], (160, 16), settings)
        handed = []
        for band in bands:
            handed.append(weakref.ref(band))
            del band
            assert [ref() for ref in handed] == [None] * len(handed)
    assert len(handed) > 2


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

    restore(upscaler, random_lq(20, 8), tile=8, overlap=2, seed=7, field=field)
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

    half = restore(upscaler, lq, temperature=0.5)
    expected = restore(upscaler, lq, field=fainter)
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


# Samplers


class Halfway:
    """A sampler of a test's own: no noise, and half the way to x_0 in every step."""

    schedule = tiny_spec().schedule.build()

    def start(self, y0: Tensor, noise: NoiseSource) -> Tensor:
        return y0

    def step(self, x_t: Tensor, x0: Tensor, t: int, noise: NoiseSource) -> Tensor:
        return (x_t + x0) / 2


def test_another_sampler_walks_the_same_chain_whether_over_bands_or_a_whole_latent() -> None:
    upscaler, lq, sampler = tiny_upscaler(), random_lq(16, 24), Halfway()
    run = Run(upscaler.engine, 1, progress.silent())

    def predict(x_t: Tensor, t: int) -> Tensor:
        return upscaler.denoiser(x_t, y0, lq, sampler.schedule, torch.tensor([t]))

    with torch.inference_mode():
        bands = pipeline.restore(run, [lq], (16, 24), upscaler.settings(), sampler)
        actual = torch.cat(list(bands), dim=-2)
        y0 = upscaler.autoencoder.encode(enlarge(lq, 4))
        step = partial(sampler.step, noise=torch.zeros)
        *_, last = chain.walk(y0, predict, step, sampler.schedule.steps)
    assert torch.equal(actual, upscaler.autoencoder.decode(last.x0).clamp(-1, 1))
