"""What `busdoor simulate` shows of a cluster's servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from busdoor.comparison.table_text import duration, percent

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 16  # half a screen; the file has all
TITLES = ("requests", "tokens", "of mean", "busy", "KV used", "TTFT p99", "E2E p99")


def print_replicas(replicas: pd.DataFrame) -> None:
    """Print a line a server, and who had most to do.

    Parameters
    ----------
    replicas : DataFrame
        Of `busdoor.cluster.per_replica.replica_table`.
    """
    console = Console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("replica", no_wrap=True)
    for title in TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in replicas.head(SHOWN_ROWS).iterrows():
        table.add_row(escape(_name(index, row)), *_cells(row))
    console.print()
    console.print(table)
    if len(replicas) > SHOWN_ROWS:
        console.print(f"... and {len(replicas) - SHOWN_ROWS:,} more in replicas.csv")
    busiest = replicas["imbalance"].idxmax()
    console.print(
        f"Replica {busiest} had most to do for its weight: {replicas['imbalance'].max():.2f} times the mean.",
        highlight=False,
    )


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
