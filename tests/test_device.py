from __future__ import annotations

import pytest
import torch
from torch import nn

from resshift_cli import device
from resshift_cli.device import choose_device, choose_dtype, has_fast_bf16, place
from resshift_cli.errors import DeviceError, UsageError

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")


def have_cuda(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def have_mps(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)


# Devices


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("cpu:0").type == "cpu"


def test_auto_takes_the_first_gpu_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    have_cuda(monkeypatch, 2)
    have_mps(monkeypatch, True)
    assert choose_device() == CUDA
    have_cuda(monkeypatch, 0)
    assert choose_device("auto") == torch.device("mps")
    have_mps(monkeypatch, False)
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:3", "mps:1", "meta", "xpu", "0"]
)
def test_a_name_of_no_device_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=f"There is no device '{name}'") as caught:
        choose_device(name)
    assert "auto, cpu, cuda" in caught.value.hint


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99"])
def test_cuda_where_there_is_none_is_a_device_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_cuda(monkeypatch, 0)
    with pytest.raises(DeviceError, match=f"'{name}' was asked for.* no CUDA device") as caught:
        choose_device(name)
    assert "--device cpu" in caught.value.hint


def test_a_card_beyond_the_last_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    have_cuda(monkeypatch, 2)
    assert choose_device("cuda") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="'cuda:2' .* 2 CUDA devices"):
        choose_device("cuda:2")


def test_mps_is_for_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    have_mps(monkeypatch, True)
    assert choose_device("mps") == torch.device("mps")
    have_mps(monkeypatch, False)
    with pytest.raises(DeviceError, match="no Mac"):
        choose_device("mps")


# Precisions


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
@pytest.mark.parametrize("where", [CPU, CUDA], ids=str)
def test_a_precision_that_is_named_is_taken(
    name: str, dtype: torch.dtype, where: torch.device
) -> None:
    assert choose_dtype(name, where) == dtype


@pytest.mark.parametrize(
    ("where", "fast", "dtype"),
    [
        (CPU, True, torch.bfloat16),
        (CPU, False, torch.float32),
        (CUDA, True, torch.bfloat16),
        (CUDA, False, torch.float16),
        (torch.device("mps"), False, torch.float32),
    ],
    ids=str,
)
def test_auto_is_the_fastest_precision_that_is_safe(
    where: torch.device, fast: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: fast)
    assert choose_dtype("auto", where) == dtype


@pytest.mark.parametrize("name", ["", "float32", "FP32", "int8"])
def test_an_unknown_precision_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=f"There is no precision '{name}'") as caught:
        choose_dtype(name, CPU)
    assert "auto, fp32, bf16, fp16" in caught.value.hint


@pytest.mark.parametrize("there", [True, False])
def test_bf16_is_fast_on_a_cpu_that_has_instructions_for_it(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: there, raising=False)
    assert has_fast_bf16(CPU) is there


def test_a_torch_that_can_t_tell_has_no_fast_bf16_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert has_fast_bf16(CPU) is False


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_is_fast_on_nvidia_cards_since_ampere(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert has_fast_bf16(CUDA) is fast


def test_bf16_is_not_taken_to_be_fast_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert has_fast_bf16(torch.device("mps")) is False


def test_a_placed_network_has_the_dtype_and_channels_last() -> None:
    network = nn.Conv2d(4, 4, 3)
    place(network, CPU, torch.bfloat16)
    assert network.weight.dtype == torch.bfloat16
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
