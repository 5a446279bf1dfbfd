"""Prompt and answer lengths from tables of quantiles that keep their dependence."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.config import Share, config
from busdoor_workloads.lengths.base import Lengths
from busdoor_workloads.lengths.mixtures import Mixture
from busdoor_workloads.lengths.pairs import Pairs
from busdoor_workloads.lengths.tables import Quantiles


@config
class RankTable(Pairs):
    """Quantile tables of inputs and outputs, and how an output's rank depends on the input's.

    Parameters
    ----------
    probabilities : tuple of float
        Of every table, from 0 to 1, increasing.
    input_values : tuple of float
        Quantiles of the input, in tokens.
    output_values : tuple of float
        Quantiles of the output, in tokens.
    output_ranks : tuple of tuples of float
        Quantiles of the output's rank (0 shortest, 1 longest) in each of k equally likely bins of
        the input, shortest inputs first. Left out: the two are independent.

    Notes
    -----
    Ranks stay smooth under a heavy tail: straight lines between their quantiles keep the outputs'
    own law.

    Examples
    --------
    >>> table = RankTable(probabilities=(0, 1), input_values=(1, 100), output_values=(1, 200),
    ...                   output_ranks=[(0.5, 1), (0, 0.5)])                    # long inputs have short outputs
    >>> inputs, outputs = table.sample(1000, np.random.default_rng(0), np.random.default_rng(1))
    >>> outputs[inputs < 50].min() >= 100, outputs[inputs > 51].max() <= 101
    (np.True_, np.True_)
    """

    type: ClassVar[str] = "rank_table"
    probabilities: tuple[float, ...]
    input_values: tuple[float, ...]
    output_values: tuple[float, ...]
    output_ranks: tuple[tuple[Share, ...], ...] = ()

    def __post_init__(self) -> None:
        _ = self.inputs, self.outputs  # the tables check themselves

    def sample(
        self, n: int, input_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Draw `n` pairs: input and output tokens, each of shape (n,)."""
        place, chance = input_rng.random(n), output_rng.random(n)
        kind = (place * len(self.output_ranks)).astype(np.int64)
        for index, ranks in enumerate(self.output_ranks):
            rows = np.flatnonzero(kind == index)
            chance[rows] = np.interp(chance[rows], self.probabilities, ranks)
        return self._values(place, self.input_values), self._values(chance, self.output_values)

    @property
    def inputs(self) -> Lengths:
        """The law of the input lengths alone."""
        return Quantiles(probabilities=self.probabilities, values=self.input_values)

    @property
    def outputs(self) -> Lengths:
        """The law of the output lengths alone."""
        whole = Quantiles(probabilities=self.probabilities, values=self.output_values)
        if self.output_ranks:
            return Mixture(components=tuple(self._bin(ranks) for ranks in self.output_ranks))
        return whole

    def _bin(self, ranks: tuple[float, ...]) -> Quantiles:
        """Join two tables into one: its bends are those of the ranks and of the values."""
        own = np.array(self.probabilities)
        bends = np.unique(np.concatenate([own, np.interp(own, ranks, own)]))
        values = np.interp(np.interp(bends, own, ranks), own, self.output_values)
        return Quantiles(probabilities=tuple(bends), values=tuple(values))

    def _values(self, place: FloatArray, values: tuple[float, ...]) -> IntArray:
        tokens: IntArray = np.maximum(
            np.rint(np.interp(place, self.probabilities, values)), 1
        ).astype(np.int64)
        return tokens
