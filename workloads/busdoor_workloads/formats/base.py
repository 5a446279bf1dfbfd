"""A file format: its marks, its reader and its writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import pandas as pd

from busdoor_workloads.reading.draft import Draft, ReadOptions, TimeUnit, draft_of
from busdoor_workloads.reading.own_columns import OPTIONAL_COLUMNS
from busdoor_workloads.reading.table import Container
from busdoor_workloads.text import neutral_cell
from busdoor_workloads.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Format:
    """One file format.

    Parameters
    ----------
    name : str
        Name for the user.
    title : str
        Description in a few words.
    container : str
        Kind of file: "csv", "jsonl", "json" or "folder".
    time_unit : str, optional
        Default unit of the file's arrival times; None if it cannot be changed.
    uses : frozenset of str
        Options of `read_trace` that only some formats have.
    marks : frozenset of str
        Columns (keys) of the first record that identify this format.
    in_folders : bool
        A folder of such files is read as one.
    read : callable
        From a path and the options to a draft.
    write : callable, optional
        Writes a trace to an open text file; absent if the format is only read.
    keeps : tuple of str
        Optional columns that the written file can hold.
    tick_s : float
        Resolution of written arrivals, in seconds; 0: exact.
    """

    name: str
    title: str
    container: Container
    marks: frozenset[str]
    time_unit: TimeUnit | None = "s"
    uses: frozenset[str] = frozenset()
    in_folders: bool = False
    read: Callable[[Path, ReadOptions], Draft]
    write: Callable[[Trace, TextIO], None] | None = None
    keeps: tuple[str, ...] = field(default=())
    tick_s: float = 0.0

    def cannot_keep(self, trace: Trace) -> list[str]:
        """Return the columns of a trace that a file of this format cannot hold.

        Examples
        --------
        >>> from busdoor_workloads.formats import FORMATS
        >>> trace = Trace(arrival_s=[0], input_tokens=[5], output_tokens=[2], priority=[1])
        >>> FORMATS["azure"].cannot_keep(trace), FORMATS["csv"].cannot_keep(trace)
        (['priority'], [])
        """
        return [
            c for c in OPTIONAL_COLUMNS if getattr(trace, c) is not None and c not in self.keeps
        ]


def mapped(
    needed: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    time_unit: TimeUnit = "s",
    relative: bool = False,
) -> Callable[[Path, ReadOptions], Draft]:
    """Return the reader of a CSV format that only names our columns differently."""

    def read(path: Path, options: ReadOptions) -> Draft:
        unit = options.time_unit or time_unit
        return draft_of(options.table(path), needed, optional, time_unit=unit, relative=relative)

    return read


def write_csv(columns: Mapping[str, object], file: TextIO) -> None:
    """Write columns as CSV; floats as the shortest exact text, no cell as a formula."""
    frame = pd.DataFrame(columns)
    text = frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
    frame[text] = frame[text].map(neutral_cell)
    frame.to_csv(file, index=False, lineterminator="\n")
