from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.restoration import bands
from resshift_cli.restoration.bands import Window
from resshift_cli.restoration.resize import enlarge, lanczos
from resshift_cli.restoration.tiling import Box, Frame

IMAGE = torch.rand(2, 3, 60, 11, generator=torch.Generator().manual_seed(0))
CUTS = [[60], [1] * 60, [16, 16, 16, 12], [59, 1]]
every_cut = pytest.mark.parametrize("heights", CUTS)


def joined(stream: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(stream), dim=-2)


@every_cut
def test_a_window_gives_the_rows_of_the_image(heights: list[int]) -> None:
    reader = Window(torch.split(IMAGE, heights, -2)).reader()
    assert torch.equal(reader.rows(0, 7), IMAGE[..., :7, :])
    assert torch.equal(reader.rows(5, 40), IMAGE[..., 5:40, :])
    reader.forget(30)
    assert torch.equal(reader.rows(30, 99), IMAGE[..., 30:, :])
    box = Box(0, 0, top=16, left=2, height=4, width=3)
    assert torch.equal(reader.cut(box, 2), IMAGE[..., 32:40, 4:10])


def test_rows_are_taken_only_when_they_are_asked_for() -> None:
    taken: list[int] = []

    def stream() -> Iterator[Tensor]:
        for i, band in enumerate(torch.split(IMAGE, 10, -2)):
            taken.append(i)
            yield band

    reader = Window(stream()).reader()
    reader.rows(0, 15)
    assert taken == [0, 1]


def test_rows_are_kept_until_every_reader_has_passed_them() -> None:
    window = Window(torch.split(IMAGE, 10, -2))
    fast, slow = window.reader(), window.reader()
    fast.rows(0, 60)
    fast.forget(50)
    assert torch.equal(slow.rows(0, 60), IMAGE)
    slow.forget(20)
    with pytest.raises(AssertionError, match="promised"):
        slow.rows(19, 30)


@every_cut
def test_a_reader_can_be_gone_through(heights: list[int]) -> None:
    window = Window(torch.split(IMAGE, heights, -2))
    ahead, behind = window.reader(), window.reader()
    ahead.rows(0, 33)
    assert torch.equal(joined(iter(behind)), IMAGE)


@every_cut
@pytest.mark.parametrize(
    "frame",
    [Frame(0, 0, 60, 11), Frame(2, 2, 64, 16), Frame(0, 0, 61, 11), Frame(90, 30, 300, 70)],
)
def test_framing_bands_is_framing_the_image(heights: list[int], frame: Frame) -> None:
    padded = joined(bands.framed(torch.split(IMAGE, heights, -2), 60, frame))
    assert torch.equal(padded, frame.pad(IMAGE))


@every_cut
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_enlarging_bands_is_enlarging_the_image(heights: list[int], scale: int) -> None:
    stream = bands.local(
        torch.split(IMAGE, heights, -2), 60, lambda image: enlarge(image, scale), reach=2, up=scale
    )
    assert torch.equal(joined(stream), enlarge(IMAGE, scale))


@every_cut
@pytest.mark.parametrize("factor", [2, 4])
def test_reducing_bands_is_reducing_the_image(heights: list[int], factor: int) -> None:
    def reduce(image: Tensor) -> Tensor:
        return F.interpolate(image, [s // factor for s in image.shape[-2:]], mode="bicubic")

    image = F.pad(IMAGE, (0, 1))
    stream = bands.local(torch.split(image, heights, -2), 60, reduce, reach=factor, down=factor)
    assert torch.equal(joined(stream), reduce(image))


@every_cut
@pytest.mark.parametrize("target", [(60, 11), (17, 5), (150, 30), (59, 12), (1, 1), (240, 44)])
def test_resizing_bands_is_resizing_the_image(heights: list[int], target: tuple[int, int]) -> None:
    image = IMAGE[:1]
    stream = lanczos(torch.split(image, heights, -2), (60, 11), target)
    assert_close(joined(stream), joined(lanczos([image], (60, 11), target)))
