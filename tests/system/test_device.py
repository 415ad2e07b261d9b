"""Devices, what is computed in on them, and how much memory they have left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from resshift_cli.diffusion.autoencoder import ResnetBlock
from resshift_cli.errors import DeviceError, UsageError, out_of_memory
from resshift_cli.system import device
from resshift_cli.system.device import (
    choose_device,
    choose_dtype,
    compile_parts,
    free_memory,
    has_fast_bf16,
    memory_format,
    place,
    release_memory,
    synchronize,
    to_device,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")
MPS = torch.device("mps")
XPU = torch.device("xpu:0")
GIB = 1 << 30

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
needs_limits = pytest.mark.skipif(
    sys.platform != "linux", reason="needs limits that the system keeps to"
)


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
    have_xpu(monkeypatch, 0)
    assert choose_device() == CUDA
    have_cuda(monkeypatch, 0)
    assert choose_device("auto") == MPS
    have_mps(monkeypatch, False)
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:3", "mps:1", "meta", "xpu:x", "0"]
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


def test_cuda_of_other_machines_is_taken_where_the_precision_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_cuda(monkeypatch, 0)
    assert device.choose_elsewhere("cuda", "bf16") == (torch.device("cuda"), torch.bfloat16)
    with pytest.raises(UsageError, match="no CUDA device here") as caught:
        device.choose_elsewhere("cuda", "auto")
    assert "--precision bf16" in caught.value.hint
    assert device.choose_elsewhere("cpu", "fp32") == (CPU, torch.float32)


def test_a_card_beyond_the_last_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    have_cuda(monkeypatch, 2)
    assert choose_device("cuda") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="'cuda:2' .* 2 CUDA devices"):
        choose_device("cuda:2")


def test_mps_is_for_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    have_mps(monkeypatch, True)
    assert choose_device("mps") == MPS
    have_mps(monkeypatch, False)
    with pytest.raises(DeviceError, match="no Mac"):
        choose_device("mps")


def have_xpu(monkeypatch: pytest.MonkeyPatch, count: int, **properties: object) -> None:
    """What torch says of so many of Intel's GPUs."""
    monkeypatch.setattr(torch.xpu, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: count)
    found = SimpleNamespace(**properties)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _: found)


def test_xpu_is_for_intels_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    have_cuda(monkeypatch, 0)
    have_xpu(monkeypatch, 2)
    assert choose_device() == choose_device("xpu") == XPU
    assert choose_device("xpu:1") == torch.device("xpu:1")
    have_xpu(monkeypatch, 0)
    with pytest.raises(DeviceError, match="'xpu' was asked for.* no XPU device") as caught:
        choose_device("xpu")
    assert "torch's build for XPU" in caught.value.hint


@pytest.mark.parametrize("native", [True, False])
def test_an_intel_gpu_computes_in_bf16_where_it_has_that(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_xpu(monkeypatch, 1, has_bfloat16_conversions=native)
    assert choose_dtype("auto", XPU) == (torch.bfloat16 if native else torch.float32)


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
        (MPS, False, torch.float32),
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
    assert has_fast_bf16(MPS) is False


@pytest.mark.parametrize("there", [True, False])
def test_a_cpu_computes_in_bf16_if_onednn_can(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: there)
    assert device.computes_in(torch.bfloat16, CPU) is there
    assert device.computes_in(torch.float32, CPU) and not device.computes_in(torch.float16, CPU)
    assert device.computes_in(torch.float16, CUDA)


@pytest.mark.parametrize(("new", "refused"), [(True, False), (False, True)])
def test_bf16_on_a_mac_is_refused_before_macos_14(
    new: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: new)
    assert choose_dtype("fp16", MPS) == torch.float16
    if refused:
        with pytest.raises(DeviceError, match="macOS 14") as caught:
            choose_dtype("bf16", MPS)
        assert "--precision fp16" in caught.value.hint
    else:
        assert choose_dtype("bf16", MPS) == torch.bfloat16


# Where networks and tensors lie


def test_a_placed_network_has_the_dtype_and_channels_last() -> None:
    network = nn.Conv2d(4, 4, 3)
    place(network, CPU, torch.bfloat16)
    assert network.weight.dtype == torch.bfloat16
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_macs_get_planes() -> None:
    assert memory_format(CPU) == memory_format(CUDA) == torch.channels_last
    assert memory_format(MPS) == torch.contiguous_format


def test_float32_on_cuda_is_never_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)  # there is no card
    place(nn.Conv2d(4, 4, 3), CUDA)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("where", [CPU, pytest.param(CUDA, marks=needs_cuda)], ids=str)
def test_a_tensor_comes_back_from_a_device_as_it_was(where: torch.device) -> None:
    sent = torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    there = to_device(sent, where)
    assert there.device == where
    assert torch.equal(there.cpu(), sent)


def test_nothing_is_copied_where_tensors_lie_on_the_cpu_anyway() -> None:
    tensor = torch.zeros(3)
    assert to_device(tensor, CPU) is tensor
    synchronize(CPU)


# Memory


@pytest.fixture
def limited() -> Iterator[None]:
    """1 GiB of address space beyond what this process has."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + GIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@needs_limits
def test_the_processs_own_limit_leaves_what_is_below_it(limited: None) -> None:
    assert 0 < free_memory(CPU) <= GIB
    taken = torch.zeros(GIB // 2, dtype=torch.uint8)
    assert free_memory(CPU) <= GIB - taken.nbytes
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(GIB, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    del taken
    release_memory(CPU)
    assert free_memory(CPU) > GIB // 2


def control_group(
    folder: Path, limit: int | str, used: int, cached: int, *, version: int = 2
) -> None:
    """The files of one control group, as the kernel shows them."""
    names = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\n{names[2]} {cached}\n")


def member(root: Path, *groups: str) -> None:
    """Make this process one of some groups, as lines of /proc/self/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(groups) + "\n")


def test_the_system_bounds_what_is_free_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 123

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    assert free_memory(CPU, tmp_path) == 123


def test_the_tightest_control_group_above_the_process_counts(tmp_path: Path) -> None:
    member(tmp_path, "0::/user.slice/job/step")
    top = tmp_path / "sys/fs/cgroup"
    control_group(top / "user.slice", 1000, 700, 100)
    control_group(top / "user.slice/job", "max", 600, 0)
    control_group(top / "user.slice/job/step", 900, 300, 0)
    control_group(top / "user.slice/other", 10, 5, 0)
    assert free_memory(CPU, tmp_path) == 400
    control_group(top / "user.slice/job/step", 900, 800, 50)
    assert free_memory(CPU, tmp_path) == 150


def test_a_group_beyond_its_limit_has_nothing_left(tmp_path: Path) -> None:
    member(tmp_path, "0::/")
    control_group(tmp_path / "sys/fs/cgroup", 1000, 1200, 100)
    assert free_memory(CPU, tmp_path) == 0


def test_control_groups_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    member(tmp_path, "12:cpu,cpuacct:/docker/abc", "4:memory:/docker/abc", "0::/docker/abc")
    # In a container the path is the host's, and the mount is the container's own group.
    control_group(tmp_path / "sys/fs/cgroup/memory", 5000, 2000, 700, version=1)
    assert free_memory(CPU, tmp_path) == 3700


def test_a_path_that_leaves_the_namespace_is_read_from_the_top(tmp_path: Path) -> None:
    member(tmp_path, "0::/../../job")
    control_group(tmp_path / "sys/fs/cgroup", 5000, 2000, 0)
    control_group(tmp_path / "sys/fs/cgroup/job", 4000, 2000, 0)
    assert free_memory(CPU, tmp_path) == 2000


def test_a_machine_without_control_groups_has_what_the_system_says(tmp_path: Path) -> None:
    assert free_memory(CPU, tmp_path) <= psutil.virtual_memory().total
    assert free_memory(CPU, tmp_path) > 0


def test_on_a_card_the_allocators_unused_blocks_are_free_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 4000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 200)
    assert free_memory(CUDA) == 1300


def test_an_intel_gpu_that_cannot_tell_has_all_but_what_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(_: torch.device) -> None:
        raise RuntimeError("The device doesn't support querying the available free memory.")

    have_xpu(monkeypatch, 1, total_memory=4000)
    monkeypatch.setattr(torch.xpu, "mem_get_info", lambda _: (1000, 4000))
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(torch.xpu, "memory_allocated", lambda _: 200)
    assert free_memory(XPU) == 1300
    monkeypatch.setattr(torch.xpu, "mem_get_info", cannot)
    assert free_memory(XPU) == 3800


def test_on_a_mac_the_gpu_gets_what_it_may_have_of_the_systems_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 300)
    assert free_memory(MPS, tmp_path) == 700
    member(tmp_path, "0::/")
    control_group(tmp_path / "sys/fs/cgroup", 500, 100, 0)
    assert free_memory(MPS, tmp_path) == 400


@needs_cuda
def test_a_card_that_is_full_says_so_and_can_be_used_again() -> None:
    free = free_memory(CUDA)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2 * free, dtype=torch.uint8, device=CUDA)
    assert out_of_memory(caught.value)
    release_memory(CUDA)
    assert torch.ones(1, device=CUDA).item() == 1


# Compiling


def test_compiling_without_a_compiler_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler") as caught:
        compile_parts([nn.Conv2d(4, 4, 3)], CPU, tmp_path)
    assert "--compile" in caught.value.hint


@pytest.mark.full_size
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_what_is_compiled_computes_the_same_and_is_kept_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    part = ResnetBlock(32, 64).eval().requires_grad_(False)
    x = torch.randn(1, 32, 8, 8)
    expected = part(x)
    with torch.inference_mode():
        compile_parts([part], CPU, tmp_path)
        torch.testing.assert_close(part(x), expected)
    assert any(tmp_path.rglob("*.so"))
