"""What was observed, as a result: the same tables that the simulator and our engine write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration.requests_table import empty_table
from busdoor.observe.client import Answer
from busdoor.observe.load import Load
from busdoor.results.columns import ITERATION_COLUMNS, STAY_COLUMNS
from busdoor.results.result import Result
from busdoor_workloads import Trace

# A request that was sent later than this changes a TTFT by so much: 5 % of the median is the bar of
# a fit to requests. Below 1 ms the clock of an event loop says nothing.
LATE_SHARE_OF_TTFT, LATE_S = 0.05, 0.001
LATE_REQUESTS = 0.01  # the share of them that may be late: what a percentile of 99 does not see
STALL_S = 0.010  # of the client's event loop: it would move a chunk's time by as much


@dataclass(frozen=True)
class Observation:
    """One run of a trace against a server.

    `result` has per-request times and no iterations; its table of requests also has sent_s,
    connect_s, chunks, http_status and error. `chunks`: request_id and time_s of every chunk that
    brought tokens, in seconds from the trace's start. `states`: the server's own numbers once a
    second; empty where it shows none.
    """

    result: Result
    chunks: pd.DataFrame
    states: pd.DataFrame

    @property
    def doubts(self) -> list[str]:
        """Return why the run should not be calibrated on, a sentence each."""
        return list(self.result.meta["client"]["doubts"])


def observation(
    trace: Trace,
    answers: Sequence[Answer | None],
    load: Load,
    start_s: float,
    states: Sequence[Mapping[str, float]],
    meta: Mapping[str, Any],
) -> Observation:
    """Make tables of the answers, by row of the trace; None for a request that was not sent.

    `load` is what the client did, `start_s` the trace's time 0 on the clock of the answers,
    `states` the server's state, and `meta` what else to note.
    """
    requests = _requests(trace, answers, load, start_s)
    times = [(row, at) for row, one in enumerate(answers) if one for at in one.chunks_s]
    chunks = pd.DataFrame(times, columns=["request_id", "time_s"])
    chunks["time_s"] -= start_s
    client = _client(requests, load, capped=bool(meta.get("max_in_flight")))
    noted = {
        "policy": "observed",
        "streams": True,
        "trace": trace.name,
        "num_requests": len(requests),
        "trace_duration_s": float(requests["arrival_s"].max()) if len(requests) else 0.0,
        "client": client,
        "itls_s": _gaps(chunks),
        **meta,
    }
    empty = empty_table(ITERATION_COLUMNS), empty_table(STAY_COLUMNS, "slot")
    return Observation(Result(requests, *empty, noted), chunks, pd.DataFrame(list(states)))


def _requests(
    trace: Trace, answers: Sequence[Answer | None], load: Load, start_s: float
) -> pd.DataFrame:
    due_s = np.where(np.isnan(load.due_s), trace.arrival_s, load.due_s - start_s)
    caps = trace.output_tokens if trace.max_output_tokens is None else trace.max_output_tokens
    rows = [
        _row(answer or Answer(), int(trace.input_tokens[row]), int(trace.output_tokens[row]))
        for row, answer in enumerate(answers)
    ]
    table = pd.DataFrame(rows)
    for column in ("sent_s", "first_token_s", "finish_s"):
        table[column] -= start_s
    table.insert(0, "request_id", np.arange(len(trace)))
    table.insert(1, "arrival_s", due_s)
    table["max_output_tokens"] = caps
    table["released_s"] = table["finish_s"]
    table["first_scheduled_s"] = np.nan
    table["num_preemptions"] = table["replica"] = 0
    return table


def _row(answer: Answer, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Return one request's row: lengths by the server's usage where it gave them."""
    seen_in = answer.input_tokens if answer.input_tokens > 0 else input_tokens
    seen_out = answer.output_tokens if answer.output_tokens > 0 else output_tokens
    return {
        "input_tokens": seen_in,
        "output_tokens": seen_out,
        "first_token_s": answer.first_token_s,
        "finish_s": answer.finish_s,
        "cached_tokens": max(answer.cached_tokens, 0),
        "status": _status(answer, output_tokens),
        "sent_s": answer.sent_s,
        "connect_s": answer.connected_s,
        "chunks": len(answer.chunks_s),
        "http_status": answer.http_status,
        "error": answer.error,
    }


def _status(answer: Answer, asked_tokens: int) -> str:
    """Return how a request ended: refused is no load, broken off by the server is failed."""
    if answer.error.startswith("timeout"):
        return "abandoned"
    if answer.http_status in (400, 413, 422, 429):
        return f"refused: HTTP {answer.http_status} {answer.error}"
    if answer.error:
        return "failed"
    if not answer.ended:
        return "unfinished"
    if 0 <= answer.output_tokens != asked_tokens:
        return "other length"
    return "finished"


def _client(requests: pd.DataFrame, load: Load, capped: bool) -> dict[str, Any]:
    """Measure the client itself: how late it sent, how late its event loop woke, connections."""
    lag_s = (requests["sent_s"] - requests["arrival_s"]).dropna()
    stalls_s = load.stalls_s or [0.0]
    measured = {
        "lag_p50_s": float(lag_s.quantile(0.5)) if len(lag_s) else 0.0,
        "lag_p99_s": float(lag_s.quantile(0.99)) if len(lag_s) else 0.0,
        "stall_p99_s": float(np.quantile(stalls_s, 0.99)),
        "connect_mean_s": float(requests["connect_s"].mean()),
        "most_in_flight": load.most_in_flight,
    }
    lag_s = lag_s[:0] if capped else lag_s  # a request that waits for the cap is late as asked
    return {**measured, "doubts": _doubts(lag_s, measured["stall_p99_s"], requests)}


def _doubts(lag_s: pd.Series[float], stall_s: float, requests: pd.DataFrame) -> list[str]:
    ttft_s = float((requests["first_token_s"] - requests["sent_s"]).median())
    late_s = max(LATE_S, LATE_SHARE_OF_TTFT * ttft_s) if isfinite(ttft_s) else LATE_S
    late = float((lag_s > late_s).mean()) if len(lag_s) else 0.0
    found = []
    if late > LATE_REQUESTS:
        found.append(
            f"{late:.0%} of the requests were sent more than {1000 * late_s:.1f} ms after they "
            f"were due"
        )
    if stall_s > STALL_S:
        found.append(f"the client's own event loop stalled by {1000 * stall_s:.0f} ms (p99)")
    other = int((requests["status"] == "other length").sum())
    if other:
        found.append(f"{other} answers have another length than was asked for (no ignore_eos?)")
    failed = int((requests["status"] == "failed").sum())
    if failed:
        found.append(f"{failed} of {len(requests)} requests failed")
    return found


def _gaps(chunks: pd.DataFrame) -> list[float]:
    """Return the gaps between the chunks of each request, in seconds."""
    gaps: list[float] = chunks.groupby("request_id")["time_s"].diff().dropna().tolist()
    return gaps
