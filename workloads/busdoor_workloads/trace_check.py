"""Checks of a trace's columns against each other and against their limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from busdoor_workloads.columns import MAX_TOKENS, require

INTEGER_COLUMNS = (
    "max_output_tokens",
    "priority",
    "session_id",
    "turn",
)  # those that a trace may lack
SECONDS_COLUMNS = ("think_time_s", "timeout_s")


def check_columns(fields: Mapping[str, Any]) -> None:
    """Raise ValueError with column, row and value if a trace's columns are wrong.

    Columns are arrays, or None if the trace lacks them.
    """
    arrival_s, inputs, outputs = (
        fields[name] for name in ("arrival_s", "input_tokens", "output_tokens")
    )
    for column in ("input_tokens", "output_tokens", *INTEGER_COLUMNS, *SECONDS_COLUMNS, "hash_ids"):
        values = fields[column]
        if values is not None and len(values) != len(arrival_s):
            raise ValueError(
                f"{column} has {len(values)} rows but arrival_s has {len(arrival_s)}; they must "
                f"agree"
            )
    require("arrival_s", arrival_s, np.isfinite(arrival_s) & (arrival_s >= 0), "0 or later")
    require("arrival_s", arrival_s, np.diff(arrival_s, prepend=0) >= 0, "in order of arrival")
    for column, tokens in (("input_tokens", inputs), ("output_tokens", outputs)):
        require(column, tokens, tokens >= 1, "at least 1")
        require(column, tokens, tokens <= MAX_TOKENS, f"at most {MAX_TOKENS:,}")
    if (cap := fields["max_output_tokens"]) is not None:
        require("max_output_tokens", cap, cap >= outputs, "at least output_tokens")
        require("max_output_tokens", cap, cap <= MAX_TOKENS, f"at most {MAX_TOKENS:,}")
    if (think_time_s := fields["think_time_s"]) is not None:
        require("think_time_s", think_time_s, ~(think_time_s < 0), "0 or more")
    if (timeout_s := fields["timeout_s"]) is not None:
        require("timeout_s", timeout_s, ~(timeout_s <= 0), "more than 0")
