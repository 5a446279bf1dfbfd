"""Host and device as a pipeline: iterations while the host submits the next one."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np

from busdoor.core.arrays import Floats
from busdoor.core.batch import Batch
from busdoor.step_time.base import BatchAhead, Line, Pieces


class PipelinedBatch(BatchAhead):
    """Seconds of a batch's iterations, on a host that submits each while the last one runs.

    Iteration k is submitted from s_k to e_k = s_k + H_k, and s_{k+1} = max(e_k, end_{k−1}). A CUDA
    graph starts on the device at max(device_{k−1}, e_k). Kernels that are launched one by one start
    at max(device_{k−1}, s_k), and the last of them ends no earlier than e_k. The iteration ends
    when the host has seen its result and has submitted the next one: end_k = max(device_k,
    e_{k+1}).

    Measured from end_{k−1}, all that an iteration inherits is how long before its kernels have
    begun, its lead. With D_k seconds on the device, rest_k = max(D_k − lead_k, 0) (D_k for a
    graph), end_k − end_{k−1} = max(rest_k, H_{k+1}), and lead_{k+1} = max(H_{k+1} − rest_k, 0).
    After idleness the host first submits the iteration itself, and has that lead.

    `device`: seconds of the first iteration, and how many more each repetition takes. `host_of`:
    seconds in which the host submits a batch. `launched`: kernel by kernel, rather than as a CUDA
    graph. `lead_s`: None where nothing ran before, so that the host first submits this batch.
    `hidden`: the host submits this batch while it runs: the law of calibrations that are no
    pipeline.

    An iteration of 12 ms on the device, whose kernels the host launched for 10 ms during one of 6
    ms, has begun 4 ms before.

    >>> prefill = PipelinedBatch(Batch(), (0.012, 0.0), lambda batch: 0.010, launched=True, lead_s=0.004)
    >>> prefill.last(1, following=None)
    (0.008, None)
    """

    def __init__(
        self,
        batch: Batch,
        device: Line,
        host_of: Callable[[Batch], float],
        *,
        launched: bool = False,
        lead_s: float | None = 0.0,
        hidden: bool = False,
    ) -> None:
        self.first_s, self.growth_s = device
        self.host_s = host_of(batch)
        self.launched = launched
        self.wait_s = self.host_s if lead_s is None else 0.0
        self.lead_s = (self.host_s if lead_s is None else lead_s) if launched else 0.0
        self.hidden_s = self.host_s if hidden else 0.0
        self._host_of = host_of

    @property
    def single(self) -> bool:
        """Whether the first iteration is unlike those after, so must be a stretch of its own."""
        return self.wait_s > 0 or (self.lead_s > 0 and self.first_s >= self.host_s)

    def line(self, batch: Batch) -> Line | None:
        """Return the first iteration's seconds and, if like follows like, the growth."""
        if self.single:
            return self.wait_s + max(self._first_rest_s, self.host_s), 0.0
        if self.first_s >= self.host_s:
            return self.first_s, self.growth_s
        return None if self.growth_s else (self.host_s, 0.0)

    def pieces(self, batch: Batch, repeat: int) -> Pieces | None:
        """Return iterations that wait for the host, and others; None if kernels are launched."""
        if self.launched:
            return None
        waiting = min(repeat, ceil((self.host_s - self.first_s) / self.growth_s))
        slow = [(waiting, self.host_s, 0.0)]
        return slow + [
            (repeat - waiting, self.first_s + self.growth_s * waiting, self.growth_s)
        ] * (waiting < repeat)

    def durations_s(self, batch: Batch, repeat: int) -> Floats:
        """Durations of `repeat` iterations that follow one another, in seconds, shape (repeat,)."""
        durations_s = np.maximum(self._rest_s(repeat), self.host_s)
        durations_s[0] += self.wait_s
        return durations_s

    def last(self, repeat: int, following: Batch | None) -> tuple[float, float | None]:
        """Return the seconds of the last of `repeat` iterations, and the next's lead, if any."""
        next_host_s = self._host_of(following) if following else 0.0
        if repeat == 1:
            rest_s = self._first_rest_s
        elif self.launched and (self.lead_s > 0 or self.first_s < self.host_s):
            rest_s = float(self._rest_s(repeat)[-1])
        else:
            rest_s = self.first_s + self.growth_s * (repeat - 1)
        duration_s = max(rest_s, self.hidden_s + next_host_s)
        lead_s = max(0.0, next_host_s - rest_s) if following else None
        return duration_s + (self.wait_s if repeat == 1 else 0.0), lead_s

    @property
    def _first_rest_s(self) -> float:
        return max(0.0, self.first_s - self.lead_s)

    def _rest_s(self, repeat: int) -> Floats:
        """Seconds on the device that each iteration has left when it begins: D, less the lead.

        A lead of H − rest makes rest_i = max(rest_{i−1} + D_i − H, 0) as long as the host is the
        slower one (Lindley's recursion); from the first iteration on that is not, there is no lead.
        """
        device_s = self.first_s + self.growth_s * np.arange(repeat, dtype=np.float64)
        if not self.launched:
            return device_s
        backlog_s = self.host_s - self.lead_s + np.cumsum(device_s - self.host_s)
        rest_s: Floats = backlog_s - np.minimum(np.minimum.accumulate(backlog_s), 0.0)
        ahead = int(np.argmax(np.append(rest_s >= self.host_s, True)))
        rest_s[ahead + 1 :] = device_s[ahead + 1 :]
        return rest_s
