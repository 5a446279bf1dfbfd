"""The result of a capacity study in a few plain sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from busdoor.capacity.data import CapacityData
from busdoor.core.names import listed


def verdict(capacity: CapacityData, request_rate: float | None = None) -> str:
    """Return in words the rates at which one server meets the SLO, and the servers for a rate."""
    best = _best(capacity.table)
    card, server = _server(capacity)
    rates = [
        f"{_from(row)}{rate_text(row)} requests/s with {name}" for name, row in best.iterrows()
    ]
    served = (
        f"{server} serve{'s' * (server[:4] == 'one ')} {listed(rates)}"
        if rates
        else "there is no rate yet"
    )
    parts = [f"Within {capacity.slo}, {served}."]
    if request_rate is not None and rates:
        parts += _servers(capacity, request_rate, card)
    never = [str(name) for name in capacity.table.index if not capacity.table.loc[name, "low"] > 0]
    if never:
        parts.append(f"{listed(never)} meet{'s' * (len(never) == 1)} it at no rate.")
    return " ".join(parts)


def _server(capacity: CapacityData) -> tuple[str, str]:
    """Return what a GPU is called, and what serves the rates of the table."""
    config = capacity.config
    if capacity.servers:
        return "GPUs", "one server"
    card = config.pools[0].machine if len(config.pools) == 1 else "GPUs"
    if config.cluster is not None:
        return card, f"{config.hardware} behind {config.cluster.routers}"
    return card, f"one {card}" if config.gpu.tp == 1 else f"{config.gpu.tp} {card} together"


def rate_text(row: pd.Series[Any]) -> str:
    """Write the best estimate of a row, or its interval if that is wider than the estimate.

    >>> rate_text(pd.Series({"request_rate": 22.68, "low": 22.4, "high": 23.0}))
    '22.7'
    >>> rate_text(pd.Series({"request_rate": 3.0, "low": 2.0, "high": 6.0}))
    'undecided: 2 to 6'
    """
    if not row["high"] < float("inf"):  # NaN where a folder was read
        return f"over {row['low']:.3g}"
    if row["high"] - row["low"] > row["request_rate"]:
        return f"undecided: {row['low']:.3g} to {row['high']:.3g}"
    return f"{row['request_rate']:.3g}"


def misfits(table: pd.DataFrame, plan: pd.DataFrame, request_rate: float) -> dict[str, str]:
    """Return by policy why no number of servers is sure to meet the SLO at a rate."""
    lost = table[(table["low"] > 0) & plan["replicas"].isna()]
    return {
        str(name): f"no number of servers is sure to meet the SLO at {request_rate:.3g} "
        f"requests/s: each does from {row['least']:.3g} to {row['low']:.3g}, as its batches fill "
        "too slowly below"
        for name, row in lost.iterrows()
    }


def _from(row: pd.Series[Any]) -> str:
    return f"{row['least']:.3g} to " if row["least"] > 0 else ""


def _servers(capacity: CapacityData, request_rate: float, card: str) -> list[str]:
    """Return a sentence on policies that serve the rate, fewest GPUs first, and on the others."""
    plan = capacity.plan(request_rate)
    needs = _best(capacity.table[plan["replicas"].notna()]).index
    gpus = plan["gpus"][needs].sort_values(kind="stable").items()
    counts = [
        f"{int(number):,}{'' if place else f' {card}'} with {name}"
        for place, (name, number) in enumerate(gpus)
    ]
    lost = [
        name
        for name in _best(capacity.table).index
        if plan["replicas"][name] != plan["replicas"][name]
    ]
    lost = [name for name in lost if _family(name) not in map(_family, needs)]
    parts = [f"{request_rate:.3g} requests/s need {listed(counts)}."] if counts else []
    if lost:
        parts.append(
            f"With {listed(list(map(str, lost)))} no number of servers is sure to serve "
            f"{request_rate:.3g}."
        )
    return parts


def _best(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that meet the SLO, highest rate first; of static batching the best one."""
    meeting = table[table["low"] > 0].sort_values("low", ascending=False)
    return meeting[~meeting.index.map(_family).duplicated()]


def _family(name: object) -> str:
    return str(name).partition(" (")[0]
