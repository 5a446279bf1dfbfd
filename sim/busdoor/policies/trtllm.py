"""TensorRT-LLM's in-flight batching: decodes, then context, by one of two memory rules."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.continuous import ContinuousPolicy
from busdoor.policies.continuous_config import TrtllmConfig
from busdoor.policies.preempting import PagedPolicy
from busdoor.policies.reserving import ReservingPolicy


class InFlightPolicy(ContinuousPolicy):
    """What both rules share: decodes, then context in order, up to `max_num_batched_tokens`.

    Parameters
    ----------
    *args, **options
        Of the class that keeps the memory.
    max_num_batched_tokens, chunked_prefill
        As `TrtllmConfig` has them; the first is its `max_num_tokens`.

    References
    ----------
    NVIDIA/TensorRT-LLM, cpp/tensorrt_llm/batch_manager: capacityScheduler.cpp,
    microBatchScheduler.cpp. Not modelled: chunks are not rounded down to whole blocks, and there is
    no block reuse.
    """

    kv: PagedKV

    def __init__(
        self,
        *args: Any,
        max_num_batched_tokens: int = TrtllmConfig.max_num_tokens,
        chunked_prefill: bool = TrtllmConfig.chunked_prefill,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.chunked_prefill = chunked_prefill

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        reason = super().refusal(request)
        longest = self._longest_context(request)
        if not reason and not self.chunked_prefill and longest > self.max_num_batched_tokens:
            most = self.max_num_batched_tokens
            reason = (
                f"a context of {longest} tokens exceeds max_num_tokens {most}; "
                f"chunked_prefill would cut it"
            )
        return reason

    def schedule(self, now_s: float) -> Batch | None:
        """Schedule the next iteration: next tokens, begun context, then those that may enter."""
        batch = Batch()
        if self.decodes.count:
            self._decode(batch)
            batch.num_decode_tokens = self.decodes.count
            batch.decode_context_tokens = self.decodes.context_tokens
        for request in self.prefilling:
            self._add_context(batch, request)
        if len(self.waiting) and not batch.preempted:
            self._admit(batch)
        return batch if batch.num_decode_tokens or batch.chunks else None

    def _left(self, batch: Batch) -> int:
        return self.max_num_batched_tokens - batch.num_decode_tokens - batch.num_prefill_tokens

    def _add_context(self, batch: Batch, request: Request) -> None:
        num_tokens = min(request.known_tokens - request.computed_tokens, self._left(batch))
        if num_tokens:
            batch.add_chunk(request, num_tokens, request.computed_tokens)

    def _admit(self, batch: Batch) -> None:
        while len(self.waiting) and len(self.running) < self.num_slots:
            request = self.waiting.head()
            if not (self._has_tokens(request, self._left(batch)) and self._has_room(request)):
                break
            self.waiting.pop_head()
            self._hold(request)
            self._enter(request, self.kv.lookup(request))
            batch.admitted.append(request)
            self._add_context(batch, request)

    def _has_tokens(self, request: Request, left: int) -> bool:
        """Whether its context, or a piece of it, fits the tokens that are left."""
        return left >= (
            1 if self.chunked_prefill else request.known_tokens - request.computed_tokens
        )

    def would_admit(self, request: Request) -> bool:
        """Return whether a slot, tokens and blocks are free and no request stands before it."""
        left = self.max_num_batched_tokens - self.decodes.count
        return (
            super().would_admit(request)
            and self._has_tokens(request, left)
            and self._has_room(request)
        )

    @abstractmethod
    def _longest_context(self, request: Request) -> int:
        """Count the longest context's tokens that a request may have to compute at once."""

    @abstractmethod
    def _decode(self, batch: Batch) -> None:
        """Allocate a block for the next token of every request that decodes."""

    @abstractmethod
    def _has_room(self, request: Request) -> bool:
        """Whether the blocks that a request needs to enter are free."""

    @abstractmethod
    def _hold(self, request: Request) -> None:
        """Allocate the blocks that a request needs to enter."""


class GuaranteedNoEvictPolicy(InFlightPolicy, ReservingPolicy):
    """A request enters if blocks are left for all that running ones may write; none is paused.

    TensorRT-LLM takes a block when it is begun, and counts what is still to come as taken. No other
    request can have it either way; here it is taken at once. Parameters are those of
    `ReservingPolicy` and `InFlightPolicy`.

    Examples
    --------
    >>> policy = GuaranteedNoEvictPolicy(PagedKV(6, 16), 8, 512, max_num_batched_tokens=64, max_output_tokens=17)
    >>> for i in range(3):
    ...     policy.add(Request(i, 0.0, input_tokens=16, output_tokens=3))
    >>> policy.schedule(0.0).num_requests, policy.kv.num_free_blocks     # each may write 16 + 17 - 1 tokens
    (3, 0)
    """

    def _longest_context(self, request: Request) -> int:
        return request.input_tokens

    def _decode(self, batch: Batch) -> None:
        """Do nothing: every request holds all its blocks already."""

    def _has_room(self, request: Request) -> bool:
        return self.reserved_blocks(request) <= self.kv.num_free_blocks

    def _hold(self, request: Request) -> None:
        self._reserve(request)


class MaxUtilizationPolicy(InFlightPolicy, PagedPolicy):
    """A request enters if its context has blocks; when a decode finds none, the newest pauses.

    A paused request gives all blocks back and is computed anew later; in that iteration none
    enters. Parameters are those of `PagedPolicy` and `InFlightPolicy`.

    Examples
    --------
    >>> policy = MaxUtilizationPolicy(PagedKV(6, 16), 8, 512, max_num_batched_tokens=128)
    >>> for i in range(7):
    ...     policy.add(Request(i, 0.0, input_tokens=16, output_tokens=3))
    >>> batch = policy.schedule(0.0)
    >>> batch.num_requests, policy.complete(batch, 1)
    (6, [])
    >>> batch = policy.schedule(0.0)     # every decode begins a block: three make room for three
    >>> batch.num_requests, [request.request_id for request in batch.preempted]
    (3, [5, 4, 3])
    """

    def _longest_context(self, request: Request) -> int:
        return request.kv_tokens  # paused just before its last token

    def _decode(self, batch: Batch) -> None:
        while len(self.decodes.crossing()) > self.kv.num_free_blocks:
            self._preempt(self._victim(), batch)
        self.kv.grow_decodes(self.decodes, 1)

    def _has_room(self, request: Request) -> bool:
        return self.kv.needed(request, request.known_tokens) <= self.kv.num_free_blocks

    def _hold(self, request: Request) -> None:
        self.kv.grow(request, request.known_tokens)


def in_flight_policy(
    *, capacity: str, max_output_tokens: int | None, **arguments: Any
) -> InFlightPolicy:
    """Decode first, then read prompts up to the budget; reserve memory, or pause the newest."""
    if capacity == "max_utilization":
        return MaxUtilizationPolicy(**arguments)
    return GuaranteedNoEvictPolicy(max_output_tokens=max_output_tokens, **arguments)
