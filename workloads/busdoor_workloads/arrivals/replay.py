"""Arrivals not drawn from a law: a trace's times, closed-loop users, a profile's fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from busdoor_workloads.arrivals.base import AnyArrivals, Arrivals
from busdoor_workloads.arrivals.renewal import Poisson
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import NonNegative, Positive, config, with_columns_of_path
from busdoor_workloads.durations import AnySeconds


@config
class Replay(Arrivals):
    """The times of a trace; if more are needed, they repeat after the last one plus a mean gap.

    Parameters
    ----------
    arrival_s : tuple of float
        In seconds, in order.
    path : str
        Instead of `arrival_s`: a trace file to read them from.
    time_scale : float
        Factor of the gaps: 2 halves the rate.

    Examples
    --------
    >>> Replay(arrival_s=(0.0, 1.0, 4.0), time_scale=0.5).times(5, np.random.default_rng(0))
    array([0. , 0.5, 2. , 3. , 3.5])
    """

    process: ClassVar[str] = "trace"
    arrival_s: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    time_scale: Positive = 1.0

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        return with_columns_of_path(given, "arrival_s")

    def __post_init__(self) -> None:
        if np.any(np.diff(self.arrival_s) < 0):
            raise ValueError("arrival_s must be in order of arrival")

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return the first `n` arrival times, in seconds, not decreasing, shape (n,)."""
        own = np.array(self.arrival_s)
        rounds, rows = np.divmod(np.arange(n), len(own))
        return np.asarray((own[rows] + rounds * self._round_s) * self.time_scale)

    def at_rate(self, request_rate: float) -> Replay:
        """Return the trace's times stretched to that rate."""
        if not self._round_s > 0:
            raise ValueError(
                "arrival_s are all the same time, which has no rate to scale; give an arrival "
                "process"
            )
        return replace(self, time_scale=len(self.arrival_s) / self._round_s / request_rate)

    @property
    def _round_s(self) -> float:
        span = self.arrival_s[-1] - self.arrival_s[0]
        return span + span / max(1, len(self.arrival_s) - 1)


@config
class ClosedLoop(Arrivals):
    """A fixed number of users; each sends its next request after the answer and a think time.

    Parameters
    ----------
    concurrency : int
        Users.
    think_time_s : float or distribution
        Seconds between an answer and the user's next request.

    Notes
    -----
    The times are lower bounds, all 0: the server determines when a request arrives.
    """

    process: ClassVar[str] = "closed_loop"
    concurrency: Annotated[int, Field(ge=1)]
    think_time_s: AnySeconds = 0.0

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return `n` zeros."""
        return np.zeros(n)

    def at_rate(self, request_rate: float) -> Arrivals:
        """Return Poisson arrivals: a rate makes the loop an open one."""
        return Poisson(request_rate=request_rate)


@config
class Measured(Arrivals):
    """A process fitted to a trace; at another rate it becomes Poisson.

    Parameters
    ----------
    fit : Arrivals or table
        The fitted process.

    Examples
    --------
    >>> Measured(fit={"process": "gamma", "request_rate": 5.5, "cv": 1.1}).at_rate(8)
    Poisson(request_rate=8.0, normalize_duration=False)
    """

    process: ClassVar[str] = "measured"
    fit: AnyArrivals

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw the first `n` arrival times, in seconds from 0, not decreasing, shape (n,)."""
        return self.fit.times(n, rng)

    def expected(self, until_s: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return times from 0 to `until_s`, and the arrivals expected by each."""
        return self.fit.expected(until_s, rng)

    def path_bytes(self, num_requests: float, duration_s: float) -> float:
        """Return the memory that `expected` takes for so many requests or seconds, the longer."""
        return self.fit.path_bytes(num_requests, duration_s)

    def at_rate(self, request_rate: float) -> Arrivals:
        """Return Poisson arrivals: this trace's gaps were not measured at that rate."""
        return Poisson(request_rate=request_rate)
