"""Arrivals with independent gaps from a table."""

from __future__ import annotations

from functools import cached_property
from math import sqrt
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from busdoor_workloads.arrivals.renewal import Renewal
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import NonNegative, Share, config
from busdoor_workloads.given import check_quantiles


@config
class GapTable(Renewal):
    """Gaps from a table of quantiles, linear between them; profiles of bursty traces use it.

    Parameters
    ----------
    probabilities : tuple of float
        From 0 to 1, increasing.
    gaps_s : tuple of float
        The quantiles, in seconds, not decreasing. Only their proportions matter: `request_rate`
        sets the mean.

    Examples
    --------
    >>> table = GapTable(request_rate=1, probabilities=(0, 0.5, 1), gaps_s=(0, 0, 4))
    >>> round(table.gap_cv, 4)
    1.291
    """

    process: ClassVar[str] = "gap_table"
    probabilities: Annotated[tuple[Share, ...], Field(min_length=2)]
    gaps_s: Annotated[tuple[NonNegative, ...], Field(min_length=2)]

    def __post_init__(self) -> None:
        check_quantiles("gaps_s", self.gaps_s, self.probabilities)
        if min(np.diff(self.gaps_s)) < 0 or self.gaps_s[-1] == 0:
            raise ValueError(
                f"gaps_s must not decrease and must end above 0; they are {self.gaps_s}"
            )

    @cached_property
    def moments_s(self) -> tuple[float, float]:
        """First and second moment of the table, in seconds and square seconds."""
        low, high = np.array(self.gaps_s[:-1]), np.array(self.gaps_s[1:])
        width = np.diff(self.probabilities)
        return float(width @ (low + high) / 2), float(width @ (low**2 + low * high + high**2) / 3)

    @property
    def gap_cv(self) -> float:
        """Standard deviation of a gap over its mean."""
        first, second = self.moments_s
        return sqrt(second / first**2 - 1)

    def unit_gaps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` gaps of mean 1, shape (n,)."""
        return np.interp(rng.random(n), self.probabilities, self.gaps_s) / self.moments_s[0]
