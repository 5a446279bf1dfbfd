"""From a batch to look-ups in operator tables, kept so that iterations are cheap."""

from __future__ import annotations

from bisect import bisect_right
from math import ceil, inf

from busdoor.core.batch import Batch
from busdoor.step_time.base import Pieces
from busdoor.step_time.operator_profile import ProfileTables
from busdoor.step_time.operator_tables import OperatorTables

# Contexts at which the attention of a decode is looked up; between two it is taken as a line. At 16
# per octave a step is within 1 % of direct look-ups (tests/sim/test_operators.py): these bend where
# engines change kernels, at any context.
PER_OCTAVE = 16
LONGEST = 2**21  # beyond the longest context of any model; from here on the last line goes on
CONTEXTS = (
    *range(1, PER_OCTAVE),
    *(2**k * (PER_OCTAVE + i) for k in range(17) for i in range(PER_OCTAVE)),
    LONGEST,
    inf,
)
Tables = OperatorTables | ProfileTables
# Rows and interval of the context in one number, which is quicker to look up than a pair.
_STRIDE = 1024


class OperatorTimes:
    """Seconds of iterations: a sum of look-ups, and the host's time per step and request.

    - A step that only decodes: its rows, and their attention at their mean context.
    - One that prefills too: all its positions, the LM head of its requests, the attention of its
      chunks, and that of the rows that decode. Chunks of different lengths are looked up as so many
      equal ones with the same tokens and the same query-key pairs.

    `dp` groups of GPUs share the requests evenly; the largest share counts.

    See `busdoor.step_time.operators.OperatorStepTime`, which has one.
    """

    def __init__(
        self, tables: Tables, step_s: float = 0.0, request_s: float = 0.0, dp: int = 1
    ) -> None:
        self._tables = tables
        self._step_s, self._request_s, self._dp = step_s, request_s, dp
        self._rows: dict[int, float] = {}
        self._tokens: dict[int, float] = {}
        self._heads: dict[int, float] = {}
        self._attention: dict[int, tuple[float, float]] = {}

    def pieces(self, batch: Batch, repeat: int) -> Pieces:
        """Return the lines on which the durations of `repeat` iterations lie.

        Of each: how many of them, seconds of the first, and how many more each one takes. A step
        with chunks never repeats as it is, so that nothing grows in it.
        """
        rows = batch.num_decode_tokens + batch.num_idle_rows
        if batch.chunks:
            return [(repeat, self._prefill_s(batch, rows), 0.0)]
        if not rows:
            return [(repeat, self._step_s, 0.0)]
        share = rows if self._dp == 1 else -(-rows // self._dp)
        rows_s = self._rows.get(share)
        if rows_s is None:
            rows_s = self._rows[share] = self._tables.rows_s(share)
        fixed_s = self._step_s + self._request_s * rows + rows_s
        mean = batch.decode_context_tokens / rows + 1  # its own token is read too
        interval = bisect_right(CONTEXTS, mean)
        end = mean + repeat - 1
        lines = []
        while True:
            known = self._attention.get(share * _STRIDE + interval)
            at_zero_s, growth_s = known or self._look_up(share, interval)
            first_s = fixed_s + at_zero_s + growth_s * mean
            if end < CONTEXTS[interval]:
                lines.append((repeat, first_s, growth_s))
                return lines
            count = ceil(CONTEXTS[interval] - mean)
            lines.append((count, first_s, growth_s))
            mean, repeat, interval = mean + count, repeat - count, interval + 1

    def _look_up(self, rows: int, interval: int) -> tuple[float, float]:
        """Return a decode's attention at no context, and its growth, on a line of `CONTEXTS`."""
        last = min(interval, len(CONTEXTS) - 2)  # beyond LONGEST the line before it goes on
        low, high = CONTEXTS[last - 1 : last + 1]
        low_s, high_s = self._tables.contexts_s(rows, low), self._tables.contexts_s(rows, high)
        growth_s = (high_s - low_s) / (high - low)
        line = self._attention[rows * _STRIDE + interval] = (low_s - growth_s * low, growth_s)
        return line

    def _prefill_s(self, batch: Batch, rows: int) -> float:
        """Return seconds of a step with chunks, beside `rows` that decode."""
        chunks, dp = len(batch.chunks), self._dp
        tokens = batch.num_prefill_tokens + batch.num_padded_tokens - batch.num_idle_rows
        positions, requests = -(-(tokens + rows) // dp), -(-(chunks + rows) // dp)
        if positions not in self._tokens:
            self._tokens[positions] = self._tables.tokens_s(positions)
        if requests not in self._heads:
            self._heads[requests] = self._tables.heads_s(requests)
        length = tokens / chunks
        cached = batch.prefill_attention / tokens - (length + 1) / 2
        alike = -(-chunks // dp), max(1, round(length)), max(0, round(cached))
        attention_s = (
            self._attention_s(alike, batch, rows) if rows else self._tables.chunks_s(*alike)
        )
        host_s = self._step_s + self._request_s * (chunks + rows)
        return host_s + self._tokens[positions] + self._heads[requests] + attention_s

    def _attention_s(self, alike: tuple[int, int, int], batch: Batch, rows: int) -> float:
        """Return seconds of the attention of chunks and of rows that decode: one call, or a call each."""
        share, mean = -(-rows // self._dp), batch.decode_context_tokens / rows + 1
        if isinstance(self._tables, ProfileTables):
            return self._tables.mixed_s(*alike, share, mean)
        interval = bisect_right(CONTEXTS, mean)
        at_zero_s, growth_s = self._attention.get(share * _STRIDE + interval) or self._look_up(
            share, interval
        )
        return self._tables.chunks_s(*alike) + at_zero_s + growth_s * mean
