"""Continuous families: exponential, gamma, Weibull, Pareto."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import Positive, Tokens, config
from busdoor_workloads.lengths.base import Continuous


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
    """An exponential law cut at `max`; `truncate` is required, since it changes the mean a lot.

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
    max: Tokens = Field()  # without a default, unlike the base class's
    truncate: Literal["clip", "reject"] = Field()


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
