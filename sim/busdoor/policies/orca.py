"""Iteration-level scheduling before paging: all KV it may need is reserved at entry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies.base import KVUse
from busdoor.policies.continuous import ContinuousPolicy
from busdoor.policies.continuous_config import OrcaConfig
from busdoor.policies.queues import Queue
from busdoor_workloads import Trace


@mypyc_attr(allow_interpreted_subclasses=True)
class OrcaPolicy(ContinuousPolicy):
    """Requests enter and leave each iteration, in order, while slots and unbroken KV are free.

    Prompts are computed whole, beside the decodes of the others (selective batching, Yu et al.,
    OSDI 2022). None is ever preempted. How much a request reserves is one of the three that the
    vLLM paper (Kwon et al., SOSP 2023) compares with.

    Parameters
    ----------
    kv : ContiguousKV
        The memory.
    max_num_seqs, max_model_len : int
        Most running requests; longest input + output.
    queue : {"fcfs", "priority", "sjf"} or Queue
        Order of admission.
    **settings
        Fields of `OrcaConfig`.

    Examples
    --------
    >>> policy = OrcaPolicy(ContiguousKV(1000), max_num_seqs=8, max_model_len=512, reservation="pow2")
    >>> policy.add(Request(0, 0.0, input_tokens=100, output_tokens=25))
    >>> batch = policy.schedule(0.0)
    >>> policy.kv_use().reserved
    132
    """

    def __init__(
        self,
        kv: ContiguousKV,
        max_num_seqs: int,
        max_model_len: int,
        queue: str | Queue = "fcfs",
        **settings: Any,
    ) -> None:
        super().__init__(max_num_seqs, max_model_len, queue)
        chosen = OrcaConfig(max_num_seqs=max_num_seqs, **settings)
        self.kv = kv
        self.reservation = chosen.reservation
        self.max_num_batched_tokens = chosen.max_num_batched_tokens
        self._needed_tokens = 0  # what all running requests will write in the end

    def reserved_tokens(self, request: Request) -> int:
        """Return the tokens of KV that a request takes when it enters."""
        if self.reservation == "oracle":
            return request.kv_tokens
        if self.reservation == "pow2":
            power = 1 << (request.output_tokens - 1).bit_length()
            return min(request.input_tokens + power, self.max_model_len)
        return self.max_model_len

    def reservations(self, trace: Trace) -> NDArray[np.int64]:
        """Return the KV tokens that each request reserves at admission, shape (n,)."""
        if self.reservation == "max":
            return np.full(len(trace), self.max_model_len)
        if self.reservation == "oracle":
            return trace.input_tokens + trace.output_tokens - 1
        powers = np.exp2(np.ceil(np.log2(trace.output_tokens))).astype(np.int64)
        reserved: NDArray[np.int64] = np.minimum(trace.input_tokens + powers, self.max_model_len)
        return reserved

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        reason = super().refusal(request)
        if reason:
            return reason
        budget = self.max_num_batched_tokens
        if budget and request.input_tokens > budget:
            return (
                f"its prompt of {request.input_tokens} tokens exceeds max_num_batched_tokens "
                f"{budget}"
            )
        reserved = self.reserved_tokens(request)
        if reserved > self.kv.num_tokens:
            return f"its reservation of {reserved} tokens exceeds the cache's {self.kv.num_tokens}"
        return ""

    def schedule(self, now_s: float) -> Batch | None:
        """Schedule every running request, and admit those that fit."""
        decodes = self.decodes
        batch = Batch()
        batch.num_decode_tokens = decodes.count
        batch.decode_context_tokens = decodes.context_tokens
        if len(self.waiting):
            self._admit(batch)
        return batch if batch.num_decode_tokens or batch.chunks else None

    def _admit(self, batch: Batch) -> None:
        while len(self.waiting) and len(self.running) < self.num_slots:
            request = self.waiting.head()
            if not self._has_budget(batch, request):
                break
            if self.kv.reserve(request, self.reserved_tokens(request)) is None:
                break
            self.waiting.pop_head()
            self._needed_tokens += request.kv_tokens
            self._enter(request, cached_tokens=0)
            batch.admitted.append(request)
            batch.add_chunk(request, request.input_tokens, 0)

    def _has_budget(self, batch: Batch, request: Request) -> bool:
        budget = self.max_num_batched_tokens
        return (
            not budget
            or batch.num_decode_tokens + batch.num_prefill_tokens + request.input_tokens <= budget
        )

    def would_admit(self, request: Request) -> bool:
        """Return whether a slot and a hole are free and no request stands before it."""
        return super().would_admit(request) and self.kv.fits(self.reserved_tokens(request))

    def _free(self, request: Request) -> None:
        self.kv.free(request)
        self._needed_tokens -= request.kv_tokens

    def kv_use(self) -> KVUse:
        """Split reservations: used, to be used, surplus; holes but the largest are fragments."""
        kv, reserved = self.kv, self.kv.num_reserved_tokens
        unused = reserved - self._needed_tokens
        return KVUse(
            kv.blocks_for(reserved),
            reserved,
            self.decodes.context_tokens,
            unused,
            kv.fragmented_tokens,
        )
