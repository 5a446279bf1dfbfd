"""Time on a device, and the device's ceilings, measured in the same run."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import inf
from typing import TypeVar

import torch

Row = TypeVar("Row")
_WARMUP = 3  # compiles, then clocks and allocator become steady
_SAMPLES = 20  # the median of 20 ignores the few that the clock governor or another stream disturbs
_CALLS_PER_GRAPH = 32  # share the graph's own launch of some 10 us
_COPY_BYTES = 2**30  # far larger than the L2 cache of any GPU
_MATMUL_SIZE = 8192  # large enough for the peak rate (gpu-anchors 0)


class Deadline:
    """A time after which nothing new starts.

    Parameters
    ----------
    seconds : float
        From now on.

    Examples
    --------
    >>> list(Deadline().cut(iter([1, 2]))), list(Deadline(0).cut(iter([1, 2])))
    ([1, 2], [])
    """

    def __init__(self, seconds: float = inf) -> None:
        self._at_s = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; at least 0."""
        return max(0.0, self._at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.left_s <= 0

    def cut(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows, each measured on demand, until the deadline."""
        rows = iter(rows)
        while not self.passed:
            try:
                row = next(rows)
            except StopIteration:
                return
            yield row


@dataclass(frozen=True)
class Ceiling:
    """Rates that the device reached on the simplest work.

    Attributes
    ----------
    gb_per_s : float
        Bytes read and written by a large copy, in 1e9 per second.
    tflop_per_s : float
        Half-precision product of two large square matrices, in 1e12 operations per second.
    """

    gb_per_s: float
    tflop_per_s: float


def median_us(
    calls: Sequence[Callable[[], object]], device: torch.device, graph: bool = True
) -> float:
    """Return the median time of one call in microseconds.

    Parameters
    ----------
    calls : sequence of callable
        The same work on different memory, in turn, so that no call finds its data in the L2 cache.
    device : torch.device
        Calls are timed by its clock on a GPU, and one by one by the host's clock on a CPU.
    graph : bool
        Whether the calls run in a CUDA graph on a GPU, without the host's launch time; code that
        reads a value back cannot.

    Examples
    --------
    >>> median_us([lambda: sum(range(1000))], torch.device("cpu")) > 0
    True
    """
    if device.type != "cuda":
        return _median([_host_us(call) for call in islice(cycle(calls), 2 + _SAMPLES // 4)][2:])
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        for call in islice(cycle(calls), max(_WARMUP, len(calls))):
            call()
    torch.cuda.synchronize(device)
    if not graph:
        return _median([_event_us(call) for call in islice(cycle(calls), _SAMPLES)])
    rounds = max(len(calls), _CALLS_PER_GRAPH)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded, stream=stream):
        for call in islice(cycle(calls), rounds):
            call()
    return _median(
        [_event_us(recorded.replay) / rounds for _ in range(_WARMUP + _SAMPLES)][_WARMUP:]
    )


def _median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def _host_us(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def _event_us(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3


def measure_ceiling(device: torch.device) -> Ceiling:
    """Measure a large tensor's copy and large matrices' product; small ones on a CPU."""
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    num_bytes, size = (_COPY_BYTES, _MATMUL_SIZE) if on_gpu else (2**24, 256)
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_us = median_us([lambda: target.copy_(source)], device)
    a, b = (
        torch.randn(size, size, device=device).to(dtype) for _ in range(2)
    )  # zeros would draw less power
    product = torch.empty_like(a)
    matmul_us = median_us([lambda: torch.mm(a, b, out=product)], device)
    return Ceiling(2 * num_bytes / copy_us / 1e3, 2 * size**3 / matmul_us / 1e6)
