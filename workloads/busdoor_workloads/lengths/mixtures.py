"""Laws made of others: mixtures, two peaks, a lognormal body with a Pareto tail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.config import NonNegative, Positive, Share, config
from busdoor_workloads.lengths.base import AnyLengths, Lengths
from busdoor_workloads.lengths.families import Pareto
from busdoor_workloads.lengths.normal import LogNormal


class _Mixed(Lengths):
    """Each length comes from one of `parts`, chosen with the probability beside it."""

    @property
    def parts(self) -> list[tuple[float, Lengths]]:
        """Probability and law of each component."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """No sample is longer, in tokens."""
        return max(part.longest for _, part in self.parts)

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw `n` lengths, shape (n,), in tokens."""
        return self._drawn(n, rng, lambda part, rows: part.sample(rows, rng)).astype(np.int64)

    def seconds(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` durations (s) from the same law, not rounded or cut (below 0 becomes 0)."""
        return self._drawn(n, rng, lambda part, rows: part.seconds(rows, rng))

    def survival(self, k: ArrayLike) -> FloatArray:
        """Return P(length > k) for whole numbers k, in the shape of k."""
        return np.asarray(sum(share * part.survival(k) for share, part in self.parts))

    def _drawn(
        self,
        n: int,
        rng: np.random.Generator,
        draw: Callable[[Lengths, int], IntArray | FloatArray],
    ) -> FloatArray:
        which = rng.choice(len(self.parts), size=n, p=[share for share, _ in self.parts])
        drawn = np.empty(n)
        for index, (_, part) in enumerate(self.parts):
            rows = np.flatnonzero(which == index)
            drawn[rows] = draw(part, rows.size)
        return drawn


@config
class Mixture(_Mixed):
    """A mixture of any laws.

    Parameters
    ----------
    components : list of Lengths or tables
        In a configuration file each may carry its `weight`.
    weights : tuple of float
        Their shares, in any unit; equal ones if left out.

    Examples
    --------
    >>> Mixture(components=[{"weight": 3, "type": "fixed", "tokens": 10}, {"weight": 1, "type": "fixed", "tokens": 50}]
    ...         ).mean_tokens
    20.0
    """

    type: ClassVar[str] = "mixture"
    components: Annotated[tuple[AnyLengths, ...], Field(min_length=1)]
    weights: tuple[NonNegative, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_weights(cls, given: Any) -> Any:
        keys = dict(given.kwargs or {})
        tables = keys.get("components", ())
        if not any(isinstance(table, Mapping) and "weight" in table for table in tables):
            return given
        if "weights" in keys or not all(
            isinstance(table, Mapping) and "weight" in table for table in tables
        ):
            raise ValueError("give every component its weight, or all of them as weights")
        keys["weights"] = [table["weight"] for table in tables]
        keys["components"] = [{k: v for k, v in table.items() if k != "weight"} for table in tables]
        return keys

    def __post_init__(self) -> None:
        if self.weights is not None and len(self.weights) != len(self.components):
            raise ValueError(
                f"{len(self.weights)} weights do not fit {len(self.components)} components"
            )
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights are all 0; at least one must be more")

    @property
    def parts(self) -> list[tuple[float, Lengths]]:
        """Probability and law of each component."""
        weights = self.weights or (1.0,) * len(self.components)
        return [
            (weight / sum(weights), part)
            for weight, part in zip(weights, self.components, strict=True)
        ]


@config
class Bimodal(_Mixed):
    """Two peaks: short answers and long ones.

    Parameters
    ----------
    short : Lengths or table
        The law of the short ones.
    long : Lengths or table
        The law of the long ones.
    long_share : float
        The long one's probability.

    Examples
    --------
    >>> Bimodal(short=100, long={"type": "normal", "mean": 400, "std": 40}, long_share=0.25).quantile([0.5, 0.9])
    array([100, 410])
    """

    type: ClassVar[str] = "bimodal"
    short: AnyLengths
    long: AnyLengths
    long_share: Share

    @property
    def parts(self) -> list[tuple[float, Lengths]]:
        """Probability and law of each component."""
        return [(1 - self.long_share, self.short), (self.long_share, self.long)]


@config
class ParetoLogNormal(_Mixed):
    """A lognormal body with a Pareto tail, as ServeGen finds prompts to be (arXiv 2505.09999).

    Parameters
    ----------
    mu : float
        Mean of the body's logarithm.
    sigma : float
        Standard deviation of the body's logarithm.
    alpha : float
        The tail's exponent.
    scale : float
        The tail's shortest length, in tokens.
    pareto_share : float
        The tail's probability.
    max : int
        Longer draws become this.

    Examples
    --------
    >>> ParetoLogNormal(mu=6, sigma=1, alpha=1.5, scale=2000, pareto_share=0.1, max=131072).quantile([0.5, 0.99])
    array([ 464, 9715])
    """

    type: ClassVar[str] = "pareto_lognormal"
    mu: float
    sigma: Positive
    alpha: Positive
    scale: Positive
    pareto_share: Share
    max: Annotated[int, Field(ge=1)]

    @property
    def parts(self) -> list[tuple[float, Lengths]]:
        """Probability and law of each component."""
        body = LogNormal(mu=self.mu, sigma=self.sigma, max=self.max)
        return [
            (1 - self.pareto_share, body),
            (self.pareto_share, Pareto(alpha=self.alpha, scale=self.scale, max=self.max)),
        ]
