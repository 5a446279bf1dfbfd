"""Static batching: the batch leaves full, and no request enters before it has ended."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies.base import Item, KVUse, Policy, output_caps
from busdoor.policies.static_batch import StaticBatch
from busdoor.policies.whole_batch_config import StaticConfig
from busdoor.step_time.base import StepTime
from busdoor.theory.whole_batches import whole_batch_capacity_rps
from busdoor_workloads import Trace


@mypyc_attr(allow_interpreted_subclasses=True)
class StaticPolicy(Policy):
    """One batch at a time, in order, padded to the longest prompt, run to the longest output.

    A batch leaves when the server is idle and `batch_size` requests wait, or the oldest has waited
    `max_wait_s`, or no arrival is left. It takes one contiguous region of KV: rows × (longest
    prompt + longest output cap − 1) tokens, for the last token is never fed back; where that does
    not fit it takes fewer rows. The cap of a request is the `max_output_tokens` that its client
    asked for, else the policy's, else all that `max_model_len` leaves it.

    Parameters
    ----------
    kv : ContiguousKV
        The memory.
    batch_size, max_model_len : int
        Most rows; longest input + output.
    **settings
        Fields of `StaticConfig`.

    Examples
    --------
    >>> policy = StaticPolicy(ContiguousKV(6400), batch_size=2, max_model_len=512)
    >>> policy.add(Request(0, 0.0, input_tokens=20, output_tokens=3))
    >>> policy.schedule(0.0) is None      # not full
    True
    >>> policy.add(Request(1, 0.0, input_tokens=30, output_tokens=5))
    >>> batch = policy.schedule(0.0)
    >>> batch.num_prefill_tokens, batch.num_padded_tokens
    (50, 10)
    """

    whole_batch = True
    settings_class: ClassVar[type[StaticConfig]] = StaticConfig

    def __init__(
        self, kv: ContiguousKV, batch_size: int, max_model_len: int, **settings: Any
    ) -> None:
        pads = settings.get("pad_input_tokens") or settings.get("pad_output_tokens")
        self.settings = chosen = self.settings_class(
            batch_size=batch_size,
            max_num_seqs=batch_size,
            pad_to="dataset" if pads else "batch",
            **settings,
        )
        self.kv = kv
        self.num_slots = batch_size
        self.max_model_len = max_model_len
        self.max_wait_s = chosen.max_wait_s
        self.reads_padding = chosen.decode_reads == "padded"
        self.streams = chosen.release == "request"
        self.max_output_tokens = chosen.max_output_tokens
        self.padding = chosen.padding
        # a line that any request can leave
        self._waiting: OrderedDict[Request, None] = OrderedDict()
        self._batch: StaticBatch | None = None
        self._closed = False

    def add(self, request: Request) -> None:
        """Add a request that has arrived, or refuse it with its reason in `status`."""
        if reason := self.refusal(request):
            request.status = f"refused: {reason}"
        else:
            self._waiting[request] = None

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        cap = self.cap(request)
        if reason := super().refusal(request) or self.beyond_cap(request, cap):
            return reason
        if self.padding and (
            request.input_tokens > self.padding[0] or request.output_tokens > self.padding[1]
        ):
            return (
                f"its lengths exceed those that every batch is padded to, {self.padding[0]} "
                f"and {self.padding[1]}"
            )
        region = sum(self.padding or (request.input_tokens, cap)) - 1
        if region > self.kv.num_tokens:
            return f"its KV of {region} tokens exceeds the cache's {self.kv.num_tokens}"
        return ""

    def close(self) -> None:
        """Close: no arrival is left, and the next batch need not be full."""
        self._closed = True

    def schedule(self, now_s: float) -> Batch | None:
        """Schedule the next iteration of the running batch, or start one if it is time."""
        if self._batch is None:
            if not self._leaves(now_s):
                return None
            self._batch = self._start()
        return self._batch.batch()

    def _leaves(self, now_s: float) -> bool:
        waiting = len(self._waiting)
        return waiting > 0 and (
            waiting >= self.num_slots or self._closed or now_s >= self._departure_s()
        )

    def _departure_s(self) -> float:
        return next(iter(self._waiting)).arrival_s + self.max_wait_s

    def _start(self) -> StaticBatch:
        """Start the next batch: its requests leave the line, and it takes its region of KV."""
        rows, region = self._fitting()
        for row in rows:
            del self._waiting[row]
            row.status = "running"
        self.kv.reserve(self, region)
        lengths = self._padded(rows, [row.output_tokens for row in rows])
        return StaticBatch(
            rows, *lengths, self.settings.finished_rows == "skip", self.reads_padding
        )

    def _candidates(self) -> Iterable[Request]:
        """Return the requests to run next, the oldest first; the last may find no memory."""
        return islice(self._waiting, self.num_slots)

    def _fitting(self) -> tuple[list[Request], int]:
        """Return as many of the candidates as have room together, and their tokens of KV."""
        rows = list(self._candidates())
        region = self._region(rows)
        if not self.kv.fits(region):
            fewer = range(1, len(rows))
            del rows[
                bisect_right(
                    fewer, self.kv.largest_hole, key=lambda number: self._region(rows[:number])
                ) :
            ]
            region = self._region(rows)
        return rows, region

    def _region(self, rows: list[Request]) -> int:
        """Return the tokens of KV that a batch takes."""
        return len(rows) * (sum(self._padded(rows, [self.cap(row) for row in rows])) - 1)

    def _padded(self, rows: list[Request], output_tokens: list[int]) -> tuple[int, int]:
        """Return the input and output length that rows are padded to, given the outputs to hold."""
        return self.padding or (max([row.input_tokens for row in rows]), max(output_tokens))

    def stretch(self, batch: Batch) -> int:
        """Return the iterations until the next row finishes."""
        return self._batch.stretch() if self._batch else 1

    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Advance all rows; return those with their answers out; free slots when the last is."""
        running = self._batch
        assert running is not None
        answered = [row for row in running.advance(repeat) if row.status == "running"]
        batch.released = []
        if running.done:
            batch.released = [row for row in running.rows if row.status != "abandoned"]
            self.kv.free(self)
            self._batch = None
        if not self.streams:
            answered = batch.released
        for row in answered:
            row.status = "finished"
        return answered

    def next_wakeup_s(self) -> float:
        """Return when the oldest request has waited long enough."""
        return self._departure_s() if self._batch is None and self._waiting else inf

    def would_admit(self, request: Request) -> bool:
        """Return whether the server is idle, and it is the first to wait or fills a batch."""
        waiting = len(self._waiting)
        return self._batch is None and (not waiting or waiting + 1 >= self.num_slots)

    def abandon(self, request: Request) -> None:
        """Drop a request whose client has gone; a running one keeps its row, unanswered."""
        if request.status == "waiting":
            del self._waiting[request]
        elif self._batch is not None:
            self._batch.drop(request)
        request.status = "abandoned"

    def items(self, batch: Batch) -> Iterator[Item]:
        """Every row that computes and its number of tokens, in order of admission."""
        return self._batch.items(batch) if self._batch else iter(())

    @property
    def num_waiting(self) -> int:
        """Requests that have arrived and hold no slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Rows of the batch, finished or not."""
        return len(self._batch.rows) if self._batch else 0

    def kv_use(self) -> KVUse:
        """Count the region as reserved; padding and the rest hold no wanted token."""
        if self._batch is None:
            return KVUse(0, 0, 0, 0, 0)
        batch, reserved = self._batch, self.kv.num_reserved_tokens
        return KVUse(
            self.kv.blocks_for(reserved), reserved, batch.used_tokens, reserved - batch.kv_tokens, 0
        )

    def capacity_rps(self, trace: Trace, step_time: StepTime) -> float:
        """Estimate the requests per second of a trace that the policy serves in full batches."""
        order = self.admission_order(trace)
        return whole_batch_capacity_rps(
            step_time,
            trace.input_tokens[order],
            trace.output_tokens[order],
            output_caps(trace, self.max_model_len, self.max_output_tokens)[order],
            batch_size=self.num_slots,
            kv_tokens=self.kv.num_tokens,
            padding=self.padding,
            finished_rows=self.settings.finished_rows,
            reads_padding=self.reads_padding,
        )

    def admission_order(self, trace: Trace) -> NDArray[np.int64]:
        """Return a trace's rows in the order of admission under load; shape (n,)."""
        return np.arange(len(trace))
