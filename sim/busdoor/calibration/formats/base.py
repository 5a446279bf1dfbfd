"""A format of measured runs: its marks, its reader, and what every reader checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.text import printable

COUNTS = ("input_tokens", "output_tokens")
TIMES = ("arrival_s", "first_token_s", "finish_s")


@dataclass(kw_only=True)
class Measured:
    """What a file says of a run.

    Parameters
    ----------
    table : DataFrame
        One row per answered request: arrival_s, input_tokens, output_tokens, first_token_s,
        finish_s, and optionally first_scheduled_s; seconds from any common zero.
    itls_s : list of float, optional
        Gaps between the chunks that a client received; absent if the file does not have them.
    notes : list of str
        What was left out, and what is assumed, in one sentence each.
    client : mapping
        How the client sent: `max_in_flight`, and `due_at_once` where no request waited for a time.
    """

    table: pd.DataFrame
    itls_s: list[float] | None = None
    notes: list[str] = field(default_factory=list)
    client: Mapping[str, Any] = field(default_factory=dict)

    def meta(self) -> dict[str, Any]:
        """Return the entries of a result's meta that the file adds."""
        gaps = {} if self.itls_s is None else {"itls_s": self.itls_s}
        return gaps | ({"notes": self.notes} if self.notes else {}) | dict(self.client)


@dataclass(frozen=True, kw_only=True)
class MeasuredFormat:
    """One format of measured runs: the tool's `name` and its file's `title`, for messages.

    `holds` is the container: "json" (documents), "jsonl", "array" or "csv". The first record (or
    document) has all keys of one of the sets in `marks`. `read` takes a path and the number of the
    run (--run), where one file may hold several (`has_runs`).
    """

    name: str
    title: str
    holds: str
    marks: tuple[frozenset[str], ...]
    read: Callable[[Path, int | None], Measured]
    has_runs: bool = False

    def num_marks(self, keys: Set[str]) -> int:
        """Return how many keys tell that a file has this format, -1 if it does not have it."""
        return max((len(marks) for marks in self.marks if marks <= keys), default=-1)


def at(record: Any, *keys: str) -> Any:
    """Return a value deep in a JSON object, None if it is not there.

    >>> at({"info": {"timings": {"end": 5}}}, "info", "timings", "end"), at({"info": None}, "info", "x")
    (5, None)
    """
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def objects(values: Any, name: str, what: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects.

    Raises ValueError if it is anything else.
    """
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name}: {what} is not a list of JSON objects")
    return values


def table_of(rows: Sequence[Mapping[Any, Any]], name: str, remedy: str) -> pd.DataFrame:
    """Make a table of answered requests; each must have all times and lengths.

    `rows` have arrival_s, input_tokens, output_tokens, first_token_s and finish_s; `remedy` says
    how to run the tool so that its file has them. Raises ValueError if there is no request, or the
    first value that is missing; with the remedy.
    """
    if not rows:
        raise ValueError(f"{name} has no request that was answered; {remedy}")
    table = numbers_of(pd.DataFrame(rows), name)
    for column in TIMES:
        absent = np.flatnonzero(table[column].isna())
        if len(absent):
            raise ValueError(f"{name} request {absent[0]} has no {column}; {remedy}")
    return table


def numbers_of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table's columns as numbers; lengths are whole numbers of 1 or more, times finite.

    Raises ValueError: the first request whose value is not so.
    """
    numbers = table.apply(pd.to_numeric, errors="coerce")
    counts = list(COUNTS)
    unusable = numbers[["arrival_s", *counts]].isna().any(axis=1) | (numbers[counts] < 1).any(
        axis=1
    )
    wrong = np.flatnonzero(unusable)
    if len(wrong):
        raise ValueError(
            f"{name} request {wrong[0]}: arrival and lengths must be numbers, the latter 1 or more"
        )
    for column in numbers.columns:
        number_column(table[column], name)
        endless = np.flatnonzero(np.isinf(numbers[column]))
        if len(endless):
            raise ValueError(
                f"{name} request {endless[0]}: {column} is infinite; leave it empty if it is "
                f"unknown"
            )
    typed: pd.DataFrame = numbers.astype(dict.fromkeys(counts, np.int64))
    return typed


def number_column(raw: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Return a column as numbers, empty where it is empty.

    Raises ValueError: the first request whose value is neither.
    """
    numbers = pd.to_numeric(raw, errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & raw.notna())
    if len(wrong):
        shown = printable(str(raw.iloc[wrong[0]]))[:40]
        raise ValueError(f"{name} request {wrong[0]}: {raw.name} is {shown!r}; it must be a number")
    return numbers


def gaps_of(lists: Iterable[Any], name: str) -> list[float]:
    """Join the gaps between tokens of all requests.

    Raises ValueError if a gap is not a number of 0 or more.
    """
    gaps = [gap for values in lists for gap in values or ()]
    for gap in gaps:
        if isinstance(gap, bool) or not isinstance(gap, int | float) or not 0 <= gap < np.inf:
            raise ValueError(
                f"{name} has a gap between tokens of {gap!r}; it must be a time of 0 or more"
            )
    return [float(gap) for gap in gaps]


def left_out(name: str, counts: Mapping[str, int]) -> list[str]:
    """Return a note on requests that are not part of the run.

    >>> left_out("run.json", {"failed": 2, "cancelled": 0, "of the warm-up": 3})
    ['run.json: left out 2 failed, 3 of the warm-up']
    """
    listed = ", ".join(f"{count:,} {why}" for why, count in counts.items() if count)
    return [f"{name}: left out {listed}"] if listed else []
