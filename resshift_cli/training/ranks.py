"""The processes of one training run: one alone, or those that `torchrun` started together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from resshift_cli.errors import DeviceError, ResShiftError

PATIENCE = timedelta(hours=1)  # that processes wait while the first one validates and saves


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others.

    Attributes:
        rank: its number, from 0.
        count: of processes in all.
        local: its number on this machine, which is that of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def gpu(self, name: str) -> str:
        """What a name of a device means in this process: each takes a GPU of its own."""
        if self.count > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local}"
        return name

    def mean(self, value: Tensor) -> float:
        """A number's mean over all processes, each of which calls this."""
        return float(self.sum(value)) / self.count

    def sum(self, values: Tensor) -> Tensor:
        """Numbers added up over all processes, each of which calls this."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def average(self, gradients: Iterable[Tensor | None]) -> None:
        """Have the same mean gradients in all processes, each of which calls this."""
        if self.count > 1:
            for gradient in gradients:
                if gradient is not None:
                    distributed.all_reduce(gradient)
                    gradient /= self.count

    def agree(self, what: object, message: str, *, hint: str) -> None:
        """Make sure that all processes hold the same.

        Raises:
            ResShiftError: they do not.
        """
        if self.count > 1:
            found: list[object] = [None] * self.count
            distributed.all_gather_object(found, what)
            if any(other != what for other in found):
                raise ResShiftError(message, hint=hint)


def from_environment() -> Ranks:
    """What the variables say that `torchrun` sets; without them, one process alone."""
    rank, count, local = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    return Ranks(rank, count, local)


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Let the processes find each other, and part in the end.

    If one fails it ends at once, and `torchrun` ends the others.
    """
    if ranks.count == 1:
        yield
        return
    if device.type == "xpu":
        raise DeviceError(
            "Several processes can't train on Intel GPUs.",
            hint="Start one, without torchrun, or use the CPU (--device cpu).",
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield
    distributed.barrier()  # or the first to go would tear down what others still talk to
    distributed.destroy_process_group()
