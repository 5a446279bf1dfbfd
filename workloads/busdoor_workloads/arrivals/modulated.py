"""Poisson arrivals whose rate changes: MMPP-2, ramp, day and night, spike.

All by change of time: if L(t) is the expected number of arrivals until t, then the arrivals are
L^-1 of the arrivals of a Poisson process of rate 1 (Çinlar 1975, ch. 4).
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from dataclasses import replace
from math import pi
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from busdoor_workloads.arrivals.base import Arrivals
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import NonNegative, Positive, config

# Points per period of the table of the day's cumulated rate: straight lines between them are off by
# 1e-7 periods.
_POINTS_A_DAY = 4096
# Of the table of a whole run's cumulated rate, for windows: 10 s apart in a week.
_POINTS = 65_536
CHANGE_BYTES = 160  # of a change of the rate: 80 by tracemalloc, twice where the span doubles


class Modulated(Arrivals):
    """Poisson arrivals of changing rate."""

    @abstractmethod
    def clock(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the times, in seconds, at which this many arrivals are expected."""

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw the first `n` arrival times, in seconds from 0, not decreasing, shape (n,)."""
        return self.clock(np.cumsum(rng.exponential(size=n)), rng) if n else np.zeros(0)

    def expected(self, until_s: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return times from 0 to `until_s`, and the arrivals expected by each."""
        count, seconds = np.zeros(1), np.zeros(1)
        while seconds[-1] < until_s:
            count = np.linspace(0.0, max(1.0, 2 * float(count[-1])), _POINTS + 1)
            seconds = self.clock(count, deepcopy(rng))  # the same path again, longer
        before = seconds < until_s
        last = np.interp(until_s, seconds, count)
        return np.append(seconds[before], until_s), np.append(count[before], last)


@config
class MMPP2(Modulated):
    """A Markov-modulated Poisson process: two states, exponential sojourns, a steady start.

    Parameters
    ----------
    rates : (float, float)
        Requests per second in either state; one may be 0.
    mean_sojourn_s : (float, float)
        Mean time of a stay in either state, in seconds.

    Examples
    --------
    >>> MMPP2(rates=(1, 9), mean_sojourn_s=(30, 10)).request_rate
    3.0
    """

    process: ClassVar[str] = "mmpp2"
    rates: tuple[NonNegative, NonNegative]
    mean_sojourn_s: tuple[Positive, Positive]

    def __post_init__(self) -> None:
        if not max(self.rates) > 0:
            raise ValueError("rates are both 0; at least one must be more")

    @property
    def request_rate(self) -> float:
        """Requests per second in the long run."""
        return float(np.dot(self.rates, self.mean_sojourn_s) / sum(self.mean_sojourn_s))

    def at_rate(self, request_rate: float) -> Self:
        """Return the process with both rates scaled; the sojourns stay."""
        factor = request_rate / self.request_rate
        return replace(self, rates=(self.rates[0] * factor, self.rates[1] * factor))

    def path_bytes(self, num_requests: float, duration_s: float) -> float:
        """Return the memory that `expected` takes for so many requests or seconds, the longer."""
        seconds = max(duration_s, num_requests / self.request_rate)
        return 2 * CHANGE_BYTES * seconds / sum(self.mean_sojourn_s)

    def clock(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the times, in seconds, at which this many arrivals are expected."""
        state = int(rng.random() * sum(self.mean_sojourn_s) >= self.mean_sojourn_s[0])
        order = [state, 1 - state]
        a_cycle = float(np.dot(self.rates, self.mean_sojourn_s))
        seconds = count = np.zeros(1)
        while count[-1] < expected[-1]:
            # a tenth more than expected: one round mostly
            cycles = int((expected[-1] - count[-1]) / a_cycle * 1.1) + 16
            sojourns = rng.exponential(np.take(self.mean_sojourn_s, order), (cycles, 2))
            seconds = np.append(seconds, seconds[-1] + np.cumsum(sojourns))
            count = np.append(count, count[-1] + np.cumsum(sojourns * np.take(self.rates, order)))
        return np.interp(expected, count, seconds)


@config
class Ramp(Modulated):
    """A rate that climbs (or falls) and then stays.

    Parameters
    ----------
    ramp_up_strategy : {"linear", "exponential"}
        The curve.
    ramp_up_start_rps : float
        Requests per second at the beginning.
    ramp_up_end_rps : float
        Requests per second at the end.
    ramp_up_s : float
        Duration of the ramp, in seconds; by default the expected duration of the trace.

    Examples
    --------
    >>> ramp = Ramp(ramp_up_start_rps=1, ramp_up_end_rps=9, ramp_up_s=100)
    >>> ramp.clock(np.array([1.0, 500.0, 509.0]), np.random.default_rng(0)).round(2)
    array([ 0.96, 100. , 101. ])
    """

    process: ClassVar[str] = "ramp"
    ramp_up_strategy: Literal["linear", "exponential"] = "linear"
    ramp_up_start_rps: Positive
    ramp_up_end_rps: Positive
    ramp_up_s: Positive | None = None

    def at_rate(self, request_rate: float) -> Self:
        """Return a ramp whose time-average rate is `request_rate`."""
        factor = request_rate / self._mean_rate
        start, end = self.ramp_up_start_rps * factor, self.ramp_up_end_rps * factor
        return replace(self, ramp_up_start_rps=start, ramp_up_end_rps=end)

    def expected(self, until_s: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return times from 0 to `until_s`, and the arrivals expected by each."""
        return super(Ramp, replace(self, ramp_up_s=self.ramp_up_s or until_s)).expected(
            until_s, rng
        )

    def clock(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the times, in seconds, at which this many arrivals are expected."""
        length_s = self.ramp_up_s or len(expected) / self._mean_rate
        on_ramp = np.minimum(expected, self._mean_rate * length_s)
        after_s = (expected - on_ramp) / self.ramp_up_end_rps
        times_s: FloatArray = self._climb(on_ramp, length_s) + after_s
        return times_s

    @property
    def _mean_rate(self) -> float:
        start, end = self.ramp_up_start_rps, self.ramp_up_end_rps
        if self.ramp_up_strategy == "linear" or start == end:
            return (start + end) / 2
        return float((end - start) / np.log(end / start))

    def _climb(self, expected: FloatArray, length_s: float) -> FloatArray:
        start, end = self.ramp_up_start_rps, self.ramp_up_end_rps
        if start == end:
            return expected / start
        if self.ramp_up_strategy == "exponential":
            growth = np.log(end / start) / length_s
            return np.asarray(np.log1p(expected * growth / start) / growth)
        # The root of start t + slope t^2 / 2 = expected, in the form that does not cancel.
        slope = (end - start) / length_s
        return np.asarray(
            2 * expected / (start + np.sqrt(np.maximum(start**2 + 2 * slope * expected, 0.0)))
        )


@config
class Diurnal(Modulated):
    """Day and night: request_rate (1 + a sin(2 pi t / period)), with a = (p - 1) / (p + 1).

    Parameters
    ----------
    request_rate : float
        Mean requests per second.
    peak_to_trough : float
        p, the highest rate over the lowest (Azure 2024 weekdays: 2 for chat, 10 for code).
    period_s : float
        A day, in seconds.

    Examples
    --------
    >>> day = Diurnal(request_rate=1, peak_to_trough=3, period_s=100)
    >>> day.clock(np.array([100.0, 250.0]), np.random.default_rng(0)).round(1)
    array([100. , 236.7])
    """

    process: ClassVar[str] = "diurnal"
    request_rate: Positive
    peak_to_trough: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    period_s: Positive = 86_400.0

    def at_rate(self, request_rate: float) -> Self:
        """Return the same kind of process at `request_rate` requests per second on average."""
        return replace(self, request_rate=request_rate)

    def clock(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the times, in seconds, at which this many arrivals are expected."""
        swing = (self.peak_to_trough - 1) / (self.peak_to_trough + 1)
        phase = np.linspace(0, 1, _POINTS_A_DAY + 1)
        count = phase + swing * (1 - np.cos(2 * pi * phase)) / (2 * pi)
        day, rest = np.divmod(expected / (self.request_rate * self.period_s), 1.0)
        return np.asarray((day + np.interp(rest, count, phase)) * self.period_s)


@config
class Spike(Modulated):
    """A steady rate with one spike.

    Parameters
    ----------
    request_rate : float
        Requests per second outside the spike.
    spike_rate : float
        Requests per second inside it.
    start_s : float
        Start of the spike, in seconds.
    duration_s : float
        Duration of the spike, in seconds.

    Examples
    --------
    >>> spike = Spike(request_rate=1, spike_rate=10, start_s=60, duration_s=6)
    >>> spike.clock(np.array([60.0, 120.0, 130.0]), np.random.default_rng(0))
    array([60., 66., 76.])
    """

    process: ClassVar[str] = "spike"
    request_rate: Positive
    spike_rate: Positive
    start_s: NonNegative
    duration_s: Positive

    def at_rate(self, request_rate: float) -> Self:
        """Return the process with both rates scaled, `request_rate` being outside the spike."""
        return replace(
            self,
            request_rate=request_rate,
            spike_rate=self.spike_rate * request_rate / self.request_rate,
        )

    def clock(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the times, in seconds, at which this many arrivals are expected."""
        before = self.request_rate * self.start_s
        inside = self.spike_rate * self.duration_s
        first, second = np.minimum(expected, before), np.clip(expected - before, 0.0, inside)
        third = np.maximum(expected - before - inside, 0.0)
        return np.asarray((first + third) / self.request_rate + second / self.spike_rate)
