"""Prefill before decode: an iteration is one or the other, as in vLLM V0 and nano-vllm."""

from __future__ import annotations

from typing import Any

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies.continuous_config import PrefillFirstConfig
from busdoor.policies.preempting import PagedPolicy
from busdoor.policies.queues import Queue


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefillFirstPolicy(PagedPolicy):
    """While a request can enter, iterations compute prompts alone and every decode stands still.

    Prompts are computed whole, as many as the budget takes; only one that exceeds the budget by
    itself is cut. An admission takes the blocks of the whole prompt; decodes take theirs on demand,
    and when none is free the last admitted is preempted, to be computed anew.

    Parameters
    ----------
    kv, max_num_seqs, max_num_batched_tokens, max_model_len, queue
        As in `VllmPolicy`; the budget is of prompt tokens.
    **settings
        Fields of `PrefillFirstConfig`; `watermark` is 0 unless given.

    Examples
    --------
    >>> policy = PrefillFirstPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=32, max_model_len=512)
    >>> for i in range(2):
    ...     policy.add(Request(i, 0.0, input_tokens=20, output_tokens=3))
    >>> for _ in range(3):
    ...     batch = policy.schedule(0.0)
    ...     print(batch.num_prefill_tokens, batch.num_decode_tokens, policy.complete(batch, 1))
    20 0 []
    20 0 []
    0 2 []
    """

    prefill_alone = True

    def __init__(
        self,
        kv: PagedKV,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        queue: str | Queue = "fcfs",
        **settings: Any,
    ) -> None:
        super().__init__(kv, max_num_seqs, max_model_len, queue)
        self.max_num_batched_tokens = max_num_batched_tokens
        chosen = PrefillFirstConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            prefix_caching=isinstance(kv, PrefixCachedKV),
            **{"watermark": 0.0, **settings},
        )
        self.watermark_blocks = int(chosen.watermark * kv.num_blocks)

    def schedule(self, now_s: float) -> Batch | None:
        """Schedule the next iteration: prompts if any can be computed, else all next tokens."""
        batch = Batch()
        for request in self.prefilling:  # at most one, cut before
            num_tokens = min(
                request.known_tokens - request.computed_tokens, self.max_num_batched_tokens
            )
            batch.add_chunk(request, num_tokens, request.computed_tokens)
        if len(self.waiting):
            self._admit(batch)
        if not batch.chunks and self.decodes.count:
            self._decode(batch)
        return batch if batch.num_decode_tokens or batch.chunks else None

    def _admit(self, batch: Batch) -> None:
        while len(self.waiting) and len(self.running) < self.num_slots:
            request = self.waiting.head()
            cached_tokens = self.kv.lookup(request)
            wanted = request.known_tokens - cached_tokens
            left = self.max_num_batched_tokens - batch.num_prefill_tokens
            if (wanted > left and batch.chunks) or not self._has_room(request, cached_tokens):
                break
            self.waiting.pop_head()
            self.kv.grow(request, request.known_tokens, cached_tokens)
            self._enter(request, cached_tokens)
            batch.admitted.append(request)
            batch.add_chunk(request, min(wanted, left), cached_tokens)

    def _has_room(self, request: Request, cached_tokens: int) -> bool:
        spare = self.kv.num_free_blocks - (self.watermark_blocks if self.running else 0)
        return self.kv.needed(request, request.known_tokens, cached_tokens) <= spare

    def _decode(self, batch: Batch) -> None:
        """Allocate room for a token of every request, preempting where there is none."""
        decodes = self.decodes
        if self.kv.num_free_blocks >= len(decodes.crossing()):
            self.kv.grow_decodes(decodes, 1)
        else:
            self._decode_in_order(batch)
        batch.num_decode_tokens = decodes.count
        batch.decode_context_tokens = decodes.context_tokens

    def _decode_in_order(self, batch: Batch) -> None:
        for request in list(self.running):
            if request not in self.running:
                continue
            num_tokens = self.decodes.context_of(request) + 1
            self.kv.settle(request, num_tokens - 1)
            self._make_room(request, num_tokens, batch)
            if request in self.running:
                self.kv.grow(request, num_tokens)
