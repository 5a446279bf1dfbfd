"""BLIS's TraceV2 (inference-sim/inference-sim, `sim/workload/tracev2.go`): the CSV of 22 to 30 columns.

Microseconds in every version; the YAML header beside it is not needed. It lacks the time of every
chunk (only the first and the last), and so a distribution of ITL.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from busdoor.calibration.formats.base import Measured, MeasuredFormat, left_out, table_of
from busdoor_workloads.reading.csv_table import read_csv

_REMEDY = "blis observe records it for streamed answers"
_US_PER_S = 1e6
_TIMES = {
    "arrival_s": "send_time_us",
    "first_token_s": "first_chunk_time_us",
    "finish_s": "last_chunk_time_us",
}


def _read(path: Path, run: int | None) -> Measured:
    trace = read_csv(path).frame
    if missing := {*_TIMES.values(), "status", "input_tokens", "output_tokens"} - set(trace):
        raise ValueError(f"{path.name} has no column {min(missing)}, which a TraceV2 has")
    answered = trace[trace["status"].fillna("ok") == "ok"].reset_index(drop=True)
    table = pd.DataFrame({ours: _seconds(answered[theirs]) for ours, theirs in _TIMES.items()})
    table["input_tokens"] = _input_tokens(answered)
    table["output_tokens"] = answered["output_tokens"]
    return Measured(
        table=table_of(table.to_dict("records"), path.name, _REMEDY),
        notes=left_out(path.name, {"failed or unfinished": len(trace) - len(answered)}),
    )


def _seconds(column: pd.Series) -> pd.Series:
    """Return times in seconds; 0 in the file means that there was no such event."""
    ticks = pd.to_numeric(column, errors="coerce")
    is_origin = column.name == "send_time_us"
    return ticks / _US_PER_S if is_origin else (ticks.where(ticks > 0) / _US_PER_S)


def _input_tokens(trace: pd.DataFrame) -> np.ndarray:
    """Return prompt lengths: the server's own count where it is known, else suffix and shared prefix."""
    own = pd.to_numeric(trace["input_tokens"], errors="coerce")
    prefix = pd.to_numeric(trace.get("prefix_length", pd.Series(0, trace.index)), errors="coerce")
    served = pd.to_numeric(
        trace.get("server_input_tokens", pd.Series(0, trace.index)), errors="coerce"
    )
    tokens: np.ndarray = np.where(served > 0, served, own + prefix.fillna(0))
    return tokens


TRACEV2 = MeasuredFormat(
    name="tracev2",
    title="CSV of BLIS's TraceV2",
    holds="csv",
    marks=(frozenset({"arrival_time_us", "first_chunk_time_us"}),),
    read=_read,
)
