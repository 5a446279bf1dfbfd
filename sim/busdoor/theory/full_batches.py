"""Static batches that leave only full: a batch queue taking exactly so many at a time."""

from __future__ import annotations

from math import inf

import numpy as np

from busdoor.core.arrays import Floats

DIGITS = 36.0  # natural logarithm of what a double resolves, 2e-16: where the series is cut


def fixed_batch_wait_s(
    rate_rps: float, batch_size: int, service_s: Floats, probability: Floats
) -> float:
    """Mean wait of full batches before one server of `batch_size` Poisson arrivals (E_b/G/1).

    It is counted from the arrival of a batch's last request; `fill_wait_s` is what its requests
    wait before that.

    Parameters
    ----------
    rate_rps : float
        Requests (not batches) per second.
    batch_size : int
        Requests that make a batch.
    service_s, probability : array of float, shape (n,)
        The law of a batch's service time: its values in seconds, and their probabilities.

    Returns
    -------
    float
        Seconds; infinity when `rate_rps` times the mean service time is `batch_size` or more.

    Notes
    -----
    Let V be how many are left in the queue when a batch starts. The next leaves V' = max(0, V + A -
    b), A arriving in a service. A departing batch leaves V + A behind, all of whom came after its
    own last request: so, arrivals being Poisson, E[V + A] = rate · E[wait + service], and E[wait] =
    E[V] / rate.

    References
    ----------
    Bailey (1954) and Downton (1955), J. Royal Statistical Society B 16 and 17; Spitzer (1956),
    Trans. AMS 82.

    Examples
    --------
    With one request a batch it is Pollaczek-Khinchine; halves of 0.5 and 1.5 s have CV 0.5.

    >>> from busdoor.theory import mg1_wait_s
    >>> service_s, probability = np.array([0.5, 1.5]), np.array([0.5, 0.5])
    >>> round(fixed_batch_wait_s(0.8, 1, service_s, probability), 6), round(mg1_wait_s(0.8, 1.0, 0.5), 6)
    (2.5, 2.5)
    """
    mean = rate_rps * float(probability @ service_s)
    if mean >= batch_size:
        return inf
    return _reflected_walk_mean(_arrivals(rate_rps * service_s, probability), batch_size) / rate_rps


def _arrivals(mean_arrivals: Floats, probability: Floats) -> Floats:
    """Probabilities of 0, 1, 2 ... Poisson arrivals, cut 12 standard deviations above."""
    from scipy.stats import poisson

    most = float(mean_arrivals.max())
    counts = np.arange(int(most + 12 * most**0.5 + 12))
    return np.asarray(
        probability @ poisson.pmf(counts[None, :], mean_arrivals[:, None]), dtype=np.float64
    )


def _reflected_walk_mean(arrivals: Floats, served: int) -> float:
    """Compute the mean of V, V' = max(0, V + A - served), from A's law by Spitzer's identity.

    It is the sum over k of E[max(0, S_k)] / k, S_k being the walk: the coefficient of z^m in -log(1
    - E[z^(A - b)]) counts m times. The series is taken on the circle where |E[z^(A - b)]| is least,
    so that it converges fastest.
    """
    from scipy.optimize import minimize_scalar

    counts = np.arange(len(arrivals))
    radius = float(
        minimize_scalar(
            lambda r: arrivals @ r ** (counts - served), bounds=(1.0, 2.0), method="bounded"
        ).x
    )
    points = 1 << int(np.ceil(np.log2(max(len(arrivals), 2 * DIGITS / np.log(radius)))))
    turns = np.exp(2j * np.pi * served * np.arange(points) / points)
    transform = np.fft.fft(arrivals * radius ** (counts - served), points) * turns
    powers = np.arange(points // 2)
    coefficients = -np.fft.ifft(np.log(1 - transform)).real[
        : points // 2
    ] * radius ** -powers.astype(float)
    return max(0.0, float(powers @ coefficients))
