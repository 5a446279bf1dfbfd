"""A static server on any engine: all in, all out, in batches of B through the same API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from busdoor.observe.load import Load, sleep_until
from busdoor.observe.observation import Observation
from busdoor.results.result import Result
from busdoor_workloads import Trace

SendFor = Callable[[int, int], Awaitable[None]]
"""Sends a row, for an answer of so many tokens, and returns when it has ended."""


@dataclass(frozen=True)
class Batch:
    """One batch: its rows, when it left and when its last answer had ended, on the loop's clock."""

    rows: tuple[int, ...]
    start_s: float
    end_s: float


async def send_in_batches(
    trace: Trace, batch_size: int, send: SendFor, start_s: float, load: Load, batches: list[Batch]
) -> None:
    """Send a trace in batches: each leaves when it is full and the one before has ended.

    Every member asks for as many tokens as the longest answer of its batch, so that it holds its
    slot and computes until the batch ends, as a row of a static batch does. The last batch may be
    smaller; `start_s` is the trace's time 0 on the event loop's clock; `load` and `batches` are
    filled.
    """
    loop = asyncio.get_running_loop()
    load.due_s[:] = start_s + trace.arrival_s
    for first in range(0, len(trace), batch_size):
        rows = tuple(range(first, min(first + batch_size, len(trace))))
        await sleep_until(start_s + float(trace.arrival_s[rows[-1]]))
        longest = int(trace.output_tokens[list(rows)].max())
        load.most_in_flight = max(load.most_in_flight, len(rows))
        began_s = loop.time()
        await asyncio.gather(*(send(row, longest) for row in rows))
        batches.append(Batch(rows, began_s, loop.time()))


def as_static(seen: Observation, trace: Trace, batches: list[Batch], start_s: float) -> Observation:
    """Return an observation as a static server's client sees it: answers at batch end.

    `seen` is of `send_in_batches`, `trace` has the lengths that were wanted, and `start_s` is its
    time 0 on the event loop's clock.
    """
    requests = seen.result.requests.copy()
    size = max((len(batch.rows) for batch in batches), default=1)
    for batch in batches:
        rows = list(batch.rows)
        requests.loc[rows, "first_scheduled_s"] = batch.start_s - start_s
        ends_s = batch.end_s - start_s
        requests.loc[rows, ["first_token_s", "finish_s", "released_s"]] = ends_s
    requests["output_tokens"] = trace.output_tokens
    whole = requests["finish_s"].notna() & requests["status"].isin(["finished", "other length"])
    requests["status"] = np.where(whole, "finished", requests["status"])
    policy = {"name": "static", "batch_size": size, "finished_rows": "compute", "release": "batch"}
    meta = {**seen.result.meta, "streams": False, "whole_batch": True, "policy_config": policy}
    meta["client"] = {**meta["client"], "doubts": _doubts(requests)}
    return replace(seen, result=replace(seen.result, requests=requests, meta=meta))


def simulated_in_batches(
    trace: Trace, batch_size: int, simulate: Callable[[Trace], Result]
) -> Result:
    """Return what `send_in_batches` would see of a server; `simulate` starts an idle one."""
    start_s, parts = 0.0, []
    for first in range(0, len(trace), batch_size):
        some = slice(first, first + batch_size)
        wanted = trace.output_tokens[some]
        start_s = max(start_s, float(trace.arrival_s[some][-1]))
        batch = Trace(
            arrival_s=np.zeros(len(wanted)),
            input_tokens=trace.input_tokens[some],
            output_tokens=np.full(len(wanted), wanted.max()),
        )
        run = simulate(batch)
        end_s = start_s + float(run.requests["finish_s"].max())
        ends = dict.fromkeys(("first_token_s", "finish_s", "released_s"), end_s)
        own = run.requests.assign(
            arrival_s=trace.arrival_s[some], first_scheduled_s=start_s, **ends
        )
        parts.append(own.assign(output_tokens=wanted))
        start_s = end_s
    requests = pd.concat(parts, ignore_index=True).assign(request_id=np.arange(len(trace)))
    meta = {**run.meta, "streams": False, "whole_batch": True, "num_requests": len(trace)}
    return Result(requests, run.iterations[:0], run.stays[:0], meta)


def _doubts(requests: pd.DataFrame) -> list[str]:
    """Requests wait for their batch: that they are sent late is no fault here."""
    bad = int((requests["status"] != "finished").sum())
    return [f"{bad} of {len(requests)} requests were not answered"] if bad else []
