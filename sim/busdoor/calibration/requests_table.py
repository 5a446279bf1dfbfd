"""A table of per-request times as a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration.formats.base import TIMES
from busdoor.results.columns import ITERATION_COLUMNS, REQUEST_COLUMNS, STAY_COLUMNS
from busdoor.results.result import Result


def from_requests_table(
    table: pd.DataFrame, name: str, about: Mapping[str, Any] | None = None
) -> Result:
    """Make a result of arrival_s, input_tokens, output_tokens, first_token_s, finish_s.

    Raises ValueError if a time precedes the one it follows; the sentence names the request.

    >>> table = pd.DataFrame({"arrival_s": [5.0], "input_tokens": [9], "output_tokens": [3], "first_token_s": [5.5],
    ...                       "finish_s": [6.5]})
    >>> result = from_requests_table(table, "mine")
    >>> result.summary["mean_ttft_ms"], result.summary["mean_tpot_ms"]
    (500.0, 500.0)
    """
    table = table.sort_values("arrival_s", kind="stable", ignore_index=True)
    for before, after in (("arrival_s", "first_token_s"), ("first_token_s", "finish_s")):
        wrong = np.flatnonzero(table[after] < table[before] - 1e-9)
        if len(wrong):
            row = table.iloc[wrong[0]]
            raise ValueError(
                f"{name} request {wrong[0]}: {after} {row[after]} is before {before} {row[before]}"
            )
    zero = float(table["arrival_s"].min())
    for column in (*TIMES, "first_scheduled_s"):
        table[column] = table[column] - zero if column in table else np.nan
    table["request_id"] = np.arange(len(table))
    table["released_s"] = table["finish_s"]
    table["max_output_tokens"] = table["output_tokens"]
    table["num_preemptions"] = table["cached_tokens"] = table["replica"] = 0
    table["status"] = np.where(table["finish_s"].notna(), "finished", "unfinished")
    # The server's memory, slots and lookahead are not observed, and so not written.
    meta = {"policy": "measured", "streams": True, "trace": name, "num_requests": len(table),
            "trace_duration_s": float(table["arrival_s"].max()), **(about or {})}  # fmt: skip
    return Result(
        table[[*REQUEST_COLUMNS, "status"]],
        empty_table(ITERATION_COLUMNS),
        empty_table(STAY_COLUMNS, "slot"),
        meta,
    )


def empty_table(columns: tuple[str, ...], *more: str) -> pd.DataFrame:
    """Return a table of a result without rows, of these columns and the replica."""
    return pd.DataFrame(
        {column: np.array([], dtype=float) for column in (*columns, *more, "replica")}
    )
