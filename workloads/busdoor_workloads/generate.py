"""Draw a trace from a workload: a step and a random stream for each request property."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from busdoor_workloads.arrivals import ClosedLoop
from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.durations import draw_seconds
from busdoor_workloads.given import whole_number
from busdoor_workloads.hashes import HashIds
from busdoor_workloads.laws import Laws
from busdoor_workloads.memory_check import check_memory
from busdoor_workloads.sessions import (
    Sessions,
    accumulated_inputs,
    block_ids,
    deal,
    lower_bounds_s,
    sessions_of,
)
from busdoor_workloads.streams import stream
from busdoor_workloads.trace import Trace

Columns = dict[str, Any]
_IDS_PER_WINDOW = 2**32  # of sessions and of blocks: more than fit into memory
REQUEST_BYTES = 80  # at the peak of drawing lengths and arrivals alone: measured 88


def generate(workload: Laws, seed: int, num_requests: int) -> Trace:
    """Draw `num_requests` requests of `workload`, in order of arrival; see `Workload.generate`.

    Raises ValueError: `num_requests` or `seed` is negative, or the trace does not fit into memory.
    """
    num_requests = whole_number("num_requests", num_requests)
    check_memory(num_requests * REQUEST_BYTES, f"a trace of {num_requests:,} requests")
    rng = partial(stream, seed)
    inputs, outputs = workload.pairs.sample(num_requests, rng("input_tokens"), rng("output_tokens"))
    columns = _caps(workload, outputs)
    columns |= _when(workload, seed, num_requests)
    columns |= _prompts(workload, seed, inputs, columns)
    columns |= _clients(workload, seed, num_requests)
    return _in_order(columns, workload, seed)


def generate_at(workload: Laws, seed: int, arrival_s: FloatArray, window: int) -> Trace:
    """Draw the requests of a window whose arrivals are given, in seconds, in order.

    Shared prefixes are those of every window of the seed; sessions and other blocks are its own.
    Raises ValueError for a closed loop, whose requests wait for those of other windows.
    """
    if isinstance(workload.arrival, ClosedLoop):
        raise ValueError(
            f"workload {workload.name!r} is a closed loop, so that it cannot be drawn in windows"
        )
    own = int(stream(seed, f"window {window}").integers(2**63))
    rng, n = partial(stream, own), len(arrival_s)
    inputs, outputs = workload.pairs.sample(n, rng("input_tokens"), rng("output_tokens"))
    columns = _caps(workload, outputs) | {"arrival_s": arrival_s}
    if workload.multi_turn is not None:
        columns |= _sessions(workload, own, arrival_s)
    first = window * _IDS_PER_WINDOW
    columns |= _prompts(workload, own, inputs, columns, prefix_seed=seed, first_block=first)
    if "session_id" in columns:
        columns["session_id"] = columns["session_id"] + first
    return _in_order(columns | _clients(workload, own, n), workload, seed)


def generate_until(workload: Laws, seed: int, duration_s: float) -> Trace:
    """Draw the requests that arrive before `duration_s`, in seconds; see `Workload.generate`.

    Raises ValueError: everything arrives at once, so that no number of requests fills the time.
    """
    n = max(1, workload.num_requests)
    while _last_start_s(trace := generate(workload, seed, n)) < duration_s:
        if _last_start_s(trace) == 0:
            raise ValueError(
                f"workload {workload.name!r} arrives all at once; a duration_s sets no number of "
                f"requests"
            )
        n *= 2
    return trace.select(trace.arrival_s < duration_s)


def _last_start_s(trace: Trace) -> float:
    """Return the arrival process's last arrival: later turns of sessions do not count."""
    return float(
        trace.arrival_s[-1] if trace.turn is None else trace.arrival_s[trace.turn == 0][-1]
    )


def _caps(workload: Laws, outputs: IntArray) -> Columns:
    if workload.max_output_tokens is not None:
        cap = np.full(len(outputs), workload.max_output_tokens)
        return {"output_tokens": np.minimum(outputs, cap), "max_output_tokens": cap}
    if workload.max_output_factor is not None:
        asked = np.ceil(outputs * workload.max_output_factor).astype(np.int64)
        return {"output_tokens": outputs, "max_output_tokens": asked}
    return {"output_tokens": outputs}


def _when(workload: Laws, seed: int, n: int) -> Columns:
    arrival_s = workload.arrival.times(n, stream(seed, "arrivals"))
    if workload.multi_turn is not None:
        return _sessions(workload, seed, arrival_s)
    if isinstance(workload.arrival, ClosedLoop):
        think_time_s = draw_seconds(workload.arrival.think_time_s, n, stream(seed, "think_time"))
        return {
            "arrival_s": arrival_s,
            "think_time_s": think_time_s,
            "concurrency": workload.arrival.concurrency,
        }
    return {"arrival_s": arrival_s}


def _sessions(workload: Laws, seed: int, arrival_s: FloatArray) -> Columns:
    assert workload.multi_turn is not None
    n = len(arrival_s)
    turns = workload.multi_turn.turns.sample(n, stream(seed, "turns"))
    sessions = sessions_of(turns, n)
    # A random choice of the arrivals starts a session: it thins the process without changing its
    # kind or its span.
    starts = np.sort(stream(seed, "session_starts").choice(n, size=len(sessions), replace=False))
    think_time_s = draw_seconds(workload.multi_turn.think_time_s, n, stream(seed, "think_time"))
    think_time_s[sessions.turn == 0] = 0.0
    return {
        "arrival_s": lower_bounds_s(sessions, arrival_s[starts], think_time_s),
        "think_time_s": think_time_s,
        "session_id": sessions.session_id,
        "turn": sessions.turn,
    }


def _prompts(
    workload: Laws,
    seed: int,
    new_tokens: IntArray,
    columns: Columns,
    prefix_seed: int | None = None,
    first_block: int = 0,
) -> Columns:
    """Return prompts of the shared prefix, the session's history and the new tokens."""
    turns, prefix, n = workload.multi_turn, workload.shared_prefix, len(new_tokens)
    inputs, owner = new_tokens, np.arange(n)
    if turns is not None:
        sessions = Sessions(columns["session_id"], columns["turn"])
        inputs = accumulated_inputs(sessions, new_tokens, columns["output_tokens"])
        owner = sessions.session_id
    group, prefix_tokens = np.zeros(n, np.int64), np.zeros(1, np.int64)
    if prefix is not None:
        group = deal(
            int(owner.max(initial=-1)) + 1, prefix.num_groups, stream(seed, "prefix_groups")
        )[owner]
        prefix_tokens = prefix.prefix_tokens.sample(
            prefix.num_groups, stream(seed if prefix_seed is None else prefix_seed, "prefix_tokens")
        )
        inputs = inputs + prefix_tokens[group]
    block_size = (
        prefix.block_size if prefix is not None else turns.block_size if turns is not None else None
    )
    if block_size is None:
        return {"input_tokens": inputs}
    hash_ids = block_ids(inputs, owner, group, prefix_tokens, block_size, first_block)
    return {"input_tokens": inputs, "hash_ids": hash_ids, "block_size": block_size}


def _clients(workload: Laws, seed: int, n: int) -> Columns:
    columns: Columns = {}
    if workload.timeout_s is not None:
        drawn = draw_seconds(workload.timeout_s, n, stream(seed, "timeout"))
        # no client gives up before it sends
        columns["timeout_s"] = np.maximum(drawn, np.finfo(float).tiny)
    if workload.priorities:
        weights = np.array([one.weight for one in workload.priorities])
        classes = np.array([one.priority for one in workload.priorities])
        columns["priority"] = stream(seed, "priority").choice(
            classes, size=n, p=weights / weights.sum()
        )
    return columns


def _in_order(columns: Columns, workload: Laws, seed: int) -> Trace:
    order = np.argsort(columns["arrival_s"], kind="stable")
    rows = {name: _taken(values, order) for name, values in columns.items()}
    about = {key: text for key in ("source", "licence", "note") if (text := getattr(workload, key))}
    return Trace(
        **rows, name=workload.name, metadata={"workload": workload.name, "seed": seed} | about
    )


def _taken(values: Any, order: IntArray) -> Any:
    if isinstance(values, np.ndarray):
        return values[order]
    return values.take(order) if isinstance(values, HashIds) else values
