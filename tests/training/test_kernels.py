from __future__ import annotations

import math

import numpy as np
import pytest

from resshift_cli.training import kernels
from resshift_cli.training.kernels import Kernel

ROUND, LONG = (1.5, 1.5), (2.5, 0.8)

KERNELS = {
    "gaussian": kernels.gaussian(13, ROUND, 0.0),
    "long gaussian": kernels.gaussian(13, LONG, 0.6),
    "heavy-tailed": kernels.gaussian(13, ROUND, 0.0, 0.5),
    "flat-topped": kernels.gaussian(13, LONG, -2.0, 4.0),
    "plateau": kernels.plateau(13, ROUND, 0.0, 2.0),
    "long plateau": kernels.plateau(13, LONG, 0.6, 1.0),
    "sinc": kernels.sinc(13, 1.5),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
def test_kernels_sum_to_one_and_have_no_direction(kernel: Kernel) -> None:
    assert kernel.shape == (13, 13) and np.isfinite(kernel).all()
    assert kernel.sum() == pytest.approx(1)
    assert kernel == pytest.approx(kernel[::-1, ::-1])


@pytest.mark.parametrize("name", ["gaussian", "heavy-tailed", "plateau", "sinc"])
def test_kernels_with_one_width_are_the_same_along_both_axes(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel == pytest.approx(kernel.T)
    assert kernel == pytest.approx(kernel[::-1])


def covariance(kernel: Kernel) -> Kernel:
    y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    return np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])


@pytest.mark.parametrize("turn", [0.0, 0.5, math.pi / 2, -2.0])
def test_a_gaussian_has_its_widths_along_its_axes(turn: float) -> None:
    measured = covariance(kernels.gaussian(31, (3.0, 1.2), turn))
    along = np.array([math.cos(turn), math.sin(turn)])
    across = np.array([-math.sin(turn), math.cos(turn)])
    assert along @ measured @ along == pytest.approx(9.0, rel=0.01)
    assert across @ measured @ across == pytest.approx(1.44, rel=0.01)
    assert along @ measured @ across == pytest.approx(0.0, abs=0.01)


def test_an_exponent_of_one_is_the_ordinary_gaussian() -> None:
    kernel = kernels.gaussian(5, (1.0, 1.0), 0.0)
    assert kernel[2, 3] / kernel[2, 2] == pytest.approx(math.exp(-0.5))
    assert kernel[1, 3] / kernel[2, 2] == pytest.approx(math.exp(-1))


def test_larger_exponents_flatten_the_top_and_cut_the_tails() -> None:
    def at(distance: int, beta: float) -> float:
        kernel = kernels.gaussian(13, (3.0, 3.0), 0.0, beta)
        return float(kernel[6, 6 + distance] / kernel[6, 6])

    assert at(1, 0.5) < at(1, 1.0) < at(1, 4.0)
    assert at(6, 0.5) > at(6, 1.0) > at(6, 4.0)


def test_a_plateau_falls_to_half_at_one_standard_deviation() -> None:
    for beta in (1.0, 1.7):
        kernel = kernels.plateau(13, (3.0, 3.0), 0.0, beta)
        assert kernel[6, 9] / kernel[6, 6] == pytest.approx(0.5)
        assert kernel[9, 6] / kernel[6, 6] == pytest.approx(0.5)


def test_a_sinc_passes_what_is_below_its_cutoff_and_stops_what_is_above() -> None:
    cutoff = 1.5
    response = np.abs(np.fft.fft2(kernels.sinc(61, cutoff), (256, 256)))[0]
    frequency = 2 * math.pi * np.fft.fftfreq(256)
    assert response[np.abs(frequency) < 0.7 * cutoff] == pytest.approx(1, abs=0.1)
    assert response[np.abs(frequency) > 1.3 * cutoff] == pytest.approx(0, abs=0.1)


def test_a_sinc_rings() -> None:
    kernel = kernels.sinc(13, math.pi / 3)
    assert kernel[6, 6] == kernel.max() and kernel.min() < 0


def test_the_narrowest_kernels_leave_the_picture_alone() -> None:
    for kernel in (
        kernels.gaussian(3, (0.2, 0.2), 0.0, 4.0),
        kernels.gaussian(19, (0.2, 0.2), 1.0),
    ):
        assert kernel[len(kernel) // 2, len(kernel) // 2] == pytest.approx(1, abs=1e-4)
