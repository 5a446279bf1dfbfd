"""What policies with paged KV on demand share: growing by blocks, and preempting."""

from __future__ import annotations

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.base import KVUse
from busdoor.policies.continuous import ContinuousPolicy
from busdoor.policies.queues import Queue


@mypyc_attr(allow_interpreted_subclasses=True)
class PagedPolicy(ContinuousPolicy):
    """Running requests take a KV block on beginning it; if none is free, one is preempted.

    Parameters
    ----------
    kv : PagedKV
        The blocks.
    max_num_seqs, max_model_len : int
        Most running requests; longest input + output.
    queue : {"fcfs", "priority", "sjf"} or Queue
        Order of admission, and of preemption: with priorities the worst (priority, arrival), else
        the last admitted.
    """

    def __init__(
        self, kv: PagedKV, max_num_seqs: int, max_model_len: int, queue: str | Queue = "fcfs"
    ) -> None:
        super().__init__(max_num_seqs, max_model_len, queue, kv.block_size)
        self.kv = kv
        self.by_priority = queue == "priority"

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        reason = super().refusal(request)
        if not reason and request.kv_tokens > self.kv.num_tokens:
            blocks = self.kv.blocks_for(request.kv_tokens)
            reason = f"its KV of {blocks} blocks exceeds the cache's {self.kv.num_blocks}"
        return reason

    def stretch(self, batch: Batch) -> int:
        """Return iterations to the next finish or last free block; 1 with prefill, preemption."""
        if batch.chunks or batch.preempted:
            return 1
        decodes = self.decodes
        repeat = decodes.until_finish()
        free = self.kv.num_free_blocks
        # Every request begins at most one block in block_size iterations, and one more: mostly that
        # is far away.
        if repeat * decodes.count > (free - decodes.count) * self.kv.block_size:
            repeat = min(repeat, 1 + decodes.affordable(free, ahead=1))
        return int(repeat)

    def _grow(self, repeat: int) -> int:
        return self.kv.grow_decodes(self.decodes, repeat, ahead=1)

    def _free(self, request: Request) -> None:
        self.kv.settle(request, request.computed_tokens)
        self.kv.free(request)

    def _make_room(self, request: Request, num_tokens: int, batch: Batch) -> list[Request]:
        """Preempt until the request holds `num_tokens` or is preempted; return the victims."""
        victims = []
        while (
            request in self.running
            and self.kv.needed(request, num_tokens) > self.kv.num_free_blocks
        ):
            victim = self._victim()
            self._preempt(victim, batch)
            victims.append(victim)
        return victims

    def _victim(self) -> Request:
        # of several equally bad ones the first admitted, as vLLM's scheduler finds it
        if self.by_priority:
            return max(self.running, key=lambda request: (request.priority, request.arrival_s))
        return next(reversed(self.running))

    def kv_blocks(self, repeat: int) -> int:
        """Return the KV blocks taken in iteration `repeat` (from 1) of the batch just decided."""
        kv = self.kv
        return kv.num_blocks - kv.num_free_blocks + self.decodes.new_blocks(repeat - 1, ahead=1)

    def kv_use(self) -> KVUse:
        """Count whole blocks as reserved; the last one of a request is partly empty."""
        kv = self.kv
        blocks = kv.num_blocks - kv.num_free_blocks
        reserved = blocks * kv.block_size
        used = self.decodes.context_tokens
        for request in self.prefilling:
            used += request.computed_tokens
        return KVUse(blocks, reserved, min(used, reserved), 0, 0)
