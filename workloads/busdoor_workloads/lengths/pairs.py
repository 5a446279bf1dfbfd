"""Prompt and answer lengths drawn together: independent, in weighted pairs, from a trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PlainValidator, model_validator

from busdoor_workloads.columns import IntArray
from busdoor_workloads.config import NonNegative, config, pick, with_columns_of_path
from busdoor_workloads.lengths.base import AnyLengths, Lengths
from busdoor_workloads.lengths.mixtures import Mixture
from busdoor_workloads.lengths.tables import Histogram


class Pairs(ABC):
    """A joint distribution of input and output tokens.

    Subclasses have a name `type` for configuration files.
    """

    type: ClassVar[str]

    @abstractmethod
    def sample(
        self, n: int, input_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Draw `n` pairs: input and output tokens, each of shape (n,)."""

    @property
    @abstractmethod
    def inputs(self) -> Lengths:
        """The law of the input lengths alone."""

    @property
    @abstractmethod
    def outputs(self) -> Lengths:
        """The law of the output lengths alone."""


@config
class Independent(Pairs):
    """Independent inputs and outputs.

    Parameters
    ----------
    input_tokens : Lengths, table or int
        Law of the prompts.
    output_tokens : Lengths, table or int
        Law of the answers, independent of it.
    """

    type: ClassVar[str] = "independent"
    input_tokens: AnyLengths
    output_tokens: AnyLengths

    def sample(
        self, n: int, input_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Draw `n` pairs: input and output tokens, each of shape (n,)."""
        return self.input_tokens.sample(n, input_rng), self.output_tokens.sample(n, output_rng)

    @property
    def inputs(self) -> Lengths:
        """The law of the input lengths alone."""
        return self.input_tokens

    @property
    def outputs(self) -> Lengths:
        """The law of the output lengths alone."""
        return self.output_tokens


@config
class WeightedPairs(Pairs):
    """Kinds of request with their own laws: short questions, long answers, and the reverse.

    Parameters
    ----------
    pairs : list of Independent or tables of input_tokens and output_tokens
        The kinds.
    weights : list of float
        Their shares, in any unit; equal ones if left out.

    Examples
    --------
    >>> kinds = WeightedPairs(pairs=[{"input_tokens": 1024, "output_tokens": 128},
    ...                              {"input_tokens": 128, "output_tokens": 1024}], weights=[3, 1])
    >>> kinds.outputs.mean_tokens
    352.0
    """

    type: ClassVar[str] = "pairs"
    pairs: Annotated[tuple[Independent, ...], Field(min_length=1)]
    weights: tuple[NonNegative, ...] | None = None

    def __post_init__(self) -> None:
        _ = self.outputs.longest  # the mixture checks the weights

    def sample(
        self, n: int, input_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Draw `n` pairs: input and output tokens, each of shape (n,)."""
        weights = np.array(self.weights or (1.0,) * len(self.pairs))
        kind = input_rng.choice(len(self.pairs), size=n, p=weights / weights.sum())
        inputs, outputs = np.empty(n, np.int64), np.empty(n, np.int64)
        for index, pair in enumerate(self.pairs):
            rows = np.flatnonzero(kind == index)
            inputs[rows], outputs[rows] = pair.sample(rows.size, input_rng, output_rng)
        return inputs, outputs

    @property
    def inputs(self) -> Lengths:
        """The law of the input lengths alone."""
        return Mixture(
            components=tuple(pair.input_tokens for pair in self.pairs), weights=self.weights
        )

    @property
    def outputs(self) -> Lengths:
        """The law of the output lengths alone."""
        return Mixture(
            components=tuple(pair.output_tokens for pair in self.pairs), weights=self.weights
        )


@config
class Resample(Pairs):
    """Rows of a trace, drawn with replacement, input and output together.

    Parameters
    ----------
    input_tokens : tuple of int
        The trace's prompt lengths.
    output_tokens : tuple of int
        The trace's answer lengths.
    path : str
        Instead of the two: a trace file to read them from.

    Examples
    --------
    >>> trace_rows = Resample(input_tokens=(10, 2000), output_tokens=(500, 5))
    >>> trace_rows.sample(4, np.random.default_rng(0), np.random.default_rng(1))
    (array([2000, 2000, 2000,   10]), array([  5,   5,   5, 500]))
    """

    type: ClassVar[str] = "resample"
    input_tokens: Annotated[tuple[int, ...], Field(min_length=1)]
    output_tokens: Annotated[tuple[int, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        return with_columns_of_path(given, "input_tokens", "output_tokens")

    def __post_init__(self) -> None:
        if len(self.input_tokens) != len(self.output_tokens):
            raise ValueError(
                f"{len(self.output_tokens)} output_tokens do not fit {len(self.input_tokens)} "
                f"input_tokens"
            )

    def sample(
        self, n: int, input_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Draw `n` pairs: input and output tokens, each of shape (n,)."""
        rows = input_rng.integers(len(self.input_tokens), size=n)
        return np.array(self.input_tokens)[rows], np.array(self.output_tokens)[rows]

    @property
    def inputs(self) -> Lengths:
        """The law of the input lengths alone."""
        return Histogram(values=self.input_tokens)

    @property
    def outputs(self) -> Lengths:
        """The law of the output lengths alone."""
        return Histogram(values=self.output_tokens)


def as_pairs(value: object) -> Pairs:
    """Return the joint distribution of a configuration's table.

    Parameters
    ----------
    value : mapping or Pairs
        A table with a `type`.

    Raises
    ------
    ValueError
        Unknown type or key, with the nearest known name; a value out of range.
    """
    if isinstance(value, Pairs):
        return value
    if isinstance(value, Mapping):
        return pick(Pairs, "type", value)  # type: ignore[type-abstract]
    raise ValueError(f"{value!r} is not a table with a 'type'")


AnyPairs = Annotated[Pairs, PlainValidator(as_pairs)]
