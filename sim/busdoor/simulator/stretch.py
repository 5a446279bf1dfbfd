"""A stretch: iterations whose batch does not change, taken as one event."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, inf, sqrt

import numpy as np

from busdoor.core.batch import Batch
from busdoor.step_time.base import BatchAhead, Line, Pieces, StepTime


class Stretch:
    """Repetitions of a batch on a line: `first_s`, then `growth_s` more each time.

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
    """A stretch whose last iteration, number `repeat`, takes another time than expected.

    >>> stretch = EndedStretch(Stretch(start_s=10.0, first_s=1.0, growth_s=0.5), repeat=3, last_s=4.0)
    >>> stretch.end_s(3), stretch.last_s(3), stretch.first_s
    (16.5, 4.0, 1.0)
    """

    __slots__ = ("_before", "_last_s", "_repeat")

    def __init__(self, stretch: Stretch, repeat: int, last_s: float) -> None:
        super().__init__(
            stretch.start_s, last_s if repeat == 1 else stretch.first_s, stretch.growth_s
        )
        self._before, self._repeat, self._last_s = stretch, repeat, last_s

    def end_s(self, repeat: int) -> float:
        """When the iteration number `repeat` (from 1) ends."""
        if repeat < self._repeat:
            return self._before.end_s(repeat)
        return self._before.end_s(repeat - 1) + self._last_s

    def last_s(self, repeat: int) -> float:
        """How long the iteration number `repeat` takes."""
        return self._before.last_s(repeat) if repeat < self._repeat else self._last_s

    def repeats_until(self, now_s: float, most: int) -> int:
        """Which iteration, from 1 to `most`, is running at `now_s` (or ends just then)."""
        return most if self.end_s(most - 1) < now_s else self._before.repeats_until(now_s, most)


class PiecewiseStretch(Stretch):
    """Repetitions of a batch whose durations lie on lines that follow one another.

    >>> stretch = PiecewiseStretch(10.0, [(2, 1.0, 0.5), (3, 2.0, 0.0)])   # 1.0, 1.5, 2.0, 2.0, 2.0
    >>> stretch.end_s(4), stretch.last_s(2), stretch.repeats_until(14.0, 5), stretch.end_s(0)
    (16.5, 1.5, 3, 10.0)
    """

    __slots__ = ("_before", "_ends_s", "_pieces")

    def __init__(self, start_s: float, pieces: Pieces) -> None:
        super().__init__(start_s, pieces[0][1], pieces[0][2])
        before, end_s = 0, start_s
        self._pieces = pieces
        self._before: list[int] = []  # iterations before each line
        self._ends_s = [start_s]  # when each line begins, and the last one ends
        for count, first_s, growth_s in pieces:
            self._before.append(before)
            before += count
            end_s += count * first_s + growth_s * (count * (count - 1) / 2)
            self._ends_s.append(end_s)

    def end_s(self, repeat: int) -> float:
        """When the iteration number `repeat` (from 1) ends."""
        index = bisect_left(self._before, repeat, 1) - 1
        _, first_s, growth_s = self._pieces[index]
        repeat -= self._before[index]
        return self._ends_s[index] + repeat * first_s + growth_s * (repeat * (repeat - 1) / 2)

    def last_s(self, repeat: int) -> float:
        """How long the iteration number `repeat` takes."""
        index = bisect_left(self._before, repeat, 1) - 1
        _, first_s, growth_s = self._pieces[index]
        return first_s + growth_s * (repeat - self._before[index] - 1)

    def repeats_until(self, now_s: float, most: int) -> int:
        """Which iteration, from 1 to `most`, is running at `now_s` (or ends just then)."""
        last = bisect_left(self._before, most, 1) - 1
        index = min(last, max(0, bisect_left(self._ends_s, now_s) - 1))
        before, (count, first_s, growth_s) = self._before[index], self._pieces[index]
        line = Stretch(self._ends_s[index], first_s, growth_s)
        return before + line.repeats_until(now_s, min(count, most - before))


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


def make_stretch(
    step_time: StepTime, line: Line | None, batch: Batch, start_s: float, repeat: int
) -> Stretch:
    """Time a batch that starts at `start_s`, repeats up to `repeat` times, and has this line.

    Raises ValueError if the model gives a duration that is negative, infinite or no number.
    """
    if line is not None:
        stretch = Stretch(start_s, line[0], line[1])
    elif pieces := step_time.pieces(batch, repeat):
        _, first_s, growth_s = pieces[0]
        stretch = (
            Stretch(start_s, first_s, growth_s)
            if len(pieces) == 1
            else PiecewiseStretch(start_s, pieces)
        )
    else:
        stretch = VectorStretch(start_s, step_time, batch, repeat)
    if not 0 <= stretch.first_s < inf:
        check_duration(step_time, stretch.first_s)
    if repeat > 1:
        check_duration(step_time, stretch.last_s(repeat))
    return stretch


def end_stretch(
    stretch: Stretch, timed: BatchAhead, repeat: int, following: Batch | None
) -> tuple[Stretch, float | None]:
    """Return a stretch that ends as the host, which submits the next, lets it; its lead."""
    last_s, lead_s = timed.last(repeat, following)
    check_duration(timed, last_s)
    return EndedStretch(stretch, repeat, last_s), lead_s


def check_duration(step_time: StepTime, duration_s: float) -> None:
    """Raise ValueError for an iteration of a negative or infinite time, or of none."""
    if not 0 <= duration_s < inf:
        raise ValueError(
            f"{type(step_time).__name__} gave an iteration of {duration_s} s; it must be finite, "
            f"and 0 or more"
        )
