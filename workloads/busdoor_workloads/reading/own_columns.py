"""Columns under our names, or under those that the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.reading.parse import whole_numbers
from busdoor_workloads.reading.table import Table
from busdoor_workloads.text import shown

OPTIONAL_COLUMNS = (
    "max_output_tokens",
    "priority",
    "session_id",
    "turn",
    "think_time_s",
    "timeout_s",
    "hash_ids",
    "block_size",
    "concurrency",
)
NEEDED_COLUMNS = ("input_tokens", "output_tokens")
ALL_COLUMNS = ("arrival_s", *NEEDED_COLUMNS, *OPTIONAL_COLUMNS)
# Closer than did_you_mean's cutoff: the file may hold any other column, only a near miss is a
# mistake.
_TYPO_CUTOFF = 0.85


def own_draft(table: Table, options: ReadOptions) -> Draft:
    """Return the columns of a table under our names, or under those that the user gave.

    Raises ValueError: a needed column is missing, or a name is nearly one of ours.
    """
    names = _names(options.columns)
    if not options.columns:
        _refuse_typos(table.path, table.frame.columns)
    names = {ours: theirs for ours, theirs in names.items() if theirs}
    needed = {ours: names[ours] for ours in (*NEEDED_COLUMNS, *options.columns) if ours in names}
    foreign = bool(options.columns)
    draft = draft_of(table, needed, names, time_unit=options.time_unit or "s", in_order=not foreign)
    draft.relative = foreign and "arrival_s" in draft.frame
    draft.concurrency = _constant(draft, "concurrency")
    draft.block_size = _block_size(draft, options)
    _number_turns(draft)
    return draft


def _block_size(draft: Draft, options: ReadOptions) -> int | None:
    size = _constant(draft, "block_size")
    if options.block_size and size and size != options.block_size:
        raise ValueError(
            f"{draft.table.path.name} has block_size {size}, but block_size (--block-size) is "
            f"{options.block_size}; leave it out"
        )
    return options.block_size or size


def _number_turns(draft: Draft) -> None:
    if "turn" in draft.frame and "session_id" not in draft.frame:
        raise ValueError(
            f"{draft.table.path.name} has turns but no session_id; add the session of each turn"
        )
    if "session_id" in draft.frame and "turn" not in draft.frame:
        draft.number_turns = True
        draft.notes.append("sessions without turns: numbered in each session in order of arrival")


def _names(columns: Mapping[str, str]) -> dict[str, str]:
    if unknown := [ours for ours in columns if ours not in ALL_COLUMNS]:
        raise ValueError(
            f"columns names {unknown[0]!r}, which is none of ours; "
            f"{did_you_mean(unknown[0], ALL_COLUMNS)}"
        )
    return {ours: columns.get(ours, ours) for ours in ALL_COLUMNS}


def _refuse_typos(path: Path, present: pd.Index) -> None:
    absent = [column for column in ALL_COLUMNS if column not in present]
    for name in present.difference(list(ALL_COLUMNS)):
        if near := get_close_matches(str(name), absent, n=1, cutoff=_TYPO_CUTOFF):
            raise ValueError(f"{path.name} has a column {name!r}; did you mean {near[0]!r}?")


def _constant(draft: Draft, column: str) -> int | None:
    if column not in draft.frame:
        return None
    raw = draft.frame.pop(column)
    values, good = whole_numbers(raw)
    given = raw.notna().to_numpy()
    if not given.any():
        return None
    first = int(values[given][0])
    wrong = given & ~(good & (values == first) & (values >= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{draft.table.place(int(raw.index[row]))}: {column} is {shown(raw.iloc[row])}; it "
            "must be one whole number of at least 1, the same in every row"
        )
    return first
