"""Laws given point by point: Zipf, an empirical histogram, a table of quantiles."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.config import NonNegative, Share, Tokens, config
from busdoor_workloads.given import check_quantiles
from busdoor_workloads.lengths.base import Continuous, Lengths


class _Table(Lengths):
    """A finite list of lengths and their probabilities."""

    @property
    def table(self) -> tuple[IntArray, FloatArray]:
        """Lengths in increasing order, and the probability of each."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return int(self.table[0][-1])

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""
        lengths, probability = self.table
        cumulative = np.cumsum(probability)
        # Division by the sum keeps a draw near 1 inside the table despite rounding.
        return lengths[np.searchsorted(cumulative / cumulative[-1], rng.random(n), side="right")]

    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""
        lengths, probability = self.table
        above = np.append(np.cumsum(probability[::-1])[::-1], 0.0) / probability.sum()
        return np.asarray(above[np.searchsorted(lengths, np.asarray(k), side="right")])


@config
class Zipf(_Table):
    """Zipf's law on `min`..`max`: P(k) is proportional to k^-theta.

    Parameters
    ----------
    theta : float
        The exponent (Vidur's default is 0.6).
    min : int
        Shortest length, in tokens.
    max : int
        Longest length, in tokens.

    Examples
    --------
    >>> round(Zipf(theta=1, max=3).survival(1).item(), 4)      # (1/2 + 1/3) / (1 + 1/2 + 1/3)
    0.4545
    """

    type: ClassVar[str] = "zipf"
    theta: NonNegative
    max: Annotated[int, Field(ge=1, le=10_000_000)]  # the table is held in memory
    min: Tokens = 1

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, which is more than max, {self.max}")

    @property
    def table(self) -> tuple[IntArray, FloatArray]:
        """Lengths in increasing order, and the probability of each."""
        lengths = np.arange(self.min, self.max + 1, dtype=np.int64)
        weights = lengths.astype(float) ** -self.theta
        return lengths, weights / weights.sum()


@config
class Histogram(_Table):
    """An empirical histogram.

    Parameters
    ----------
    values : tuple of int
        Lengths, in tokens.
    weights : tuple of float
        Their counts or probabilities, in any unit; equal ones if left out.

    Examples
    --------
    >>> Histogram(values=(10, 20, 50, 100)).mean_tokens
    45.0
    """

    type: ClassVar[str] = "histogram"
    values: Annotated[tuple[Tokens, ...], Field(min_length=1)]
    weights: tuple[NonNegative, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and len(self.weights) != len(self.values):
            raise ValueError(f"{len(self.weights)} weights do not fit {len(self.values)} values")
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights are all 0; at least one must be more")

    @property
    def table(self) -> tuple[IntArray, FloatArray]:
        """Lengths in increasing order, and the probability of each."""
        lengths, place = np.unique(np.array(self.values, dtype=np.int64), return_inverse=True)
        weights = np.bincount(place, self.weights, minlength=len(lengths)).astype(float)
        return lengths, weights / weights.sum()


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
        check_quantiles("values", self.values, self.probabilities)
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
