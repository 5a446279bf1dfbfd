"""An observation as rows of plain strings."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import pandas as pd

from busdoor.core.format import duration, percent
from busdoor.observe.observation import Observation
from busdoor.observe.ttft_split import ttft_split
from busdoor.results.result import Result

PREDICTION_COLUMNS = ("predicted", "measured", "error", "error (ms)", "95 % of a mean", "n")


def what_was_observed(meta: Mapping[str, Any]) -> str:
    """Return in a line which server was observed, and what it shows of itself.

    Examples
    --------
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


def client_rows(seen: Observation) -> list[tuple[str, str]]:
    """Return the lines about the client, and the server's peaks where it shows them."""
    client = seen.result.meta["client"]
    late = [duration(1e3 * client[key]) for key in ("lag_p50_s", "lag_p99_s")]
    rows = [
        ("sent after due p50, p99", "  ".join(late)),
        ("most in flight", f"{client['most_in_flight']:,}"),
    ]
    states = seen.states
    for column, title in (
        ("num_running", "server: most running"),
        ("num_waiting", "server: most waiting"),
    ):
        if column in states:
            rows.append((title, f"{states[column].max():,.0f}"))
    if "kv_usage" in states:
        rows.append(("server: most KV memory used", percent(states["kv_usage"].max())))
    return rows


def engine_rows(client: Result, engine: Result) -> list[tuple[str, str]]:
    """Return the lines that split the mean TTFT: client, front end, queue and steps."""
    split = ttft_split(client, engine)
    rows = [("iterations recorded", f"{len(engine.iterations):,}")]
    return rows + [(f"TTFT: {part}", duration(1e3 * own)) for part, own in split.items()]


def prediction_cells(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return a row per predicted run and quantity."""
    return [_prediction_row(row) for row in table.to_dict("records")]


def _prediction_row(row: Mapping[Any, Any]) -> tuple[str, list[str]]:
    is_rate = row["quantity"].endswith("rate")
    predicted, measured = (
        f"{row[key]:.0f}/s" if is_rate else duration(1e3 * row[key])
        for key in ("predicted", "measured")
    )
    load = f"ρ {row['load']:.2f}" if isfinite(row["load"]) else "burst"
    cells = [
        predicted,
        measured,
        f"{100 * row['error']:+.1f} %",
        "–" if is_rate else f"{row['error_ms']:+.1f}",
        f"±{100 * row['half_width']:.0f} %" if isfinite(row["half_width"]) else "–",
        f"{row['n']:,}",
    ]
    return f"{row['run']}, {load}: {row['quantity']}", cells


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
