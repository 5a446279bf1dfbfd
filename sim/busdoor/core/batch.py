"""What one iteration runs: the changes since the last, and the sums a step time reads."""

from __future__ import annotations

from typing import Any

from busdoor.core.request import Request


class Chunk:
    """Prefill: `num_tokens` of a request after `context_tokens` already in the KV cache."""

    __slots__ = ("context_tokens", "num_tokens", "request")

    def __init__(self, request: Request, num_tokens: int, context_tokens: int) -> None:
        self.request = request
        self.num_tokens = num_tokens
        self.context_tokens = context_tokens

    @property
    def completes(self) -> bool:
        """Whether the prefill ends here, so that the iteration yields a token for the request."""
        request = self.request
        return (
            self.context_tokens + self.num_tokens == request.input_tokens + request.generated_tokens
        )


class Batch:
    """One iteration, which may repeat unchanged (each decode's context growing by one a time).

    Attributes
    ----------
    chunks : list of Chunk
        The prefill pieces; none of them in a repeated iteration after the first.
    admitted, preempted : list of Request
        Requests that entered, and that were preempted, when this batch was decided.
    released : list of Request, optional
        Requests whose slots became free when it completed, where these are not just the finished
        (static batches).
    grown_blocks : int
        KV blocks begun in the repetitions after the first; known when it has completed.
    num_prefill_tokens : int
        Prompt tokens computed, padding not counted.
    prefill_attention : float
        Query-key pairs of the prefill, padding included: the sum of n * (c + (n + 1) / 2).
    prefill_context_tokens : int
        Keys that the prefill reads, padding included: the sum of c + n.
    num_decode_tokens : int
        Requests that decode one wanted token.
    num_idle_rows : int
        Finished rows of a static batch that still compute.
    num_padded_tokens : int
        Positions computed for no request: prompt padding, and one for every idle row.
    decode_context_tokens : int
        Tokens in the cache of the decoding and idle rows at the first repetition, padding included.

    Examples
    --------
    >>> batch = Batch(num_decode_tokens=3, decode_context_tokens=30)
    >>> batch.num_tokens, batch.num_requests, batch.decode_attention
    (3, 3, 33)
    """

    chunks: list[Chunk]
    admitted: list[Request]
    preempted: list[Request]
    # Defaults live in the class: a batch is made at every event, and most of its sums stay what
    # they are here.
    released: list[Request] | None = None
    grown_blocks: int = 0
    num_prefill_tokens: int = 0
    prefill_attention: float = 0.0
    prefill_context_tokens: int = 0
    num_decode_tokens: int = 0
    num_idle_rows: int = 0
    num_padded_tokens: int = 0
    decode_context_tokens: int = 0

    def __init__(self, **given: Any) -> None:
        self.chunks = []
        self.admitted = []
        self.preempted = []
        for name, value in given.items():
            setattr(self, name, value)

    def add_chunk(self, request: Request, num_tokens: int, context_tokens: int) -> None:
        """Add a piece of prefill and its share of the sums."""
        self.chunks.append(Chunk(request, num_tokens, context_tokens))
        self.num_prefill_tokens += num_tokens
        self.prefill_attention += num_tokens * (context_tokens + (num_tokens + 1) / 2)
        self.prefill_context_tokens += context_tokens + num_tokens

    @property
    def num_tokens(self) -> int:
        """Positions that the model computes in one iteration, padding included."""
        return self.num_prefill_tokens + self.num_decode_tokens + self.num_padded_tokens

    @property
    def num_decode_rows(self) -> int:
        """Rows that decode, wanted or not; the context grows by this much at every repetition."""
        return self.num_decode_tokens + self.num_idle_rows

    @property
    def num_requests(self) -> int:
        """Requests in the batch; a finished static row that still computes counts as one."""
        return len(self.chunks) + self.num_decode_tokens + self.num_idle_rows

    @property
    def decode_attention(self) -> int:
        """Query-key pairs of decodes, first repetition: each reads its context and itself."""
        return self.decode_context_tokens + self.num_decode_rows
