"""A trace in windows of time, one after another, so that it need never be held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import ceil

import numpy as np

import busdoor_workloads as workloads  # its laws: only where windows are drawn
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.given import positive, whole_number
from busdoor_workloads.memory_check import check_memory
from busdoor_workloads.streams import stream
from busdoor_workloads.trace import Trace

HOUR_S = 3600.0
_HOUR_BYTES = 64  # of an hour of `expected_requests`: eight arrays of floats at most


@dataclass(frozen=True)
class Window:
    """The requests that arrive from `start_s` on and before `end_s`, or whose sessions begin then.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the whole trace's start, as the `arrival_s` of `trace`.
    first_row : int
        Number of the window's first request in the whole trace.
    trace : Trace
        Its requests, perhaps none.
    """

    start_s: float
    end_s: float
    first_row: int
    trace: Trace


def windows(
    workload: workloads.Laws,
    seed: int = 0,
    *,
    num_requests: int | None = None,
    duration_s: float | None = None,
    window_s: float = HOUR_S,
) -> Iterator[Window]:
    """Draw a workload window by window, each from random streams of its own.

    Parameters
    ----------
    workload : Workload
        Poisson arrivals, of a rate that may change: poisson, diurnal, weekly, mmpp2, ramp, spike.
    seed : int
        Seed. A window depends on it, its own number and length, and the course of the rate, not on
        the draws of other windows. The draws are others than those of `Workload.generate`.
    num_requests, duration_s : int, float
        How many requests, or those of how many seconds; by default the workload's own.
    window_s : float
        Seconds per window.

    Yields
    ------
    Window

    Raises
    ------
    ValueError
        The workload has a closed loop, or arrivals that depend on one another.

    Examples
    --------
    >>> from busdoor_workloads import Workload
    >>> day = {"process": "diurnal", "request_rate": 2, "peak_to_trough": 3}
    >>> chat = Workload(input_tokens=100, output_tokens=10, arrival=day)
    >>> [len(window.trace) for window in windows(chat, seed=1, duration_s=4 * 3600)]
    [7591, 8645, 9347, 9961]
    >>> sum(len(window.trace) for window in windows(chat, seed=1, num_requests=10_000))
    10000
    """
    window_s = positive("window_s", window_s)
    total, until_s = _extent(workload, seed, num_requests, duration_s)
    seconds, expected = workload.arrival.expected(until_s, stream(seed, "rate"))
    row = 0
    for number in count():
        start_s, end_s = number * window_s, min((number + 1) * window_s, until_s)
        if start_s >= until_s or row == total:
            return
        rng = stream(seed, f"arrivals of window {number}")
        arrival_s = _arrivals(rng, seconds, expected, start_s, end_s)
        left = None if total is None else total - row
        trace = workloads.generate_at(workload, seed, arrival_s[:left], number)
        yield Window(start_s, end_s, row, trace)
        row += len(trace)


def expected_requests(
    workload: workloads.Laws,
    seed: int = 0,
    *,
    num_requests: int | None = None,
    duration_s: float | None = None,
    window_s: float = HOUR_S,
) -> FloatArray:
    """Return how many requests each of `windows` is expected to have, with the same arguments.

    >>> from busdoor_workloads import Workload
    >>> expected_requests(Workload(input_tokens=1, output_tokens=1, arrival=2.0), duration_s=9000).tolist()
    [7200.0, 7200.0, 3600.0]
    """
    total, until_s = _extent(workload, seed, num_requests, duration_s)
    seconds, expected = workload.arrival.expected(until_s, stream(seed, "rate"))
    bounds_s = np.minimum(np.arange(ceil(until_s / window_s) + 1) * window_s, until_s)
    by_bound = np.interp(bounds_s, seconds, expected)
    return np.diff(by_bound if total is None else np.minimum(by_bound, total))


def _extent(
    workload: workloads.Laws, seed: int, num_requests: int | None, duration_s: float | None
) -> tuple[int | None, float]:
    """Return the number of requests, if it is given, and seconds in which they arrive."""
    if num_requests is None and duration_s is None:
        num_requests = None if workload.duration_s else workload.num_requests
        duration_s = workload.duration_s
    total = None if num_requests is None else whole_number("num_requests", num_requests)
    what = f"a trace of {total:,} requests" if total else f"a trace of {duration_s or 0:,.0f} s"
    check_memory(workload.arrival.path_bytes(total or 0, duration_s or 0), what)
    until_s = duration_s or _span_s(workload, seed, total or 0)
    check_memory(until_s / HOUR_S * _HOUR_BYTES, what)
    return total, until_s


def check_cut(trace: Trace) -> None:
    """Raise ValueError for a closed loop and for sessions, whose requests wait for answers."""
    if trace.concurrency or trace.turn is not None:
        raise ValueError(
            f"{trace.name} has {'a closed loop' if trace.concurrency else 'sessions'}, whose "
            f"requests wait for answers, so that it cannot be cut into windows"
        )


def windows_of(trace: Trace, window_s: float = HOUR_S) -> Iterator[Window]:
    """Cut a trace into windows; see `check_cut`.

    >>> trace = Trace(arrival_s=[0, 5, 25], input_tokens=[1, 2, 3], output_tokens=[1, 1, 1])
    >>> [window.trace.input_tokens.tolist() for window in windows_of(trace, window_s=10)]
    [[1, 2], [], [3]]
    """
    check_cut(trace)
    last_s = float(trace.arrival_s[-1]) if len(trace) else 0.0
    bounds_s = (np.arange(int(last_s // window_s) + 2) * float(window_s)).tolist()
    rows = np.searchsorted(trace.arrival_s, bounds_s)
    for number in range(len(bounds_s) - 1):
        own = trace.select(np.arange(rows[number], rows[number + 1]))
        yield Window(bounds_s[number], bounds_s[number + 1], int(rows[number]), own)


def _arrivals(
    rng: np.random.Generator,
    seconds: FloatArray,
    expected: FloatArray,
    start_s: float,
    end_s: float,
) -> FloatArray:
    """Draw Poisson arrivals of one window: their number, then their places, by change of time."""
    first, last = np.interp([start_s, end_s], seconds, expected)
    places = np.sort(rng.uniform(first, last, rng.poisson(last - first)))
    times_s = np.interp(places, expected, seconds)
    return np.asarray(np.clip(times_s, start_s, np.nextafter(end_s, start_s)))


def _span_s(workload: workloads.Laws, seed: int, num_requests: int) -> float:
    """Return seconds in which so many requests surely arrive: five standard deviations more."""
    until_s, wanted = 1.0, num_requests + 5 * num_requests**0.5 + 25
    while workload.arrival.expected(until_s, stream(seed, "rate"))[1][-1] < wanted:
        until_s *= 2
    return until_s
