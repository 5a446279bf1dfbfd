"""Fit profiles: ``python -m busdoor_workloads.write_profiles TRACE_DIR [OUT_DIR]``.

A profile holds quantiles and parameters, no rows. `TRACE_DIR` holds the traces as named in
`sources.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from busdoor_workloads.arrivals import GapTable
from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.streams import stream

# Every other percentile, and a tail fine enough for p99 and for the mean of heavy-tailed lengths.
PROBABILITIES = (
    *(0, 0.005, 0.01),
    *(p / 100 for p in range(2, 99, 2)),
    *(0.985, 0.988, 0.99, 0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 1),
)
# Bins of the input for which outputs are tabulated: enough for the correlation, few enough for bins
# of 500 rows.
BINS = 8
_ROWS_A_BIN = 150
# A rank to one in 100,000: finer than the tables' last step, 1 - 0.9995.
_RANK_DIGITS = 5
# Windows in which the dispersion of counts is matched: within and beyond an answer's usual
# duration, seconds.
_WINDOWS_S = (10.0, 60.0)
# Counts no more dispersed than this in the longer window are taken for Poisson's (1).
_POISSON_DISPERSION = 1.5
# Gaps more spread than this are bursts that two Poisson rates cannot make; they get a table.
_TABLE_CV = 2.0


def fit_lengths(
    input_tokens: IntArray, output_tokens: IntArray, bins: int = BINS
) -> dict[str, Any]:
    """Tabulate lengths: quantiles, and the output's rank in equally likely input bins.

    Returns a table for `busdoor_workloads.lengths.pairs.RankTable` with at most `bins` bins of the
    input; fewer if they would hold less than 150 rows; 1: independent.

    >>> fit_lengths(np.arange(1, 1001), np.full(1000, 7))["output_values"][:3]
    [7, 7, 7]
    """
    bins = max(1, min(bins, len(input_tokens) // _ROWS_A_BIN))
    table: dict[str, Any] = {
        "type": "rank_table",
        "probabilities": list(PROBABILITIES),
        "input_values": [round(value) for value in _quantiles(input_tokens)],
        "output_values": [round(value) for value in _quantiles(output_tokens)],
    }
    if bins > 1:
        order = np.argsort(input_tokens, kind="stable")
        parts = np.array_split(_ranks(output_tokens)[order], bins)
        # Hazen's plotting positions, (k - 1/2) / n, are those of the ranks: no half row is lost at
        # the ends.
        table["output_ranks"] = [
            [round(rank, _RANK_DIGITS) for rank in _quantiles(part, "hazen")] for part in parts
        ]
    return table


def fit_arrivals(arrival_s: FloatArray) -> dict[str, Any]:
    """Fit an arrival process: Poisson, two alternating Poisson rates, or a table of gaps.

    Arrivals are in order; returns a table for `busdoor_workloads.arrivals.as_arrivals`.

    >>> fit_arrivals(np.cumsum(np.random.default_rng(0).exponential(0.5, 10_000)))["process"]
    'poisson'
    """
    gaps = np.diff(arrival_s)
    rate = round(1 / gaps.mean(), 4)
    if gaps.std() / gaps.mean() > _TABLE_CV:
        return {"process": "gap_table", "request_rate": rate} | _gap_table(gaps)
    if dispersion(arrival_s, _WINDOWS_S[1]) < _POISSON_DISPERSION:
        return {"process": "poisson", "request_rate": rate}
    return {"process": "mmpp2"} | _two_rates(arrival_s, rate)


def dispersion(arrival_s: FloatArray, window_s: float) -> float:
    """Return variance over mean of arrivals in windows of `window_s` seconds; Poisson has 1.

    >>> round(dispersion(np.cumsum(np.random.default_rng(0).exponential(0.01, 100_000)), 1.0), 1)
    1.0
    """
    span = arrival_s[-1] - arrival_s[0]
    windows = max(1, int(span / window_s))
    counts = np.histogram(arrival_s - arrival_s[0], windows, (0, windows * window_s))[0]
    return float(counts.var() / counts.mean())


def _two_rates(arrival_s: FloatArray, rate: float) -> dict[str, Any]:
    """Match the dispersion in both windows with two equally long states, rate - d and rate + d.

    With sojourns of mean s, so c = 2 / s, a window t has the dispersion
    1 + 2 d^2 / (rate c) (1 - (1 - e^(-c t)) / (c t)) (Fischer and Meier-Hellstern 1993).
    """
    from scipy.optimize import brentq

    def shape(c: float, t: float) -> float:
        return float(1 + np.expm1(-c * t) / (c * t)) / c

    near, far = (max(0.1, dispersion(arrival_s, t) - 1) for t in _WINDOWS_S)
    short, long = _WINDOWS_S
    # As c goes from 0 to infinity the ratio falls from long / short to 1; outside, the nearest end
    # is taken.
    ratio = np.clip(far / near, 1.05, 0.98 * long / short)
    c = float(brentq(lambda c: shape(c, long) / shape(c, short) - ratio, 1e-5, 1e3))
    swing = min(0.95 * rate, float(np.sqrt(far * rate / (2 * shape(c, long)))))
    return {
        "rates": [round(rate - swing, 4), round(rate + swing, 4)],
        "mean_sojourn_s": [round(2 / c, 2)] * 2,
    }


def _gap_table(gaps: FloatArray) -> dict[str, Any]:
    """Tabulate gaps, the last value moved so that the table's spread is the trace's."""
    from scipy.optimize import brentq

    values = np.quantile(gaps, PROBABILITIES)

    def table(last: float) -> GapTable:
        gaps_s = tuple(float(f"{value:.4g}") for value in (*values[:-1], last))
        return GapTable(request_rate=1, probabilities=PROBABILITIES, gaps_s=gaps_s)

    wanted = gaps.std() / gaps.mean()
    last = float(
        brentq(lambda last: table(last).gap_cv - wanted, values[-2], 10 * values[-1], xtol=1e-2)
    )
    return {"probabilities": list(PROBABILITIES), "gaps_s": list(table(last).gaps_s)}


def _ranks(values: IntArray) -> FloatArray:
    """Return each value's rank between 0 and 1; equal values get theirs at random."""
    order = np.lexsort((stream(0, "ties").random(len(values)), values))
    ranks = np.empty(len(values))
    ranks[order] = (np.arange(len(values)) + 0.5) / len(values)
    return ranks


def _quantiles(
    values: IntArray | FloatArray, method: Literal["linear", "hazen"] = "linear"
) -> list[float]:
    return [float(value) for value in np.quantile(values, PROBABILITIES, method=method)]


def write_profile(path: Path, table: Mapping[str, Any]) -> None:
    """Write a profile as JSON, one key per line and one bin of outputs per line."""
    text = json.dumps(table, indent=1)
    path.write_text(_flat(text) + "\n", "utf-8")


def _flat(text: str) -> str:
    """Join the innermost lists of indented JSON into one line each."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda match: json.dumps(json.loads(match[0])), text)
