"""Text Generation Inference's router: prefills apart, which then join the decode."""

from __future__ import annotations

from math import floor
from typing import Any

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.continuous_config import MAX_BATCH_PREFILL_TOKENS, TgiConfig
from busdoor.policies.reserving import ReservingPolicy


@mypyc_attr(allow_interpreted_subclasses=True)
class TgiPolicy(ReservingPolicy):
    """A prefill of new requests or a decode of all others; new requests enter in groups.

    While a batch runs, a new one is sought before a decode: of at least floor(running ×
    `waiting_served_ratio`) requests, or of any size once `max_waiting_tokens` decodes have passed
    since the last prefill. Requests are taken in order while the budgets and the free blocks last;
    if they are too few, all go back. A new batch is prefilled in an iteration of its own, which
    yields its first tokens; it joins, and a decode follows before another is sought.

    Parameters
    ----------
    kv : PagedKV
        The blocks; a request takes those of prompt + max output − 1 tokens when it enters.
    max_num_seqs, max_model_len : int
        Most running requests (TGI's max_batch_size); longest input + output.
    **settings
        Fields of `TgiConfig`.

    Notes
    -----
    TGI's own counter starts at 1 with the token that the prefill yields, so that its
    `max_waiting_tokens` stands for one decode less. It also rounds the prefill budget up to whole
    blocks.

    References
    ----------
    huggingface/text-generation-inference, backends/v3/src/backend.rs (`batching_task`) and queue.rs
    (`next_batch`).

    Examples
    --------
    >>> policy = TgiPolicy(PagedKV(64, 16), 8, 512, max_batch_prefill_tokens=32, max_output_tokens=20)
    >>> for i in range(3):
    ...     policy.add(Request(i, 0.0, input_tokens=16, output_tokens=3))
    >>> for _ in range(4):
    ...     batch = policy.schedule(0.0)
    ...     print(batch.num_prefill_tokens, batch.num_decode_tokens, policy.complete(batch, 1))
    32 0 []
    16 0 []
    0 3 []
    0 3 [Request(0, 16 in, 3 out, finished), Request(1, 16 in, 3 out, finished), Request(2, 16 in, 3 out, finished)]
    """

    prefill_alone = True

    def __init__(self, kv: PagedKV, max_num_seqs: int, max_model_len: int, **settings: Any) -> None:
        chosen = TgiConfig(max_num_seqs=max_num_seqs, **settings)
        super().__init__(kv, max_num_seqs, max_model_len, chosen.max_output_tokens)
        self.max_batch_prefill_tokens = chosen.max_batch_prefill_tokens or MAX_BATCH_PREFILL_TOKENS
        self.max_batch_total_tokens = chosen.max_batch_total_tokens or kv.num_blocks * kv.block_size
        self.waiting_served_ratio = chosen.waiting_served_ratio
        self.max_waiting_tokens = chosen.max_waiting_tokens
        self._total_tokens = 0  # prompts and max outputs of all running requests
        self._num_decodes = 0  # since the last prefill
        # whether newcomers to a batch that runs were just prefilled: a decode is due
        self._joined = False
        self._sought = True  # whether newcomers were sought for the iteration that was just decided

    def total_tokens(self, request: Request) -> int:
        """Return the prompt and max output of a request, in tokens."""
        return request.input_tokens + self.cap(request)

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        reason = super().refusal(request)
        if reason:
            return reason
        if request.input_tokens > self.max_batch_prefill_tokens:
            most = self.max_batch_prefill_tokens
            return (
                f"its prompt of {request.input_tokens} tokens exceeds max_batch_prefill_tokens "
                f"{most}"
            )
        total = self.total_tokens(request)
        if total > self.max_batch_total_tokens:
            most = self.max_batch_total_tokens
            return (
                f"its prompt and max output of {total} tokens exceed max_batch_total_tokens {most}"
            )
        return ""

    def schedule(self, now_s: float) -> Batch | None:
        """Schedule the next iteration: a new batch's prefill if any, else all next tokens."""
        batch = Batch()
        num_decodes = self.decodes.count
        self._sought = not (self._joined and num_decodes)
        if self._sought:
            self._seek(batch)
        self._joined = bool(batch.chunks) and num_decodes > 0
        if not batch.chunks:
            batch.num_decode_tokens = num_decodes
            batch.decode_context_tokens = self.decodes.context_tokens
        return batch if batch.chunks or num_decodes else None

    def _fewest(self) -> int:
        """Return how many requests a new batch must have."""
        if self._num_decodes >= self.max_waiting_tokens:
            return 0
        return floor(len(self.running) * self.waiting_served_ratio)

    def _seek(self, batch: Batch) -> None:
        """Admit a new batch, if it is large enough."""
        fewest = self._fewest()
        if len(self.waiting) < max(1, fewest):
            return
        taken = self._take()
        if len(taken) < fewest:
            for request in reversed(taken):
                self.waiting.push_back(request)
            return
        for request in taken:
            self._reserve(request)
            self._total_tokens += self.total_tokens(request)
            self._enter(request, cached_tokens=0)
            batch.admitted.append(request)
            batch.add_chunk(request, request.input_tokens, 0)

    def _take(self) -> list[Request]:
        """Return, in order, the waiting requests that fit together with those before them."""
        taken: list[Request] = []
        prompts = total = blocks = 0
        while len(self.waiting) and len(self.running) + len(taken) < self.num_slots:
            request = self.waiting.head()
            prompts += request.input_tokens
            total += self.total_tokens(request)
            blocks += self.reserved_blocks(request)
            if not self._has_room(prompts, total, blocks):
                break
            taken.append(self.waiting.pop_head())
        return taken

    def _has_room(self, prompts: int, total: int, blocks: int) -> bool:
        """Whether newcomers with so many tokens and blocks fit beside the running requests."""
        return (
            prompts <= self.max_batch_prefill_tokens
            and total <= self.max_batch_total_tokens - self._total_tokens
            and blocks <= self.kv.num_free_blocks
        )

    def _fits(self, request: Request) -> bool:
        """Whether a request could be the first of a new batch."""
        needs = request.input_tokens, self.total_tokens(request), self.reserved_blocks(request)
        return len(self.running) < self.num_slots and self._has_room(*needs)

    def stretch(self, batch: Batch) -> int:
        """Return the iterations until the next finish, or until the waiting requests may enter."""
        repeat = super().stretch(batch)
        if repeat == 1 or not len(self.waiting) or not self._fits(self.waiting.head()):
            return repeat
        if not self._sought and len(self.waiting) >= self._fewest():
            return 1
        return min(repeat, self.max_waiting_tokens - self._num_decodes)

    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Advance every request in the batch, and count the decodes since the last prefill."""
        self._num_decodes = 0 if batch.chunks else self._num_decodes + repeat
        return super().complete(batch, repeat)

    def would_admit(self, request: Request) -> bool:
        """Return whether it is first in line and fits, or makes the line enough to batch."""
        if not len(self.waiting):
            return self._fits(request)
        return len(self.waiting) + 1 == self._fewest() and self._fits(self.waiting.head())

    def _free(self, request: Request) -> None:
        super()._free(request)
        self._total_tokens -= self.total_tokens(request)
