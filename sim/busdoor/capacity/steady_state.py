"""The measured requests of a run: those that arrive while the server neither fills nor drains."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import numpy as np

from busdoor.core.arrays import Floats

_BATCH = 5  # requests that MSER-5 averages
_LONGEST_WARMUP = 0.5  # of the run: beyond it MSER sees a trend, not a start
# over (1 - load)²: four of the time units in which the mean of the Brownian motion settles to some
# 2 %
_SETTLING = 8
_WAITING = 0.25  # of a limit: waits that stay below it leave enough for the service not to matter
_LEAST_WINDOW = 0.5  # of the run: with less left, the run is mostly its own beginning and end


class Window(NamedTuple):
    """Rows begin <= row < end, in order of arrival; `steady` if they are at least half."""

    begin: int
    end: int
    steady: bool


def steady_window(e2e_s: Floats, request_rate: float) -> Window:
    """Find the window from the latencies of the replications, shape (replications, n).

    At both ends as many requests are cut as come within the 99th percentile of the latency: so long
    a server fills, and so long it empties behind the last arrival. The beginning is cut further
    where MSER-5 does. Latencies are by order of arrival, not finite where there is no answer. The
    middle half, and not steady, where too little would be left.

    A second each, 10 arrivals per second: 10 requests at either end.

    >>> steady_window(np.ones((2, 100)), 10.0)
    Window(begin=10, end=90, steady=True)
    """
    n = e2e_s.shape[1]
    finite = e2e_s[np.isfinite(e2e_s)]
    residence = float(np.percentile(finite, 99)) if len(finite) else np.inf
    cut = int(min(n, np.ceil(residence * request_rate)))
    begin, end = max(cut, warmup(e2e_s)), n - cut
    if end - begin < _LEAST_WINDOW * n:
        return Window(n // 4, n - n // 4, steady=False)
    return Window(begin, end, steady=True)


def warmup(values: Floats) -> int:
    """Return how many observations to cut at the beginning, by MSER-5 on the replications' mean.

    The cut is the one that leaves the mean with the least standard error; at most half of the run.
    A server begins empty, so that only a beginning with lower values is a warm-up: one with higher
    values is a queue that came early, and to cut it would make the server better than it is.

    References
    ----------
    White, "An effective truncation heuristic for bias reduction in simulation output", Simulation
    69 (1997).

    Examples
    --------
    >>> warmup(np.concatenate([np.zeros(20), np.tile([1.0, 1.1], 40)])[None])
    20
    """
    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    means = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(counts, 1)
    batches = means[: len(means) // _BATCH * _BATCH].reshape(-1, _BATCH).mean(axis=1)
    if len(batches) < 2:
        return 0
    batches -= batches.mean()
    left = np.arange(len(batches), 0, -1)
    total, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    error = (squares - total**2 / left) / left.astype(float) ** 2
    cut = int(np.argmin(error[: max(1, int(_LONGEST_WARMUP * len(batches)))]))
    return _BATCH * cut if batches[:cut].sum() < 0 else 0


def settling_requests(
    load: float, request_rate: float, limit_s: float, share: float | None
) -> float:
    """Return how many requests a queue takes to settle where waits may near a limit; else 0.

    `load` is the rate over what the server carries, NaN where that is unknown; the limit is of a
    latency, for a share of the requests, or on the mean without it.

    In heavy traffic a queue is a reflected Brownian motion: waits are exponential, with mean c/(1 −
    load) services, and it settles within a few times 2c/(1 − load)² services; c is 1 for Poisson
    arrivals and a variable service. Abate, Whitt, "Transient behavior of regulated Brownian motion,
    I: starting at the origin", Adv. Appl. Prob. 19 (1987).

    A tenth of the server is left: waits of 0.5 s in the mean, and over 2.3 s for 1 % of the
    requests.

    >>> round(settling_requests(0.9, 18.0, 2.0, 0.99)), settling_requests(0.9, 18.0, 20.0, 0.99)
    (800, 0.0)
    """
    if not 0 < load < 1:
        return 0.0
    mean_wait_s = load / (1 - load) / request_rate
    longest_s = mean_wait_s * (1.0 if share is None else -log(1 - share))
    return _SETTLING / (1 - load) ** 2 if longest_s > _WAITING * limit_s else 0.0
