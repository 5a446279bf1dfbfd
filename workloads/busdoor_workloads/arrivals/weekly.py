"""A week of traffic: days and nights, a quieter weekend, and bursts."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, pi
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field

from busdoor_workloads.arrivals.modulated import CHANGE_BYTES, Modulated
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import Positive, Share, config

DAY_S, WEEK_S = 86_400.0, 604_800.0
PEAK_S = 14 * 3600.0  # early afternoon, as the curves of `busdoor capacity --diurnal`
_STEP_S = 60.0  # the rate is even for so long, or until a burst begins or ends
_WORKDAYS = 5


@config
class Weekly(Modulated):
    """Days and nights from Monday 0:00, a weekend, and bursts that multiply the rate.

    Parameters
    ----------
    request_rate : float
        Mean requests per second of a week.
    peak_to_trough : float
        Rate at 14:00 over that at 2:00, on a cosine (Azure 2024: 2 for chat, 10 for code).
    weekend_drop : float
        How much lower the rate is on Saturday and Sunday (Azure 2024: 0.43 for chat, 0.68 for code).
    burst_factor : float
        The rate in a burst over that without; 1 for none.
    burst_s : float
        Mean length of a burst, in seconds; exponential.
    burst_gap_s : float
        Mean time from a burst's end to the next burst, in seconds; exponential.

    Examples
    --------
    >>> week = Weekly(request_rate=1, peak_to_trough=3, weekend_drop=0.43)
    >>> seconds, count = week.expected(604_800, np.random.default_rng(0))
    >>> days = np.diff(np.interp(np.arange(8) * 86_400, seconds, count)) / 86_400
    >>> days.round(2).tolist(), round(float(days.mean()), 9)
    ([1.14, 1.14, 1.14, 1.14, 1.14, 0.65, 0.65], 1.0)
    """

    process: ClassVar[str] = "weekly"
    request_rate: Positive
    peak_to_trough: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    weekend_drop: Share = 0.43
    burst_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    burst_s: Positive = 120.0
    burst_gap_s: Positive = 7200.0

    def at_rate(self, request_rate: float) -> Self:
        """Return the same kind of process at `request_rate` requests per second on average."""
        return replace(self, request_rate=request_rate)

    def clock(self, expected: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the times, in seconds, at which this many arrivals are expected."""
        weeks = ceil(expected[-1] / (self._quiet_rate * WEEK_S)) + 1  # so many without any burst
        seconds, count = self.expected(weeks * WEEK_S, rng)
        return np.asarray(np.interp(expected, count, seconds))

    def expected(self, until_s: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return times from 0 to `until_s`, and the arrivals expected by each."""
        turns = self._bursts(until_s, rng)
        grid = np.arange(0.0, until_s, _STEP_S)
        seconds = np.unique(np.concatenate([grid, turns[turns < until_s], [until_s]]))
        middle_s = (seconds[1:] + seconds[:-1]) / 2
        in_burst = np.searchsorted(turns, middle_s) % 2
        rates = self._rate(middle_s) * np.where(in_burst, self.burst_factor, 1.0)
        return seconds, np.concatenate([[0.0], np.cumsum(rates * np.diff(seconds))])

    def path_bytes(self, num_requests: float, duration_s: float) -> float:
        """Return the memory that `expected` takes for so many requests or seconds, the longer."""
        seconds = max(duration_s, num_requests / self.request_rate)
        return CHANGE_BYTES * seconds * (1 / _STEP_S + 2 / (self.burst_gap_s + self.burst_s))

    @property
    def _quiet_rate(self) -> float:
        """Mean rate outside the bursts."""
        share = self.burst_s / (self.burst_s + self.burst_gap_s)
        return self.request_rate / (1 + share * (self.burst_factor - 1))

    def _rate(self, at_s: FloatArray) -> FloatArray:
        swing = (self.peak_to_trough - 1) / (self.peak_to_trough + 1)
        day = 1 + swing * np.cos(2 * pi * (at_s - PEAK_S) / DAY_S)
        weekend = at_s % WEEK_S >= _WORKDAYS * DAY_S
        workday_rate = self._quiet_rate / (1 - self.weekend_drop * 2 / 7)
        rate = workday_rate * day * np.where(weekend, 1 - self.weekend_drop, 1.0)
        return np.asarray(rate, dtype=np.float64)

    def _bursts(self, until_s: float, rng: np.random.Generator) -> FloatArray:
        """Return when bursts begin and end, in turn, beyond `until_s`."""
        if self.burst_factor == 1:
            return np.zeros(0)
        turns = np.zeros(0)
        while not len(turns) or turns[-1] < until_s:
            some = rng.exponential([self.burst_gap_s, self.burst_s], (1024, 2)).ravel()
            turns = np.concatenate([turns, (turns[-1] if len(turns) else 0.0) + np.cumsum(some)])
        return turns
