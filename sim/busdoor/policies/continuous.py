"""What iteration-level policies share: slots taken and left between two iterations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from busdoor.core.batch import Batch, Chunk
from busdoor.core.compiled import mypyc_attr
from busdoor.core.decodes import Decodes
from busdoor.core.request import Request
from busdoor.policies.base import Item, Policy, by_admission
from busdoor.policies.queues import Queue, as_queue


@mypyc_attr(allow_interpreted_subclasses=True)
class ContinuousPolicy(Policy):
    """Running requests in order of admission; those that decode are kept as sums in `decodes`.

    A subclass decides in `schedule` which requests it admits and what a batch holds, and keeps the
    KV memory.

    Parameters
    ----------
    max_num_seqs, max_model_len : int
        Most running requests; longest input + output.
    queue : {"fcfs", "priority", "sjf"} or Queue
        Order of admission.
    block_size : int
        Tokens in a KV block, for a subclass that has to know when a decode begins one.

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

    REQUIRED: ClassVar[tuple[str, ...]] = ("_free",)

    def __init__(
        self,
        max_num_seqs: int,
        max_model_len: int,
        queue: str | Queue = "fcfs",
        block_size: int = 1,
    ) -> None:
        self.num_slots = max_num_seqs
        self.max_model_len = max_model_len
        self.waiting: Queue = as_queue(queue)
        self.running: dict[Request, None] = {}
        self.prefilling: dict[Request, None] = {}
        self.decodes = Decodes(block_size)
        self._starved: list[Request] = []  # decoding, but left out of the batch that is running
        self._next_admission = 0

    def add(self, request: Request) -> None:
        """Add a request that has arrived, or refuse it with its reason in `status`."""
        if reason := self.refusal(request):
            request.status = f"refused: {reason}"
        else:
            self.waiting.push(request)

    def stretch(self, batch: Batch) -> int:
        """Return the iterations until the next finish; prefill or preemption does not repeat."""
        return 1 if batch.chunks or batch.preempted else int(self.decodes.until_finish())

    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Advance every request in the batch, and free the KV of the finished ones."""
        finished: list[Request] = []
        if batch.num_decode_tokens:
            if repeat > 1:
                batch.grown_blocks = self._grow(repeat - 1)
            self.decodes.advance(repeat)
            finished = self.decodes.pop_finished()
        for chunk in batch.chunks:
            self._compute(chunk, finished)
        if len(finished) > 1:
            finished.sort(key=by_admission)
        for request in finished:
            self._release(request, "finished")
        if self._starved:
            self._rejoin_starved()
        return finished

    def _rejoin_starved(self) -> None:
        while self._starved:
            self.decodes.join(self._starved.pop())

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
        self._free(request)

    def _grow(self, repeat: int) -> int:
        """Allocate blocks that `repeat` more iterations after this one begin; return how many."""
        return 0

    @abstractmethod
    def _free(self, request: Request) -> None:
        """Free the KV memory of a request that leaves its slot."""

    def _enter(self, request: Request, cached_tokens: int) -> None:
        """Admit a request from the waiting line to a slot."""
        request.status = "running"
        request.computed_tokens = cached_tokens
        if not (request.num_preemptions or request.generated_tokens):  # the first time
            request.cached_tokens = cached_tokens
        request.admission_index = self._next_admission
        self._next_admission += 1
        self.running[request] = None
        self.prefilling[request] = None

    def _preempt(self, request: Request, batch: Batch) -> None:
        """Preempt a request: its KV is freed, and is computed again when the request comes back."""
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
        """Return whether a slot is free and no request stands before it."""
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
