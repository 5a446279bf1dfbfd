"""Clocks of a replay: wall time, processor time, or processor time at an even speed."""

from __future__ import annotations

import time
from typing import Literal, Protocol

import torch
from torch.nn.functional import linear

ClockName = Literal["wall", "cpu", "paced"]
_TICK_S = 1e-9  # the clocks' resolution: no iteration takes 0 s


class Clock(Protocol):
    """Measures the duration of an iteration from its start.

    `pace` is seconds of the clock per second of the processor, in the last measurement.
    """

    pace: float

    def since_s(self, start_s: float) -> float:
        """Return the seconds from a time of the replay until now; more than 0."""

    def wait_until(self, now_s: float) -> None:
        """Wait, idle, until a time of the replay."""


class WallClock:
    """Real seconds since the replay began; idle time is slept.

    >>> clock = WallClock()
    >>> clock.wait_until(0.01)
    >>> 0.01 < clock.since_s(0.0) < 10
    True
    """

    pace = 1.0

    def __init__(self) -> None:
        self._origin_s = time.perf_counter()

    def since_s(self, start_s: float) -> float:
        """Return the seconds from a time of the replay until now; more than 0."""
        return max(_TICK_S, time.perf_counter() - self._origin_s - start_s)

    def wait_until(self, now_s: float) -> None:
        """Wait, idle, until a time of the replay."""
        time.sleep(max(0.0, now_s - (time.perf_counter() - self._origin_s)))


class CpuClock:
    """Processor time of this process, which other processes do not lengthen; idle time is skipped.

    >>> clock = CpuClock()
    >>> clock.wait_until(1000.0)          # at once
    >>> 0 < clock.since_s(1000.0) < 10
    True
    """

    pace = 1.0

    def __init__(self) -> None:
        self._mark_s = time.process_time()

    def since_s(self, start_s: float) -> float:
        """Return the seconds of work since the last call; more than 0."""
        before, self._mark_s = self._mark_s, time.process_time()
        return max(_TICK_S, self._mark_s - before)

    def wait_until(self, now_s: float) -> None:
        """Ignore the work of the idle time."""
        self._mark_s = time.process_time()


# The reference computation: small operations in the mix of a tiny model's iteration, so that
# another tenant of the core slows both down alike (matrix products alone slow down more). Long
# enough to be disturbed, short beside an iteration of ten milliseconds.
_REFERENCE_SIZE, _REFERENCE_REPEATS = 64, 10
# Seconds that it counts as: about its mean on two shared virtual cores of an AMD EPYC (2026-11,
# torch 2.13), where an undisturbed core takes half as long and disturbances change within tens of
# milliseconds.
REFERENCE_S = 900e-6


class PacedClock:
    """Processor time at an even speed: each iteration is scaled by a reference beside it.

    On shared cores the same iteration may take twice as long as a moment before, in processor time
    too, so that averages vary. This clock times a fixed computation before and after each
    iteration, and scales the iteration by the mean of the two speeds. Its seconds are those of a
    core that computes the reference in 900 µs.

    >>> clock = PacedClock()
    >>> clock.wait_until(1000.0)          # at once
    >>> 0 < clock.since_s(1000.0) < 10, clock.pace > 0
    (True, True)
    """

    pace = 1.0

    def __init__(self) -> None:
        self._tile = torch.full((_REFERENCE_SIZE, _REFERENCE_SIZE), 1 / _REFERENCE_SIZE)
        self._rows = torch.arange(_REFERENCE_SIZE)
        self._begin()

    def since_s(self, start_s: float) -> float:
        """Return the seconds of work since the last call; more than 0."""
        took_s, speed_before = time.process_time() - self._mark_s, self._speed
        self._begin()
        self.pace = (speed_before + self._speed) / 2
        return max(_TICK_S, took_s * self.pace)

    def wait_until(self, now_s: float) -> None:
        """Ignore the work of the idle time."""
        self._begin()

    def _begin(self) -> None:
        """Compute the reference; time counts from its end."""
        start_s = time.process_time()
        with torch.inference_mode():
            x = self._tile
            for _ in range(_REFERENCE_REPEATS):
                x = linear((linear(x, self._tile)[self._rows] * 0.5).softmax(-1), self._tile) + x
        self._mark_s = time.process_time()
        self._speed = REFERENCE_S / max(_TICK_S, self._mark_s - start_s)


class Stopwatch:
    """Counts processor and wall time of a run, for its meta.json.

    >>> sorted(Stopwatch().read())
    ['cpu_s', 'wall_s']
    """

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return the seconds since the stopwatch was made."""
        return {
            "cpu_s": time.process_time() - self._cpu_s,
            "wall_s": time.perf_counter() - self._wall_s,
        }


CLOCKS: dict[ClockName, type[WallClock | CpuClock | PacedClock]] = {
    "wall": WallClock,
    "cpu": CpuClock,
    "paced": PacedClock,
}
