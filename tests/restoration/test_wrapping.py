"""Tileable textures: borders that meet before meet afterwards, whatever is between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS
from numpy.typing import NDArray
from PIL import Image
from tiny_model import tiny_upscaler
from torch.testing import assert_close

from resshift_cli.diffusion import noise
from resshift_cli.errors import UsageError
from resshift_cli.restoration import wrapping
from resshift_cli.restoration.bands import framed, unframed
from resshift_cli.restoration.resize import lanczos
from resshift_cli.restoration.tiling import Frame
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.restoration.wrapping import Ring

PHOTO = Path(__file__).parents[2] / "examples" / "kitten.jpg"
Texture = NDArray[np.float32]


def texture(height: int = 24, width: int = 28, channels: int = 3) -> Texture:
    """Fur of a photo, mirrored so that its borders meet, and cut elsewhere."""
    with Image.open(PHOTO) as photo:
        pixels = np.asarray(photo.convert("RGBA"), np.float32) / 255
    part = pixels[80 : 80 + height // 2, 120 : 120 + width // 2]
    part[..., 3] = part[..., :3].mean(axis=2)
    part = np.concatenate([part, part[::-1]])
    part = np.concatenate([part, part[:, ::-1]], axis=1)
    kept = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    return np.ascontiguousarray(np.roll(part, (height // 3, width // 3), (0, 1))[..., kept])


def steps(image: NDArray[Any], axis: int) -> tuple[float, NDArray[Any]]:
    """Mean difference across the border, and those of all neighbours inside."""
    lines = np.moveaxis(image.astype(np.float64), axis, 0)
    inside = np.abs(np.diff(lines, axis=0)).mean(axis=(1, 2))
    return float(np.abs(lines[0] - lines[-1]).mean()), inside


def assert_no_seam(image: NDArray[Any], axes: str = "xy") -> None:
    for axis in (0 * ("y" in axes), 1 * ("x" in axes)):
        across, inside = steps(image, axis)
        assert across <= inside.max(), (axis, across, inside.max())


@pytest.fixture(scope="module")
def bundled() -> Upscaler:
    return Upscaler.from_pretrained("tiny-x4", device="cpu", precision="fp32")


@pytest.mark.parametrize("scale", [4.0, 2.0, 3.3])
@pytest.mark.parametrize("channels", [3, 1, 4])
def test_a_texture_is_tileable_after_it_was_enlarged(
    bundled: Upscaler, scale: float, channels: int
) -> None:
    low = texture(channels=channels)
    large = bundled(low, scale=scale, wrap="xy", tile=32)
    assert large.shape[:2] == (round(24 * scale), round(28 * scale))
    assert_no_seam(large)


def test_without_being_told_it_is_not(bundled: Upscaler) -> None:
    large = bundled(texture())
    across, inside = steps(large, 1)
    wrapped, _ = steps(bundled(texture(), wrap="x"), 1)
    assert across > 1.3 * wrapped
    assert wrapped <= inside.max()


def test_a_texture_of_several_tiles_and_passes_is_tileable(bundled: Upscaler) -> None:
    assert_no_seam(bundled(texture(), tile=32, overlap=8, wrap="xy"))
    assert_no_seam(bundled(texture(16, 20), scale=7, wrap="xy"))


@pytest.mark.parametrize("wrap", ["x", "y"])
@pytest.mark.parametrize("color_fix", ["none", "wavelet", "adain"])
def test_axes_wrap_one_by_one(wrap: str, color_fix: str) -> None:
    upscaler = tiny_upscaler()
    moved = np.roll(texture(), 5, axis="yx".index(wrap))
    for low in (texture(), moved):
        large = upscaler(low, wrap=wrap, color_fix=color_fix, consistency=0.5, tile=16, overlap=8)
        assert large.shape == (96, 112, 3)
        assert_no_seam(large, wrap)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_model_wraps_at_any_size(kind: str) -> None:
    upscaler = tiny_upscaler(**KINDS[kind])
    for height, width in ((9, 11), (20, 1)):
        large = upscaler(texture()[:height, :width], wrap="xy")
        scale = upscaler.spec.scale
        assert large.shape == (height * scale, width * scale, 3)


def test_the_same_seed_gives_the_same_and_another_seed_another() -> None:
    upscaler = tiny_upscaler()
    first, again = (upscaler(texture(), wrap="xy", seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, upscaler(texture(), wrap="xy", seed=4))


def ring(wrap: str = "xy") -> Ring:
    return Ring(Frame(3, 5, 17, 40, wrap), 11, 13)


def test_what_is_closed_is_the_same_wherever_it_is_shown() -> None:
    shown = torch.rand(2, 3, 17, 40, generator=torch.Generator().manual_seed(0))
    (closed,) = ring().closed(iter([shown]))
    flat = ring().frame
    image = closed[..., 3:14, 5:18]
    assert_close(closed, flat.pad(image))
    assert closed.amin() >= 0 and closed.amax() <= 1


def test_what_repeats_already_is_left_as_it_is() -> None:
    shown = ring().frame.pad(torch.rand(1, 3, 11, 13))
    (closed,) = ring().closed(iter([shown]))
    assert_close(closed, shown)


def test_noise_repeats_as_the_image_does() -> None:
    drawn = ring().field(noise.field)(7, 2, 3, top=0, left=0, height=17, width=40)
    own = noise.field(7, 2, 3, top=0, left=0, height=11, width=13)
    assert_close(drawn, ring().frame.pad(own), rtol=0, atol=0)
    part = ring().field(noise.field)(7, 2, 3, top=4, left=9, height=5, width=20)
    assert_close(part, drawn[..., 4:9, 9:29], rtol=0, atol=0)


@pytest.mark.parametrize("wrap", ["x", "y", "xy", "none"])
def test_a_frame_is_put_around_and_taken_off_again(wrap: str) -> None:
    image = torch.rand(1, 3, 11, 13)
    around = Frame(3, 5, 17, 40, wrap)
    parts = list(framed(iter(torch.split(image, 4, dim=-2)), 11, around))
    assert_close(torch.cat(parts, dim=-2), around.pad(image), rtol=0, atol=0)
    assert_close(torch.cat(list(unframed(parts, (11, 13), around)), dim=-2), image)


@pytest.mark.parametrize("target", [(20, 26), (23, 9), (7, 31)])
def test_lanczos_looks_across_borders_that_meet(target: tuple[int, int]) -> None:
    image = torch.rand(1, 3, 11, 13, generator=torch.Generator().manual_seed(0))
    bands = lanczos(iter(torch.split(image, 2, dim=-2)), (11, 13), target, "xy")
    resized = torch.cat(list(bands), dim=-2)
    nine = image.repeat(1, 1, 3, 3)
    whole = torch.cat(list(lanczos(iter([nine]), (33, 39), (3 * target[0], 3 * target[1]))), dim=-2)
    middle = whole[..., target[0] : 2 * target[0], target[1] : 2 * target[1]]
    assert_close(resized, middle, rtol=0, atol=1e-5)


def test_an_axis_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="'z'") as caught:
        tiny_upscaler()(texture(), wrap="z")
    assert "--wrap" in caught.value.hint
    assert wrapping.WRAPS == ("none", "x", "y", "xy")
