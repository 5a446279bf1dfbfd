"""Our own CSV and JSONL, and any file whose columns the user names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from busdoor_workloads.formats.base import Format, write_csv
from busdoor_workloads.reading.draft import Draft, ReadOptions
from busdoor_workloads.reading.own_columns import (
    ALL_COLUMNS,
    NEEDED_COLUMNS,
    OPTIONAL_COLUMNS,
    own_draft,
)
from busdoor_workloads.trace import Trace


def _read(path: Path, options: ReadOptions) -> Draft:
    return own_draft(options.table(path), options)


def _columns(trace: Trace) -> dict[str, Any]:
    columns: dict[str, Any] = {
        c: getattr(trace, c) for c in ALL_COLUMNS if getattr(trace, c) is not None
    }
    for never in {
        "think_time_s",
        "timeout_s",
    } & columns.keys():  # JSON has no infinity, and empty means never
        columns[never] = [
            value if np.isfinite(value) else None for value in columns[never].tolist()
        ]
    return columns


def _write_csv(trace: Trace, file: TextIO) -> None:
    columns = _columns(trace)
    if "hash_ids" in columns:
        columns["hash_ids"] = [" ".join(map(str, ids)) for ids in columns["hash_ids"]]
    write_csv(columns, file)


def _write_jsonl(trace: Trace, file: TextIO) -> None:
    columns = {name: _every_row(values, len(trace)) for name, values in _columns(trace).items()}
    file.writelines(
        json.dumps(dict(zip(columns, row, strict=True))) + "\n"
        for row in zip(*columns.values(), strict=True)
    )


def _every_row(values: Any, num_rows: int) -> Iterator[Any]:
    if isinstance(values, int):
        return iter([values] * num_rows)
    return iter(values.tolist() if isinstance(values, np.ndarray) else values)


_MARKS = frozenset(NEEDED_COLUMNS)

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
