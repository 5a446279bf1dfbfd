"""Record what happens: flat arrays while it runs, tables afterwards."""

from __future__ import annotations

from collections.abc import Collection
from math import nan
from struct import Struct
from typing import Protocol

import numpy as np
import pandas as pd

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.policies.base import KVUse, Policy
from busdoor.results.columns import ITERATION_COLUMNS, REQUEST_COLUMNS, STAY_COLUMNS
from busdoor.simulator.rows import FULL_BYTES, Rows, assign_slots
from busdoor.simulator.stretch import Stretch
from busdoor_workloads import Trace

# Rows are packed into bytes: a third of the time of array.extend, which converts item by item.
_pack_request = Struct(f"{len(REQUEST_COLUMNS)}d").pack
_pack_iteration = Struct(f"{len(ITERATION_COLUMNS)}d").pack
_pack_stay = Struct(f"{len(STAY_COLUMNS)}d").pack


class TableRecorder:
    """Keep every request, and (with `iterations`) every stretch and every stay in a slot.

    The policy's queue and KV memory are read when a batch begins. Without iterations a run of a
    million requests takes little memory. `replica` numbers the server, where there are several.
    """

    def __init__(self, policy: Policy, iterations: bool = True, replica: int = 0) -> None:
        self._policy = policy
        self.keeps_batches = iterations
        self._replica = replica
        self._forget()
        self._entered: dict[Request, float] = {}
        self._kv_use = KVUse(0, 0, 0, 0, 0)
        self._queue = (0, 0)

    def _forget(self) -> None:
        self._requests, self._stays = Rows(REQUEST_COLUMNS), Rows(STAY_COLUMNS)
        self._iterations = Rows(ITERATION_COLUMNS)
        self._statuses: dict[int, str] = {}

    def begin(self, batch: Batch, now_s: float) -> None:
        """Note the requests that enter and leave, and the state of the queue and of the memory."""
        for request in batch.preempted:
            self._leave(request, now_s)
        for request in batch.admitted:
            self._entered[request] = now_s
        policy = self._policy
        use = policy.kv_use()
        self._kv_use = _with_writing(use, batch) if batch.num_prefill_tokens else use
        self._queue = (policy.num_waiting, policy.num_running)

    def end(
        self, batch: Batch, stretch: Stretch, repeat: int, firsts: list[Request], now_s: float
    ) -> None:
        """Write the row of a stretch."""
        num_joined, num_resumed, resumed_gap_s = _joined(firsts, now_s) if firsts else (0, 0, 0.0)
        blocks, reserved, used, unused, hole = self._kv_use
        num_waiting, num_running = self._queue
        start_s, context = stretch.start_s, batch.decode_context_tokens
        decodes, idle = batch.num_decode_tokens, batch.num_idle_rows
        self._iterations += _pack_iteration(
            start_s,
            now_s - start_s,
            repeat,
            stretch.first_s,
            stretch.last_s(repeat),
            batch.num_prefill_tokens,
            decodes,
            batch.num_padded_tokens,
            idle,
            len(batch.chunks) + decodes + idle,
            len(firsts) - num_resumed,
            num_joined,
            batch.prefill_attention,
            batch.prefill_context_tokens,
            context,
            context + (repeat - 1) * (decodes + idle),
            blocks,
            blocks + batch.grown_blocks,
            reserved,
            used,
            unused,
            hole,
            num_waiting,
            num_running,
            len(batch.preempted),
            num_resumed,
            resumed_gap_s,
        )
        if len(self._iterations) >= FULL_BYTES:
            self._iterations.settle()

    def left(self, request: Request, now_s: float) -> None:
        """Write the row of a request, and of its last stay."""
        self._requests += _pack_request(
            request.request_id,
            request.arrival_s,
            request.input_tokens,
            request.output_tokens,
            request.max_output_tokens,
            request.first_scheduled_s,
            request.first_token_s,
            request.finish_s,
            request.released_s,
            request.num_preemptions,
            request.cached_tokens,
            request.replica,
        )
        if request.status != "finished":
            self._statuses[request.request_id] = request.status
        self._leave(request, now_s)
        if len(self._requests) >= FULL_BYTES:
            self._requests.settle()
            self._stays.settle()

    def _leave(self, request: Request, now_s: float) -> None:
        enter_s = self._entered.pop(request, nan)
        if enter_s == enter_s:
            self._stays += _pack_stay(request.request_id, enter_s, now_s)

    @property
    def num_left(self) -> int:
        """Requests that have left."""
        return self._requests.num_rows

    def left_ids(self) -> set[int]:
        """Return the ids of the requests that have left."""
        return set(self._requests.column("request_id").tolist())

    def known(self) -> set[int]:
        """Return the ids of the requests that run, and of those that have left."""
        return {request.request_id for request in self._entered} | self.left_ids()

    def stop(self, trace: Trace, now_s: float, elsewhere: Collection[int] = ()) -> None:
        """Write a row for each request still there: running as they are, others as they will come.

        Those `elsewhere` are left out: another server's recorder writes them.
        """
        running = {request.request_id: request for request in self._entered}
        left = self.left_ids().union(elsewhere)
        for row in range(len(trace)):
            if row not in left:
                request = running.get(row) or Request(
                    row,
                    float(trace.arrival_s[row]),
                    int(trace.input_tokens[row]),
                    int(trace.output_tokens[row]),
                )
                request.status = "unfinished"
                self.left(request, now_s)

    def requests(self) -> pd.DataFrame:
        """Return a row per request, in the trace's order."""
        return self._with_status(self._requests.frame("request_id"))

    def _with_status(self, frame: pd.DataFrame) -> pd.DataFrame:
        ids, status = frame["request_id"].to_numpy(), np.full(len(frame), "finished", dtype=object)
        for row in np.flatnonzero(np.isin(ids, list(self._statuses))).tolist():
            status[row] = self._statuses[int(ids[row])]
        frame["status"] = status
        return frame

    def take(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return requests, iterations and stays since the last call, and forget them.

        Requests are in order of leaving, and stays have no slots.
        """
        requests = self._with_status(self._requests.frame())
        tables = requests, self.iterations(), self._stays.frame()
        self._forget()
        return tables

    def iterations(self) -> pd.DataFrame:
        """Return a row per stretch, in order of time."""
        frame = self._iterations.frame()
        frame["replica"] = self._replica
        return frame

    def stays(self) -> pd.DataFrame:
        """Return a row for each time that a request held a slot, in order of entering."""
        frame = self._stays.frame("enter_s", "request_id")
        frame.insert(
            1, "slot", assign_slots(frame["enter_s"].to_numpy(), frame["leave_s"].to_numpy())
        )
        frame["replica"] = self._replica
        return frame


def _with_writing(use: KVUse, batch: Batch) -> KVUse:
    """Count prompt tokens that the iteration writes as used: a running prefill wastes none."""
    blocks, reserved, used, unused, hole = use
    return KVUse(blocks, reserved, min(used + batch.num_prefill_tokens, reserved), unused, hole)


def _joined(firsts: list[Request], now_s: float) -> tuple[int, int, float]:
    """Count complete prefills and decoding requests; preempted ones, with the time lost."""
    num_joined = num_resumed = 0
    resumed_gap_s = 0.0
    for request in firsts:
        num_joined += request.generated_tokens < request.output_tokens
        if request.first_token_s == request.first_token_s:  # it had one before: no NaN
            num_resumed += 1
            resumed_gap_s += now_s - request.last_token_s
    return num_joined, num_resumed, resumed_gap_s


class Recorder(Protocol):
    """Records what happens; see `TableRecorder`."""

    def begin(self, batch: Batch, now_s: float) -> None:
        """Record that a batch begins, before its first iteration."""

    def end(
        self, batch: Batch, stretch: Stretch, repeat: int, firsts: list[Request], now_s: float
    ) -> None:
        """Record that it ended after `repeat` iterations, with prefills of `firsts` completed."""

    def left(self, request: Request, now_s: float) -> None:
        """Record that a request has left: its slot is free, or it never had one (refused)."""
