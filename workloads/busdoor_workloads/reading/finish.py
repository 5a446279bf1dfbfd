"""The fields of a trace from checked columns: order, time zero, window, limits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.hashes import HashIds
from busdoor_workloads.reading.draft import Draft, ReadOptions
from busdoor_workloads.reading.own_columns import ALL_COLUMNS
from busdoor_workloads.reading.parse import moments, numbers
from busdoor_workloads.streams import stream
from busdoor_workloads.text import name_of, printable

_COUNTED = ("session_id", "turn")  # which some readers number themselves
_CONSTANT = ("block_size", "concurrency")  # one value for the whole trace, read separately
_LENGTHS = ("input_tokens", "output_tokens")
_TIMES = re.compile(
    r"arriv|timestamp|^(ts|t|time|date|datetime|start|started|sent|submitted)(_|$)|_(ts|date|at)$",
    re.I,
)
_FEW = 100  # rows that show whether a column holds times
_LEAD_S = 60.0  # an idle start longer than the whole trace and than a minute is noted


def finished(draft: Draft, frame: pd.DataFrame, options: ReadOptions) -> dict[str, Any]:
    """Sort the requests, set the clock, apply the reader's limits; return the fields of a trace.

    The metadata records these changes. Raises ValueError: a file of ours is out of order, or
    nothing is left.
    """
    notes: dict[str, Any] = dict(draft.metadata)
    if "arrival_s" not in frame:
        refuse_unused_times(draft, options)
        frame.insert(0, "arrival_s", 0.0)
        notes["arrivals"] = "none in the file: all at 0"
        draft.notes.append(
            f"{draft.table.path.name} has no arrival times: all requests are at 0 unless a rate "
            f"is given"
        )
    frame = _on_the_clock(draft, _ordered(draft, frame), options, notes)
    num_timed = len(frame)
    frame = _limited(_in_window(frame, options), draft.block_size, options, notes)
    if frame.empty:
        left_out = notes.get("rows_dropped_bad", 0)
        why = (
            f"{left_out:,} of {notes['rows_read']:,} rows are bad"
            if left_out
            else f"{num_timed} before its limits"
        )
        raise ValueError(f"{draft.table.path.name} has no request left to read ({why})")
    if draft.number_turns or ("turn" in frame and len(frame) < num_timed):
        frame["turn"] = (
            frame.groupby("session_id").cumcount() if "session_id" in frame else frame["turn"]
        )
    _note_unused(draft)
    _note_lead(draft, frame["arrival_s"].to_numpy())
    return _fields(
        draft, frame, options, notes | {"notes": list(draft.notes)} if draft.notes else notes
    )


def refuse_unused_times(draft: Draft, options: ReadOptions) -> None:
    """Refuse to leave out a column that looks like arrival times.

    Raises ValueError: the column, and how to read it or leave it out.
    """
    used = set(draft.names.values())
    unused = [str(name) for name in draft.table.frame if name not in used]
    times = [
        name for name in unused if _TIMES.search(name) and _holds_times(draft.table.frame[name])
    ]
    if not times or options.columns.get("arrival_s") == "":
        return
    named = {
        "arrival_s": times[0],
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
    } | dict(draft.names)
    flags = " ".join(
        f"--columns.{ours} {printable(named[ours])}" for ours in ("arrival_s", *_LENGTHS)
    )
    name, unread = draft.table.path.name, printable(times[0])
    raise ValueError(
        f"{name} has a column {unread!r}, which looks like arrival times but is not read; "
        f"read it with {flags}, or leave it out with an empty name: --columns.arrival_s ''"
    )


def _holds_times(values: pd.Series[Any]) -> bool:
    seconds = numbers(values.head(_FEW))
    return bool(np.isfinite(seconds).all() or moments(values.head(_FEW))[1].all())


def _note_unused(draft: Draft) -> None:
    """Add a note on columns with our names that this format's reader does not use."""
    used = {*draft.names.values(), *_COUNTED * draft.number_turns, *_CONSTANT}
    unused = [name for name in ALL_COLUMNS if name in draft.table.frame and name not in used]
    if unused:
        draft.notes.append(
            f"{', '.join(unused)} of {draft.table.path.name} are not read, as its format has no "
            "such columns; to read them name the columns that count (--columns)"
        )


def _note_lead(draft: Draft, arrival_s: FloatArray) -> None:
    lead_s = arrival_s[0]
    if lead_s > max(_LEAD_S, arrival_s[-1] - lead_s):
        draft.notes.append(
            f"the first request arrives only after {lead_s:,.6g} s; to count from there: start_s = "
            f"{int(lead_s)} (--start-s {int(lead_s)})"
        )


def _ordered(draft: Draft, frame: pd.DataFrame) -> pd.DataFrame:
    if frame["arrival_s"].is_monotonic_increasing:
        return frame
    if draft.in_order:
        late = int(np.argmax(np.diff(frame["arrival_s"].to_numpy()) < 0)) + 1
        name, values = draft.names.get("arrival_s", "arrival_s"), frame["arrival_s"]
        raise ValueError(
            f"{draft.table.place(int(frame.index[late]))}: {name} is {values.iloc[late]} after "
            f"{values.iloc[late - 1]}; the file must be sorted by it"
        )
    return frame.sort_values("arrival_s", kind="stable")


def _on_the_clock(
    draft: Draft, frame: pd.DataFrame, options: ReadOptions, notes: dict[str, Any]
) -> pd.DataFrame:
    arrival_s = frame["arrival_s"].to_numpy(dtype=np.float64)
    if draft.relative and len(arrival_s):
        arrival_s = arrival_s - arrival_s[0]
    if draft.quantised and options.jitter:
        arrival_s = _spread(arrival_s, options.seed, notes)
    return frame.assign(arrival_s=arrival_s)


def _spread(arrival_s: FloatArray, seed: int, notes: dict[str, Any]) -> FloatArray:
    # Timestamps with coarse ticks make false bursts: spread each tick's requests uniformly over the
    # tick. Sorting the times alone keeps the file's order of requests inside a tick.
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


def _limited(
    frame: pd.DataFrame, block_size: int | None, options: ReadOptions, notes: dict[str, Any]
) -> pd.DataFrame:
    if options.max_total_tokens is not None:
        total = frame["input_tokens"] + frame["output_tokens"]
        over = total > options.max_total_tokens
        notes["rows_dropped_too_long" if options.too_long == "drop" else "rows_clipped"] = int(
            over.sum()
        )
        frame = (
            frame[~over]
            if options.too_long == "drop"
            else _clipped(frame, options.max_total_tokens, block_size)
        )
    return frame.iloc[: options.max_requests].copy()


def _clipped(frame: pd.DataFrame, max_total_tokens: int, block_size: int | None) -> pd.DataFrame:
    # As on a server: the prompt is cut only if it leaves no place for one token; then the output is
    # cut off.
    prompt = frame["input_tokens"].clip(upper=max_total_tokens - 1)
    output = frame["output_tokens"].clip(upper=max_total_tokens - prompt)
    frame = frame.assign(input_tokens=prompt, output_tokens=output)
    if "max_output_tokens" in frame:
        frame["max_output_tokens"] = frame["max_output_tokens"].clip(
            upper=max_total_tokens - prompt
        )
    if "hash_ids" in frame and block_size:
        num_blocks = -(-prompt // block_size)
        frame["hash_ids"] = [
            ids[:kept] for ids, kept in zip(frame["hash_ids"], num_blocks, strict=True)
        ]
    return frame


def _fields(
    draft: Draft, frame: pd.DataFrame, options: ReadOptions, notes: dict[str, Any]
) -> dict[str, Any]:
    columns: dict[str, Any] = {
        str(name): frame[name].to_numpy() for name in frame if name != "hash_ids"
    }
    columns["arrival_s"] = columns["arrival_s"] * options.time_scale
    return columns | {
        "hash_ids": HashIds.of(list(frame["hash_ids"])) if "hash_ids" in frame else None,
        "block_size": draft.block_size,
        "concurrency": draft.concurrency,
        "name": options.name or name_of(draft.table.path),
        "metadata": notes,
    }
