"""The output of a format's reader: our columns from the file, not yet checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from busdoor_workloads.reading.sniff import read_table
from busdoor_workloads.reading.source import MAX_BYTES
from busdoor_workloads.reading.table import Table
from busdoor_workloads.text import printable

TimeUnit = Literal["s", "ms", "us", "ns", "datetime"]

_SHOWN_COLUMNS = 400  # characters: enough for the columns of any published trace

UNITS_PER_SECOND: Mapping[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of a reader; see `read_trace`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit | None = None
    time_scale: float = 1.0
    start_s: float = 0.0
    duration_s: float = np.inf
    max_requests: int | None = None
    max_total_tokens: int | None = None
    too_long: Literal["drop", "clip"] = "drop"
    skip_bad: bool = False
    jitter: bool = True
    seed: int = 0
    model: str | None = None
    normalize_duration: bool = False
    name: str | None = None
    block_size: int | None = None
    run: int | None = None
    max_bytes: int = MAX_BYTES

    def table(self, path: Path) -> Table:
        """Read a file's table with these options."""
        return read_table(path, skip_bad=self.skip_bad, max_bytes=self.max_bytes)


@dataclass(kw_only=True)
class Draft:
    """Raw values under our names; the frame's index is the number of the record.

    Parameters
    ----------
    table : Table
        The file, with the line of each record.
    frame : DataFrame
        Raw values, one column for each of ours that the file has.
    names : dict
        The file's name of each column, for error messages.
    time_unit : str
        Unit of `arrival_s` (and of `think_time_s`); "datetime" for timestamps with a date.
    relative : bool
        The clock has no zero of its own: the first arrival is 0.
    in_order : bool
        The format requires order of arrival, so that disorder is an error instead of being sorted.
    number_turns : bool
        Turns are numbered within each session, in order of arrival.
    quantised : bool
        Timestamps may have coarse ticks, over which arrivals are then spread.
    whole_blocks : bool
        A prompt has ids for all of its blocks or for none.
    block_size, metadata
        As in `Trace`.
    notes : list of str
        Changes and assumptions of the reader.
    """

    table: Table
    frame: pd.DataFrame
    names: Mapping[str, str]
    time_unit: TimeUnit = "s"
    relative: bool = False
    in_order: bool = False
    number_turns: bool = False
    quantised: bool = False
    whole_blocks: bool = False
    block_size: int | None = None
    concurrency: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def draft_of(
    table: Table, needed: Mapping[str, str], optional: Mapping[str, str] | None = None, **kw: Any
) -> Draft:
    """Return columns of a table under our names, with further fields of the draft.

    `needed` and `optional` map our column names to the file's. A missing optional column is left
    out. Raises ValueError: a needed column is missing; the message names it and the columns of the
    file.
    """
    present = list(table.frame.columns)
    if missing := [ours for ours, theirs in needed.items() if theirs not in present]:
        has = printable(", ".join(map(str, present)))[:_SHOWN_COLUMNS] or "none"
        raise ValueError(
            f"{table.path.name} has no column {needed[missing[0]]}; it has {has}; map the columns "
            f"with columns (--columns.{missing[0]} NAME)"
        )
    names = {
        **needed,
        **{ours: theirs for ours, theirs in (optional or {}).items() if theirs in present},
    }
    frame = pd.DataFrame({ours: table.frame[theirs] for ours, theirs in names.items()})
    return Draft(table=table, frame=frame, names=names, **kw)
