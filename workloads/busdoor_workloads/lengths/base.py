"""The base class of length distributions: samples, and the exact law in whole tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import PlainValidator

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.config import Tokens, config, pick

# No prompt is longer; it bounds every sum and keeps every sample inside int64 and TOML.
MAX_TOKENS = 2**31 - 1
# Below this a sum over lengths takes every length, above it a grid of this ratio (trapezium error
# about 1e-7).
_EXACT_BELOW = 2**16
_GRID_RATIO = 1.001
# With this many draws per sample, rejection is surely a mistake.
_LEAST_ACCEPTED = 1e-3


class Lengths(ABC):
    """A distribution of token counts, whole numbers of at least 1.

    Subclasses have a name `type` for configuration files, and define `sample`, `survival` and
    `longest`; the rest follows from these.
    """

    type: ClassVar[str]

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""

    @abstractmethod
    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """No sample is longer, in tokens."""

    def cdf(self, k: ArrayLike) -> FloatArray:
        """Return P(length <= k) for whole numbers k, in the shape of k."""
        return 1.0 - self.survival(k)

    @property
    def mean_tokens(self) -> float:
        """Expected length, in tokens, of what `sample` returns (cut and rounded)."""
        return self._total(lambda survival: survival)

    @property
    def cv(self) -> float:
        """Standard deviation over mean."""
        lengths, weights = _grid(self.longest)
        second = float(np.sum(weights * (2 * lengths + 1) * self.survival(lengths)))
        return float(np.sqrt(max(0.0, second / self.mean_tokens**2 - 1)))

    def expected_max(self, batch_size: int) -> float:
        """Return the expected longest of `batch_size` lengths, in tokens: sum over k of 1 - F(k)^b.

        Parameters
        ----------
        batch_size : int
            Number of independent lengths, at least 1.

        Examples
        --------
        >>> from busdoor_workloads.lengths import Geometric
        >>> round(Geometric(mean=128).expected_max(8), 1)
        347.0
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        with np.errstate(divide="ignore"):  # survival 1 is log 0, whose exponential is the right 0
            return self._total(
                lambda survival: -np.expm1(batch_size * np.log1p(-np.minimum(survival, 1.0)))
            )

    def static_efficiency(self, batch_size: int) -> float:
        """Return static decode slot-steps' share with wanted tokens: E[N] / E[max of b].

        Examples
        --------
        >>> from busdoor_workloads.lengths import Uniform
        >>> round(Uniform(low=1, high=128).static_efficiency(16), 3)
        0.533
        """
        return self.mean_tokens / self.expected_max(batch_size)

    def quantile(self, q: ArrayLike) -> IntArray:
        """Return the smallest length k with P(length <= k) >= q, in the shape of q."""
        wanted = np.asarray(q, dtype=float)
        low, high = np.ones(wanted.shape, np.int64), np.full(wanted.shape, self.longest, np.int64)
        while np.any(low < high):
            middle = (low + high) // 2
            reached = self.cdf(middle) >= wanted
            low = np.where(reached, low, np.minimum(middle + 1, high))
            high = np.where(reached, middle, high)
        return low

    def seconds(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` durations (s) from the same law, not rounded or cut (below 0 becomes 0)."""
        return self.sample(n, rng).astype(float)

    def _total(self, function: Callable[[FloatArray], FloatArray]) -> float:
        lengths, weights = _grid(self.longest)
        return float(np.sum(weights * function(self.survival(lengths))))


@config
class Continuous(Lengths):
    """A continuous law, rounded to the nearest token and cut to `min`..`max`.

    Parameters
    ----------
    min : int
        Shortest length, in tokens.
    max : int
        Longest length, in tokens.
    truncate : {"clip", "reject"}
        Treatment of a draw above `max` or below `min`: it becomes the bound, or is drawn again.
        Rejection tests the draw before rounding and keeps those in (min - 1, max].
    """

    min: Tokens = 1
    max: Tokens = MAX_TOKENS
    truncate: Literal["clip", "reject"] = "clip"

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, which is more than max, {self.max}")
        if self.truncate == "reject" and (share := self._accepted()) < _LEAST_ACCEPTED:
            raise ValueError(
                f"only {share:.2g} of the draws lie in {self.min}..{self.max}; widen it or clip"
            )

    @abstractmethod
    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` real numbers of the law, uncut."""

    @abstractmethod
    def tail(self, x: FloatArray) -> FloatArray:
        """Return P(X > x) of the uncut law for real x."""

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return self.max

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""
        values = self.draw(n, rng)
        while (
            self.truncate == "reject"
            and (again := np.flatnonzero((values <= self.min - 1) | (values > self.max))).size
        ):
            values[again] = self.draw(again.size, rng)
        return np.rint(np.clip(values, self.min, self.max)).astype(np.int64)

    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""
        k = np.asarray(k, dtype=float)
        above = self.tail(k + 0.5)
        if self.truncate == "reject":
            above = (above - self.tail(np.array(float(self.max)))) / self._accepted()
        return np.where(k < self.min, 1.0, np.where(k >= self.max, 0.0, np.clip(above, 0.0, 1.0)))

    def seconds(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` durations (s) from the same law, not rounded or cut (below 0 becomes 0)."""
        return np.maximum(self.draw(n, rng), 0.0)

    def _accepted(self) -> float:
        low, high = self.tail(np.array([self.min - 1.0, float(self.max)]))
        return float(low - high)


def as_lengths(value: object) -> Lengths:
    """Return the distribution of a configuration's value: a number is a fixed length.

    Parameters
    ----------
    value : int, mapping or Lengths
        ``128`` or ``{"type": "lognormal", "p50": 200, "p99": 1500}``.

    Raises
    ------
    ValueError
        Unknown type or key, with the nearest known name; a value out of range.

    Examples
    --------
    >>> as_lengths(128).mean_tokens
    128.0
    >>> as_lengths({"type": "expnential", "mean": 128})
    Traceback (most recent call last):
        ...
    ValueError: lengths {'type': 'expnential', 'mean': 128} names the unknown type 'expnential'; did you mean
    'exponential'?
    """
    if isinstance(value, Lengths):
        return value
    table: Mapping[str, Any]
    if isinstance(value, Mapping):
        table = value
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        table = {"type": "fixed", "tokens": int(value)}
    else:
        raise ValueError(f"{value!r} is neither a number of tokens nor a table with a 'type'")
    return pick(Lengths, "type", table)  # type: ignore[type-abstract]


AnyLengths = Annotated[Lengths, PlainValidator(as_lengths)]


def _grid(longest: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Return lengths k < `longest` and weights that turn a sum over every k into one over these."""
    exact = min(longest, _EXACT_BELOW)
    if longest <= _EXACT_BELOW:
        return np.arange(exact), np.ones(exact)
    steps = int(np.ceil(np.log(longest / exact) / np.log(_GRID_RATIO)))
    edges = np.unique(np.rint(np.geomspace(exact, longest, steps + 1)).astype(np.int64))
    # Each stretch first..last of whole numbers counts half at either end.
    first, last = edges[:-1], edges[1:] - 1
    half = (last - first + 1) / 2
    return np.concatenate([np.arange(exact), first, last]), np.concatenate(
        [np.ones(exact), half, half]
    )
