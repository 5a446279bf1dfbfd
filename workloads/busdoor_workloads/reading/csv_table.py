"""Tables of separated fields: no field is lost, no name is duplicate, whole numbers stay exact."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.reading.source import MAX_BYTES, open_text
from busdoor_workloads.reading.table import EXACT_FLOATS, Table
from busdoor_workloads.text import printable

_SEPARATORS = (",", "\t", ";", "|")
_INEXACT = 2.0**53  # from here on a double does not hold every whole number (IEEE 754)


def read_csv(path: Path, *, skip_bad: bool = False, max_bytes: int = MAX_BYTES) -> Table:
    """Read a CSV file; rows of a wrong width are errors, or are counted and left out.

    Raises ValueError: the file and line of the first malformed row, or a name that is twice in the
    header.
    """
    separator, _ = read_header(path, max_bytes)

    def place(record: int) -> int:
        return _line_of(path, separator, record, max_bytes)

    try:
        frame = _parsed(path, separator, max_bytes)
    except (pd.errors.ParserError, pd.errors.ParserWarning):
        return _read_ragged(path, separator, skip_bad, max_bytes)
    inexact = frame.columns[[_is_inexact(frame[name]) for name in frame]]
    # read again as text, from which they are parsed without passing through doubles
    if len(inexact):
        text = _parsed(path, separator, max_bytes, dtype=str)
        frame[inexact] = text[inexact]
    return Table(path=path, frame=frame, line=place)


def read_header(path: Path, max_bytes: int = MAX_BYTES) -> tuple[str, list[str]]:
    """Return the separator of a file's fields, and the names of its columns.

    Raises ValueError: the file is empty, or a name is there twice.
    """
    with open_text(path, max_bytes) as file:
        first = next((line for line in file if line.strip()), "")
        if not first:
            raise ValueError(f"{path} is empty")
        separator = max(_SEPARATORS, key=first.count)
        _, header = next(_rows(path, chain([first], file), separator))
    names = [name.strip() for name in header]
    if twice := [name for name, times in Counter(names).items() if name and times > 1]:
        raise ValueError(
            f"{path.name} line 1: two columns are called {printable(twice[0])!r}; rename or "
            f"remove one"
        )
    return separator, names


def _parsed(path: Path, separator: str, max_bytes: int, **how: Any) -> pd.DataFrame:
    with open_text(path, max_bytes) as file, warnings.catch_warnings():
        # pandas only warns where the first rows are longer than the header.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame: pd.DataFrame = pd.read_csv(
            file,
            sep=separator,
            skipinitialspace=True,
            low_memory=False,
            index_col=False,
            **{**EXACT_FLOATS, **how},
        )
    return frame.rename(columns=str.strip)


def _is_inexact(column: pd.Series[Any]) -> bool:
    if column.dtype.kind != "f":
        return False
    values = np.abs(column.to_numpy())
    return bool((np.isfinite(values) & (values >= _INEXACT)).any())


def _records(path: Path, separator: str, max_bytes: int) -> Iterator[tuple[int, list[str]]]:
    with open_text(path, max_bytes) as file:
        yield from _rows(path, file, separator)


def _rows(path: Path, lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        yield from ((reader.line_num, fields) for fields in reader if fields)
    except csv.Error as error:
        raise ValueError(
            f"{path.name} line {reader.line_num}: no row of a CSV file ({error})"
        ) from None


def _line_of(path: Path, separator: str, record: int, max_bytes: int) -> int:
    # Record 0 follows the header. Counting again is slow, but happens only when a row is bad.
    records = zip(_records(path, separator, max_bytes), count(-1), strict=False)
    return next(line for (line, _), number in records if number == record)


def _read_ragged(path: Path, separator: str, skip_bad: bool, max_bytes: int) -> Table:
    records = _records(path, separator, max_bytes)
    _, header = next(records)
    rows, lines, num_malformed = [], [], 0
    for line, fields in records:
        kept = _without_empty_tail(fields, len(header))
        if len(kept) <= len(header):
            rows.append(kept + [""] * (len(header) - len(kept)))
            lines.append(line)
        elif skip_bad:
            num_malformed += 1
        else:
            raise ValueError(
                f"{path.name} line {line}: the row has {len(fields)} fields but the header "
                f"{len(header)}"
            )
    frame = pd.DataFrame(rows, columns=[name.strip() for name in header], dtype=object).replace(
        "", None
    )
    return Table(path=path, frame=frame, line=lines.__getitem__, num_malformed=num_malformed)


def _without_empty_tail(fields: list[str], width: int) -> list[str]:
    """Return a row without the empty fields beyond the header."""
    return fields[:width] if not any(field.strip() for field in fields[width:]) else fields
