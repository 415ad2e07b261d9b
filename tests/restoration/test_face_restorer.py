"""Restoring the faces of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_faces import DETECTOR, PHOTOS, face, needs_photos, smooth
from kinds import CODEC, calls
from PIL import Image
from plain_chain import restore as plain
from tiny_model import tiny_fills, tiny_networks, tiny_spec, tiny_upscaler

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import ImageArgumentError, UsageError
from resshift_cli.imaging.faces import SIDE, Face
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import passes
from resshift_cli.restoration.face_restorer import FaceRestorer, Found, Which
from resshift_cli.weights import checkpoint, registry, store
from resshift_cli.weights.store import Files

SPEC = replace(tiny_fills(), denoiser=replace(tiny_fills().denoiser, lq_mask=False))
# As the published model, in small: an autoencoder by 8, and the image shown at its own size.
PUBLISHED = tiny_spec(
    scale=1,
    predict="x0",
    precondition=False,
    denoiser=replace(tiny_spec().denoiser, latent_channels=3, lq_ratio=8),
    autoencoder=replace(CODEC, ch_mult=(1, 1, 1, 1), num_res_blocks=(1, 1, 1, 1)),
)
FACES = (face(60, 50 + 45j, 0.2), face(64, 90 + 60j, -0.4))


def tiny_restorer(spec: ModelSpec = SPEC, **options: Any) -> FaceRestorer:
    options = {"name": "tiny", "device": "cpu", "precision": "fp32"} | options
    return FaceRestorer(spec, *tiny_networks(spec), **options)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """`FACES` are found, in any image."""

    def find(
        self: FaceRestorer, photo: Iterable[Pixels], shape: tuple[int, int, int], which: Which
    ) -> Found:
        return Found(FACES[: 1 if which.only_largest else 2])

    monkeypatch.setattr(FaceRestorer, "find", find)


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Networks that change nothing, and how many faces they were given at a time."""
    given: list[int] = []

    def together(job: passes.Job, images: Sequence[Pixels], count: int) -> list[Pixels]:
        given.append(len(images))
        return [np.array(image) for image in images]

    monkeypatch.setattr(passes, "together", together)
    return given


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_networks_that_change_nothing_give_the_photo_back(
    drawn: None, identity: list[int], channels: int
) -> None:
    photo = smooth(110, 130, channels).clip(0.2, 1)
    assert (tiny_restorer()(photo, steps=1) == photo).all()
    assert identity == [1, 1]


def test_faces_are_given_to_the_networks_some_at_a_time(drawn: None, identity: list[int]) -> None:
    photo = (smooth(110, 130) * 255).astype(np.uint8)
    assert (tiny_restorer(tile_batch=4)(photo, steps=1) == photo).all()
    assert identity == [2]


def test_memory_that_runs_out_has_fewer_faces_taken_at_a_time(
    drawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def together(job: passes.Job, images: Sequence[Pixels], count: int) -> list[Pixels]:
        if count > 1:
            raise MemoryError
        return [np.array(image) for image in images]

    monkeypatch.setattr(passes, "together", together)
    photo = smooth(110, 130)
    assert (tiny_restorer(tile_batch=4, tell=said.append)(photo) == photo).all()
    assert said[-1] == "Memory ran out: going on with 1 face at a time."


def test_a_face_is_changed_and_all_else_stays(drawn: None) -> None:
    photo = smooth(110, 130)
    whole, half = (tiny_restorer()(photo, only_largest=True, blend=b, steps=1) for b in (1.0, 0.5))
    assert (whole[45:50, 48:52] != photo[45:50, 48:52]).all()
    assert (whole[:, 85:] == photo[:, 85:]).all() and (whole[85:] == photo[85:]).all()
    np.testing.assert_allclose(half, (photo + whole) / 2, atol=1e-6)


def test_the_coarse_colours_of_a_face_are_the_photo_s(drawn: None) -> None:
    photo = np.full((110, 130, 3), 0.5, np.float32)
    free, kept = (
        tiny_restorer()(photo, only_largest=True, steps=1, color_fix=fix) for fix in ("none", None)
    )
    shift, left = (np.abs(made[35:55, 40:60].mean(axis=(0, 1)) - 0.5) for made in (free, kept))
    assert shift.max() > 1e-3 and (left < shift.max() / 10).all()


def test_the_background_is_enlarged_by_a_model_or_by_nothing_made_up(
    drawn: None, identity: list[int]
) -> None:
    photo, done = smooth(40, 50), []
    upscaler = tiny_upscaler()
    made = tiny_restorer()(
        photo,
        scale=2,
        background=upscaler,
        steps=1,
        tile=32,
        progress=lambda d, t: done.append(d / t),
    )
    assert made.shape == (80, 100, 3) and done[-1] == pytest.approx(1, abs=0.02)
    expected = upscaler(photo, scale=2, tile=32)
    assert (made[:4] == expected[:4]).all()
    plainly = tiny_restorer()(photo, scale=2, steps=1)
    assert np.abs(plainly[::2, ::2] - photo).max() < 0.1


def test_an_aligned_face_goes_through_the_plain_chain() -> None:
    restorer = tiny_restorer(PUBLISHED)
    photo = smooth(SIDE, SIDE)
    made = restorer(photo, aligned=True, steps=1, color_fix="none")
    lq = torch.from_numpy(photo).permute(2, 0, 1)[None] * 2 - 1
    expected = plain(restorer, lq, seed=0, steps=1)[0].permute(1, 2, 0) / 2 + 0.5  # type: ignore[arg-type]
    np.testing.assert_allclose(made, expected.numpy(), atol=1e-5)


def test_an_aligned_face_of_another_size_is_restored_at_its_own(identity: list[int]) -> None:
    restorer = tiny_restorer()
    seen = calls(restorer)
    assert restorer(smooth(100, 100), aligned=True).shape == (100, 100, 3)
    assert restorer(smooth(100, 100, 2), aligned=True, scale=2).shape == (200, 200, 2)
    with pytest.raises(ImageArgumentError, match="60x50: a face that was cut out is square"):
        restorer(smooth(50, 60), aligned=True)
    assert identity == [1, 1] and not seen


def test_a_photo_without_faces_comes_back_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FaceRestorer, "find", lambda *arguments: Found((), turned=1, small=2))
    photo = smooth(40, 50)
    with pytest.warns(UserWarning, match="no face restored, 1 turned away, 2 too small"):
        assert (tiny_restorer()(photo) == photo).all()


def test_colours_are_the_photo_s_unless_a_face_was_cut_out() -> None:
    restorer = tiny_restorer(replace(SPEC, color_fix="none"))
    assert restorer.settings().color_fix == "wavelet"
    assert restorer.settings(aligned=True).color_fix == "none"
    assert restorer.settings(color_fix="adain", tile=8).tile == SIDE


def test_what_can_t_be_is_refused() -> None:
    for spec in (tiny_spec(), tiny_fills()):
        with pytest.raises(UsageError, match="'tiny' does not restore faces") as caught:
            tiny_restorer(spec)
        assert "models list --task face" in caught.value.hint
    with pytest.raises(UsageError, match="blend of 2 is outside 0 to 1"):
        tiny_restorer()(smooth(20, 20), blend=2)
    with pytest.raises(UsageError, match="as small as nan pixels"):
        tiny_restorer()(smooth(20, 20), min_size=float("nan"))
    with pytest.raises(UsageError, match="loaded without what finds faces"):
        tiny_restorer()(smooth(20, 20))
    with pytest.raises(TypeError, match="wrap"):
        tiny_restorer()(smooth(20, 20), wrap="x")  # type: ignore[call-arg]


def test_a_weight_file_of_one_s_own_comes_with_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.save_model(path, SPEC, tiny_networks(SPEC)[0].network)
    asked: list[registry.ModelEntry] = []

    def obtain(entry: registry.ModelEntry) -> Files:
        asked.append(entry)
        return Files(path, None, tmp_path / "finds.onnx")

    monkeypatch.setattr(store, "obtain", obtain)
    restorer = FaceRestorer.from_file(path, device="cpu")
    assert restorer.detector == tmp_path / "finds.onnx"
    published = registry.shipped()["face"]
    assert asked[0].files[1] == published.files[2] == published.detector


@needs_photos
def test_the_faces_of_people_come_back_from_networks_that_change_nothing(
    identity: list[int],
) -> None:
    restorer = tiny_restorer()
    restorer.detector = DETECTOR
    photo = Image.open(PHOTOS / "043-two-women-certificate.jpg").convert("RGB")
    found: list[Face] = []
    settings = restorer.settings()
    pixels = np.asarray(photo, np.float32) / np.float32(255)
    shape = (photo.height, photo.width, 3)
    bands = restorer.stream(
        *([pixels], shape, settings, Which()), tell=lambda faces: found.extend(faces.restored)
    )
    result = np.concatenate(list(bands))
    assert np.abs(result - pixels).max() <= 1 / 255
    assert [f.size > 150 for f in found] == [True, True] and found[0].size <= found[1].size
