"""What `busdoor sweep` shows of its table: rows of plain strings."""

from __future__ import annotations

from collections import Counter
from math import nan
from typing import TYPE_CHECKING, Any

from busdoor.core.format import NOTHING, duration, number
from busdoor.sweep.table import Sweep

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 40  # a screen; the files have all
SHOWN_REASONS = 5
METRICS = ("requests\n/s", "tokens\n/s", "TTFT\np99", "TPOT\np99", "")


def varied_keys(sweep: Sweep) -> list[str]:
    """Return the dotted keys that the study varies, in its order."""
    return list(dict.fromkeys(key for point in sweep.points for key in point.parameters))


def point_rows(sweep: Sweep) -> list[list[str]]:
    """Return the cells of the first points: the values of `varied_keys`, then `METRICS`."""
    keys = varied_keys(sweep)
    return [
        [*(_value(row.get(key)) for key in keys), *_metrics(row)]
        for _, row in sweep.table.head(SHOWN_ROWS).iterrows()
    ]


def _metrics(row: pd.Series[Any]) -> list[str]:
    rates = [number(row.get(key, nan)) for key in ("request_throughput", "output_throughput")]
    latencies = [duration(row.get(f"p99_{key}_ms", nan)) for key in ("ttft", "tpot")]
    remark = (
        row["status"] if row["status"] != "done" else "saturated" if row["saturated"] > 0 else ""
    )
    return [*rates, *latencies, remark]


def _value(value: Any) -> str:
    if value is None or value != value:
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else str(value)


def closing_lines(sweep: Sweep) -> list[str]:
    """Return how many points there are, and what is wrong with those that are not done."""
    total, failed, missing = len(sweep.points), len(sweep.failed), len(sweep.missing)
    lines = [f"... and {total - SHOWN_ROWS:,} more."] if total > SHOWN_ROWS else []
    lines.append(
        f"{total:,} points: {total - failed - missing:,} done, {failed:,} failed, {missing:,} not "
        f"run."
    )
    reasons = Counter(sweep.records[point.key].error for point in sweep.failed)
    lines += [
        f"Failed ({count:,}): {reason}" for reason, count in list(reasons.items())[:SHOWN_REASONS]
    ]
    return lines + ["Interrupted; the same command goes on from here."] * bool(missing)
