"""Hidden colours take those of what can be seen beside them."""

from __future__ import annotations

import numpy as np
import pytest

from resshift_cli.imaging.alpha import fill_hidden


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (7, 5), (64, 64), (33, 100)])
def test_what_can_be_seen_stays_bit_for_bit(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    colour = rng.random((height, width, 3), np.float32)
    alpha = rng.choice(np.array([0, 0.01, 0.5, 1], np.float32), (height, width, 1))
    filled = fill_hidden(colour, alpha)
    assert filled.dtype == np.float32 and filled.shape == colour.shape
    seen = (alpha > 0)[..., 0]
    np.testing.assert_array_equal(filled[seen], colour[seen])


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_black_or_white_under_transparency_takes_the_colour_of_the_shape(hidden: float) -> None:
    colour = np.full((50, 70, 3), hidden, np.float32)
    alpha = np.zeros((50, 70, 1), np.float32)
    colour[20:30, 31:44], alpha[20:30, 31:44] = (0.8, 0.2, 0.4), 1
    filled = fill_hidden(colour, alpha)
    np.testing.assert_allclose(filled, np.broadcast_to((0.8, 0.2, 0.4), filled.shape), atol=1e-6)


def test_each_side_takes_the_colour_that_is_near() -> None:
    colour = np.zeros((8, 64, 1), np.float32)
    alpha = np.zeros((8, 64, 1), np.float32)
    alpha[:, [0, 63]] = 1
    colour[:, 63] = 1
    filled = fill_hidden(colour, alpha)
    assert (filled[:, :32] == 0).all() and (filled[:, 32:] == 1).all()


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_where_nothing_or_everything_is_hidden_nothing_is_done(level: float) -> None:
    colour = np.random.default_rng(0).random((6, 6, 3), np.float32)
    assert fill_hidden(colour, np.full((6, 6, 1), level, np.float32)) is colour


def test_no_fringe_is_left_after_enlarging() -> None:
    from PIL import Image

    colour = np.zeros((16, 16, 1), np.float32)
    alpha = np.zeros((16, 16, 1), np.float32)
    colour[4:12, 4:12], alpha[4:12, 4:12] = 1, 1

    def enlarged(plane: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image.Image:
        return Image.fromarray(plane[..., 0]).resize((64, 64), Image.Resampling.BILINEAR)

    seen = np.asarray(enlarged(alpha)) > 0
    assert np.asarray(enlarged(colour))[seen].min() < 0.5  # the dark fringe
    assert np.asarray(enlarged(fill_hidden(colour, alpha)))[seen].min() > 0.999
