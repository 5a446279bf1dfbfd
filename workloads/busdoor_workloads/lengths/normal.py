"""The normal and the lognormal law."""

from __future__ import annotations

from math import log, sqrt
from typing import ClassVar

import numpy as np

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import Positive, config
from busdoor_workloads.lengths.base import Continuous

# The standard normal's 99th percentile, Phi^-1(0.99).
_Z99 = 2.3263478740408408


@config
class Normal(Continuous):
    """A normal law; cut at 1 unless `min` is given.

    Parameters
    ----------
    mean : float
        Of the uncut law, in tokens.
    std : float
        Standard deviation of the uncut law, in tokens. llmperf draws again what is not positive:
        ``truncate="reject"``.

    Examples
    --------
    >>> round(Normal(mean=550, std=150, truncate="reject").mean_tokens, 1)
    550.1
    """

    type: ClassVar[str] = "normal"
    mean: float
    std: Positive

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return rng.normal(self.mean, self.std, n)

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        return _normal_tail((x - self.mean) / self.std)


@config
class LogNormal(Continuous):
    """A lognormal law, given by one of three pairs.

    Parameters
    ----------
    mu : float
        Mean of the logarithm.
    sigma : float
        Standard deviation of the logarithm.
    mean : float
        In tokens; larger than the median.
    median : float
        In tokens.
    p50 : float
        Median, in tokens.
    p99 : float
        99th percentile, in tokens.

    Examples
    --------
    >>> LogNormal(p50=200, p99=1500).quantile([0.5, 0.99])
    array([ 200, 1500])
    >>> round(LogNormal(mean=300, median=200).mean_tokens)
    300
    """

    type: ClassVar[str] = "lognormal"
    mu: float | None = None
    sigma: Positive | None = None
    mean: Positive | None = None
    median: Positive | None = None
    p50: Positive | None = None
    p99: Positive | None = None

    def __post_init__(self) -> None:
        self.parameters  # noqa: B018  (checks them)
        super().__post_init__()

    @property
    def parameters(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm."""
        pairs = {
            ("mu", "sigma"): _as_is,
            ("mean", "median"): _from_mean,
            ("p50", "p99"): _from_percentiles,
        }
        given = [name for pair in pairs for name in pair if getattr(self, name) is not None]
        if tuple(given) not in pairs:
            raise ValueError(
                f"give mu and sigma, or mean and median, or p50 and p99; given is {given or 'none'}"
            )
        first, second = (getattr(self, name) for name in given)
        return pairs[given[0], given[1]](first, second)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return rng.lognormal(*self.parameters, n)

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        mu, sigma = self.parameters
        positive = np.maximum(x, np.finfo(float).tiny)
        return np.where(x > 0, _normal_tail((np.log(positive) - mu) / sigma), 1.0)


def _normal_tail(z: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(ndtr(-z))


def _as_is(mu: float, sigma: float) -> tuple[float, float]:
    return mu, sigma


def _from_mean(mean: float, median: float) -> tuple[float, float]:
    if not mean > median:
        raise ValueError(
            f"mean is {mean} and median {median}; a lognormal law's mean is the larger one"
        )
    return log(median), sqrt(2 * log(mean / median))


def _from_percentiles(p50: float, p99: float) -> tuple[float, float]:
    if not p99 > p50:
        raise ValueError(f"p99 is {p99} and p50 {p50}; p99 must be the larger one")
    return log(p50), log(p99 / p50) / _Z99
