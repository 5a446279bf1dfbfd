"""A stretch: iterations whose batch does not change, taken as one event."""

from __future__ import annotations

from math import ceil, inf, sqrt

import numpy as np

from busdoor.core.batch import Batch
from busdoor.step_time.base import StepTime


class Stretch:
    """Repetitions of a batch whose durations lie on a line: `first_s`, then `growth_s` more each time.

    Examples
    --------
    >>> stretch = Stretch(start_s=10.0, first_s=1.0, growth_s=0.5)   # 1.0, 1.5, 2.0 ...
    >>> stretch.end_s(3), stretch.last_s(3), stretch.repeats_until(12.0, 9)
    (14.5, 2.0, 2)
    """

    __slots__ = ("first_s", "growth_s", "start_s")

    def __init__(self, start_s: float, first_s: float, growth_s: float) -> None:
        self.start_s = start_s
        self.first_s = first_s
        self.growth_s = growth_s

    def end_s(self, repeat: int) -> float:
        """When the iteration number `repeat` (from 1) ends."""
        return self.start_s + repeat * self.first_s + self.growth_s * (repeat * (repeat - 1) / 2)

    def last_s(self, repeat: int) -> float:
        """How long the iteration number `repeat` takes."""
        return self.first_s + self.growth_s * (repeat - 1)

    def repeats_until(self, now_s: float, most: int) -> int:
        """Which iteration, from 1 to `most`, is running at `now_s` (or ends just then)."""
        passed, slope = now_s - self.start_s, self.growth_s / 2
        linear = self.first_s - slope
        # The root of slope k² + linear k = passed, in the form that does not cancel.
        root = 2 * passed / (linear + sqrt(max(0.0, linear * linear + 4 * slope * passed)))
        repeat = min(most, max(1, ceil(root)))
        while repeat > 1 and self.end_s(repeat - 1) >= now_s:
            repeat -= 1
        while repeat < most and self.end_s(repeat) < now_s:
            repeat += 1
        return repeat


class EndedStretch(Stretch):
    """A stretch whose last iteration, number `repeat`, is known to take another time than it was expected to.

    Examples
    --------
    >>> stretch = EndedStretch(Stretch(start_s=10.0, first_s=1.0, growth_s=0.5), repeat=3, last_s=4.0)
    >>> stretch.end_s(3), stretch.last_s(3), stretch.first_s
    (16.5, 4.0, 1.0)
    """

    __slots__ = ("_before", "_last_s", "_repeat")

    def __init__(self, stretch: Stretch, repeat: int, last_s: float) -> None:
        super().__init__(stretch.start_s, last_s if repeat == 1 else stretch.first_s, stretch.growth_s)
        self._before, self._repeat, self._last_s = stretch, repeat, last_s

    def end_s(self, repeat: int) -> float:
        """When the iteration number `repeat` (from 1) ends."""
        return self._before.end_s(repeat) if repeat < self._repeat else self._before.end_s(repeat - 1) + self._last_s

    def last_s(self, repeat: int) -> float:
        """How long the iteration number `repeat` takes."""
        return self._before.last_s(repeat) if repeat < self._repeat else self._last_s

    def repeats_until(self, now_s: float, most: int) -> int:
        """Which iteration, from 1 to `most`, is running at `now_s` (or ends just then)."""
        return most if self.end_s(most - 1) < now_s else self._before.repeats_until(now_s, most)


class VectorStretch(Stretch):
    """Repetitions of a batch with any durations, held as their running sum."""

    __slots__ = ("_durations_s", "_ends_s")

    def __init__(self, start_s: float, step_time: StepTime, batch: Batch, repeat: int) -> None:
        durations = np.asarray(step_time.durations_s(batch, repeat), dtype=np.float64)
        if len(unfit := durations[~((durations >= 0) & (durations < inf))]):
            check_duration(step_time, float(unfit[0]))
        super().__init__(start_s, float(durations[0]), 0.0)
        self._durations_s = durations
        self._ends_s = start_s + np.cumsum(durations)

    def end_s(self, repeat: int) -> float:
        """When the iteration number `repeat` (from 1) ends."""
        return float(self._ends_s[repeat - 1]) if repeat else self.start_s

    def last_s(self, repeat: int) -> float:
        """How long the iteration number `repeat` takes."""
        return float(self._durations_s[repeat - 1])

    def repeats_until(self, now_s: float, most: int) -> int:
        """Which iteration, from 1 to `most`, is running at `now_s` (or ends just then)."""
        return min(most, int(np.searchsorted(self._ends_s, now_s, side="left")) + 1)


def make_stretch(step_time: StepTime, batch: Batch, start_s: float, repeat: int) -> Stretch:
    """Time a batch that starts at `start_s` and repeats at most `repeat` times.

    Raises
    ------
    ValueError
        If the model gives a duration that is negative, infinite or no number.
    """
    line = step_time.line(batch)
    stretch = Stretch(start_s, *line) if line else VectorStretch(start_s, step_time, batch, repeat)
    if not 0 <= stretch.first_s < inf:
        check_duration(step_time, stretch.first_s)
    if repeat > 1:
        check_duration(step_time, stretch.last_s(repeat))
    return stretch


def check_duration(step_time: StepTime, duration_s: float) -> None:
    """Raise ValueError for an iteration of a negative or infinite time, or of none."""
    if not 0 <= duration_s < inf:
        raise ValueError(
            f"{type(step_time).__name__} gave an iteration of {duration_s} s; it must be finite, and 0 or more"
        )
