"""A run as a Chrome trace, for https://ui.perfetto.dev: zoom into single iterations.

The format is the Trace Event Format's JSON (complete events "X", counters "C", metadata "M"; times
in microseconds). Slices of one track must nest and never overlap, so every slot has a track of its
own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.core.arrays import Floats
from busdoor.core.json import plain
from busdoor.plots.phases import PIECES, stay_phases
from busdoor.plots.runs import Run, count_slots
from busdoor_workloads.given import path_of

Event = dict[str, Any]
ITERATIONS_TRACK = 1  # thread ids: iterations first, the slots after it
FIRST_SLOT_TRACK = 2


def to_perfetto(result: Run, file: str | Path | IO[str] | None = None) -> dict[str, Any]:
    """Return a result as a Chrome trace: a track per slot, iterations, KV, queue and batch.

    It is ready for `json.dump`, and is also written to a file if one is given. A process is a
    replica; a slot's track holds one slice per stay, and within it prefill, decode and, in a static
    batch, the idle time to the end. Times are microseconds from the trace's start, exact to a
    nanosecond.
    """
    events = [*_names(result), *_stays(result)]
    for replica, iterations in result.iterations.groupby("replica"):
        number = int(str(replica))
        events += [*_iterations(iterations, number), *_counters(iterations, number)]
    other = {
        key: result.meta[key]
        for key in ("policy", "trace", "gpu", "model", "seed")
        if key in result.meta
    }
    trace = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {key: str(x) for key, x in other.items()},
    }
    _write(trace, file)
    return trace


def _write(trace: dict[str, Any], file: str | Path | IO[str] | None) -> None:
    if file is None:
        return
    if not hasattr(file, "write"):
        with path_of("file", file).open("w", encoding="utf-8") as opened:
            _write(trace, opened)
    else:
        json.dump(plain(trace), file, separators=(",", ":"), allow_nan=False)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _slice(
    name: str, replica: int, track: int, start_s: float, end_s: float, args: Event | None = None
) -> Event:
    """Return a complete event; ends are rounded to nanoseconds, so that slices stay nested."""
    start, end = _ns(start_s), _ns(end_s)
    event = {
        "ph": "X",
        "name": name,
        "pid": replica,
        "tid": track,
        "ts": start / 1e3,
        "dur": (end - start) / 1e3,
    }
    return {**event, "args": args} if args else event


def _names(result: Run) -> Iterator[Event]:
    """Yield the names of processes and tracks, and the order of tracks."""
    tracks = {ITERATIONS_TRACK: "iterations"}
    tracks |= {FIRST_SLOT_TRACK + slot: f"slot {slot + 1}" for slot in range(count_slots(result))}
    for replica in sorted({int(replica) for replica in result.iterations["replica"]}):
        own = {"ph": "M", "pid": replica}
        process = f"{result.meta['policy']}, replica {replica}"
        yield {**own, "name": "process_name", "tid": 0, "args": {"name": process}}
        for track, name in tracks.items():
            yield {**own, "name": "thread_name", "tid": track, "args": {"name": name}}
            yield {**own, "name": "thread_sort_index", "tid": track, "args": {"sort_index": track}}


def _stays(result: Run) -> Iterator[Event]:
    """Yield one slice per stay, then its pieces: the format requires the enclosing slice first."""
    for stay in stay_phases(result).to_dict("records"):
        replica, track = int(stay["replica"]), FIRST_SLOT_TRACK + int(stay["slot"])
        numbers = (
            "request_id",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "num_preemptions",
        )
        args: Event = {key: int(stay[key]) for key in numbers}
        args["arrival_s"] = float(stay["arrival_s"])
        name = f"request {args['request_id']}"
        yield _slice(name, replica, track, stay["enter_s"], stay["leave_s"], args)
        for piece, start, end in PIECES:
            if _ns(stay[end]) > _ns(stay[start]):
                yield _slice(piece, replica, track, stay[start], stay[end])


def _iterations(iterations: pd.DataFrame, replica: int) -> Iterator[Event]:
    """Yield one slice per stretch; it ends where the next begins at the latest."""
    start_s = iterations["start_s"].to_numpy(float)
    end_s = np.minimum(
        start_s + iterations["duration_s"].to_numpy(float), np.append(start_s[1:], np.inf)
    )
    numbers = (
        "repeat",
        "num_requests",
        "num_prefill_tokens",
        "num_decode_tokens",
        "num_padded_tokens",
    )
    rows = iterations[list(numbers)].astype(int).to_dict("records")
    for begin, end, row in zip(start_s.tolist(), end_s.tolist(), rows, strict=True):
        work = "prefill" if row["num_prefill_tokens"] else "decode"
        mixed = work == "prefill" and row["num_decode_tokens"] > 0
        name = ("prefill + decode" if mixed else work) + (
            f" × {row['repeat']}" if row["repeat"] > 1 else ""
        )
        yield _slice(
            name,
            replica,
            ITERATIONS_TRACK,
            begin,
            end,
            {str(key): number for key, number in row.items()},
        )


def _counters(iterations: pd.DataFrame, replica: int) -> Iterator[Event]:
    """Yield counters at the start of every stretch, and KV blocks at its end; only changes."""
    end_s = iterations["start_s"] + iterations["duration_s"]
    last_s = end_s - iterations["last_duration_s"]
    start_s, stop_s = iterations["start_s"].to_numpy(float), end_s.to_numpy(float)
    blocks = iterations[["kv_blocks_used", "kv_blocks_used_last"]].to_numpy().ravel()
    yield from _counter(
        "KV blocks used", replica, np.column_stack([start_s, last_s]).ravel(), blocks
    )
    yield from _counter("queue length", replica, start_s, iterations["num_waiting"].to_numpy())
    # the batch is empty when all is done
    size = np.append(iterations["num_requests"].to_numpy(), 0)
    yield from _counter("batch size", replica, np.append(start_s, stop_s[-1]), size)


def _counter(name: str, replica: int, time_s: Floats, values: NDArray[np.int64]) -> Iterator[Event]:
    """Yield one event per change of the value."""
    times_s = np.maximum.accumulate(time_s)
    changes = np.flatnonzero(np.diff(values.astype(float), prepend=np.nan) != 0)
    for at_s, value in zip(times_s[changes].tolist(), values[changes].tolist(), strict=True):
        yield {
            "ph": "C",
            "name": name,
            "pid": replica,
            "ts": _ns(at_s) / 1e3,
            "args": {"value": value},
        }
