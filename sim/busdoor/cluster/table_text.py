"""What `busdoor simulate` shows of a cluster's servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from busdoor.core.format import duration, percent

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 16  # half a screen; the file has all
TITLES = ("requests", "tokens", "of mean", "busy", "KV used", "TTFT p99", "E2E p99")


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
