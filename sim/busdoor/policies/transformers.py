"""The first-in, first-out scheduler of Hugging Face transformers' continuous batching."""

from __future__ import annotations

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.continuous_config import TransformersConfig
from busdoor.policies.preempting import PagedPolicy
from busdoor.policies.queues import BackOfLineQueue


@mypyc_attr(allow_interpreted_subclasses=True)
class TransformersPolicy(PagedPolicy):
    """Decodes first, then prompts that have begun, then waiting requests; smaller ones may overtake.

    While fewer than `safety_margin` of the blocks are free, a prompt is computed only in an
    iteration that would be empty without it. A waiting request whose next piece finds no blocks is
    passed over, and the next one is tried. A running request that finds no block is starved: it is
    left out of the iteration, and the newest starved requests are preempted until the blocks
    suffice for the others. They are computed anew, after all that wait, and none enters before a
    running request has finished.

    Parameters
    ----------
    kv, max_num_seqs, max_num_batched_tokens, max_model_len
        As in `VllmPolicy`.
    safety_margin : float
        Share of the blocks, as `TransformersConfig` has it.

    Notes
    -----
    Where a request is cancelled that was the last one running after a preemption, transformers
    admits none ever after; here the next one enters. Sharing of blocks (`allow_block_sharing`) and
    the copy of preempted requests in CPU memory (`cpu_offload_space`, off by default) are not
    modelled.

    References
    ----------
    huggingface/transformers 5.19, src/transformers/generation/continuous_batching: scheduler.py
    (`FIFOScheduler`), offloading_manager.py (`offload_requests`).

    Examples
    --------
    >>> policy = TransformersPolicy(PagedKV(10, 16), 8, max_num_batched_tokens=64, max_model_len=160)
    >>> for i, input_tokens in enumerate((140, 20, 16)):
    ...     policy.add(Request(i, 0.0, input_tokens, output_tokens=3))
    >>> batch = policy.schedule(0.0)
    >>> while batch is not None:
    ...     print([(chunk.request.request_id, chunk.num_tokens) for chunk in batch.chunks])
    ...     done = policy.complete(batch, 1)
    ...     batch = policy.schedule(0.0)
    [(0, 64)]
    [(0, 64)]
    [(0, 12), (2, 16)]
    []
    []
    [(1, 20), (2, 17)]
    []
    []
    """

    def __init__(
        self,
        kv: PagedKV,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        safety_margin: float = TransformersConfig.safety_margin,
    ) -> None:
        self.line = BackOfLineQueue()
        super().__init__(kv, max_num_seqs, max_model_len, self.line)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.safety_margin = safety_margin
        self._closed = False  # since a preemption, until a request finishes
        self._denied: list[tuple[Request, int]] = []  # starved, and the tokens that it is to hold

    def schedule(self, now_s: float) -> Batch | None:
        """Decide the next iteration; where all are starved, preempt and decide again."""
        batch = Batch()
        self._decide(batch)
        while self._denied and not batch.num_tokens:
            self._preempt_starved(batch)
            self._rejoin_starved()
            self._decide(batch)
        if self._denied:
            self._preempt_starved(batch)
        return batch if batch.num_tokens else None

    def _decide(self, batch: Batch) -> None:
        self._denied = []
        ample = self.kv.num_free_blocks / self.kv.num_blocks >= self.safety_margin
        self._decode(batch)
        for request in list(self.prefilling):
            if not self._may_prefill(batch, ample):
                return
            if not self._add_piece(batch, request):
                self._denied.append(
                    (request, request.computed_tokens + self._piece(batch, request))
                )
        if len(self.line) and not self._closed:
            self._admit(batch, ample)

    def _decode(self, batch: Batch) -> None:
        """Schedule every decode that finds a block, in order of admission."""
        decodes = self.decodes
        if len(decodes.crossing()) <= self.kv.num_free_blocks:
            self.kv.grow_decodes(decodes, 1)
        else:
            for request in [request for request in self.running if request not in self.prefilling]:
                self._decode_or_starve(request)
        batch.num_decode_tokens = decodes.count
        batch.decode_context_tokens = decodes.context_tokens

    def _decode_or_starve(self, request: Request) -> None:
        num_tokens = self.decodes.context_of(request) + 1
        self.kv.settle(request, num_tokens - 1)
        if self.kv.needed(request, num_tokens) <= self.kv.num_free_blocks:
            self.kv.grow(request, num_tokens)
            return
        self.decodes.leave(request)
        self._starved.append(request)
        self._denied.append((request, num_tokens))

    def _left(self, batch: Batch) -> int:
        return self.max_num_batched_tokens - batch.num_tokens

    def _may_prefill(self, batch: Batch, ample: bool) -> bool:
        """Whether tokens and requests are left, and blocks are ample or nothing is scheduled."""
        left = self._left(batch) > 0 and batch.num_requests < self.num_slots
        return left and (ample or not batch.num_tokens)

    def _piece(self, batch: Batch, request: Request) -> int:
        return min(request.known_tokens - request.computed_tokens, self._left(batch))

    def _add_piece(self, batch: Batch, request: Request) -> bool:
        """Schedule the next piece of a prompt, if there are blocks for it; return whether."""
        num_tokens = self._piece(batch, request)
        held_after = request.computed_tokens + num_tokens
        if self.kv.needed(request, held_after) > self.kv.num_free_blocks:
            return False
        self.kv.grow(request, held_after)
        batch.add_chunk(request, num_tokens, request.computed_tokens)
        return True

    def _admit(self, batch: Batch, ample: bool) -> None:
        """Admit in order what has room, and leave the others where they stand.

        A slot counts as free where the request in it is starved: that can only be a prompt, which
        is the only one (decodes starve when no block at all is left), and is preempted for it.
        """
        passed: list[Request] = []
        while len(self.line) and self.kv.num_free_blocks:
            if not self._may_prefill(batch, ample):
                break
            request = self.line.pop_head()
            if self._add_piece(batch, request):
                self._enter(request, request.computed_tokens)
                batch.admitted.append(request)
            else:
                passed.append(request)
        self.line.extendleft(reversed(passed))

    def _preempt_starved(self, batch: Batch) -> None:
        """Preempt the newest starved requests until there are blocks for the older ones."""
        victims: list[Request] = []
        free = self.kv.num_free_blocks
        while self._denied and len(self.running) - len(victims) > 1:
            if (
                sum(self.kv.needed(request, num_tokens) for request, num_tokens in self._denied)
                <= free
            ):
                break
            request, _ = self._denied.pop()
            free -= self.kv.needed(request, 0)  # below 0: what it holds
            victims.append(request)
        for request in reversed(victims):
            if request not in self.prefilling:
                self._starved.remove(request)
                self.decodes.join(request)
            self._preempt(request, batch)
            self._closed = True

    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Advance every request in the batch; a finish lets waiting requests enter again."""
        finished = super().complete(batch, repeat)
        if finished:
            self._closed = False
        return finished

    def abandon(self, request: Request) -> None:
        """Drop a request whose client has gone; where none runs any more, others may enter."""
        super().abandon(request)
        if not self.running:
            self._closed = False

    def would_admit(self, request: Request) -> bool:
        """Return whether a slot, tokens and blocks are free; it may overtake the waiting ones."""
        left = self.max_num_batched_tokens - self.decodes.count
        needed = self.kv.blocks_for(min(request.known_tokens, left))
        return (
            not self._closed
            and left > 0
            and len(self.running) < self.num_slots
            and needed <= self.kv.num_free_blocks
        )
