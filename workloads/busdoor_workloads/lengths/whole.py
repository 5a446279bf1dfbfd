"""Families of whole numbers: fixed, uniform, the range-ratio flag, geometric."""

from __future__ import annotations

from math import ceil, floor
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.config import Share, Tokens, config
from busdoor_workloads.lengths.base import MAX_TOKENS, Lengths


@config
class Fixed(Lengths):
    """Always the same length.

    Parameters
    ----------
    tokens : int
        The length.
    """

    type: ClassVar[str] = "fixed"
    tokens: Tokens

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return self.tokens

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""
        return np.full(n, self.tokens, dtype=np.int64)

    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""
        return np.where(np.asarray(k) < self.tokens, 1.0, 0.0)


class _Range(Lengths):
    """Whole numbers, equally likely, between the two ends of `bounds`."""

    @property
    def bounds(self) -> tuple[int, int]:
        """Shortest and longest length, in tokens, both included."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return self.bounds[1]

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""
        return rng.integers(*self.bounds, size=n, endpoint=True)

    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""
        low, high = self.bounds
        return np.clip((high - np.asarray(k, dtype=float)) / (high - low + 1), 0.0, 1.0)


@config
class Uniform(_Range):
    """Whole numbers from `low` to `high`, both included.

    Parameters
    ----------
    low : int
        Shortest, in tokens.
    high : int
        Longest, in tokens.

    Examples
    --------
    >>> Uniform(low=32, high=512).mean_tokens
    272.0
    """

    type: ClassVar[str] = "uniform"
    low: Tokens
    high: Tokens

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, which is more than high, {self.high}")

    @property
    def bounds(self) -> tuple[int, int]:
        """Shortest and longest length, in tokens, both included."""
        return self.low, self.high


@config
class RangeRatio(_Range):
    """The `--random-range-ratio` of two benchmarks, whose meanings are opposite.

    Parameters
    ----------
    tokens : int
        The nominal length L.
    range_ratio : float
        r.
    range_ratio_mode : {"vllm", "sglang"}
        vllm: uniform on L(1 - r)..L(1 + r), r below 1, 0 is fixed. sglang (and older vLLM clients):
        uniform on L r..L, 1 is fixed.

    Examples
    --------
    >>> [RangeRatio(tokens=1000, range_ratio=0.8, range_ratio_mode=m).bounds for m in ("vllm", "sglang")]
    [(200, 1800), (800, 1000)]
    """

    type: ClassVar[str] = "range_ratio"
    tokens: Tokens
    range_ratio: Share
    range_ratio_mode: Literal["vllm", "sglang"]

    def __post_init__(self) -> None:
        if self.range_ratio_mode == "vllm" and self.range_ratio == 1:
            raise ValueError(
                "range_ratio is 1; vLLM takes 0 up to, not including, 1 (sglang's 1 is vLLM's 0)"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """Shortest and longest length, in tokens, both included."""
        if self.range_ratio_mode == "sglang":
            return max(1, floor(self.tokens * self.range_ratio)), self.tokens
        spread = self.tokens * self.range_ratio
        return max(1, floor(self.tokens - spread)), ceil(self.tokens + spread)


@config
class Geometric(Lengths):
    """A geometric law on 1, 2, ...: the stop token has the same chance after every token.

    Parameters
    ----------
    mean : float
        In tokens, at least 1.
    max : int
        Longer draws become this.

    Examples
    --------
    >>> round(Geometric(mean=128).mean_tokens, 3)
    128.0
    """

    type: ClassVar[str] = "geometric"
    mean: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    max: Tokens = MAX_TOKENS

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return self.max

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""
        return np.minimum(rng.geometric(1 / self.mean, n), self.max)

    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""
        k = np.asarray(k, dtype=float)
        return np.where(k >= self.max, 0.0, (1 - 1 / self.mean) ** np.maximum(k, 0.0))
