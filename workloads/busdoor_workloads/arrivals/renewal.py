"""Arrivals with independent gaps: burst, constant, Poisson, gamma, Weibull."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import lru_cache
from math import gamma, sqrt
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field

from busdoor_workloads.arrivals.base import Arrivals
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import Positive, Rate, config

# The range in which a Weibull shape is looked for: coefficients of variation from 0.013 to 429 (at
# 0.1), far outside what traces show; BLIS takes 0.01 to 10.4.
_WEIBULL_SHAPES = (0.1, 100.0)


@config
class Burst(Arrivals):
    """Everything arrives at once, at time 0; `--request-rate inf`.

    Examples
    --------
    >>> Burst().times(3, np.random.default_rng(0))
    array([0., 0., 0.])
    """

    process: ClassVar[str] = "burst"

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw the first `n` arrival times, in seconds from 0, not decreasing, shape (n,)."""
        return np.zeros(n)

    def at_rate(self, request_rate: float) -> Arrivals:
        """Return Poisson arrivals: a burst has no gaps to scale."""
        return Poisson(request_rate=request_rate)


@config
class Renewal(Arrivals):
    """Independent gaps of mean 1 / `request_rate`; the first request comes after the first gap.

    Parameters
    ----------
    request_rate : float
        Requests per second; infinity is a burst.
    normalize_duration : bool
        Scale every gap so that the last of n arrivals is exactly at n / request_rate, as vLLM's
        client does. Off by default, since it removes the variance of the count.
    """

    request_rate: Rate
    normalize_duration: bool = False

    @abstractmethod
    def unit_gaps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` gaps of mean 1, shape (n,)."""

    @property
    def gap_cv(self) -> float:
        """Standard deviation of a gap over its mean."""
        raise NotImplementedError

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw the first `n` arrival times, in seconds from 0, not decreasing, shape (n,)."""
        arrival = np.cumsum(self.unit_gaps(n, rng))
        if self.normalize_duration and n and arrival[-1] > 0:
            arrival *= n / arrival[-1]
        return arrival / self.request_rate

    def at_rate(self, request_rate: float) -> Self:
        """Return the same kind of process at `request_rate` requests per second on average."""
        return replace(self, request_rate=request_rate)


@config
class Constant(Renewal):
    """Equal gaps.

    Examples
    --------
    >>> Constant(request_rate=4).times(3, np.random.default_rng(0))
    array([0.25, 0.5 , 0.75])
    """

    process: ClassVar[str] = "constant"

    def unit_gaps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` gaps of mean 1, shape (n,)."""
        return np.ones(n)

    @property
    def gap_cv(self) -> float:
        """Standard deviation of a gap over its mean."""
        return 0.0


@config
class Poisson(Renewal):
    """Exponential gaps, never truncated.

    Examples
    --------
    >>> Poisson(request_rate=2).at_rate(8).request_rate
    8.0
    """

    process: ClassVar[str] = "poisson"

    def unit_gaps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` gaps of mean 1, shape (n,)."""
        return rng.exponential(size=n)

    def expected(self, until_s: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return times from 0 to `until_s`, and the arrivals expected by each."""
        if self.normalize_duration or not np.isfinite(self.request_rate):
            return super().expected(until_s, rng)
        seconds = np.array([0.0, until_s])
        return seconds, seconds * self.request_rate

    @property
    def gap_cv(self) -> float:
        """Standard deviation of a gap over its mean."""
        return 1.0


@config
class GammaArrivals(Renewal):
    """Gamma gaps.

    Parameters
    ----------
    burstiness : float
        Their shape k, as in vLLM: 1 is Poisson, less is burstier; the gaps' CV is 1 / sqrt(k).
    cv : float
        That coefficient of variation instead.

    Examples
    --------
    >>> GammaArrivals(request_rate=4, burstiness=0.25).gap_cv
    2.0
    """

    process: ClassVar[str] = "gamma"
    burstiness: Positive | None = None
    cv: Positive | None = None

    def __post_init__(self) -> None:
        if (self.burstiness is None) == (self.cv is None):
            raise ValueError(
                "give gamma arrivals either burstiness (the shape k) or cv, which is 1 / sqrt(k)"
            )

    @property
    def gap_cv(self) -> float:
        """Standard deviation of a gap over its mean."""
        return self.cv if self.cv is not None else 1 / sqrt(self.burstiness or 1.0)

    def unit_gaps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` gaps of mean 1, shape (n,)."""
        shape = 1 / self.gap_cv**2
        return rng.gamma(shape, 1 / shape, n)


@config
class WeibullArrivals(Renewal):
    """Weibull gaps.

    Parameters
    ----------
    cv : float
        Their coefficient of variation, from which the shape follows.

    Examples
    --------
    >>> [round(WeibullArrivals(request_rate=1, cv=cv).shape, 3) for cv in (0.5, 1, 2, 4, 8)]
    [2.101, 1.0, 0.543, 0.349, 0.254]
    """

    process: ClassVar[str] = "weibull"
    cv: Annotated[float, Field(ge=0.02, le=100)]

    @property
    def shape(self) -> float:
        """The Weibull law's shape."""
        return weibull_shape(self.cv)

    @property
    def gap_cv(self) -> float:
        """Standard deviation of a gap over its mean."""
        return self.cv

    def unit_gaps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` gaps of mean 1, shape (n,)."""
        return rng.weibull(self.shape, n) / gamma(1 + 1 / self.shape)


@lru_cache(maxsize=64)
def weibull_shape(cv: float) -> float:
    """Return the shape of the Weibull law whose coefficient of variation is `cv`.

    >>> round(weibull_shape(2.0), 3)
    0.543
    """
    from scipy.optimize import brentq
    from scipy.special import gammaln

    def error(shape: float) -> float:
        return float(gammaln(1 + 2 / shape) - 2 * gammaln(1 + 1 / shape) - np.log1p(cv**2))

    return float(brentq(error, *_WEIBULL_SHAPES))
