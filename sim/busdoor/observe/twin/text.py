"""What was observed and predicted of a server, as rows of plain strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import pandas as pd

from busdoor.core.format import as_percent, duration
from busdoor.validation.errors import REGIMES

REGIME_COLUMNS = ("error", "error (ms)", "95 % of a mean", "runs", "n")
# What a page tells of every run; the rest is in predictions.csv.
SHOWN = {
    "ttft_mean": "TTFT mean",
    "tpot_mean": "TPOT mean",
    "e2e_mean": "E2E mean",
    "e2e_p99": "E2E p99",
    "output_rate": "output tokens/s",
}
PRINTED = {**SHOWN, "output_rate": "tokens/s", "saturated_rate": "saturated/s"}
PREDICTION_COLUMNS = ("predicted", "measured", "error", "in ms", "95 %", "n")


def what_was_observed(meta: Mapping[str, Any]) -> str:
    """Return in a line which server was observed, and what it shows of itself.

    >>> what_was_observed({"served_model": "m", "url": "http://h:1", "server_version": "0.32.0",
    ...                    "num_blocks": 9, "block_size": 16})
    'Model m at http://h:1; version 0.32.0; KV blocks 9 of 16 tokens.'
    """
    parts = [f"Model {meta['served_model']} at {meta['url']}"]
    if meta.get("server_version"):
        parts.append(f"version {meta['server_version']}")
    if meta.get("num_blocks"):
        parts.append(f"KV blocks {meta['num_blocks']:,} of {meta['block_size']} tokens")
    return "; ".join(parts) + "."


def prediction_cells(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return a row per predicted run and quantity of `PRINTED` that both sides have.

    The last columns are the error in milliseconds, the 95 % interval of a measured mean, n.
    """
    known = table[table["error"].notna() & table["quantity"].isin(list(PRINTED))]
    return [_prediction_row(row) for row in known.to_dict("records")]


def regime_cells(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return a row per load regime and quantity: the mean error of its runs, and its range."""
    groups = dict(iter(table[table["error"].notna()].groupby(["regime", "quantity"])))
    return [
        (f"{regime}: {title}", _regime_row(groups[regime, key]))
        for _, regime in REGIMES
        for key, title in SHOWN.items()
        if (regime, key) in groups
    ]


def run_cells(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return a row per run: its load, the errors of `SHOWN` in per cent, n."""
    return [
        (str(run), _run_row(own.set_index("quantity")))
        for run, own in table.groupby("run", sort=False)
    ]


def _run_row(own: pd.DataFrame) -> list[str]:
    load = float(own["load"].iloc[0])
    shown = f"{load:.2f}" if isfinite(load) else "burst"
    return [shown, *(as_percent(own["error"][key]) for key in SHOWN), f"{own['n'].iloc[0]:,}"]


def _regime_row(own: pd.DataFrame) -> list[str]:
    error, late_ms = (
        _range(own[column], unit) for column, unit in (("error", 100), ("error_ms", 1))
    )
    width = own["half_width"].mean()
    return [
        f"{error} %",
        late_ms,
        f"±{100 * width:.0f} %" if isfinite(width) else "–",
        f"{len(own):,}",
        f"{own['n'].sum():,}",
    ]


def _range(values: pd.Series[float], unit: float) -> str:
    """Return a mean, and the least and largest value where there are several."""
    if values.isna().all():
        return "–"
    mean, least, most = (
        f"{unit * own:+.1f}" for own in (values.mean(), values.min(), values.max())
    )
    return f"{mean} ({least} to {most})" if len(values) > 1 else mean


def _prediction_row(row: Mapping[Any, Any]) -> tuple[str, list[str]]:
    is_rate = row["quantity"].endswith("rate")
    predicted, measured = (
        f"{row[key]:.0f}/s" if is_rate else duration(1e3 * row[key])
        for key in ("predicted", "measured")
    )
    digits = 1 if is_rate or abs(row["error_ms"]) < 100 else 0
    cells = [
        predicted,
        measured,
        f"{100 * row['error']:+.1f} %",
        "–" if is_rate else f"{row['error_ms']:+.{digits}f}",
        f"±{100 * row['half_width']:.0f} %" if isfinite(row["half_width"]) else "–",
        f"{row['n']:,}",
    ]
    load = f", ρ {row['load']:.2f}" if isfinite(row["load"]) else ""
    return f"{row['run']}{load}: {PRINTED[row['quantity']]}", cells


def gain_lines(gains: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per static burst: what continuous batching gained over it.

    >>> gain_lines([{"continuous": "burst", "static": "burst-static-8", "predicted": 2.5, "measured": 2.6}])
    ['Gain of burst over burst-static-8: 2.50x predicted, 2.60x measured.']
    """
    return [
        f"Gain of {one['continuous']} over {one['static']}: {one['predicted']:.2f}x predicted, "
        f"{one['measured']:.2f}x measured."
        for one in gains
    ]


def split_lines(front_end_s: float, splits: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line per run that splits its mean TTFT, after the front end that predictions used."""
    if not splits:
        return [
            "The server's own iterations were not recorded: its front end is part of the fitted "
            "step time."
        ]
    lines = [f"Front end in the predictions: {duration(1e3 * front_end_s)}."]
    for name, parts in splits.items():
        shares = ", ".join(f"{part} {duration(1e3 * own)}" for part, own in parts.items())
        lines.append(f"Mean TTFT of {name}: {shares}.")
    return lines
