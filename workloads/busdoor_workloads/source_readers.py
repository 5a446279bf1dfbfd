"""Readers of the public traces: from a file to arrivals, input tokens and output tokens."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.streams import stream

Columns = tuple[FloatArray | None, IntArray, IntArray]

# Rows drawn from a published histogram before it is tabulated: p99's own error is then about 0.2 %.
_HISTOGRAM_ROWS = 1_000_000
# An hour of ServeGen's six 10-minute windows is long enough to see its bursts and short enough to
# be stationary.
_SERVEGEN_WINDOWS = 6
_SERVEGEN_WINDOW_S = 600.0


def read_azure(path: Path) -> Columns:
    """Read an Azure 2023 trace: seconds from its first row, input and output tokens."""
    rows = pd.read_csv(path, parse_dates=["TIMESTAMP"])
    seconds = (rows["TIMESTAMP"] - rows["TIMESTAMP"].min()).dt.total_seconds()
    return _columns(np.sort(seconds), rows["ContextTokens"], rows["GeneratedTokens"])


def read_mooncake(path: Path, tick_s: float = 0.0) -> Columns:
    """Read a Mooncake trace, its arrivals spread evenly over ticks of `tick_s` seconds."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = pd.DataFrame(
            [json.loads(line) for line in lines],
            columns=["timestamp", "input_length", "output_length"],
        )
    spread = stream(0, "ticks").random(len(rows)) * tick_s
    return _columns(
        np.sort(rows["timestamp"] / 1000 + spread), rows["input_length"], rows["output_length"]
    )


def read_vidur(path: Path) -> Columns:
    """Read Vidur's lengths; they have no arrivals."""
    rows = pd.read_csv(path)
    return _columns(None, rows["num_prefill_tokens"], rows["num_decode_tokens"])


def read_simple(path: Path) -> Columns:
    """Read a CSV with our own column names."""
    rows = pd.read_csv(path)
    return _columns(rows["arrival_s"], rows["input_tokens"], rows["output_tokens"])


def read_weka(path: Path) -> Columns:
    """Read the Weka calls' lengths."""
    rows = pd.read_parquet(path, columns=["input_tokens", "output_tokens"])
    return _columns(None, rows["input_tokens"].clip(lower=1), rows["output_tokens"].clip(lower=1))


def read_servegen(path: Path, model: str) -> Columns:
    """Draw lengths of a ServeGen model from its published histograms."""
    rows = pd.read_parquet(path)
    drawn = []
    for field in ("input_tokens", "output_tokens"):
        chosen = rows[(rows["model"] == model) & (rows["field"] == field)]
        weights = chosen["prob"].to_numpy(float)
        values = chosen["value"].to_numpy(float)
        # Evenly spaced probabilities instead of random ones: no noise in the table.
        places = (np.arange(_HISTOGRAM_ROWS) + 0.5) / _HISTOGRAM_ROWS
        order = np.argsort(values)
        cumulative = np.cumsum(weights[order]) / weights.sum()
        drawn.append(
            values[order][np.minimum(np.searchsorted(cumulative, places), len(values) - 1)]
        )
    return _columns(None, np.maximum(drawn[0], 1), np.maximum(drawn[1], 1))


def servegen_arrivals(traces: Path, model: str) -> FloatArray:
    """Draw the ServeGen hour whose rate is nearest the mean, by client and window."""
    rows = pd.read_parquet(traces / "servegen_client_windows.parquet")
    rows = rows[rows["model"] == model]
    hour = rows["window_start_s"] // (_SERVEGEN_WINDOWS * _SERVEGEN_WINDOW_S)
    rates = rows.groupby(hour)["rate_rps"].sum()
    chosen = rows[hour == (rates - rates.mean()).abs().idxmin()]
    rng = stream(0, "servegen")
    drawn = [_client_window(row, rng) for row in chosen.itertuples()]
    return np.sort(np.concatenate(drawn))


def _client_window(row: Any, rng: np.random.Generator) -> FloatArray:
    # Half a window again of gaps beyond the expected number, and some: bursts may need more than
    # the mean.
    n = int(2 * row.rate_rps * _SERVEGEN_WINDOW_S) + 50
    gaps = (
        rng.weibull(row.shape, n) if row.iat_family == "Weibull" else rng.gamma(row.shape, size=n)
    )
    arrival_s = np.cumsum(gaps * row.scale)
    return np.asarray(
        row.window_start_s + arrival_s[arrival_s < _SERVEGEN_WINDOW_S], dtype=np.float64
    )


def _columns(arrival_s: Any, input_tokens: Any, output_tokens: Any) -> Columns:
    seconds = None if arrival_s is None else np.asarray(arrival_s, dtype=np.float64)
    return (
        seconds,
        np.asarray(input_tokens, dtype=np.int64),
        np.asarray(output_tokens, dtype=np.int64),
    )
