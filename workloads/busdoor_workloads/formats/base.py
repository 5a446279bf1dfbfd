"""A file format: how to recognise it, how to read it, how to write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import pandas as pd

from busdoor_workloads.formats.draft import Draft, ReadOptions, TimeUnit, draft_of
from busdoor_workloads.formats.table import Container, Table, read_csv, read_jsonl
from busdoor_workloads.trace import Trace

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


@dataclass(frozen=True, kw_only=True)
class Format:
    """One file format.

    Parameters
    ----------
    name : str
        What the user calls it.
    title : str
        What it is, in a few words.
    container : str
        Kind of file: "csv", "jsonl", "json" or "folder".
    marks : frozenset of str
        Columns (keys) whose presence in the first record tells this format from the others.
    read : callable
        From a path and the options to a draft.
    write : callable, optional
        Writes a trace to an open text file; absent where nobody needs such files written.
    keeps : tuple of str
        Optional columns that the written file can hold.
    """

    name: str
    title: str
    container: Container
    marks: frozenset[str]
    read: Callable[[Path, ReadOptions], Draft]
    write: Callable[[Trace, TextIO], None] | None = None
    keeps: tuple[str, ...] = field(default=())

    def cannot_keep(self, trace: Trace) -> list[str]:
        """List the columns of a trace that a file of this format has no place for.

        Examples
        --------
        >>> from busdoor_workloads.formats import FORMATS
        >>> trace = Trace(arrival_s=[0], input_tokens=[5], output_tokens=[2], priority=[1])
        >>> FORMATS["azure"].cannot_keep(trace), FORMATS["csv"].cannot_keep(trace)
        (['priority'], [])
        """
        return [c for c in OPTIONAL_COLUMNS if getattr(trace, c) is not None and c not in self.keeps]


def mapped(
    needed: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    time_unit: TimeUnit = "s",
    relative: bool = False,
) -> Callable[[Path, ReadOptions], Draft]:
    """Make the reader of a CSV format that only names our columns differently."""

    def read(path: Path, options: ReadOptions) -> Draft:
        table = read_csv(path, skip_bad=options.skip_bad)
        return draft_of(table, needed, optional, time_unit=time_unit, relative=relative)

    return read


def read_rows(path: Path, container: Container, options: ReadOptions) -> Table:
    """Read a CSV or JSONL file as a table."""
    return (read_jsonl if container == "jsonl" else read_csv)(path, skip_bad=options.skip_bad)


def write_csv(columns: Mapping[str, object], file: TextIO) -> None:
    """Write columns as CSV; floats as the shortest text that reads back as the same double."""
    pd.DataFrame(columns).to_csv(file, index=False, lineterminator="\n")
