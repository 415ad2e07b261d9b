"""One process alone; what several do together is tested in `test_train_processes`."""

from __future__ import annotations

import pytest
import torch

from resshift_cli.training import ranks
from resshift_cli.training.ranks import Ranks


def test_without_torchrun_a_process_is_alone_and_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert ranks.from_environment() == Ranks()
    assert Ranks().leads


def test_torchrun_tells_a_process_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    found = ranks.from_environment()
    assert found == Ranks(rank=5, count=8, local=1)
    assert not found.leads


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    second = Ranks(rank=5, count=8, local=1)
    assert [second.gpu(name) for name in ("auto", "cuda", "cuda:3", "cpu")] == [
        "cuda:1",
        "cuda:1",
        "cuda:3",
        "cpu",
    ]
    assert Ranks().gpu("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert second.gpu("auto") == "auto"


def test_a_process_alone_agrees_with_itself_and_joins_nobody() -> None:
    alone = Ranks()
    with ranks.joined(alone, torch.device("cpu")):
        alone.agree(1, "never", hint="never")
        assert alone.mean(torch.tensor(2.5)) == 2.5
    assert not torch.distributed.is_initialized()
