"""Pictures -> batches of crops and their low-resolution partners, to train on.

Everything random in a batch follows from the run's seed and the batch's number, so it does not
matter which process makes it, or after which other one.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resshift_cli.errors import ResShiftError
from resshift_cli.restoration.resize import shrink
from resshift_cli.training import crops, damage, degradation, photos
from resshift_cli.training.degradation import BicubicSpec, Degradation, MildSpec
from resshift_cli.training.photos import Photo, Pictures

VALIDATION_CROP = 256  # high-resolution pixels from the middle of each held-out photo
MARGIN = 8  # low-resolution pixels by which a degraded patch is larger than its crop
UNSPOILED = 0.5  # of crops with holes, which are otherwise as good as they were


@dataclass(frozen=True, slots=True)
class PairedSpec:
    """Partners are files: the folder has `hq` and, with the same names in it, `lq`."""

    kind: Literal["paired"] = "paired"

    @property
    def problem(self) -> str | None:
        """What is wrong with the numbers: there are none."""
        return None


Partners = Degradation | PairedSpec


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What batches are made of.

    Attributes:
        scale: high-resolution pixels per low-resolution one, along each side.
        batch: crops per batch.
        crop: side of a crop in high-resolution pixels.
        crop_tries: each crop is the most detailed of so many random ones.
        degrade: how low-resolution partners are made, or that they are files.
        cut: `detail`, crops in full resolution as `crops.detailed` chooses them; or `largest`,
            large squares that are reduced, see `crops.largest`.
        reduce: half of the crops of details are up to so many times as large, and reduced.
        flat: share of crops that are made up, see `crops.flat`.
        grain: largest noise, in 8-bit levels, that crops are given before anything is made of
            them, so that it belongs to what is to be learned; see `degradation.grainy`.
        holes: share of crops with damage drawn over their partners, which then have a fourth plane
            that tells where, see `damage.over`; None where they have none.
        prefill: see `ModelSpec`.
    """

    scale: int
    batch: int
    crop: int
    crop_tries: int
    degrade: Partners
    cut: Literal["detail", "largest"] = "detail"
    reduce: float = 1.0
    flat: float = 0.0
    grain: float = 0.0
    holes: float | None = None
    prefill: bool = False

    @property
    def problem(self) -> str | None:
        """What is wrong with the numbers, if anything."""
        if isinstance(self.degrade, PairedSpec) and self.cut == "largest":
            return 'cut = "largest" reduces pictures, which pairs can\'t be'
        if self.reduce < 1:
            return "reduce must be at least 1"
        if self.reduce > 1 and (self.cut == "largest" or isinstance(self.degrade, PairedSpec)):
            return 'reduce is for cut = "detail", and pairs can\'t be reduced'
        if not 0 <= self.flat < 1:
            return "flat must be at least 0 and below 1"
        if self.flat and isinstance(self.degrade, PairedSpec):
            return "flat crops have no partners among pairs"
        if self.grain < 0:
            return "grain can't be negative"
        if self.grain and isinstance(self.degrade, PairedSpec):
            return "grain would be missing from the partners of pairs"
        if self.holes is not None and not 0 <= self.holes <= 1:
            return "holes must be within 0..1"
        return self.degrade.problem

    @property
    def patch(self) -> int:
        """Side of what is degraded, in pixels; the crop is cut from within."""
        return self.crop + MARGIN * self.scale

    @property
    def smallest(self) -> int:
        """Shortest side of a picture that crops can be cut from, in pixels."""
        if self.cut == "largest":
            return 1
        return self.crop if isinstance(self.degrade, PairedSpec) else self.patch


def open_pictures(
    folders: Sequence[Path], listed: Path | None, spec: DataSpec
) -> tuple[Pictures, Pictures]:
    """The pictures to train on, and those held out for validation.

    Pictures too small for a crop are left out. If all fit into memory they are decoded now, so
    that a damaged one is found before anything is trained; else whenever they are needed.

    Args:
        folders: where they are, at any depth. Every tenth is held out.
        listed: which files of the first folder to take, see `photos.split`.
        spec: what they are for.

    Raises:
        InputMissingError: the list, a listed picture, a partner, or any picture at all, is missing.
        ImageUnreadableError: a file is no image, or a damaged one.
        UsageError: the list does not fit, all pictures are too small, or partners do not have the
            size that goes with `spec.scale`.
    """
    scale = spec.scale if isinstance(spec.degrade, PairedSpec) else None
    kept, held_out = photos.split(folders, listed, paired=scale is not None)
    return (
        photos.open_pictures(kept, spec.smallest, scale),
        photos.open_pictures(held_out, VALIDATION_CROP, scale),
    )


def to_tensor(pixels: Photo) -> Tensor:
    """Uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def make_batch(
    pictures: Pictures, spec: DataSpec, seed: int, number: int, share: range | None = None
) -> tuple[Tensor, Tensor]:
    """The crops of batch `number`: (N, 3, crop, crop) and their low-resolution partners, in [0, 1].

    Partners are (N, 3, side, side), or (N, 4, side, side) where holes are made, see `damage.over`.

    With a `share`, only those crops of the batch; they are the same.

    Raises:
        ImageUnreadableError: a picture is damaged.
    """
    share = range(spec.batch) if share is None else share
    # A source for all crops goes on from each to the next, so none before the last can be spared.
    needed = range(share.stop) if isinstance(spec.degrade, MildSpec) else share
    sources = enumerate(_generators(spec, seed, number))
    pairs = {index: _masked(pictures, spec, rng) for index, rng in sources if index in needed}
    sharp, blurry = zip(*(pairs[index] for index in share), strict=True)
    return torch.cat(sharp), torch.cat(blurry)


def _generators(spec: DataSpec, seed: int, number: int) -> Iterator[np.random.Generator]:
    """The source of each crop's random choices."""
    together = np.random.default_rng([seed, number])
    for index in range(spec.batch):
        # chain-x4 was trained with one source for all crops; its batches stay what they were.
        mild = isinstance(spec.degrade, MildSpec)
        yield together if mild else np.random.default_rng([seed, number, index])


def _masked(pictures: Pictures, spec: DataSpec, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A crop and its partner, with damage drawn over where that is asked for."""
    sharp, blurry = _pair(pictures, spec, rng)
    if spec.holes is not None:
        holed = rng.random() < spec.holes
        if holed and rng.random() < UNSPOILED:
            blurry = shrink(sharp, spec.scale)
        blurry = damage.over(blurry, float(holed), rng, prefill=spec.prefill)
    return sharp, blurry


def _pair(pictures: Pictures, spec: DataSpec, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A crop and its partner.

    Partners are cut from a larger degraded patch at a random offset, since the blocks of a JPEG
    may lie anywhere.
    """
    scale, index = spec.scale, int(rng.integers(len(pictures)))
    photo = pictures.hq[index]
    if isinstance(spec.degrade, PairedSpec):
        partner = pictures.partners[index]
        pair = crops.detailed_pair(photo, partner, spec.crop, spec.crop_tries, rng)
        return to_tensor(pair[0]), to_tensor(pair[1])
    if spec.flat and rng.random() < spec.flat:
        patch = crops.flat(spec.patch, rng)
    elif spec.cut == "largest":
        patch = crops.largest(photo, spec.patch, rng)
    else:
        patch = crops.detailed(photo, spec.patch, spec.crop_tries, rng, spec.reduce)
    hq = to_tensor(patch)
    if spec.grain:
        hq = degradation.grainy(hq, spec.grain, rng)
    lq = degradation.degrade(hq, scale, spec.degrade, rng)
    y, x = rng.integers(MARGIN + 1, size=2)
    side = spec.crop // scale
    sharp = hq[..., y * scale :, x * scale :][..., : spec.crop, : spec.crop]
    return sharp, lq[..., y : y + side, x : x + side]


def validation_pairs(
    pictures: Pictures, spec: DataSpec, *, damaged: bool = False, holes: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """The middles of pictures, (1, 3, 256, 256), and their partners, the same every time.

    Partners are made as in training, but for the mild degradation: it leaves a share of the
    pictures clean, and here it leaves all, or, of `damaged` ones, none. At scale 1, where clean
    ones leave nothing to be mended, it leaves all with `holes` and none without. Where there are
    holes, none has any, or, with `holes`, all have.

    Raises:
        ImageUnreadableError: a picture is damaged.
    """
    pairs = []
    side, scale = VALIDATION_CROP, spec.scale
    for index, photo in enumerate(pictures.hq):
        top, left = ((length - side) // 2 for length in photo.shape[:2])
        if isinstance(spec.degrade, PairedSpec):
            y, x, small = top // scale, left // scale, side // scale
            blurry = to_tensor(pictures.partners[index][y : y + small, x : x + small])
            sharp = to_tensor(photo[y * scale :, x * scale :][:side, :side])
        else:
            sharp = to_tensor(photo[top : top + side, left : left + side])
            kind: Degradation = spec.degrade
            if isinstance(kind, MildSpec):
                spoiled = damaged or (scale == 1 and not holes)
                kind = replace(kind, share=1.0, noisy=1.0) if spoiled else BicubicSpec()
            blurry = degradation.degrade(sharp, scale, kind, np.random.default_rng(index))
        if spec.holes is not None:
            rng = np.random.default_rng([index, 1])
            blurry = damage.over(blurry, float(holes), rng, prefill=spec.prefill)
        pairs.append((sharp, blurry))
    return pairs


def batches(
    pictures: Pictures,
    spec: DataSpec,
    seed: int,
    numbers: Sequence[int],
    workers: int = 0,
    share: range | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Batches one after the other, made in this process or ahead of time by others.

    They are the same for any number of workers, which end when the generator is closed.

    Args:
        pictures: what to cut from.
        spec: what the batches are made of.
        seed: of everything random.
        numbers: which batches.
        workers: processes that make them, two batches ahead each; 0 for this one, when asked.
        share: which crops of each batch, where several processes train; by default all.

    Raises:
        ImageUnreadableError: a picture is damaged.
    """
    loader = DataLoader(
        _Batches(pictures.shared_out(workers) if workers else pictures, spec, seed, share),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,  # safe beside CUDA and threads
        generator=torch.Generator(),  # torch's own is the trainer's
        collate_fn=_as_it_is,
        worker_init_fn=_end_with_the_trainer,
    )
    with _without_interrupts():
        ahead = iter(loader)
    try:
        for batch in ahead:
            if isinstance(batch, ResShiftError):
                raise batch
            sharp, blurry = batch
            yield torch.from_numpy(sharp), torch.from_numpy(blurry)
    finally:
        # The traceback of an interrupt keeps the loader alive until Python ends its children, and
        # torch takes that for a crash of those that are still starting.
        if workers:
            ahead._shutdown_workers()  # type: ignore[attr-defined]  # there is no public name


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started now take no notice of Ctrl-C, which is this one's to heed."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heeded)


def _end_with_the_trainer(worker: int) -> None:
    """Have this worker end when the process that trains is killed.

    Torch has it leave its loop then, but Python waits for the batch that is on its way, and that
    nobody takes any more.
    """
    trainer = multiprocessing.parent_process()
    assert trainer is not None  # it is a worker

    def watch() -> None:
        multiprocessing.connection.wait([trainer.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_Arrays = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Batches(Dataset[Any]):
    """Batches as arrays, which reach the main process through a pipe.

    Tensors would go through shared memory, of which containers have little. And a thread of the
    worker lets go of what was handed over: if that is a tensor's memory, and the worker ends just
    then, it aborts (Python ends threads in a way that C++ does not take).
    """

    pictures: Pictures
    spec: DataSpec
    seed: int
    share: range | None

    def __getitem__(self, number: int) -> _Arrays | ResShiftError:
        try:
            sharp, blurry = make_batch(self.pictures, self.spec, self.seed, number, self.share)
        except ResShiftError as error:
            return error  # the loader would wrap what is raised
        return sharp.numpy().copy(), blurry.numpy().copy()  # with no tensor behind them


def _as_it_is(batch: Any) -> Any:
    """What comes instead of turning arrays into tensors, in the worker."""
    return batch
