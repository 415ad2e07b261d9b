"""What is told of errors that come from elsewhere."""

from __future__ import annotations

import errno
import pickle

import numpy as np
import pytest
import torch

from resshift_cli.errors import OutputError, ResShiftError, UnknownModelError, out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("unable to mmap 5479760 bytes from file <a>: Cannot allocate memory (12)"),
        RuntimeError("can't start new thread"),
        RuntimeError("could not create a primitive"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=str,
)
def test_memory_that_ran_out_is_told(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ImportError("No module named 'torch'"),
        KeyboardInterrupt(),
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not out_of_memory(error)


def test_what_torch_and_numpy_really_raise_is_understood() -> None:
    with pytest.raises(RuntimeError) as from_torch:
        torch.empty(1 << 50)
    with pytest.raises(MemoryError) as from_numpy:
        np.empty(1 << 50)
    assert out_of_memory(from_torch.value)
    assert out_of_memory(from_numpy.value)


@pytest.mark.parametrize(
    "error",
    [
        OutputError("There is no room.", hint="Make some."),
        UnknownModelError("tiny", ["tiny-x4"]),
    ],
)
def test_an_error_is_the_same_in_another_process(error: ResShiftError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert arrived.facts() == error.facts()
