"""What every iteration-level policy shares: slots that are taken and left between any two iterations."""

from __future__ import annotations

from collections.abc import Iterator

from busdoor.batch import Batch, Chunk
from busdoor.kv.paged import PagedKV
from busdoor.policies.base import Item, KVUse, Policy
from busdoor.policies.decodes import Decodes
from busdoor.policies.queues import QUEUES, Queue
from busdoor.request import Request


class ContinuousPolicy(Policy):
    """Running requests in order of admission; those that decode are kept as sums in `decodes`.

    A subclass says in `schedule` whom it admits and what a batch holds.

    Attributes
    ----------
    waiting : Queue
        Requests without a slot.
    running : dict of Request
        Requests with a slot, in order of admission (a set that keeps its order).
    prefilling : dict of Request
        Those of them whose prompt is not wholly computed.
    decodes : Decodes
        The others.
    """

    def __init__(self, kv: PagedKV, max_num_seqs: int, max_model_len: int, queue: str = "fcfs") -> None:
        self.kv = kv
        self.num_slots = max_num_seqs
        self.max_model_len = max_model_len
        self.waiting: Queue = QUEUES[queue]()
        self.running: dict[Request, None] = {}
        self.prefilling: dict[Request, None] = {}
        self.decodes = Decodes(kv.block_size)
        self._starved: list[Request] = []  # decoding, but left out of the batch that is running
        self._next_seat = 0

    def add(self, request: Request) -> None:
        """Take in a request that has arrived, or refuse it with its reason in `status`."""
        reason = self.refusal(request)
        if reason:
            request.status = f"refused: {reason}"
        else:
            self.waiting.push(request)

    def refusal(self, request: Request) -> str:
        """Why a request can never be served; empty when it can."""
        total = request.input_tokens + request.output_tokens
        if total > self.max_model_len:
            return f"{total} tokens exceed max_model_len {self.max_model_len}"
        blocks = self.kv.blocks_for(request.kv_tokens)
        if blocks > self.kv.num_blocks:
            return f"its KV of {blocks} blocks exceeds the cache's {self.kv.num_blocks}"
        return ""

    def stretch(self, batch: Batch) -> int:
        """Until the next finish or the last free block; a batch with prefill or a preemption does not repeat."""
        if batch.chunks or batch.preempted:
            return 1
        decodes = self.decodes
        repeat = decodes.until_finish()
        free = self.kv.num_free_blocks
        # Every request begins at most one block in block_size iterations, and one more: mostly that is far away.
        if repeat * decodes.count > (free - decodes.count) * self.kv.block_size:
            repeat = min(repeat, 1 + decodes.affordable(free, ahead=1))
        return int(repeat)

    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Advance everybody in the batch, and free the KV of whoever has finished."""
        finished: list[Request] = []
        if batch.num_decode_tokens:
            if repeat > 1:
                batch.grown_blocks = self.kv.grow_decodes(self.decodes, repeat - 1, ahead=1)
            self.decodes.advance(repeat)
            finished = self.decodes.pop_finished()
        for chunk in batch.chunks:
            self._compute(chunk, finished)
        if len(finished) > 1:
            finished.sort(key=_seat)
        for request in finished:
            self._release(request, "finished")
        while self._starved:
            self.decodes.join(self._starved.pop())
        return finished

    def _compute(self, chunk: Chunk, finished: list[Request]) -> None:
        request = chunk.request
        request.computed_tokens += chunk.num_tokens
        if request.computed_tokens < request.input_tokens + request.generated_tokens:
            return
        del self.prefilling[request]
        request.generated_tokens += 1
        if request.generated_tokens == request.output_tokens:
            finished.append(request)
        else:
            self.decodes.join(request)

    def _release(self, request: Request, status: str) -> None:
        request.status = status
        del self.running[request]
        self.kv.settle(request, request.computed_tokens)
        self.kv.free(request)

    def _seat(self, request: Request, cached_tokens: int) -> None:
        """Give a slot to a request that leaves the waiting line."""
        request.status = "running"
        request.computed_tokens = cached_tokens
        if not request.num_preemptions:
            request.cached_tokens = cached_tokens
        request.seat = self._next_seat
        self._next_seat += 1
        self.running[request] = None
        self.prefilling[request] = None

    def _preempt(self, request: Request, batch: Batch) -> None:
        """Throw a request out: its KV is freed, to be computed again when it comes back."""
        self._stop(request)
        self._release(request, "waiting")
        request.computed_tokens = 0
        request.num_preemptions += 1
        self.waiting.push_back(request)
        batch.preempted.append(request)

    def _stop(self, request: Request) -> None:
        if request in self.prefilling:
            del self.prefilling[request]
        else:
            self.decodes.leave(request)

    def abandon(self, request: Request) -> None:
        """Drop a request whose client has gone."""
        if request in self.running:
            self._stop(request)
            self._release(request, "abandoned")
        else:
            self.waiting.remove(request)
            request.status = "abandoned"

    def would_admit(self, request: Request) -> bool:
        """Only if a slot is free and nobody stands before it."""
        return len(self.running) < self.num_slots and self.waiting.precedes(request)

    def items(self, batch: Batch) -> Iterator[Item]:
        """Every request of the batch and its number of tokens, in order of admission."""
        chunks = {chunk.request: chunk.num_tokens for chunk in batch.chunks}
        for request in self.running:
            if request in chunks:
                yield request, chunks[request]
            elif batch.num_decode_tokens and request.decode_clock >= 0:
                yield request, 1

    @property
    def num_waiting(self) -> int:
        """Requests that have arrived and hold no slot."""
        return len(self.waiting)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self.running)

    def kv_use(self) -> KVUse:
        """Whole blocks are reserved; the last one of a request is partly empty."""
        kv = self.kv
        blocks = kv.num_blocks - kv.num_free_blocks
        reserved = blocks * kv.block_size
        used = self.decodes.context_tokens + sum([request.computed_tokens for request in self.prefilling])
        return KVUse(blocks, reserved, min(used, reserved), 0, 0)


def _seat(request: Request) -> int:
    return request.seat
