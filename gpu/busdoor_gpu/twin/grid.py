"""A designed grid of iterations, to which a calibration fits the step time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_SHORTEST = 16  # tokens: a block, the least context and chunk of the grid
_DECODE_REPEATS = 8  # a decode's context grows by one token each: a change of 1 in 16 at most
_OTHER_REPEATS = 2
# Tokens just beyond a whole number of GEMM tiles, and halfway to the next power of two: a chunk of
# 512 beside a few decodes is such a step, and the ladder of powers of four misses it.
_TILE_EDGES = (513, 768)
# Of the shortest decode's request, after all its repetitions.
LEAST_TOKENS = _SHORTEST + _DECODE_REPEATS + 2


@dataclass(frozen=True)
class Cell:
    """One designed iteration, which is measured `repeats` times in a row.

    `decodes`: tokens in the cache of each decoding request. `chunks` of prefill: tokens, and tokens
    in the cache before them.
    """

    decodes: tuple[int, ...] = ()
    chunks: tuple[tuple[int, int], ...] = ()
    repeats: int = _OTHER_REPEATS

    @property
    def num_tokens(self) -> int:
        """Tokens that one iteration computes."""
        return len(self.decodes) + sum(tokens for tokens, _ in self.chunks)

    def row_tokens(self) -> list[int]:
        """Return each request's tokens at its end: context, measured, and one iteration more."""
        runs = self.repeats + 1
        return [context + runs + 1 for context in self.decodes] + [
            context + (runs if context else 1) * tokens for tokens, context in self.chunks
        ]


@dataclass(frozen=True)
class GridLimits:
    """Bounds of the grid: a scheduler's limits, and the KV memory.

    `max_prefill_tokens`: most tokens of a prefill of whole prompts, which in a static batch has no
    token budget.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_blocks: int
    block_size: int = 16
    max_prefill_tokens: int = 0

    def most_tokens(self, cell: Cell) -> int:
        """Return the most tokens of an iteration of the cell's kind."""
        whole = not cell.decodes and not any(context for _, context in cell.chunks)
        return max(self.max_num_batched_tokens, self.max_prefill_tokens if whole else 0)

    def hold(self, cell: Cell) -> bool:
        """Whether a cell stays within the limits."""
        rows = cell.row_tokens()
        blocks = sum(-(-tokens // self.block_size) for tokens in rows)
        # A prompt of one iteration is followed by the next one before its blocks are seen free.
        return (
            len(rows) <= self.max_num_seqs
            and cell.num_tokens <= self.most_tokens(cell)
            and max(rows) <= self.max_model_len
            and blocks <= self.num_blocks
        )


def _whole_prompts(limits: GridLimits, batches: Sequence[int]) -> Iterator[Cell]:
    """Yield cells of several whole prompts; static batches may exceed the token budget."""
    most = max(limits.max_num_batched_tokens, limits.max_prefill_tokens)
    for prompt in _ladder(_SHORTEST, min(most, limits.max_model_len), 4):
        for count in batches[1:]:
            yield Cell(chunks=((prompt, 0),) * count)


def design(limits: GridLimits) -> list[Cell]:
    """Return cells that separate step-time terms: batch/context, tokens/pairs, mixed/plain.

    >>> cells = design(GridLimits(max_num_seqs=4, max_num_batched_tokens=64, max_model_len=256, num_blocks=64))
    >>> cells[0]
    Cell(decodes=(16,), chunks=(), repeats=8)
    >>> any(cell.decodes and cell.chunks for cell in cells)
    True
    """
    longest = limits.max_model_len - _DECODE_REPEATS - 2
    batches, contexts = _ladder(1, limits.max_num_seqs, 2), _ladder(_SHORTEST, longest, 4)
    chunks = _ladder(_SHORTEST, min(limits.max_num_batched_tokens, limits.max_model_len), 4)
    cells = [
        Cell(decodes=(context,) * batch, repeats=_DECODE_REPEATS)
        for batch in batches
        for context in contexts
    ]
    cells += [cell for batch in batches if batch > 2 for cell in _skewed(batch, contexts)]
    cells += [Cell(chunks=((chunk, prior),)) for chunk in chunks for prior in (0, *contexts[1:])]
    cells += [Cell(chunks=((tokens, 0),)) for tokens in _TILE_EDGES]
    cells += [
        Cell((contexts[len(contexts) // 2],) * 8, ((tokens - 8, 0),)) for tokens in _TILE_EDGES
    ]
    cells += _whole_prompts(limits, batches)
    cells += [
        Cell((context,) * batch, ((min(chunk, limits.max_num_batched_tokens - batch), prior),))
        for batch in batches[:-1][::-2]
        for context in contexts[::2]
        for chunk in chunks[::2]
        if limits.max_num_batched_tokens > batch
        for prior in (0, context)
    ]
    return list(dict.fromkeys(cell for cell in cells if limits.hold(cell)))


def _ladder(least: int, most: int, factor: int) -> list[int]:
    """Return the least value times powers of a factor, below the most, and the most itself.

    >>> _ladder(16, 500, 4)
    [16, 64, 256, 500]
    """
    steps = [least]
    while steps[-1] * factor < most:
        steps.append(steps[-1] * factor)
    return steps if steps[-1] >= most else [*steps, most]


def _skewed(batch: int, contexts: Sequence[int]) -> Iterator[Cell]:
    """Yield decodes of one long context among short, and of contexts even in logarithm."""
    for longest in contexts[1:]:
        spread = np.geomspace(contexts[0], longest, batch).astype(int).tolist()
        for decodes in ((longest, *[contexts[0]] * (batch - 1)), tuple(spread)):
            yield Cell(decodes, repeats=_DECODE_REPEATS)
