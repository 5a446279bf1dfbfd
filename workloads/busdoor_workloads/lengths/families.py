"""Continuous families: normal, lognormal, exponential, gamma, Weibull, Pareto, and a table of quantiles."""

from __future__ import annotations

from math import log, sqrt
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from busdoor_workloads.config import Positive, Share, Tokens, config
from busdoor_workloads.lengths.base import Continuous
from busdoor_workloads.trace import FloatArray

# The standard normal's 99th percentile, Phi^-1(0.99).
_Z99 = 2.3263478740408408


@config
class Normal(Continuous):
    """A normal law; cut at 1 unless `min` says otherwise.

    Parameters
    ----------
    mean, std : float
        Of the uncut law, in tokens. llmperf draws again what is not positive: ``truncate="reject"``.

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
    mu, sigma : float
        Mean and standard deviation of the logarithm.
    mean, median : float
        In tokens; the mean is the larger one.
    p50, p99 : float
        Percentiles, in tokens.

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
        self.parameters  # noqa: B018  (says what is wrong with them)
        super().__post_init__()

    @property
    def parameters(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm."""
        pairs = {("mu", "sigma"): _as_is, ("mean", "median"): _from_mean, ("p50", "p99"): _from_percentiles}
        given = [name for pair in pairs for name in pair if getattr(self, name) is not None]
        if tuple(given) not in pairs:
            raise ValueError(f"give mu and sigma, or mean and median, or p50 and p99; given is {given or 'none'}")
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


@config
class Exponential(Continuous):
    """An exponential law.

    Parameters
    ----------
    mean : float
        Of the uncut law, in tokens.

    Examples
    --------
    >>> round(Exponential(mean=128).static_efficiency(8), 3)      # 1 / (1 + 1/2 + ... + 1/8) is 0.368
    0.368
    """

    type: ClassVar[str] = "exponential"
    mean: Positive

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return rng.exponential(self.mean, n)

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        return np.exp(-np.maximum(x, 0.0) / self.mean)


@config
class TruncatedExponential(Exponential):
    """An exponential law cut at `max`, where `truncate` must be said: it changes the mean a lot.

    Parameters
    ----------
    mean : float
        Of the uncut law, in tokens.
    max : int
        The cap, in tokens.
    truncate : {"clip", "reject"}
        Draws above the cap become the cap, or are drawn again (as Anyscale's benchmark does).

    Examples
    --------
    >>> [round(TruncatedExponential(mean=128, max=128, truncate=t).mean_tokens, 1) for t in ("reject", "clip")]
    [53.5, 80.9]
    """

    type: ClassVar[str] = "truncated_exponential"
    max: Tokens
    truncate: Literal["clip", "reject"]


@config
class Gamma(Continuous):
    """A gamma law.

    Parameters
    ----------
    mean : float
        Of the uncut law, in tokens.
    spread : float
        Its coefficient of variation, standard deviation over mean; the shape is 1 / spread^2.

    Examples
    --------
    >>> lengths = Gamma(mean=343, spread=0.73)
    >>> round(lengths.mean_tokens), round(lengths.cv, 2)
    (343, 0.73)
    """

    type: ClassVar[str] = "gamma"
    mean: Positive
    spread: Positive

    @property
    def shape(self) -> float:
        """The gamma law's shape."""
        return 1 / self.spread**2

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return rng.gamma(self.shape, self.mean / self.shape, n)

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        from scipy.special import gammaincc

        return np.asarray(gammaincc(self.shape, np.maximum(x, 0.0) * self.shape / self.mean))


@config
class Weibull(Continuous):
    """A Weibull law.

    Parameters
    ----------
    shape : float
        1 is exponential, less is heavier tailed.
    scale : float
        The 63rd percentile, in tokens.

    Examples
    --------
    >>> Weibull(shape=0.98, scale=2038, max=7437).quantile(0.5).item()
    1402
    """

    type: ClassVar[str] = "weibull"
    shape: Positive
    scale: Positive

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return self.scale * rng.weibull(self.shape, n)

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        return np.exp(-((np.maximum(x, 0.0) / self.scale) ** self.shape))


@config
class Pareto(Continuous):
    """A Pareto law: P(X > x) = (scale / x)^alpha above `scale`.

    Parameters
    ----------
    alpha : float
        The tail's exponent; below 1 the uncut mean is infinite.
    scale : float
        The shortest length, in tokens.

    Examples
    --------
    >>> Pareto(alpha=2, scale=100).quantile(0.75).item()
    200
    """

    type: ClassVar[str] = "pareto"
    alpha: Positive
    scale: Positive

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return self.scale * (1 + rng.pareto(self.alpha, n))

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        return (self.scale / np.maximum(x, self.scale)) ** self.alpha


@config
class Quantiles(Continuous):
    """A law known by its quantiles, straight lines between them.

    Parameters
    ----------
    probabilities : tuple of float
        From 0 to 1, increasing.
    values : tuple of float
        The quantiles, in tokens, not decreasing; equal neighbours are an atom.

    Examples
    --------
    >>> table = Quantiles(probabilities=(0, 0.5, 1), values=(1, 100, 1000))
    >>> table.quantile([0.5, 0.75])
    array([100, 550])
    """

    type: ClassVar[str] = "quantiles"
    probabilities: Annotated[tuple[Share, ...], Field(min_length=2)]
    values: Annotated[tuple[float, ...], Field(min_length=2)]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.probabilities):
            raise ValueError(f"{len(self.values)} values do not fit {len(self.probabilities)} probabilities")
        if self.probabilities[0] != 0 or self.probabilities[-1] != 1 or min(np.diff(self.probabilities)) <= 0:
            raise ValueError(f"probabilities must increase from 0 to 1; they are {self.probabilities}")
        if min(np.diff(self.values)) < 0:
            raise ValueError(f"values must not decrease; they are {self.values}")
        super().__post_init__()

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return min(self.max, max(self.min, round(self.values[-1])))

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""
        return self.at(rng.random(n))

    def at(self, probability: FloatArray) -> FloatArray:
        """Return the quantiles at these probabilities, unrounded and uncut."""
        return np.interp(probability, self.probabilities, self.values)

    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""
        return 1.0 - np.interp(x, self.values, self.probabilities, left=0.0, right=1.0)


def _normal_tail(z: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(ndtr(-z))


def _as_is(mu: float, sigma: float) -> tuple[float, float]:
    return mu, sigma


def _from_mean(mean: float, median: float) -> tuple[float, float]:
    if not mean > median:
        raise ValueError(f"mean is {mean} and median {median}; a lognormal law's mean is the larger one")
    return log(median), sqrt(2 * log(mean / median))


def _from_percentiles(p50: float, p99: float) -> tuple[float, float]:
    if not p99 > p50:
        raise ValueError(f"p99 is {p99} and p50 {p50}; p99 must be the larger one")
    return log(p50), log(p99 / p50) / _Z99
