"""What the header of a distilled student's file adds to its model's table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from goldens_support import small_unet_spec, small_vq_spec
from tiny_model import tiny_spec

from resshift_cli.diffusion.specs import with_header
from resshift_cli.diffusion.tables import SpecError

SPEC = tiny_spec(
    predict="x0",
    precondition=False,
    denoiser=small_unet_spec(channel_mult=(1,), num_res_blocks=1, swin_levels=()),
    autoencoder=small_vq_spec(ch_mult=(1, 1, 1), num_res_blocks=(1, 1, 1), codes=16),
)

STUDENT = replace(
    SPEC,
    condition="latent",
    prior="kappa",
    max_steps=1,
    denoiser=replace(SPEC.denoiser, noise_channels=1),
)


@pytest.mark.parametrize("header", [{}, {"noise_mode": "concat"}, {"cond_lq": "latent"}], ids=str)
def test_a_header_that_says_nothing_new_changes_nothing(header: dict[str, str]) -> None:
    assert with_header(STUDENT, header, "x.safetensors") == STUDENT


def test_a_student_of_pixels_is_shown_the_resized_image() -> None:
    spec = with_header(STUDENT, {"cond_lq": "pixel"}, "x.safetensors")
    assert spec == replace(STUDENT, condition="resized")


def test_the_header_counts_the_planes_of_noise() -> None:
    spec = with_header(STUDENT, {"noise_channels": "3"}, "x.safetensors")
    assert spec.denoiser == replace(STUDENT.denoiser, noise_channels=3)


def test_a_model_without_planes_of_noise_has_no_such_header() -> None:
    header = {"cond_lq": "pixel", "noise_mode": "add", "noise_channels": "3"}
    assert with_header(SPEC, header, "x.safetensors") is SPEC


@pytest.mark.parametrize(
    "header, problem",
    [
        ({"noise_mode": "add"}, "in the mode 'add', and only 'concat' is supported"),
        ({"noise_channels": "0"}, "noise_channels '0', which is no number"),
        ({"noise_channels": "one"}, "noise_channels 'one', which is no number"),
        ({"noise_channels": "9" * 5000}, "which is no number"),
        ({"cond_lq": "depth"}, "cond_lq 'depth', which is neither"),
    ],
    ids=["mode", "no planes", "word", "too many", "condition"],
)
def test_a_header_that_can_t_be_followed_is_refused(header: dict[str, str], problem: str) -> None:
    with pytest.raises(SpecError, match=problem) as caught:
        with_header(STUDENT, header, "x.safetensors")
    assert "x.safetensors" in str(caught.value)
