"""The tables that plots need of a result, and the clock that its iterations define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busdoor.core.arrays import Floats


class Run(Protocol):
    """A finished run, simulated or measured: the tables of `busdoor.results.result.Result`."""

    @property
    def requests(self) -> pd.DataFrame:
        """One row per request."""

    @property
    def iterations(self) -> pd.DataFrame:
        """One row per stretch of identical iterations."""

    @property
    def stays(self) -> pd.DataFrame:
        """One row per stay of a request in a slot."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """Policy, slots, KV size and how the run was made."""


Runs = Run | Sequence[Run] | Mapping[str, Run]


def named(runs: Runs) -> dict[str, Run]:
    """Return every run by name: the mapping's, or its policy's (numbered if not unique)."""
    if isinstance(runs, Mapping):
        return dict(runs)
    result: dict[str, Run] = {}
    for run in runs if isinstance(runs, Sequence) else [runs]:
        name = str(run.meta["policy"])
        count = sum(key.split(" (")[0] == name for key in result)
        result[f"{name} ({count + 1})" if count else name] = run
    return result


def served(run: Run) -> Run:
    """Return the run if it has iterations.

    Raises ValueError if it has no iterations to draw.
    """
    if len(run.iterations):
        return run
    raise ValueError(
        "the result has no iterations to draw: nothing was served, or it was run with "
        "iterations=False"
    )


def of_replica(run: Run, replica: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the iterations and the stays of one server."""
    iterations = served(run).iterations
    return iterations[iterations["replica"] == replica], run.stays[run.stays["replica"] == replica]


def server_meta(run: Run, replica: int) -> Mapping[str, Any]:
    """Return the metadata of one server."""
    own: Mapping[str, Any] = run.meta["replicas"][replica] if "replicas" in run.meta else run.meta
    return own


def time_label(run: Run, replica: int) -> str:
    """Return the label of a time axis; for a cluster with the server that is drawn.

    >>> from busdoor.results.result import Result
    >>> time_label(Result.example(), 0)
    'time (s)'
    """
    count = len(run.meta.get("replicas", [None]))
    return "time (s)" if count == 1 else f"time (s), replica {replica} of {count}"


def count_slots(run: Run) -> int:
    """Return the largest number of slots held at a time.

    Not how many it has: with vLLM's `max_num_seqs` of 1,024 and at most 50 requests at a time, a
    figure would show 974 empty slots.
    """
    return int(run.stays["slot"].max()) + 1


class IterationClock:
    """Converts seconds to completed iterations and back, on one server (rows in order of time).

    >>> table = dict(start_s=[0.0, 3.0], duration_s=[2.0, 1.0], repeat=[4, 1])
    >>> clock = IterationClock(pd.DataFrame(table))
    >>> clock.count([1.0, 2.5, 4.0])        # idle from 2 to 3
    array([2., 4., 5.])
    >>> clock.time_s([4.0, 5.0])            # when that many had run
    array([2., 4.])
    """

    def __init__(self, iterations: pd.DataFrame) -> None:
        start_s = iterations["start_s"].to_numpy(float)
        self.end_s: Floats = start_s + iterations["duration_s"].to_numpy(float)
        done = np.cumsum(iterations["repeat"].to_numpy(float))
        # An iteration may start a rounding error before the one before it ends; interpolation wants
        # order.
        self._time_s = np.maximum.accumulate(np.column_stack([start_s, self.end_s]).ravel())
        self._count = np.column_stack([np.concatenate([[0.0], done[:-1]]), done]).ravel()
        self._done, self._start_s = done, start_s

    def count(self, time_s: ArrayLike) -> Floats:
        """Return the iterations completed by a time; fractional inside a stretch."""
        counts: Floats = np.interp(np.asarray(time_s, dtype=float), self._time_s, self._count)
        return counts

    def time_s(self, count: ArrayLike) -> Floats:
        """Return the time in seconds at which so many iterations are complete."""
        wanted = np.asarray(count, dtype=float)
        row = np.clip(np.searchsorted(self._done, wanted - 1e-6), 0, len(self._done) - 1)
        before = self._count[2 * row]
        share = (wanted - before) / (self._done[row] - before)
        ran_s: Floats = np.clip(share, 0.0, 1.0) * (self.end_s[row] - self._start_s[row])
        times_s: Floats = self._start_s[row] + ran_s
        return times_s

    def busy_spans_s(self) -> Floats:
        """Return the intervals of iterations without a pause between them, shape (spans, 2)."""
        gap = self._start_s[1:] - self.end_s[:-1] > 1e-9 * np.maximum(1.0, self.end_s[:-1])
        first, last = np.flatnonzero(np.r_[True, gap]), np.flatnonzero(np.r_[gap, True])
        return np.column_stack([self._start_s[first], self.end_s[last]])
