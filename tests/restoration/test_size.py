"""How large a result is."""

from __future__ import annotations

import pytest

from resshift_cli.errors import UsageError
from resshift_cli.restoration.size import Box, target_size


@pytest.mark.parametrize(
    "box, height, width, result",
    [
        (Box(width=1920), 480, 640, (1440, 1920)),
        (Box(height=1080), 480, 640, (1080, 1440)),
        (Box(3840, 3840), 640, 480, (3840, 2880)),
        (Box(1920, 1080), 480, 640, (1080, 1440)),
        (Box(1920, 1080), 480, 1280, (720, 1920)),
        (Box(width=640), 480, 640, (480, 640)),
    ],
)
def test_an_image_fills_its_box_as_far_as_its_proportions_allow(
    box: Box, height: int, width: int, result: tuple[int, int]
) -> None:
    assert target_size(height, width, box.scale(height, width)) == result


def test_the_side_that_was_asked_for_is_met_to_the_pixel() -> None:
    for side in range(300, 1400, 7):
        for height, width in ((89, 97), (97, 99), (300, 41)):
            tall, wide = target_size(height, width, Box(side, side).scale(height, width))
            assert max(tall, wide) == side and min(tall, wide) <= side


def test_what_would_shrink_or_grow_too_far_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="a.png is 640x480 already, more than 600 pixels") as small:
        Box(600, 600).scale(480, 640, "a.png")
    assert "larger size" in small.value.hint
    with pytest.raises(UsageError, match="a.png is 10x8, and 200x900 is 20 times that") as large:
        Box(200, 900).scale(8, 10, "a.png")
    assert large.value.hint == "At most 16 times is possible, 160x128."


def test_a_box_has_a_name_for_files_and_ledgers() -> None:
    boxes = (Box(width=1920), Box(height=1080), Box(3840, 3840), Box(1920, 1080))
    assert [str(box) for box in boxes] == ["w1920", "h1080", "long3840", "fit1920x1080"]
