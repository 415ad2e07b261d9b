"""Animations: every frame as a viewer shows it, timing and loop kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from resshift_cli.errors import ImageUnreadableError, ResShiftError, UsageError
from resshift_cli.imaging import animation, read, targets
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.opening import MAX_PIXELS, opened

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
TIMES = [100, 250, 40, 1000]


def animated(path: Path, *, mode: str = "RGB", **options: Any) -> Path:
    frames = [Image.new(mode, (24, 16), colour) for colour in COLOURS]
    for number, frame in enumerate(frames):
        box = (2 * number, 0, 2 * number + 4, 4)  # something that moves
        frame.paste((0,) * len(mode), box)
    options = {"duration": TIMES, "loop": 0, **options}
    if path.suffix == ".webp":
        options["lossless"] = True
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def shown(path: Path) -> tuple[list[np.ndarray[Any, Any]], list[float]]:
    with Image.open(path) as image:
        frames, times = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGBA"), int))
            times.append(float(frame.info["duration"]))
    return frames, times


def probed(path: Path, *, max_pixels: int = MAX_PIXELS, **options: Any) -> Any:
    with opened(path, max_pixels=max_pixels) as file:
        return animation.probe(file, **options)


def copied(source: Path, target: Path, **options: Any) -> animation.Animation:
    found = probed(source)
    assert found is not None
    frames = animation.read(found)
    content = animation.encode(frames, found, target, options=SaveOptions(**options))
    targets.save(content, target, overwrite=False)
    return found


@pytest.mark.parametrize("source", [".gif", ".webp", ".png"])
@pytest.mark.parametrize("target", [".gif", ".webp", ".png"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_frames_timing_and_transparency_are_kept(
    tmp_path: Path, source: str, target: str, mode: str
) -> None:
    path = animated(tmp_path / f"a{source}", mode=mode, disposal=2 if source == ".gif" else 0)
    copied(path, tmp_path / f"b{target}", lossless=target == ".webp")
    (before, times), (after, new_times) = shown(path), shown(tmp_path / f"b{target}")
    assert len(after) == 4 and new_times == times == TIMES
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[..., 3], other[..., 3])
        seen = one[..., 3] > 0
        np.testing.assert_allclose(one[seen], other[seen], atol=2)


@pytest.mark.parametrize("source, loop, plays", [
    (".gif", None, 1), (".gif", 0, 0), (".gif", 4, 5), (".png", 0, 0), (".png", 3, 3),
    (".webp", 0, 0), (".webp", 3, 3),
])  # fmt: skip
@pytest.mark.parametrize("target", [".gif", ".webp", ".png"])
def test_it_is_played_as_often_as_before(
    tmp_path: Path, source: str, loop: int | None, plays: int, target: str
) -> None:
    path = animated(tmp_path / f"a{source}", loop=loop or 0)
    if loop is None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in COLOURS]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=TIMES)
    assert copied(path, tmp_path / f"b{target}").plays == plays
    again = probed(tmp_path / f"b{target}")
    assert again is not None and again.plays == plays


def test_a_frame_that_changes_little_is_read_whole(tmp_path: Path) -> None:
    still = Image.effect_noise((32, 32), 80).convert("P")
    other = still.copy()
    other.putpixel((3, 3), 0 if still.getpixel((3, 3)) else 255)
    still.save(tmp_path / "a.gif", save_all=True, append_images=[other], duration=50)
    found = probed(tmp_path / "a.gif")
    assert found is not None
    one, two = (picture.pixels for picture in animation.read(found))
    assert (one != two).any(axis=-1).sum() == 1


def test_frames_can_be_larger_than_they_were(tmp_path: Path) -> None:
    found = probed(animated(tmp_path / "a.gif"))
    assert found is not None
    large = (
        replace(picture, pixels=picture.pixels.repeat(4, 0).repeat(4, 1), note="by a test")
        for picture in animation.read(found)
    )
    (tmp_path / "b.gif").write_bytes(animation.encode(large, found, tmp_path / "b.gif"))
    frames, times = shown(tmp_path / "b.gif")
    assert [frame.shape for frame in frames] == [(64, 96, 4)] * 4 and times == TIMES


def test_a_still_image_before_an_animated_png_is_no_frame(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.png", default_image=True, duration=TIMES[1:])
    found = probed(path)
    assert found is not None and found.milliseconds == tuple(TIMES[1:])
    first = next(animation.read(found))
    np.testing.assert_array_equal(first.pixels[10, 10], (0, 1, 0))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp", "a.jpg", "a.tif"])
def test_a_single_image_or_a_tiff_of_pages_is_no_animation(tmp_path: Path, name: str) -> None:
    pages = [Image.new("RGB", (4, 4), 1)] if name == "a.tif" else []
    Image.new("RGB", (4, 4)).save(tmp_path / name, save_all=bool(pages), append_images=pages)
    assert probed(tmp_path / name) is None


def test_metadata_of_the_file_goes_with_it(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.gif", comment=b"hello")
    copied(path, tmp_path / "b.gif")
    copied(path, tmp_path / "c.gif", strip_metadata=True)
    assert read.read(tmp_path / "b.gif", first_frame=True).text == {"Comment": "hello"}
    assert read.read(tmp_path / "c.gif", first_frame=True).text == {}


def test_a_format_without_animation_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without animation") as caught:
        animation.check_target(tmp_path / "a.jpg")
    assert "--first-frame" in caught.value.hint
    animation.check_target(tmp_path / "a.jpg", options=SaveOptions(format="gif"))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_a_truncated_animation_is_refused_or_read_and_nothing_else(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = animated(tmp_path / f"a{suffix}")
    content = path.read_bytes()
    refused = 0
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            probed(path)
        except ResShiftError as error:
            assert error.hint
            refused += 1
    assert refused > 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_of_a_truncated_animation_the_whole_frames_are_taken_if_that_is_allowed(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
    frames = [Image.fromarray(pixels) for pixels in noise]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=TIMES, loop=0)
    whole, _ = shown(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.9)])
    with pytest.raises(ImageUnreadableError, match="frame 4"):
        probed(path)
    found = probed(path, allow_truncated=True)
    assert found is not None
    assert found.milliseconds == tuple(TIMES[:3])
    assert "frame 4" in found.damage and "the 3 before it were read" in found.damage
    pictures = list(animation.read(found))
    assert len(pictures) == 3 and pictures[0].damage == found.damage
    for picture, pixels in zip(pictures, whole, strict=False):
        np.testing.assert_array_equal(np.rint(picture.pixels * 255), pixels[..., :3])
    path.write_bytes(content[: int(len(content) * 0.2)])  # no frame is whole
    assert probed(path, allow_truncated=True) is None


def test_a_whole_animation_is_as_it_was_where_damage_is_allowed(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.gif")
    assert probed(path, allow_truncated=True) == probed(path)


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadableError, match="too large"):
        probed(animated(tmp_path / "a.gif"), max_pixels=24 * 16 - 1)


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_a_transparent_colour_that_no_pixel_has_leaves_an_animation_opaque(
    tmp_path: Path, suffix: str
) -> None:
    frames = [Image.new("P", (6, 6), number) for number in (0, 1)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    if suffix == ".png":
        frames = [frame.convert("RGB") for frame in frames]
    clear = 2 if suffix == ".gif" else (1, 2, 3)
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, transparency=clear)
    found = probed(path)
    assert not found.alpha
    assert [frame.pixels.shape for frame in animation.read(found)] == [(6, 6, 3)] * 2


def test_a_frame_that_reaches_beyond_the_screen_is_cut_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in COLOURS[:2]]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    content = bytearray(path.read_bytes())
    second = content.index(b"\x2c", content.index(b"\x2c") + 1)  # its place, and size
    content[second + 1 : second + 5] = b"\x02\0\x02\0"
    path.write_bytes(content)
    found = copied(path, tmp_path / "b.gif")
    assert [frame.pixels.shape for frame in animation.read(found)] == [(8, 8, 3)] * 2
    with Image.open(tmp_path / "b.gif") as image:
        assert image.size == (8, 8) and getattr(image, "n_frames", 1) == 2


@pytest.mark.parametrize("times, written", [
    ([19] * 4, [20] * 4),
    ([47] * 4, [50, 40, 50, 50]),
    ([33, 33, 34], [30, 40, 30]),
    ([16] * 3, [20] * 3),
    ([10, 0, 100], [10, 0, 100]),
])  # fmt: skip
def test_frame_times_of_a_gif_keep_their_total(
    tmp_path: Path, times: list[int], written: list[int]
) -> None:
    frames = [Image.new("RGB", (8, 8), (50 * number, 0, 0)) for number in range(len(times))]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times)
    copied(path, tmp_path / "b.gif")
    assert shown(tmp_path / "b.gif")[1] == written


def test_16_bits_that_become_8_are_told_of(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.png")
    assert next(animation.read(probed(path))).warnings == ()
    content = path.read_bytes()
    with opened(path) as file:
        file.start = content[:24] + b"\x10" + content[25:]
        found = animation.probe(file)
    assert found is not None
    assert "enlarged in 8" in next(animation.read(found)).warnings[0]


def test_many_frames_of_a_few_bytes_are_refused_at_once(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.gif")
    content = path.read_bytes()
    third = content.rindex(b"\x21\xf9", 0, len(content) - 20)
    path.write_bytes(content[:-1] + content[third:-1] * 300 + b";")
    with pytest.raises(ImageUnreadableError, match="more than 40 frames"):
        probed(path, max_pixels=16 * 24)
    assert probed(path) is not None
