"""What `busdoor simulate` shows of a cluster's servers: rows of plain strings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from busdoor.core.format import duration, percent

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 16  # half a screen; the file has all
TITLES = ("requests", "tokens", "of mean", "busy", "KV used", "TTFT p99", "E2E p99")


def replica_rows(replicas: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return name and cells of each of the first servers of a `replica_table`."""
    return [(_name(index, row), _cells(row)) for index, row in replicas.head(SHOWN_ROWS).iterrows()]


def replica_lines(replicas: pd.DataFrame) -> Iterator[str]:
    """Return what stands below the rows: how many are left out, the most loaded server."""
    if len(replicas) > SHOWN_ROWS:
        yield f"... and {len(replicas) - SHOWN_ROWS:,} more in replicas.csv"
    busiest, times = replicas["imbalance"].idxmax(), replicas["imbalance"].max()
    yield f"Replica {busiest} had the largest load for its weight: {times:.2f} times the mean."


def _name(index: Any, row: pd.Series[Any]) -> str:
    about = [str(row[key]) for key in ("gpu", "role") if key in row]
    return " ".join([str(index), *about])


def _cells(row: pd.Series[Any]) -> list[str]:
    return [
        f"{row['requests']:,}",
        f"{row['tokens']:,}",
        f"{row['imbalance']:.2f}×",
        percent(row["busy_share"]),
        percent(row["kv_used_share"]),
        duration(row["p99_ttft_ms"]),
        duration(row["p99_e2el_ms"]),
    ]
