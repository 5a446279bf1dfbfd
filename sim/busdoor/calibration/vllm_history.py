"""What vLLM's engine did, iteration by iteration: from its batches to the tables of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from busdoor.results.columns import ITERATION_COLUMNS, REQUEST_COLUMNS, STAY_COLUMNS
from busdoor.simulator.rows import assign_slots


class History:
    """What the engine did so far: how far every request is."""

    def __init__(self, name: str, requests: Sequence[Sequence[float]], block_size: int) -> None:
        self._name = name
        self._requests = requests
        self._block_size = block_size
        self._inputs = [int(row[1]) for row in requests]
        self._outputs = [int(row[2]) for row in requests]
        self._computed = [0] * len(requests)
        self._generated = [0] * len(requests)
        self._prefilling = dict.fromkeys(range(len(requests)), True)
        self._preemptions = [0] * len(requests)
        self._cached = [0] * len(requests)
        self._last_token_s = [np.nan] * len(requests)
        self._entered: dict[int, float] = {}  # requests that hold a slot, since when
        self._first_s = [np.nan] * len(requests)
        self._rows: list[dict[str, float]] = []
        self._stays: list[tuple[int, float, float]] = []
        self._ended_s = 0.0

    def iterate(
        self,
        number: int,
        start_s: float,
        end_s: float,
        items: list[list[int]],
        preempted: list[int],
        cached: Mapping[int, int],
    ) -> None:
        """Add one iteration; `cached` has the prefix-cache tokens of requests that enter."""
        begin_s = max(self._ended_s, min(self._requests[request][0] for request, _ in items))
        if not begin_s <= start_s <= end_s:
            raise ValueError(
                f"{self._name} iteration {number}: it starts at {start_s} s, which should be "
                f"{begin_s} or later"
            )
        for request in preempted:
            if request not in self._entered:
                raise ValueError(
                    f"{self._name} iteration {number}: request {request} is preempted, but does "
                    f"not run"
                )
            self._stays.append((request, self._entered.pop(request), begin_s))
            self._computed[request], self._prefilling[request] = 0, True
            self._preemptions[request] += 1
        row = dict.fromkeys(ITERATION_COLUMNS, 0.0)
        for request, tokens in items:
            if request not in self._entered:
                self._entered[request] = begin_s
                self._computed[request] = cached.get(request, 0)
                if np.isnan(self._first_s[request]):
                    self._first_s[request] = begin_s
                    self._cached[request] = cached.get(request, 0)
            self._run(number, request, tokens, end_s, row)
        seconds = end_s - begin_s
        row |= {
            "start_s": begin_s,
            "duration_s": seconds,
            "first_duration_s": seconds,
            "last_duration_s": seconds,
        }
        row |= {"repeat": 1, "num_requests": len(items), "num_preempted": len(preempted)}
        row |= {
            "device_s": end_s - start_s,
            "host_s": start_s - begin_s,
            "num_running": len(self._entered),
        }
        row |= self._memory()
        self._rows.append(row)
        self._leave(end_s)
        self._ended_s = end_s

    def _run(
        self, number: int, request: int, tokens: int, end_s: float, row: dict[str, float]
    ) -> None:
        context = self._computed[request]
        known = self._inputs[request] + self._generated[request]
        if context + tokens > known:
            raise ValueError(
                f"{self._name} iteration {number}: request {request} has {known} tokens, but runs "
                f"{context + tokens}"
            )
        self._computed[request] += tokens
        if self._prefilling[request]:
            row["num_prefill_tokens"] += tokens
            row["prefill_attention"] += tokens * (context + (tokens + 1) / 2)
            row["prefill_context_tokens"] += context + tokens
            if self._computed[request] == known:
                self._finish_prefill(request, end_s, row)
        else:
            row["num_decode_tokens"] += 1
            row["context_tokens"] += context
            row["context_tokens_last"] += context
            self._yield(request, end_s)

    def _finish_prefill(self, request: int, end_s: float, row: dict[str, float]) -> None:
        self._prefilling[request] = False
        if self._generated[request]:
            row["num_resumed"] += 1
            row["resumed_gap_s"] += end_s - self._last_token_s[request]
        else:
            row["num_first_tokens"] += 1
        self._yield(request, end_s)
        row["num_joined"] += self._generated[request] < self._outputs[request]

    def _yield(self, request: int, end_s: float) -> None:
        self._generated[request] += 1
        self._last_token_s[request] = end_s

    def _memory(self) -> dict[str, float]:
        """Return the KV memory of the running requests at the end of the iteration."""
        used = [self._computed[request] for request in self._entered]
        blocks = sum(-(-tokens // self._block_size) for tokens in used)
        return {
            "kv_blocks_used": blocks,
            "kv_blocks_used_last": blocks,
            "kv_reserved_tokens": blocks * self._block_size,
            "kv_used_tokens": sum(used),
        }

    def _leave(self, end_s: float) -> None:
        done = [
            request
            for request in self._entered
            if self._generated[request] == self._outputs[request]
        ]
        self._stays += [(request, self._entered.pop(request), end_s) for request in done]

    def requests(self) -> pd.DataFrame:
        """Return a row per request."""
        table = pd.DataFrame(
            np.array(self._requests, dtype=float).reshape(-1, 5),
            columns=["arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s"],
        ).astype({"input_tokens": int, "output_tokens": int})
        table["request_id"] = np.arange(len(table))
        table["max_output_tokens"] = table["output_tokens"]
        table["first_scheduled_s"] = np.maximum(self._first_s, table["arrival_s"])
        table["released_s"] = table["finish_s"]
        table["num_preemptions"] = self._preemptions
        table["cached_tokens"] = self._cached
        table["replica"] = 0
        table["status"] = np.where(table["finish_s"].notna(), "finished", "unfinished")
        return table[[*REQUEST_COLUMNS, "status"]]

    def iterations(self) -> pd.DataFrame:
        """Return a row per iteration."""
        table = pd.DataFrame(self._rows, columns=[*ITERATION_COLUMNS, "device_s", "host_s"])
        counts = [
            column
            for column in table
            if not str(column).endswith("_s") and column != "prefill_attention"
        ]
        table = table.astype(dict.fromkeys(counts, np.int64))
        table["num_waiting"] = _waiting(table["start_s"].to_numpy(), self.requests())
        return table.assign(replica=0)

    def stays(self) -> pd.DataFrame:
        """Return a row for each time that a request held a slot."""
        table = pd.DataFrame(self._stays, columns=list(STAY_COLUMNS)).sort_values(
            ["enter_s", "request_id"]
        )
        table.insert(
            1,
            "slot",
            assign_slots(table["enter_s"].to_numpy(float), table["leave_s"].to_numpy(float)),
        )
        return table.reset_index(drop=True).assign(replica=0)


def _waiting(start_s: np.ndarray, requests: pd.DataFrame) -> np.ndarray:
    """Return how many requests have arrived and wait when each iteration has begun."""
    arrived = np.searchsorted(np.sort(requests["arrival_s"]), start_s, side="right")
    scheduled = np.searchsorted(
        np.sort(requests["first_scheduled_s"].dropna()), start_s, side="right"
    )
    waiting: np.ndarray = np.maximum(arrived - scheduled, 0)
    return waiting
