"""Small images of one size are computed at a time, the same way every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch_folder import lines, results
from command_line import Run
from PIL import Image

from resshift_cli.restoration.upscaler import Upscaler


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many images were given to the networks at a time, and for how many results."""
    seen: list[tuple[int, int]] = []
    together = Upscaler.together

    def counted(self: Upscaler, images: Any, settings: Any, count: int, *rest: Any) -> Any:
        seen.append((count, len(images)))
        return together(self, images, settings, count, *rest)

    monkeypatch.setattr(Upscaler, "together", counted)
    return seen


def test_small_images_of_one_padded_size_are_computed_at_a_time(
    batch: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    ran = batch(alike)
    assert (ran.code, sizes) == (0, [(4, 4), (4, 4)])
    done = [Path(name).stem for name in ran.out.splitlines()]
    assert done == ["0", "1", "2", "3", "0a", "3a", "4", "5", "6", "7", "4a", "8", "9"]
    output = alike.with_name("in_x4")
    for number in range(10):
        with Image.open(output / f"{number}.png") as image:
            assert image.size == (4 * (17 + number % 8), 4 * (25 + number % 5))
    assert all(line["seconds"] > 0 for line in lines(output))


def test_groups_do_not_depend_on_what_was_finished_before(
    batch: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    batch(alike)
    output = alike.with_name("in_x4")
    before = results(output)
    for name in ("1.png", "2.png", "7.png", "8.png"):
        (output / name).unlink()
    sizes.clear()
    assert "4 done, 9 finished before" in batch(alike).err
    assert sizes == [(4, 2), (4, 1)]
    assert results(output) == before


def test_an_image_that_can_not_be_read_leaves_its_group_as_it_is(
    batch: Run, alike: Path, sizes: list[tuple[int, int]]
) -> None:
    batch(alike)
    whole = results(alike.with_name("in_x4"))
    data = (alike / "2.png").read_bytes()
    (alike / "2.png").write_bytes(data[: len(data) // 2])
    sizes.clear()
    ran = batch(alike, "-o", alike.with_name("other"))
    assert (ran.code, sizes) == (1, [(4, 3), (4, 4)])
    del whole["2.png"]
    assert results(alike.with_name("other")) == whole


def turn(path: Path, *, late: bool) -> None:
    """Have its rows be the image's columns, said before the pixels or only behind them."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    if late:
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4], "big")]
        end = content.index(b"IEND") - 4
        rest = content[start + len(chunk) : end]
        path.write_bytes(content[:start] + rest + chunk + content[end:])


@pytest.mark.parametrize("late, first", [(True, (4, 3)), (False, (4, 4))])
def test_a_file_that_is_turned_is_done_by_itself(
    batch: Run, alike: Path, sizes: list[tuple[int, int]], late: bool, first: tuple[int, int]
) -> None:
    turn(alike / "1.png", late=late)
    ran = batch(alike)
    assert (ran.code, sizes) == (0, [first, (4, 4)])


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("division by zero")])
def test_a_group_that_fails_is_done_one_by_one(
    batch: Run, alike: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Upscaler, "together", fail)
    ran = batch(alike)
    assert ran.code == 0 and "13 done" in ran.err
    assert ran.err.count("4 images could not be computed at a time: going on one by one.") == 2


def test_fail_fast_stops_within_a_group(batch: Run, alike: Path) -> None:
    data = (alike / "2.png").read_bytes()
    (alike / "2.png").write_bytes(data[: len(data) // 2])
    ran = batch(alike, "--fail-fast")
    assert ran.code == 1
    assert set(results(alike.with_name("in_x4"))) == {"0.png", "1.png"}
