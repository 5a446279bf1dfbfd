"""Our own CSV and JSONL, and any file whose columns the user names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from busdoor_workloads.formats.base import OPTIONAL_COLUMNS, Format, write_csv
from busdoor_workloads.formats.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.formats.parse import whole_numbers
from busdoor_workloads.formats.table import Table
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.text import shown
from busdoor_workloads.trace import Trace

_NEEDED = ("input_tokens", "output_tokens")
_ALL = ("arrival_s", *_NEEDED, *OPTIONAL_COLUMNS)
# Closer than did_you_mean's cutoff: the file may hold any other column, only a near miss is a mistake.
_TYPO_CUTOFF = 0.85


def _read(path: Path, options: ReadOptions) -> Draft:
    return own_draft(options.table(path), options)


def own_draft(table: Table, options: ReadOptions) -> Draft:
    """Take the columns of a table under our names, or under those that the user gave.

    Raises
    ------
    ValueError
        A needed column is missing, or one is nearly ours.
    """
    names = _names(options.columns)
    if not options.columns:
        _refuse_typos(table.path, table.frame.columns)
    names = {ours: theirs for ours, theirs in names.items() if theirs}
    needed = {ours: names[ours] for ours in (*_NEEDED, *options.columns) if ours in names}
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
            f"{draft.table.path.name} says block_size {size}, but {options.block_size} is asked for; leave it out"
        )
    return options.block_size or size


def _number_turns(draft: Draft) -> None:
    if "turn" in draft.frame and "session_id" not in draft.frame:
        raise ValueError(f"{draft.table.path.name} has turns but no session_id, which says of which session")
    if "session_id" in draft.frame and "turn" not in draft.frame:
        draft.number_turns = True
        draft.notes.append("sessions without turns: numbered in each session in order of arrival")


def _names(columns: Mapping[str, str]) -> dict[str, str]:
    if unknown := [ours for ours in columns if ours not in _ALL]:
        raise ValueError(f"columns names {unknown[0]!r}, which is none of ours; {did_you_mean(unknown[0], _ALL)}")
    return {ours: columns.get(ours, ours) for ours in _ALL}


def _refuse_typos(path: Path, present: pd.Index) -> None:
    absent = [column for column in _ALL if column not in present]
    for name in present.difference(list(_ALL)):
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
            f"{draft.table.place(int(raw.index[row]))}: {column} is {shown(raw.iloc[row])}; it must be one whole number"
            " of at least 1, the same in every row"
        )
    return first


def _columns(trace: Trace) -> dict[str, Any]:
    columns: dict[str, Any] = {c: getattr(trace, c) for c in _ALL if getattr(trace, c) is not None}
    for never in {"think_time_s", "timeout_s"} & columns.keys():  # JSON has no infinity, and empty means never
        columns[never] = [value if np.isfinite(value) else None for value in columns[never].tolist()]
    return columns


def _write_csv(trace: Trace, file: TextIO) -> None:
    columns = _columns(trace)
    if "hash_ids" in columns:
        columns["hash_ids"] = [" ".join(map(str, ids)) for ids in columns["hash_ids"]]
    write_csv(columns, file)


def _write_jsonl(trace: Trace, file: TextIO) -> None:
    columns = {name: _every_row(values, len(trace)) for name, values in _columns(trace).items()}
    file.writelines(
        json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*columns.values(), strict=True)
    )


def _every_row(values: Any, num_rows: int) -> Iterator[Any]:
    if isinstance(values, int):
        return iter([values] * num_rows)
    return iter(values.tolist() if isinstance(values, np.ndarray) else values)


_MARKS = frozenset(_NEEDED)

CSV = Format(
    name="csv",
    title="busdoor CSV: arrival_s, input_tokens, output_tokens and optional columns",
    container="csv",
    marks=_MARKS,
    uses=frozenset({"columns"}),
    read=_read,
    write=_write_csv,
    keeps=OPTIONAL_COLUMNS,
)
JSONL = Format(
    name="jsonl",
    title="busdoor JSONL: the same keys, one request a line",
    container="jsonl",
    marks=_MARKS,
    uses=frozenset({"columns"}),
    read=_read,
    write=_write_jsonl,
    keeps=OPTIONAL_COLUMNS,
)
