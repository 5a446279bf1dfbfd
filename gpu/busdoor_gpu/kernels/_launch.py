"""Triton where it is installed, and one way to launch its kernels.

Every wrapper launches through `launch`, so that `recording` can collect the launches of meta
tensors instead of running them: what is compiled ahead of time (`benchmarks.gpu.resources`) is then
what the wrappers ship, tile sizes and all, with no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

try:
    import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
    import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
except ImportError:  # Triton has wheels for Linux only; the torch backend needs none
    triton = tl = None


__all__ = [
    "ALIGNED",
    "VARYING",
    "Launch",
    "capability",
    "cdiv",
    "compute_dtype",
    "jit",
    "launch",
    "next_power_of_2",
    "num_sms",
    "recording",
    "tl",
]

# Triton compiles a kernel again, which takes seconds in the middle of a run, for a tensor that does
# not begin at a multiple of 16 bytes (this many 32-bit integers), and for counts that happen to be
# 1 or a multiple of 16.
ALIGNED = 4
VARYING = ("num_seqs", "num_rows")


class Launch(NamedTuple):
    """One recorded launch: the kernel, its grid, its positional and its compile-time arguments."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    meta: dict[str, Any]


class _Recorder(NamedTuple):
    """The recorded launches, and the GPU for which the wrappers configure them."""

    launches: list[Launch]
    capability: tuple[int, int]
    num_sms: int


_recorder: ContextVar[_Recorder | None] = ContextVar("busdoor_gpu_recorder", default=None)


def jit(fn: Callable[..., Any]) -> Any:
    """Apply `triton.jit` if Triton is installed; else return the function, never called."""
    return fn if triton is None else triton.jit(fn, do_not_specialize=VARYING)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Launch `kernel` on `grid`, or record the launch."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.launches.append(Launch(kernel, grid, args, meta))
        return
    if triton is None:
        raise ModuleNotFoundError(
            "the triton backend needs the package triton (Linux only); use the torch backend"
        )
    kernel[grid](*args, **meta)


@contextmanager
def recording(capability: tuple[int, int] = (9, 0), num_sms: int = 132) -> Iterator[list[Launch]]:
    """Record launches of wrappers that are called with meta tensors, instead of running them.

    Configured for a compute capability ((8, 0) is an A100, (9, 0) an H100) and a GPU's number of
    multiprocessors (132: an H100 SXM's).

    >>> from busdoor_gpu.kernels.swiglu import swiglu
    >>> with recording() as launches:
    ...     _ = swiglu(torch.empty(2, 64, dtype=torch.bfloat16, device="meta"))
    >>> len(launches)
    1
    """
    launches: list[Launch] = []
    token = _recorder.set(_Recorder(launches, capability, num_sms))
    try:
        yield launches
    finally:
        _recorder.reset(token)


def capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability to configure for; the interpreter counts as an H100."""
    recorder = _recorder.get()
    if recorder is not None:
        return recorder.capability
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)


def num_sms(device: torch.device) -> int:
    """Return the number of multiprocessors; 2 in the interpreter, which runs in sequence."""
    recorder = _recorder.get()
    if recorder is not None:
        return recorder.num_sms
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 2


def next_power_of_2(n: int) -> int:
    """Return the smallest power of two that is at least `n`: a Triton tile's side.

    >>> [next_power_of_2(n) for n in (1, 2, 3, 4096)]
    [1, 2, 4, 4096]
    """
    return 1 << (n - 1).bit_length()


def cdiv(a: int, b: int) -> int:
    """Divide and round up.

    >>> cdiv(9, 4)
    3
    """
    return -(-a // b)


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """Return the type a reference computes in: float32 for half types, else the tensor's."""
    return torch.promote_types(x.dtype, torch.float32)
