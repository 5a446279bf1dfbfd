"""Static batches: longest answer, time to fill and run, and the rate they keep up with."""

from __future__ import annotations

from math import inf
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from busdoor.theory.line import StepLine


def expected_max(lengths: ArrayLike, batch_size: float) -> float:
    """Mean of the longest of `batch_size` values drawn at random, with replacement, from `lengths`.

    For the law that a trace was drawn from, see `busdoor_workloads.lengths.Lengths.expected_max`.

    Parameters
    ----------
    lengths : array of numbers, shape (n,)
        Such as the output tokens of a trace.
    batch_size : float
        How many are drawn; 1 gives the mean.

    Examples
    --------
    >>> expected_max([1, 2, 3], 1), round(expected_max([1, 2, 3], 2), 4)   # 22/9
    (2.0, 2.4444)
    """
    values = np.sort(np.asarray(lengths, dtype=float))
    below = (np.arange(len(values) + 1) / len(values)) ** batch_size
    return float(values @ np.diff(below))


def exponential_max(mean: float, batch_size: int) -> float:
    """Mean longest of `batch_size` exponential lengths: `mean` times the harmonic number.

    Examples
    --------
    >>> [round(1 / exponential_max(1.0, b), 3) for b in (2, 4, 8, 16, 32, 64)]
    [0.667, 0.48, 0.368, 0.296, 0.246, 0.211]
    """
    return mean * float((1 / np.arange(1, batch_size + 1)).sum())


def fill_wait_s(rate_rps: float, batch_size: int) -> float:
    """Mean wait in seconds of a request for the rest of its batch; it leaves only full.

    Examples
    --------
    >>> fill_wait_s(2.0, 5)
    1.0
    """
    return (batch_size - 1) / (2 * rate_rps)


def batch_time_s(
    line: StepLine,
    batch_size: float,
    mean_output_tokens: float,
    longest_output_tokens: float,
    prefill_tokens: float = 0.0,
    finished_rows: Literal["compute", "skip"] = "compute",
) -> float:
    """Mean time of a static batch, from its prefill to its longest answer.

    Parameters
    ----------
    line : StepLine
        The step time.
    batch_size : float
        Rows.
    mean_output_tokens, longest_output_tokens : float
        E[N], and E[max N] over the batch (or over whatever the outputs are padded to).
    prefill_tokens : float
        Prompt tokens computed for each row beyond the first: E[max P] - 1 where prompts are padded,
        else E[P] - 1.
    finished_rows : {"compute", "skip"}
        Whether a row that has its answer still costs `per_request_s`.

    Returns
    -------
    float
        Seconds.
    """
    row_steps = longest_output_tokens if finished_rows == "compute" else mean_output_tokens
    rows_s = line.per_request_s * batch_size * row_steps
    return (
        line.base_s * longest_output_tokens
        + rows_s
        + line.per_prefill_token_s * batch_size * prefill_tokens
    )


def saturated_static_rps(
    line: StepLine,
    batch_size: float,
    mean_output_tokens: float,
    longest_output_tokens: float,
    prefill_tokens: float = 0.0,
    finished_rows: Literal["compute", "skip"] = "compute",
) -> float:
    """Return a static server's requests per second if a full batch always waits: X_s.

    Parameters are those of `batch_time_s`.

    Examples
    --------
    >>> line = StepLine(base_s=0.020, per_request_s=0.0005)
    >>> round(saturated_static_rps(line, 8, 128, 347.0), 4)
    0.9606
    """
    batch_s = batch_time_s(
        line, batch_size, mean_output_tokens, longest_output_tokens, prefill_tokens, finished_rows
    )
    return batch_size / batch_s


def static_is_stable(rate_rps: float, batch_size: float, mean_batch_time_s: float) -> bool:
    """Whether static sustains `rate_rps`: iff rate · E[batch time] < batch size (Bailey 1954).

    Examples
    --------
    >>> static_is_stable(1.0, 4, 3.9), static_is_stable(1.0, 4, 4.0)
    (True, False)
    """
    return rate_rps * mean_batch_time_s < batch_size


def inoue_bound_s(rate_rps: float, per_request_s: float, base_s: float) -> float:
    """Bound the mean latency when all that wait are a batch of base + per_request·n seconds.

    Parameters
    ----------
    rate_rps : float
        Poisson arrivals per second.
    per_request_s, base_s : float
        Seconds of a batch for each request in it, and for any batch.

    Returns
    -------
    float
        Seconds from arrival to the end of the batch, at most; infinity where rate · per_request is
        1 or more.

    References
    ----------
    Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching", arXiv
    1912.06322 (2021): the smaller of its phi_0 and phi_1. `take_all_latency_s` is the exact value.

    Examples
    --------
    >>> [round(inoue_bound_s(rate, 0.02, 0.1), 4) for rate in (2, 10, 20, 40)]
    [0.1356, 0.2104, 0.2786, 0.8278]
    """
    load, spare = rate_rps * per_request_s, 1 - rate_rps * per_request_s
    if spare <= 0:
        return inf
    light = 1 + 2 * rate_rps * base_s + (1 - rate_rps * base_s) / (1 + load)
    phi_0 = (per_request_s + base_s) / (2 * spare) * light
    phi_1 = 1.5 * base_s / spare + per_request_s / 2 * (load + 2) / (1 - load**2)
    return min(phi_0, phi_1)


def take_all_latency_s(rate_rps: float, per_request_s: float, base_s: float) -> float:
    """Mean latency if all that wait are taken, exact, by the Markov chain of batch sizes.

    Parameters and result are those of `inoue_bound_s`. The next batch is as many as arrive during
    this one (or the one that ends an empty wait); requests wait half a batch on average, and then
    as long as their own.

    Examples
    --------
    >>> [round(take_all_latency_s(rate, 0.02, 0.1), 4) for rate in (2, 10, 20, 40)]
    [0.1353, 0.198, 0.2772, 0.8278]
    """
    if rate_rps * per_request_s >= 1:
        return inf
    sizes, share = _batch_sizes(rate_rps, per_request_s, base_s)
    batch_s = base_s + per_request_s * sizes
    return float(share @ (rate_rps * batch_s**2 / 2 + sizes * batch_s) / (share @ sizes))


def _batch_sizes(
    rate_rps: float, per_request_s: float, base_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Batch sizes and their shares; Poisson tails are cut beyond 12 standard deviations."""
    from scipy.stats import poisson

    load = rate_rps * per_request_s
    centre = max(1.0, rate_rps * base_s / (1 - load))
    sizes = np.arange(1, int(centre + 12 * np.sqrt(centre / (1 - load**2)) + 30))
    arrivals = rate_rps * (base_s + per_request_s * sizes)
    step = np.asarray(poisson.pmf(sizes[None, :], arrivals[:, None]))
    step[:, 0] += np.exp(-arrivals)  # none came: the next arrival is served alone
    step /= step.sum(axis=1, keepdims=True)
    balance = np.vstack([step.T - np.eye(len(sizes)), np.ones(len(sizes))])
    share, *_ = np.linalg.lstsq(balance, np.append(np.zeros(len(sizes)), 1.0), rcond=None)
    return sizes, share


def multi_bin_max(low: float, high: float, num_bins: int, batch_size: int) -> float:
    """Mean of the longest length in a batch; lengths uniform on low..high, in equal bins.

    Parameters
    ----------
    low, high : float
        The range of lengths, in tokens (as a continuum).
    num_bins : int
        Bins of equal width; a batch holds requests of one bin.
    batch_size : int
        Requests a batch.

    Returns
    -------
    float
        Tokens; the mean length as `num_bins` grows.

    References
    ----------
    Guldogan et al., "Multi-bin batching for increasing LLM inference throughput", arXiv 2412.04504.

    Examples
    --------
    >>> [round(multi_bin_max(0, 128, bins, 7), 1) for bins in (1, 2, 8, 1024)]
    [112.0, 88.0, 70.0, 64.0]
    """
    width = (high - low) / num_bins
    return low + width * ((num_bins - 1) / 2 + batch_size / (batch_size + 1))
