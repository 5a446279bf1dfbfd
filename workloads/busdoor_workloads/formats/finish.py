"""From checked columns to a trace: order, time zero, window, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.formats.draft import Draft, ReadOptions
from busdoor_workloads.streams import stream
from busdoor_workloads.trace import FloatArray, Trace


def finished(draft: Draft, frame: pd.DataFrame, options: ReadOptions) -> Trace:
    """Order the requests, set the clock, apply the reader's limits, and note in the metadata what was done.

    Parameters
    ----------
    draft : Draft
        Says what the file's times mean.
    frame : DataFrame
        Checked columns.
    options : ReadOptions
        Window, limits and scale.

    Raises
    ------
    ValueError
        A file of ours is out of order, or nothing is left.
    """
    notes: dict[str, Any] = dict(draft.metadata)
    if "arrival_s" not in frame:
        frame.insert(0, "arrival_s", 0.0)
        notes["arrivals"] = "none in the file: all at 0"
    frame = _on_the_clock(draft, _ordered(draft, frame), options, notes)
    num_timed = len(frame)
    frame = _limited(_in_window(frame, options), draft.block_size, options, notes)
    if frame.empty:
        raise ValueError(f"{draft.table.path.name} has no request left to read ({num_timed} before its limits)")
    if draft.number_turns or ("turn" in frame and len(frame) < num_timed):
        frame["turn"] = frame.groupby("session_id").cumcount() if "session_id" in frame else frame["turn"]
    return _trace(draft, frame, options, notes)


def _ordered(draft: Draft, frame: pd.DataFrame) -> pd.DataFrame:
    if frame["arrival_s"].is_monotonic_increasing:
        return frame
    if draft.in_order:
        late = int(np.argmax(np.diff(frame["arrival_s"].to_numpy()) < 0)) + 1
        name, values = draft.names.get("arrival_s", "arrival_s"), frame["arrival_s"]
        raise ValueError(
            f"{draft.table.place(int(frame.index[late]))}: {name} is {values.iloc[late]} after {values.iloc[late - 1]};"
            " the file must be sorted by it"
        )
    return frame.sort_values("arrival_s", kind="stable")


def _on_the_clock(draft: Draft, frame: pd.DataFrame, options: ReadOptions, notes: dict[str, Any]) -> pd.DataFrame:
    arrival_s = frame["arrival_s"].to_numpy(dtype=np.float64)
    if draft.relative and len(arrival_s):
        arrival_s = arrival_s - arrival_s[0]
    if draft.quantised and options.jitter:
        arrival_s = _spread(arrival_s, options.seed, notes)
    return frame.assign(arrival_s=arrival_s)


def _spread(arrival_s: FloatArray, seed: int, notes: dict[str, Any]) -> FloatArray:
    # Timestamps on coarse ticks make bursts that never were: spread each tick's requests uniformly over the tick.
    # Sorting the times alone keeps the file's order of requests inside a tick.
    gaps_s = np.diff(arrival_s)
    if len(gaps_s) == 0 or np.mean(gaps_s == 0) <= 0.5 or not gaps_s.any():
        return arrival_s
    lengths_s, times_seen = np.unique(gaps_s[gaps_s > 0], return_counts=True)
    tick_s = float(lengths_s[np.argmax(times_seen)])
    notes["jitter"] = {"tick_s": tick_s, "seed": seed}
    offsets_s = stream(seed, "jitter").uniform(0, tick_s, len(arrival_s))
    return np.sort(arrival_s + offsets_s)


def _in_window(frame: pd.DataFrame, options: ReadOptions) -> pd.DataFrame:
    if options.start_s == 0 and options.duration_s == np.inf:
        return frame
    since_s = frame["arrival_s"] - options.start_s
    inside = (since_s >= 0) & (since_s < options.duration_s)
    return frame.assign(arrival_s=since_s)[inside]


def _limited(frame: pd.DataFrame, block_size: int | None, options: ReadOptions, notes: dict[str, Any]) -> pd.DataFrame:
    if options.max_total_tokens is not None:
        total = frame["input_tokens"] + frame["output_tokens"]
        over = total > options.max_total_tokens
        notes["rows_dropped_too_long" if options.too_long == "drop" else "rows_clipped"] = int(over.sum())
        frame = frame[~over] if options.too_long == "drop" else _clipped(frame, options.max_total_tokens, block_size)
    return frame.iloc[: options.max_requests].copy()


def _clipped(frame: pd.DataFrame, max_total_tokens: int, block_size: int | None) -> pd.DataFrame:
    # As a server does it: the prompt stays unless it leaves no room for one token, then the output is cut off.
    prompt = frame["input_tokens"].clip(upper=max_total_tokens - 1)
    output = frame["output_tokens"].clip(upper=max_total_tokens - prompt)
    frame = frame.assign(input_tokens=prompt, output_tokens=output)
    if "max_output_tokens" in frame:
        frame["max_output_tokens"] = frame["max_output_tokens"].clip(upper=max_total_tokens - prompt)
    if "hash_ids" in frame and block_size:
        num_blocks = -(-prompt // block_size)
        frame["hash_ids"] = [ids[:kept] for ids, kept in zip(frame["hash_ids"], num_blocks, strict=True)]
    return frame


def _trace(draft: Draft, frame: pd.DataFrame, options: ReadOptions, notes: dict[str, Any]) -> Trace:
    columns = {str(name): frame[name].to_numpy() for name in frame if name != "hash_ids"}
    columns["arrival_s"] = columns["arrival_s"] * options.time_scale
    return Trace(
        **columns,
        hash_ids=list(frame["hash_ids"]) if "hash_ids" in frame else None,
        block_size=draft.block_size,
        concurrency=draft.concurrency,
        name=options.name or draft.table.path.name.split(".")[0],
        metadata=notes,
    )
