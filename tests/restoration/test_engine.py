from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import calls, random_lq
from tiny_model import restore, tiny_upscaler
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.errors import ResShiftError
from resshift_cli.restoration import pipeline
from resshift_cli.restoration.engine import Run
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system.progress import silent

# Overflow


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
    upscaler.engine.compiled = Path("compiled")
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


# Precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_to_full_precision(precision: str) -> None:
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    exact = tiny_upscaler()(image)
    error = np.square(tiny_upscaler(precision=precision)(image) - exact).mean()
    assert 10 * np.log10(1 / error) > 40


# Several runs


def test_two_interleaved_runs_take_as_many_tiles_at_a_time_as_each_was_told() -> None:
    upscaler = tiny_upscaler()
    seen, settings = calls(upscaler), upscaler.settings(tile=16, overlap=4, steps=1)
    bands = [
        pipeline.restore(Run(upscaler.engine, count, silent()), [lq], (60, 60), settings)
        for count, lq in ((1, random_lq(60, 60)), (5, random_lq(60, 60)))
    ]
    sizes: list[set[int]] = [set(), set()]
    with torch.inference_mode():
        for turn in range(12):
            before = len(seen)
            next(bands[turn % 2], None)
            sizes[turn % 2] |= {len(call[0]) for call in seen[before:]}
    assert sizes == [{1}, {5}]


def test_a_run_begins_with_what_memory_held_in_the_run_before() -> None:
    told: list[str] = []
    upscaler = tiny_upscaler(tile_batch=8, tell=told.append)
    sizes = short_of_memory(upscaler, 2 * 16 * 16)
    restore(upscaler, random_lq(60, 60), tile=16, overlap=4)
    sizes.clear()
    restore(upscaler, random_lq(60, 60), tile=16, overlap=4)
    assert max(sizes) <= 2 * 16 * 16
    assert len(told) == 1
