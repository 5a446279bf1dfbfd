"""What time it is in a replay: the wall's, or that of the process's own work."""

from __future__ import annotations

import time
from typing import Literal, Protocol

ClockName = Literal["wall", "cpu"]
_TICK_S = 1e-9  # the clocks' resolution: an iteration takes some time


class Clock(Protocol):
    """Measures how long an iteration took, given when it began."""

    def since_s(self, start_s: float) -> float:
        """Seconds from a moment of the replay until now; more than 0."""

    def wait_until(self, now_s: float) -> None:
        """Let idle time pass until a moment of the replay."""


class WallClock:
    """Real seconds since the replay began; idle time is slept through.

    Examples
    --------
    >>> clock = WallClock()
    >>> clock.wait_until(0.01)
    >>> 0.01 < clock.since_s(0.0) < 10
    True
    """

    def __init__(self) -> None:
        self._origin_s = time.perf_counter()

    def since_s(self, start_s: float) -> float:
        """Seconds from a moment of the replay until now; more than 0."""
        return max(_TICK_S, time.perf_counter() - self._origin_s - start_s)

    def wait_until(self, now_s: float) -> None:
        """Let idle time pass until a moment of the replay."""
        time.sleep(max(0.0, now_s - (time.perf_counter() - self._origin_s)))


class CpuClock:
    """Seconds of processor time of this process, which another one's load does not lengthen; idle time is skipped.

    Examples
    --------
    >>> clock = CpuClock()
    >>> clock.wait_until(1000.0)          # at once
    >>> 0 < clock.since_s(1000.0) < 10
    True
    """

    def __init__(self) -> None:
        self._mark_s = time.process_time()

    def since_s(self, start_s: float) -> float:
        """Seconds of work since this was last asked; more than 0."""
        before, self._mark_s = self._mark_s, time.process_time()
        return max(_TICK_S, self._mark_s - before)

    def wait_until(self, now_s: float) -> None:
        """Forget the work that was done while there was nothing to do."""
        self._mark_s = time.process_time()


CLOCKS: dict[ClockName, type[WallClock] | type[CpuClock]] = {"wall": WallClock, "cpu": CpuClock}
