"""Which requests of a run are measured: those that come while the server is neither filling nor draining."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BATCH = 5  # requests that MSER-5 averages
_LONGEST_WARMUP = 0.5  # of the run: beyond it MSER sees a trend, not a start
_LEAST_WINDOW = 0.5  # of the run: with less left, the run is mostly its own beginning and end


class Window(NamedTuple):
    """Rows begin <= row < end, in order of arrival; `steady` unless beginning and end leave less than half."""

    begin: int
    end: int
    steady: bool


def steady_window(e2e_s: Floats, request_rate: float) -> Window:
    """Find the window from the latencies of the replications.

    At both ends as many requests are cut as come within the 99th percentile of the latency: so long a server fills,
    and so long it empties behind the last arrival. The beginning is cut further where MSER-5 asks for it.

    Parameters
    ----------
    e2e_s : array of float, shape (replications, n)
        By order of arrival; not finite where there is no answer.
    request_rate : float
        Arrivals per second.

    Returns
    -------
    Window
        The middle half, and not steady, where too little would be left.

    Examples
    --------
    A second each, 10 arrivals a second: 10 requests at either end.

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
    """Return how many observations to cut from the beginning, by MSER-5 on the mean of the replications.

    The cut is the one that leaves the mean with the least standard error; at most half of the run.

    References
    ----------
    White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69 (1997).

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
    return _BATCH * int(np.argmin(error[: max(1, int(_LONGEST_WARMUP * len(batches)))]))
