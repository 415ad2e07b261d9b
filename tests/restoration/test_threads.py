"""One model in many hands: threads that call it at once, from the first call on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from goldens_support import channels_last
from tiny_model import tiny_upscaler
from torch import nn

from resshift_cli.diffusion import packing
from resshift_cli.diffusion.packing import PackedConv2d

THREADS = 4


def at_once(call: Callable[[int], object]) -> list[object]:
    """What threads return that begin at the same time."""
    ready = Barrier(THREADS)

    def begin(number: int) -> object:
        ready.wait()
        return call(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def convolution() -> nn.Sequential:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False))
    channels_last(stage)
    return stage


@torch.inference_mode()
def test_weights_that_another_thread_unpacks_meanwhile_are_used_all_the_same() -> None:
    stage, image = convolution(), torch.rand(1, 8, 6, 6)
    expected = stage(image)
    packing.pack(stage)
    packed = stage[0]
    assert isinstance(packed, PackedConv2d)
    packed(image)
    if packed._packed is None:
        pytest.skip("needs oneDNN")

    class Shape(tuple[int, ...]):
        def __ne__(self, other: object) -> bool:  # the other thread's turn comes within the look
            assert packed.weight.shape == (8, 8, 3, 3)
            return super().__ne__(other)

    shape = Shape(packed._packed.shape)
    packed._packed = packed._packed._replace(shape=shape)  # type: ignore[arg-type]  # as a Size is
    torch.testing.assert_close(packed(image), expected)


def test_packed_weights_change_their_form_under_the_hands_of_many() -> None:
    stage = convolution()
    images = [torch.rand(1, 8, 6, 6 + number) for number in range(THREADS)]
    with torch.inference_mode():
        expected = [stage(image) for image in images]
    packing.pack(stage)
    packed = stage[0]
    assert isinstance(packed, PackedConv2d)

    def call(number: int) -> None:
        for turn in range(150):
            with torch.inference_mode():
                torch.testing.assert_close(packed(images[number]), expected[number])
            if turn % 10 == number:
                assert packed.weight.shape == (8, 8, 3, 3)
                packed.state_dict()

    at_once(call)


@pytest.mark.parametrize("warm", [True, False])
def test_one_upscaler_is_right_from_several_threads(warm: bool) -> None:
    rng = np.random.default_rng(0)
    images = [
        rng.random((8, 8 * (1 + number % 2), 3), dtype=np.float32) for number in range(THREADS)
    ]
    alone = tiny_upscaler()
    expected = [alone(image, steps=2) for image in images]
    upscaler = tiny_upscaler()
    if warm:
        upscaler(images[0], steps=2)
    for result, right in zip(
        at_once(lambda number: [upscaler(images[number], steps=2) for _ in range(3)]),
        expected,
        strict=True,
    ):
        assert isinstance(result, list)
        for own in result:
            np.testing.assert_allclose(own, right, atol=1e-5)


def test_networks_are_made_once_however_many_threads_need_them() -> None:
    told: list[str] = []
    engine = tiny_upscaler(tell=told.append).engine
    made = at_once(lambda number: engine.exact(1.0))
    assert len(told) == 1 and {id(networks) for networks in made} == {id(engine.exact(1.0))}


def test_an_upscaler_gets_to_another_process() -> None:
    image = np.random.default_rng(0).random((8, 16, 3), dtype=np.float32)
    upscaler = tiny_upscaler()
    expected = upscaler(image, steps=2)
    other = pickle.loads(pickle.dumps(upscaler))
    assert np.array_equal(other(image, steps=2), expected)
