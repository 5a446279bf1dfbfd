"""The policy that schedules the cells of a designed grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

import numpy as np

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.base import Item, KVUse, Policy
from busdoor_gpu.twin.grid import Cell, GridLimits

# Most of the budget that warm-up may take: the engine has rehearsed what compiles.
_WARM_SHARE = 0.1


class GridPolicy(Policy):
    """Schedules cells until the time is up; no request arrives, the policy makes its own.

    A request enters with its context as if from a prefix cache, so that computing it takes no time.
    A cell begins with an iteration that admits its decodes, and ends with an extra iteration of its
    own kind, since the host prepares the next batch while an iteration runs. Neither is measured.
    Every cell runs once to warm up, then all cells run again and again, each time in a new random
    order, so that the run can stop anywhere; after `budget_s` of the executor's clock no cell
    begins. `cell_of` has the cell that each scheduled batch measures, -1 if none.
    """

    def __init__(
        self, cells: Sequence[Cell], limits: GridLimits, budget_s: float = inf, seed: int = 0
    ) -> None:
        self.num_slots = limits.max_num_seqs
        self.max_num_batched_tokens = limits.max_num_batched_tokens
        self.max_model_len = limits.max_model_len
        self.kv = PagedKV(limits.num_blocks, limits.block_size)
        self.cell_of: list[int] = []
        self._cells, self._budget_s = cells, budget_s
        self._draw = np.random.default_rng(seed)
        self._order = iter(self._sequence())
        self._now_s = 0.0
        self._emitted: Iterator[Batch] = iter(())
        self._items: list[Item] = []
        self._running: dict[Request, None] = {}
        self._num_requests = 0

    def add(self, request: Request) -> None:
        """Refuse the request: a grid has no clients."""
        request.status = "refused: a grid has no clients"

    def abandon(self, request: Request) -> None:
        """Do nothing: a grid has no clients."""

    def schedule(self, now_s: float) -> Batch | None:
        """Return the next batch of the cell, or the next cell's first; None when time is up."""
        self._now_s = now_s
        batch = next(self._emitted, None)
        while batch is None:
            index, measured = next(self._order, (-1, False))
            if index < 0:
                return None
            self._emitted = self._emit(index, measured)
            batch = next(self._emitted, None)
        return batch

    def _sequence(self) -> Iterator[tuple[int, bool]]:
        """Yield the cells to run, and whether to measure them."""
        everything = np.arange(len(self._cells))
        for index in self._draw.permutation(everything).tolist():
            if self._now_s > _WARM_SHARE * self._budget_s:
                break
            yield index, False
        while self._cells:
            for index in self._draw.permutation(everything).tolist():
                if self._now_s > self._budget_s:
                    return
                yield index, True

    def _emit(self, index: int, measured: bool) -> Iterator[Batch]:
        cell = self._cells[index]
        runs = (cell.repeats if measured else 1) + 1
        decodes = [self._enter(context, 0, runs + 1) for context in cell.decodes]
        grown = [(self._enter(context, n * runs, 1), n) for n, context in cell.chunks if context]
        if decodes or grown:
            yield self._batch(
                [], [(request, 1) for request in [*decodes, *(request for request, _ in grown)]], -1
            )
        for run in range(runs):
            fresh = [(self._enter(0, n, 1), n) for n, context in cell.chunks if not context]
            yield self._batch(
                decodes, [*grown, *fresh], index if measured and run < runs - 1 else -1
            )

    def _enter(self, context: int, more_tokens: int, output_tokens: int) -> Request:
        """Create a request that holds all but the last token of a context."""
        request = Request(self._num_requests, self._now_s, context + more_tokens, output_tokens)
        self._num_requests += 1
        request.computed_tokens = request.cached_tokens = max(0, context - 1)
        self.kv.grow(request, request.kv_tokens)
        return request

    def _batch(self, decodes: Sequence[Request], chunks: Sequence[Item], cell: int) -> Batch:
        self.cell_of.append(cell)
        batch = Batch()
        batch.num_decode_tokens = len(decodes)
        batch.decode_context_tokens = sum(request.computed_tokens for request in decodes)
        for request, num_tokens in chunks:
            batch.add_chunk(request, num_tokens, request.computed_tokens)
            if request.status == "waiting":
                request.status = "running"
                batch.admitted.append(request)
                self._running[request] = None
        self._items = [*((request, 1) for request in decodes), *chunks]
        return batch

    def items(self, batch: Batch) -> Iterator[Item]:
        """Return every request of the batch that was just scheduled, with its number of tokens."""
        return iter(self._items)

    def stretch(self, batch: Batch) -> int:
        """Return 1: every iteration is measured by itself."""
        return 1

    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Complete a batch that has run; return the finished requests."""
        finished = []
        for request, num_tokens in self._items:
            request.computed_tokens += num_tokens
            request.generated_tokens += request.computed_tokens == request.known_tokens
            if request.generated_tokens == request.output_tokens:
                request.status = "finished"
                self.kv.free(request)
                del self._running[request]
                finished.append(request)
        return finished

    @property
    def num_waiting(self) -> int:
        """Always 0."""
        return 0

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    def kv_use(self) -> KVUse:
        """Return the KV memory that the batch that was just scheduled takes."""
        blocks = self.kv.num_blocks - self.kv.num_free_blocks
        used = sum(request.computed_tokens for request in self._running) + sum(
            n for _, n in self._items
        )
        return KVUse(blocks, blocks * self.kv.block_size, used, 0, 0)
