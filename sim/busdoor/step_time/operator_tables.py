"""Seconds of the parts of an iteration, looked up in measured operator tables."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

MS = 1e-3  # the unit of aiconfigurator-core's tables
US = 1e-6  # of LLMServingSim's
# Sizes to which a kernel may be padded: 4 per octave, up to the largest batches of decodes and the
# largest budgets of prefill that engines have by default.
PADDED = (1, 2, 3, *(2**k * quarters for k in range(13) for quarters in (4, 5, 6, 7)))
MOST_ROWS, MOST_TOKENS = 1024, 16384
Values = Sequence[tuple[Any, ...]]  # of each operator: name, milliseconds, energy, how it is known


class Evaluator(Protocol):
    """The two functions of aiconfigurator-core's evaluator that are used here."""

    def evaluate_context_ops(
        self, indices: list[int], batch: int, s: int, prefix: int = 0, /
    ) -> Values:
        """Operators of a prefill of `batch` prompts of `s` tokens each after `prefix` tokens."""

    def evaluate_generation_ops(self, indices: list[int], batch: int, s: int, /) -> Values:
        """Operators of a decode of `batch` requests that read `s` tokens each."""


class OperatorTables:
    """What an iteration's parts take on one deployment: aiconfigurator-core's, or a record of it.

    Which operators depend on what is found out by asking. Of a prefill, those that cost the same
    for a prompt as for two of half its length depend on the number of tokens alone; of a decode,
    those that cost the same at any context depend on the number of rows alone. None of these is
    slower than at a larger size: see `Padded`.

    >>> class TwoOperators:
    ...     def evaluate_context_ops(self, indices, batch, s, prefix=0, /):
    ...         ops = [("gemm", 0.01 * batch * s), ("attention", batch * s * (prefix + s / 2) * 1e-6)]
    ...         if max(indices) > 1:
    ...             raise ValueError("index 2 out of range")
    ...         return [ops[i] for i in indices]
    ...     def evaluate_generation_ops(self, indices, batch, s, /):
    ...         return self.evaluate_context_ops(indices, batch, 1, s)
    >>> tables = OperatorTables(TwoOperators())
    >>> round(tables.tokens_s(100), 6), round(tables.chunks_s(1, 100, 900), 6)
    (0.001, 9.5e-05)
    >>> round(tables.rows_s(8), 6), round(tables.contexts_s(8, 1000), 6)
    (8e-05, 8e-06)
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.notes: tuple[str, ...] = ()  # what a user should know about them
        self._prefill = prefill = evaluator.evaluate_context_ops
        self._decode = decode = evaluator.evaluate_generation_ops
        self._tokens, self._heads, self._chunks = _split(
            lambda index: prefill([index], 1, 2048), lambda index: prefill([index], 2, 1024)
        )
        rows, heads, self._contexts = _split(
            lambda index: decode([index], 8, 512), lambda index: decode([index], 8, 16384)
        )
        every_row = sorted(rows + heads)
        self._rows = Padded(lambda size: decode(every_row, size, 1), MOST_ROWS)
        self._positions = Padded(lambda size: prefill(self._tokens, 1, size), MOST_TOKENS)

    def tokens_s(self, tokens: int) -> float:
        """Seconds of what depends on the positions alone, in a step that prefills."""
        return self._positions.seconds(tokens)

    def heads_s(self, requests: int) -> float:
        """Seconds of the LM head for so many requests, in a step that prefills."""
        return _seconds(self._prefill(self._heads, requests, 1)) if self._heads else 0.0

    def chunks_s(self, chunks: int, tokens: int, cached: int) -> float:
        """Seconds of the attention of chunks of `tokens` each after `cached` tokens each."""
        return _seconds(self._prefill(self._chunks, chunks, tokens, cached))

    def rows_s(self, rows: int) -> float:
        """Seconds of a decode of so many rows, but for what depends on their context."""
        return self._rows.seconds(rows)

    def contexts_s(self, rows: int, context: int) -> float:
        """Seconds of what depends on the context, for rows that read `context` tokens each."""
        return _seconds(self._decode(self._contexts, rows, context))


class Padded:
    """Operators that depend on a number of rows, none slower than for more rows, up to `most`.

    A kernel for more rows serves fewer, padded, and engines round up to the sizes of their CUDA
    graphs. Tables have entries that break this (vLLM's fp8 on B200: 3.0 ms for 96 rows, 1.4 ms for
    128), where a sweep met a kernel that had not been tuned.

    >>> tuned = {96: 3.0, 112: 1.6, 128: 1.4}
    >>> gemm = Padded(lambda size: [("gemm", tuned.get(size, 5.0), 0.0, "silicon")], most=128)
    >>> round(gemm.seconds(96), 6), round(gemm.seconds(130), 6)
    (0.0014, 0.005)
    """

    def __init__(self, values: Callable[[int], Values], most: int) -> None:
        self._values = values
        self._sizes = [size for size in PADDED if size <= most]

    def seconds(self, size: int) -> float:
        """Return their seconds at a size, each padded where that is faster."""
        own = [value[1] for value in self._values(size)]
        at = bisect_left(self._sizes, size)
        if at < len(self._sizes):
            own = list(map(min, own, self._least[at]))
        return MS * float(sum(own))

    @cached_property
    def _least(self) -> list[list[float]]:
        """Least milliseconds of each operator from each size on."""
        every = [[value[1] for value in self._values(size)] for size in reversed(self._sizes)]
        least = accumulate(every, lambda so_far, own: list(map(min, so_far, own)))
        return list(least)[::-1]


def _seconds(values: Values) -> float:
    return MS * float(sum(value[1] for value in values))


def _split(
    first: Callable[[int], Values], second: Callable[[int], Values]
) -> tuple[list[int], list[int], list[int]]:
    """Return which operators are alike in two steps, which are LM heads, and which differ."""
    alike: list[int] = []
    heads: list[int] = []
    differ: list[int] = []
    index = 0
    while (values := _at(first, index)) is not None:
        (one, *_), (other, *_) = values, second(index)
        (heads if "logits" in one[0] else alike if one[1] == other[1] else differ).append(index)
        index += 1
    return alike, heads, differ


def _at(evaluate: Callable[[int], Values], index: int) -> Values | None:
    """Return the values of an operator; None after the last one."""
    try:
        return evaluate(index)
    except ValueError as error:
        if "out of range" in str(error):
            return None
        raise
