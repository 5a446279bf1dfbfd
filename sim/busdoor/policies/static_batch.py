"""A running static batch: requests enter together, and rows run until the last is done."""

from __future__ import annotations

from collections.abc import Iterator

from busdoor.core.batch import Batch, Chunk
from busdoor.core.request import Request
from busdoor.policies.base import Item, by_admission


class StaticBatch:
    """The rows of one static batch, from their common prefill to the longest output.

    Every prompt is padded to the longest, and the padding is stored. Decodes read each row's own
    keys, or (`reads_padding`) those of the padding too, so that all rows have the same context. The
    first iteration is the prefill and yields every row's first token. A row that has finished keeps
    its place: it computes on, or (`skip_finished`) costs no computing any more. So does, until its
    own end, a row whose client has gone: nothing takes a row out of a batch that runs.

    Parameters
    ----------
    rows : list of Request
        The requests, in order of admission.
    input_tokens : int
        Length that the prompts are padded to.
    output_tokens : int
        Iterations that the batch runs.
    skip_finished : bool
        Whether finished rows cost nothing.
    reads_padding : bool
        Whether decodes read the keys of the padding too, or each row's own only.

    Examples
    --------
    >>> rows = [Request(i, 0.0, input_tokens=i + 1, output_tokens=n) for i, n in enumerate((2, 3))]
    >>> running = StaticBatch(rows, input_tokens=2, output_tokens=3)
    >>> batch = running.batch()
    >>> batch.num_prefill_tokens, batch.num_padded_tokens, batch.prefill_attention
    (3, 1, 6.0)
    >>> running.advance(1)
    []
    >>> running.stretch(), running.advance(1)
    (1, [Request(0, 1 in, 2 out, waiting)])
    >>> batch = running.batch()
    >>> batch.num_decode_tokens, batch.num_idle_rows, batch.decode_context_tokens
    (1, 1, 5)
    """

    __slots__ = (
        "_finished_kv_tokens",
        "_num_gone",
        "_row_input_tokens",
        "_unfinished",
        "_unfinished_input_tokens",
        "clock",
        "input_tokens",
        "kv_tokens",
        "output_tokens",
        "reads_padding",
        "rows",
        "skip_finished",
    )

    def __init__(
        self,
        rows: list[Request],
        input_tokens: int,
        output_tokens: int,
        skip_finished: bool = False,
        reads_padding: bool = False,
    ) -> None:
        self.rows = rows
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.skip_finished = skip_finished
        self.reads_padding = reads_padding
        for index, row in enumerate(rows):
            row.admission_index = index
        self.clock = 0  # iterations that have passed
        # that are wanted, when all have finished
        self.kv_tokens = sum([row.kv_tokens for row in rows])
        self._unfinished = sorted(rows, key=_output_tokens, reverse=True)
        self._row_input_tokens = self._unfinished_input_tokens = sum(
            [row.input_tokens for row in rows]
        )
        self._finished_kv_tokens = 0
        self._num_gone = 0  # unfinished rows whose clients have gone

    @property
    def done(self) -> bool:
        """Whether the longest output is complete."""
        return self.clock >= self.output_tokens

    @property
    def used_tokens(self) -> int:
        """Wanted tokens in the cache: no padding, and not what finished rows go on to write."""
        if not self.clock:
            return 0
        unfinished = self._unfinished_input_tokens + len(self._unfinished) * (self.clock - 1)
        return self._finished_kv_tokens + unfinished

    def batch(self) -> Batch:
        """Return the next iteration."""
        return self._decode() if self.clock else self._prefill()

    def _prefill(self) -> Batch:
        rows, padded = len(self.rows), self.input_tokens
        return Batch(
            admitted=list(self.rows),
            chunks=[Chunk(row, row.input_tokens, 0) for row in self.rows],
            num_prefill_tokens=self._unfinished_input_tokens,
            num_padded_tokens=rows * padded - self._unfinished_input_tokens,
            prefill_attention=rows * (padded * (padded + 1) / 2),
            prefill_context_tokens=rows * padded,
        )

    def _decode(self) -> Batch:
        rows = len(self._unfinished) if self.skip_finished else len(self.rows)
        wanted = len(self._unfinished) - self._num_gone
        batch = Batch()
        batch.num_decode_tokens = wanted
        batch.num_idle_rows = batch.num_padded_tokens = rows - wanted
        batch.decode_context_tokens = self._prompts(rows) + rows * (self.clock - 1)
        return batch

    def _prompts(self, rows: int) -> int:
        """Count the keys of the prompts of all rows that compute."""
        if self.reads_padding:
            return rows * self.input_tokens
        return self._unfinished_input_tokens if self.skip_finished else self._row_input_tokens

    def stretch(self) -> int:
        """Count the iterations until the next row finishes; the prefill is one of its own."""
        if not self.clock:
            return 1
        end = self._unfinished[-1].output_tokens if self._unfinished else self.output_tokens
        return end - self.clock

    def advance(self, repeat: int) -> list[Request]:
        """Advance `repeat` iterations; return rows just finished, in order of admission."""
        if not self.clock:
            for row in self.rows:
                row.computed_tokens, row.generated_tokens = row.input_tokens, 1
        self.clock += repeat
        finished = []
        unfinished = self._unfinished
        while unfinished and unfinished[-1].output_tokens <= self.clock:
            finished.append(self._finish(unfinished.pop()))
        if len(finished) > 1:
            finished.sort(key=by_admission)
        return finished

    def _finish(self, row: Request) -> Request:
        kv_tokens = row.kv_tokens
        self._unfinished_input_tokens -= row.input_tokens
        self._finished_kv_tokens += kv_tokens
        if row.status == "abandoned":
            self._num_gone -= 1
        else:
            row.computed_tokens, row.generated_tokens = kv_tokens, row.output_tokens
        return row

    def drop(self, row: Request) -> None:
        """Drop a row whose client has gone; it goes on to compute."""
        if row.output_tokens > self.clock:
            self._num_gone += 1
            row.computed_tokens = row.input_tokens + self.clock - 1
            row.generated_tokens = self.clock

    def items(self, batch: Batch) -> Iterator[Item]:
        """Every row that computes and its number of tokens, in order of admission."""
        for row in self.rows:
            if batch.chunks:
                yield row, row.input_tokens
            elif row.output_tokens > self.clock or not self.skip_finished:
                yield row, 1


def _output_tokens(row: Request) -> int:
    return row.output_tokens
