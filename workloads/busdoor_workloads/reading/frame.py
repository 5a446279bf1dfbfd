"""The fields of a trace from read columns, with the same checks for files and data frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor_workloads.reading.check import checked
from busdoor_workloads.reading.draft import Draft, ReadOptions, TimeUnit
from busdoor_workloads.reading.finish import finished
from busdoor_workloads.reading.own_columns import own_draft
from busdoor_workloads.reading.table import Table


def frame_fields(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    time_unit: TimeUnit = "s",
    skip_bad: bool = False,
    name: str = "frame",
) -> dict[str, Any]:
    """Return the fields of a trace from a data frame; see `Trace.from_frame`."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"a trace can be made of a data frame, not of {type(frame).__name__}")
    table = Table(path=Path(name), frame=frame.reset_index(drop=True), record_name="row")
    options = ReadOptions(columns=columns or {}, time_unit=time_unit, skip_bad=skip_bad, name=name)
    arrivals = table.frame.get(options.columns.get("arrival_s", "arrival_s"))
    if arrivals is not None and pd.api.types.is_datetime64_any_dtype(arrivals):
        options = replace(options, time_unit="datetime")
    return checked_fields(own_draft(table, options), "frame", options)


def checked_fields(draft: Draft, format: str, options: ReadOptions) -> dict[str, Any]:
    """Check a draft's columns; return a trace's fields; metadata has format and omissions."""
    table = draft.table
    frame, num_bad = checked(draft, skip_bad=options.skip_bad)
    if options.block_size and "hash_ids" not in frame:
        raise ValueError(
            f"{table.path.name} has no hash_ids, to which block_size (--block-size) would apply; "
            f"leave it out"
        )
    notes = {
        "source": table.path.name,
        "format": format,
        "rows_read": len(table.frame) + table.num_malformed,
    }
    if num_bad + draft.table.num_malformed:
        notes["rows_dropped_bad"] = num_bad + draft.table.num_malformed
    draft.metadata = notes | draft.metadata
    return finished(draft, frame, options)
