"""A recommendation as rows of plain strings."""

from __future__ import annotations

from math import isfinite
from typing import Any

import pandas as pd

from busdoor.core.format import NOTHING, duration, number, percent
from busdoor.recommend.data import RecommendationData

Rows = list[tuple[str, list[str]]]
HEADS = ("cost/h", "SLO used", "meets", "latency", "cost/M tokens", "kWh/M tokens")
LADDER_HEADS = ("servers", "GPUs", "cost/h")
_MOST_ROWS = 12  # in a terminal; the folder has all


def place_rows(table: pd.DataFrame, most: int = _MOST_ROWS, setups: bool = False) -> Rows:
    """Return a row per number of servers: what meets the SLO first, cheapest first.

    Those that miss it are shown where they are the dearest of their server: one more would do.
    """
    shown = table[table["outcome"] != "misses"]
    missed = table[table["outcome"] == "misses"].tail(max(0, most - len(shown)))
    rows = pd.concat([shown.head(most), missed])  # either by cost already
    return [
        (row["servers"], [*_cells(row), *([_setup(row)] if setups else [])])
        for _, row in rows.iterrows()
    ]


def _setup(row: pd.Series[Any]) -> str:
    router = row["router"]
    return f"{row['setup']} behind {router}" if isinstance(router, str) and router else row["setup"]


def _cells(row: pd.Series[Any]) -> list[str]:
    outcome = {"meets": "yes", "misses": "no"}.get(str(row["outcome"]), "undecided")
    values = pd.to_numeric(row.drop(["servers", "setup", "router", "command", "outcome"]))
    return [
        f"{values['cost_per_hour']:,.2f}",
        percent(values["slo_used"], 0) if isfinite(values["slo_used"]) else NOTHING,
        outcome,
        duration(1e3 * values["latency_s"]) if isfinite(values["latency_s"]) else NOTHING,
        f"{values['cost_per_million_output_tokens']:.3g}",
        number(values["kwh_per_million_output_tokens"]),
    ]


def ladder_rows(ladder: pd.DataFrame, winner: pd.Series[Any] | None = None) -> Rows:
    """Return a row per policy, dearest first; with a row of the table last, the recommended."""
    rows = [(str(name), _rung(row["replicas"], row)) for name, row in ladder.iterrows()]
    if winner is None:
        return rows
    return [*rows, ("recommended", _rung(float(winner["servers"].split(" ×")[0]), winner))]


def _rung(servers: float, row: pd.Series[Any]) -> list[str]:
    return [number(servers), number(row["gpus"]), _cost(row["cost_per_hour"])]


def _cost(value: float) -> str:
    return NOTHING if value != value else f"{value:,.2f}"


def notes(found: RecommendationData) -> list[str]:
    """Return what to know beside the answer: checks of the model, and servers left out."""
    lines = [f"Predicted with {found.unchecked}."] if found.winner else []
    lines += [found.certainty["text"]] if found.certainty else []
    return lines + [f"Left out: {reason}." for reason in found.left_out]
