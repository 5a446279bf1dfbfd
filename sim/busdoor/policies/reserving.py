"""What policies share that reserve all KV blocks of a request before it enters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.base import KVUse, output_caps
from busdoor.policies.continuous import ContinuousPolicy
from busdoor.policies.queues import Queue
from busdoor_workloads import Trace


@mypyc_attr(allow_interpreted_subclasses=True)
class ReservingPolicy(ContinuousPolicy):
    """A request takes its blocks to the end when it enters, so that none is ever preempted.

    Paging spares it the unbroken range, not the over-reservation: it takes blocks for its prompt
    and for as many tokens as it may generate, less one, for the last is never fed back. That is the
    `max_output_tokens` that its client asked for, else the policy's, else all that `max_model_len`
    leaves it.

    Parameters
    ----------
    kv, max_num_seqs, max_model_len, queue
        As in `VllmPolicy`.
    max_output_tokens : int, optional
        Cap on the output of requests that come without one.
    """

    def __init__(
        self,
        kv: PagedKV,
        max_num_seqs: int,
        max_model_len: int,
        max_output_tokens: int | None = None,
        queue: str | Queue = "fcfs",
    ) -> None:
        super().__init__(max_num_seqs, max_model_len, queue)
        self.kv = kv
        self.max_output_tokens = max_output_tokens
        self._needed_tokens = 0  # what all running requests will write in the end

    def reserved_blocks(self, request: Request) -> int:
        """Return the blocks that a request takes when it enters."""
        return self.kv.blocks_for(request.input_tokens + self.cap(request) - 1)

    def reservations(self, trace: Trace) -> NDArray[np.int64]:
        """Return the tokens that each request of a trace reserves, whole blocks; shape (n,)."""
        caps = output_caps(trace, self.max_model_len, self.max_output_tokens)
        block_size = self.kv.block_size
        reserved: NDArray[np.int64] = -(-(trace.input_tokens + caps - 1) // block_size) * block_size
        return reserved

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        reason = super().refusal(request) or self.beyond_cap(request, self.cap(request))
        blocks = self.reserved_blocks(request)
        if not reason and blocks > self.kv.num_blocks:
            reason = f"its reservation of {blocks} blocks exceeds the cache's {self.kv.num_blocks}"
        return reason

    def _reserve(self, request: Request) -> None:
        """Reserve all blocks of a request that enters."""
        self.kv.grow(request, request.input_tokens + self.cap(request) - 1)
        self._needed_tokens += request.kv_tokens

    def _free(self, request: Request) -> None:
        self.kv.free(request)
        self._needed_tokens -= request.kv_tokens

    def kv_use(self) -> KVUse:
        """Split whole blocks into used, to be used and surplus: no free block is unusable."""
        kv = self.kv
        blocks = kv.num_blocks - kv.num_free_blocks
        reserved = blocks * kv.block_size
        used = self.decodes.context_tokens
        for request in self.prefilling:
            used += request.computed_tokens
        return KVUse(blocks, reserved, used, reserved - self._needed_tokens, 0)
