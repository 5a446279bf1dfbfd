"""vLLM V1's scheduler: running requests first, then waiting ones, under one token budget."""

from __future__ import annotations

from typing import Any

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies.continuous_config import VllmConfig
from busdoor.policies.preempting import PagedPolicy
from busdoor.policies.queues import Queue


@mypyc_attr(allow_interpreted_subclasses=True)
class VllmPolicy(PagedPolicy):
    """Continuous batching with paged KV as vLLM 0.32 decides it (the golden cases of the tests).

    There are no phases: a request has computed tokens and known tokens, and every iteration
    computes some of the difference, one for a decode. When a running request finds no block, the
    last one (or the worst priority) is preempted: its blocks are freed and it is computed anew
    later. Waiting requests are admitted only in passes that preempt none.

    Parameters
    ----------
    kv : PagedKV
        The blocks.
    max_num_seqs, max_num_batched_tokens, max_model_len : int
        Most running requests; the token budget of an iteration; longest input + output.
    queue : {"fcfs", "priority", "sjf"} or Queue
        Order of admission, and of preemption: with priorities the worst (priority, arrival), else
        the last admitted.
    **settings
        Fields of `VllmConfig`.

    Examples
    --------
    >>> policy = VllmPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=32, max_model_len=512)
    >>> for i in range(2):
    ...     policy.add(Request(i, 0.0, input_tokens=20, output_tokens=3))
    >>> batch = policy.schedule(0.0)
    >>> [(chunk.request.request_id, chunk.num_tokens) for chunk in batch.chunks]
    [(0, 20), (1, 12)]
    """

    lookahead = 1  # vLLM schedules asynchronously by default

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
        chosen = VllmConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            prefix_caching=isinstance(kv, PrefixCachedKV),
            **settings,
        )
        self.max_num_batched_tokens = max_num_batched_tokens
        self.chunked_prefill = chosen.chunked_prefill
        self.long_prefill_token_threshold = (
            chosen.long_prefill_token_threshold or max_num_batched_tokens
        )
        # of one request, in the iteration that is being decided
        self._most_prefill = max_num_batched_tokens
        # vLLM counts its null block
        self.watermark_blocks = int(chosen.watermark * (kv.num_blocks + 1))
        self.reserve_full_prompt = chosen.reserve_full_prompt

    def schedule(self, now_s: float) -> Batch | None:
        """Decide the next iteration: the running requests, then those that may enter."""
        batch = Batch()
        # A request that preempts itself ends vLLM's pass, perhaps with nothing scheduled; vLLM then
        # asks again at once.
        while self._decide(batch) and not (batch.num_decode_tokens or batch.chunks):
            self._rejoin_starved()
        return batch if batch.num_decode_tokens or batch.chunks else None

    def _decide(self, batch: Batch) -> bool:
        """Schedule running and waiting as vLLM's `schedule` does; return whether it preempted."""
        preempted_before = len(batch.preempted)
        # The threshold protects others from a long prompt; a request that is alone is spared it
        # (vLLM PR 57951).
        alone = len(self.running) + len(self.waiting) <= 1
        self._most_prefill = (
            self.max_num_batched_tokens if alone else self.long_prefill_token_threshold
        )
        plan = self._plan()
        if plan is not None:
            budget = self._follow(plan, batch)
        else:
            budget = self._walk(batch)
            if len(batch.preempted) > preempted_before:
                return True
        if len(self.waiting):
            self._admit(batch, budget)
        return False

    def _plan(self) -> list[tuple[Request, int]] | None:
        """Return the running prefills' pieces; None when blocks or budget make order matter."""
        free = self.kv.num_free_blocks - len(self.decodes.crossing())
        if not self.prefilling:
            return [] if free >= 0 else None
        plan = []
        left = self.max_num_batched_tokens - self.decodes.count
        for request in self.prefilling:
            wanted = self._wanted(request)
            if wanted > left and not self._prefills_come_last():
                return None
            num_tokens = min(wanted, left)
            if num_tokens:
                plan.append((request, num_tokens))
                free -= self.kv.needed(request, request.computed_tokens + num_tokens)
                left -= num_tokens
        return plan if free >= 0 else None

    def _wanted(self, request: Request) -> int:
        remaining = request.input_tokens + request.generated_tokens - request.computed_tokens
        return min(remaining, self._most_prefill)

    def _prefills_come_last(self) -> bool:
        """Whether all decodes were admitted before all prefills, so they have tokens first."""
        last = reversed(self.running)
        return all(next(last) in self.prefilling for _ in self.prefilling)

    def _follow(self, plan: list[tuple[Request, int]], batch: Batch) -> int:
        """Schedule every running request; return the budget that is left."""
        decodes = self.decodes
        if decodes.count:
            batch.num_decode_tokens = decodes.count
            batch.decode_context_tokens = decodes.context_tokens
            self.kv.grow_decodes(decodes, 1)
        for request, num_tokens in plan:
            self.kv.grow(request, request.computed_tokens + num_tokens)
            batch.add_chunk(request, num_tokens, request.computed_tokens)
        return self.max_num_batched_tokens - decodes.count - batch.num_prefill_tokens

    def _walk(self, batch: Batch) -> int:
        """Schedule running requests in order, preempting for blocks; return the budget left."""
        scheduled = self._schedule_in_order(batch)
        for request in list(self.running):
            num_tokens = scheduled.get(request, 0)
            if request in self.prefilling:
                if num_tokens:
                    batch.add_chunk(request, num_tokens, request.computed_tokens)
            elif num_tokens:
                batch.num_decode_tokens += 1
                batch.decode_context_tokens += self.decodes.context_of(request)
            else:
                self.decodes.leave(request)
                self._starved.append(request)
        return self.max_num_batched_tokens - batch.num_prefill_tokens - batch.num_decode_tokens

    def _schedule_in_order(self, batch: Batch) -> dict[Request, int]:
        scheduled: dict[Request, int] = {}
        budget = self.max_num_batched_tokens
        for request in list(self.running):
            if request not in self.running:
                continue
            if not budget:
                break
            decoding = request not in self.prefilling
            context = self.decodes.context_of(request) if decoding else request.computed_tokens
            num_tokens = 1 if decoding else min(self._wanted(request), budget)
            self.kv.settle(request, context)
            for victim in self._make_room(request, context + num_tokens, batch):
                budget += scheduled.pop(victim, 0)
            if request not in self.running:
                break
            self.kv.grow(request, context + num_tokens)
            scheduled[request] = num_tokens
            budget -= num_tokens
        return scheduled

    def _admit(self, batch: Batch, budget: int) -> None:
        while len(self.waiting) and budget > 0 and len(self.running) < self.num_slots:
            request = self.waiting.head()
            cached_tokens = self.kv.lookup(request)
            known_tokens = request.input_tokens + request.generated_tokens
            wanted = min(known_tokens - cached_tokens, self._most_prefill)
            if wanted > budget and not self.chunked_prefill:
                break
            num_tokens = min(wanted, budget)
            held_tokens = known_tokens if self.reserve_full_prompt else cached_tokens + num_tokens
            spare = self.kv.num_free_blocks - (self.watermark_blocks if self.running else 0)
            if self.kv.needed(request, held_tokens, cached_tokens) > spare:
                break
            self.waiting.pop_head()
            self.kv.grow(request, cached_tokens + num_tokens, cached_tokens)
            self._enter(request, cached_tokens)
            batch.admitted.append(request)
            batch.add_chunk(request, num_tokens, cached_tokens)
            budget -= num_tokens
