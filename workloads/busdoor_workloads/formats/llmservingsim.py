"""Workloads of casys-kaist/LLMServingSim `workloads/`: ns; requests or agents' calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.reading.table import Table

_COLUMNS = {
    "arrival_s": "arrival_time_ns",
    "input_tokens": "input_toks",
    "output_tokens": "output_toks",
}
_CALLS = {
    **_COLUMNS,
    "session_id": "session_id",
    "turn": "turn",
    "think_time_s": "tool_duration_ns",
}


def _read(path: Path, options: ReadOptions) -> Draft:
    table, unit = options.table(path), options.time_unit or "ns"
    if "sub_requests" not in table.frame:
        return draft_of(table, _COLUMNS, time_unit=unit)
    records = table.frame.to_dict("records")
    calls = pd.DataFrame(
        [call for record, row in enumerate(records) for call in _calls(record, row)]
    )
    frame = calls.set_index("record").rename(
        columns={theirs: ours for ours, theirs in _CALLS.items()}
    )
    return Draft(
        table=Table(path=path, frame=table.frame, line=table.line),
        frame=frame,
        names=_CALLS,
        time_unit=unit,
    )


def _calls(record: int, row: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    """Return a session's calls; each waits for the tool that the previous call started."""
    subs = row["sub_requests"] if isinstance(row["sub_requests"], list) else [row]
    earliest, tool = row.get("arrival_time_ns"), 0
    for turn, sub in enumerate(subs):
        earliest = earliest + tool if isinstance(earliest, int | float) else None
        yield {
            "record": record,
            "arrival_time_ns": earliest,
            "input_toks": sub.get("input_toks"),
            "output_toks": sub.get("output_toks"),
            "session_id": record,
            "turn": turn,
            "tool_duration_ns": tool,
        }
        tool = sub.get("tool_duration_ns") or 0


LLMSERVINGSIM = Format(
    name="llmservingsim",
    title="LLMServingSim JSONL: nanoseconds, agents' sessions",
    container="jsonl",
    marks=frozenset({"arrival_time_ns"}),
    time_unit="ns",
    read=_read,
)
